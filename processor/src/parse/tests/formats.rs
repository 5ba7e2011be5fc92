//! Each format by its lines: what is found in them, and what is not taken for them.

use super::*;

const COMBINED: &str =
    r#"83.149.9.216 - frank [17/May/2015:10:05:03 +0200] "GET /a b?q=1 HTTP/1.1" 200 2326 "http://x/" "Mozilla \"5\"""#;

fn access(line: &str) -> Option<(&'static str, Access<'_>)> {
    match access::parse(line.as_bytes()) {
        Some(Parsed { format, detail: Detail::Access(access), .. }) => Some((format.name(), access)),
        _ => None,
    }
}

#[test]
fn combined_lines_give_everything_they_have() {
    let (format, access_found) = access(COMBINED).unwrap();
    let request = access::Request { method: b"GET", target: b"/a b?q=1", version: b"1.1" };
    let expected = Access {
        client: b"83.149.9.216",
        user: Some(b"frank"),
        request: Some(request),
        status: 200,
        bytes: Some(2326),
        referrer: Some(b"http://x/"),
        agent: Some(br#"Mozilla \"5\""#),
        rest: None,
    };
    assert_eq!((format, access_found), ("combined", expected));
    assert_eq!(auto(COMBINED), Found { time: some("2015-05-17T08:05:03Z"), ..found("combined") });
}

#[test]
fn common_lines_and_lines_that_go_on_are_taken() {
    let common = r#"::1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 304 -"#;
    let (format, access_found) = access(common).unwrap();
    assert_eq!((format, access_found.bytes, access_found.rest), ("common", None, None));
    for (tail, format, rest) in [
        (r#" "-" "curl/8""#, "combined", None),
        (r#" "-" "curl/8" "10.0.0.1" 0.004"#, "combined", Some(&br#""10.0.0.1" 0.004"#[..])),
        (r#" "-" "cut off in the mid"#, "common", Some(br#""-" "cut off in the mid"#)),
        (" 0.004", "common", Some(b"0.004")),
    ] {
        let line = format!("{common}{tail}");
        let (found_format, found) = access(&line).unwrap();
        assert_eq!((found_format, found.rest), (format, rest), "{line}");
    }
}

#[test]
fn access_lines_with_an_odd_request_keep_their_status() {
    for request in ["-", "", r"\x16\x03\x01", "GET /", "get / HTTP/1.1", "GET / HTTQ/1.1"] {
        let line = format!(r#"10.0.0.1 - - [17/May/2015:10:05:03 +0000] "{request}" 400 226 "-" "-""#);
        let (_, found) = access(&line).unwrap();
        assert_eq!((found.request, found.status, found.agent), (None, 400, None), "{line}");
    }
}

#[test]
fn lines_like_access_lines_that_are_none_are_text() {
    for line in [
        r#"10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 2000 1"#,
        r#"10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1x"#,
        r#"10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" abc 1"#,
        r#"10.0.0.1 - - [17/May/2015:10:05:03 +0000] GET / 200 1"#,
        r#"10.0.0.1 - - [99/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#,
        r#"10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1"#,
        "10.0.0.1 answered [late]",
    ] {
        assert_eq!(auto(line), found("text"), "{line}");
    }
}

#[test]
fn error_logs_of_apache() {
    let message = some("mod_jk child workerEnv in error state 6");
    let old = found("apache_error");
    let old = Found { time: some("2005-12-04T04:47:44Z"), level: Some("error"), message, ..old };
    assert_eq!(auto("[Sun Dec 04 04:47:44 2005] [error] mod_jk child workerEnv in error state 6"), old);
    let new =
        "[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 4328636416] [client 72.15.99.187] File missing";
    let expected = Found {
        time: some("2011-09-09T10:42:29.902022Z"),
        level: Some("error"),
        message: some("[client 72.15.99.187] File missing"),
        logger: some("core"),
        pid: Some(35708),
        ..found("apache_error")
    };
    assert_eq!(auto(new), expected);
    assert_eq!(auto("[Fri Sep 09 10:42:29 2011] [trace3] x").level, Some("trace"));
    assert_eq!(auto("[Fri Sep 09 10:42:29 2011] [banana] x").format, "text");
}

#[test]
fn error_logs_of_nginx() {
    let expected = Found {
        time: some("2015-05-17T10:05:03Z"),
        level: Some("fatal"),
        message: some("*1 open() failed"),
        pid: Some(123),
        ..found("nginx_error")
    };
    assert_eq!(auto("2015/05/17 10:05:03 [crit] 123#0: *1 open() failed"), expected);
    assert_eq!(auto("2015/05/17 10:05:03 main.go:5: started").format, "text");
}

#[test]
fn syslog_3164_with_and_without_priority() {
    let plain = Found {
        time: some("2026-06-14T15:16:01Z"),
        message: some("authentication failure"),
        host: some("combo"),
        process: some("sshd(pam_unix)"),
        pid: Some(19939),
        ..found("syslog3164")
    };
    assert_eq!(auto("Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure"), plain);
    let with = Found { level: Some("fatal"), ..plain };
    assert_eq!(auto("<34>Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure"), with);
    let untagged = auto("Jun 19 04:09:11 combo syslogd 1.4.1: restart.");
    assert_eq!((untagged.message, untagged.process), (some("syslogd 1.4.1: restart."), None));
    let hostless = auto("<13>Jun 14 15:16:01 su: gone");
    assert_eq!((hostless.host, hostless.process, hostless.message), (None, some("su"), some("gone")));
    let iso = auto("2024-05-01T10:00:00.5+02:00 web-1 systemd[1]: Started cron.");
    let expected = Found {
        time: some("2024-05-01T08:00:00.5Z"),
        message: some("Started cron."),
        host: some("web-1"),
        process: some("systemd"),
        pid: Some(1),
        ..found("syslog3164")
    };
    assert_eq!(iso, expected);
}

#[test]
fn a_syslog_priority_without_a_header_is_kept_where_syslog_is_said() {
    for format in [Format::Syslog, Format::Syslog3164] {
        let expected = || Found { level: Some("debug"), message: some("link up"), ..found("syslog3164") };
        assert_eq!(parse_as(format, "<191>link up"), Some(expected()));
        let tagged = Found { process: some("app"), pid: Some(7), ..expected() };
        assert_eq!(parse_as(format, "<191>app[7]: link up"), Some(tagged));
        for line in ["<192>link up", "<>x", "link up", "<34>1 2003-99-99T00:00:00Z host app - - - x"] {
            assert_eq!(parse_as(format, line), None, "{line}");
        }
    }
    assert_eq!(auto("<3> hearts").format, "text");
}

#[test]
fn syslog_5424_with_structured_data() {
    let line = "<165>1 2003-10-11T22:14:15.003Z mymachine evntslog 8710 ID47 [ex@1 iut=\"3\" t=\"a\\]\\\"b\"][more@2] \u{feff}An event";
    let expected = Found {
        time: some("2003-10-11T22:14:15.003Z"),
        level: Some("info"),
        message: some("An event"),
        host: some("mymachine"),
        process: some("evntslog"),
        pid: Some(8710),
        ..found("syslog5424")
    };
    assert_eq!(auto(line), expected);
    let Some(Parsed { detail: Detail::Syslog(syslog), .. }) = syslog::rfc5424(line.as_bytes()) else {
        panic!("{line}");
    };
    assert_eq!((syslog.priority, syslog.message_id), (Some(165), Some(&b"ID47"[..])));
    let mut params = Params::new(syslog.data.unwrap());
    assert_eq!(params.next_element(), Some(&b"ex@1"[..]));
    assert_eq!(params.next_param(), Some((&b"iut"[..], &b"3"[..])));
    assert_eq!(params.next_param(), Some((&b"t"[..], &br#"a\]\"b"#[..])));
    assert_eq!(params.next_param(), None);
    assert_eq!(params.next_element(), Some(&b"more@2"[..]));
    assert_eq!(params.next_param(), None);
    assert_eq!(params.next_element(), None);
}

#[test]
fn syslog_5424_may_lack_everything() {
    assert_eq!(auto("<0>1 - - - - - -"), Found { level: Some("fatal"), message: some(""), ..found("syslog5424") });
}

#[test]
fn what_is_nearly_syslog_is_text() {
    for line in [
        "<192>1 - - - - - - over",
        "<165>1 2003-10-11T22:14:15.003Z host app 1 - [open",
        "<165>1 2003-10-11T22:14:15.003Z host app 1 - [id a=unquoted] x",
        "<165>1 2003-10-11 host app 1 - - x",
        "<x>Jun 14 15:16:01 combo su: x",
        "<34>no time",
    ] {
        assert_eq!(auto(line).format, "text", "{line}");
    }
}

#[test]
fn cri_lines_are_parsed_again_inside() {
    let line = r#"2016-10-06T00:17:09.669794202Z stderr F {"level":"warn","msg":"inner","ts":1}"#;
    let expected = Found {
        time: some("2016-10-06T00:17:09.669794202Z"),
        level: Some("warn"),
        message: some("inner"),
        ..found("cri")
    };
    assert_eq!(auto(line), expected);
    let part = auto("2016-10-06T00:17:09.669794202Z stdout P ERROR: first half");
    assert_eq!((part.format, part.level, part.message), ("cri", None, some("ERROR: first half")));
    assert_eq!(auto("2016-10-06T00:17:09Z stdout F").message, some(""));
    assert_eq!(auto("2016-10-06T00:17:09Z stdout X text").format, "text");
    assert_eq!(auto("2016-10-06T00:17:09Z stdlog F text").format, "text");
}

#[test]
fn logfmt_needs_pairs_throughout() {
    let line = r#"time=2024-05-01T10:00:00Z level=warn msg="it \"works\"" host=web-1 took=3ms url=/a?b=c"#;
    let expected = Found {
        time: some("2024-05-01T10:00:00Z"),
        level: Some("warn"),
        message: some(r#"it \"works\""#),
        host: some("web-1"),
        ..found("logfmt")
    };
    assert_eq!(auto(line), expected);
    for line in ["a=1", "a=1 and prose", "a=\"1", "a=1 b=\"x\"y", "1=a 2=b", "=a b=c", "a= b", "user = x y = z"] {
        assert_eq!(auto(line).format, "text", "{line}");
    }
    assert_eq!(auto("a= b=").format, "logfmt");
}

#[test]
fn json_keys_of_many_programs_are_recognised() {
    for line in [
        r#"{"@timestamp":"2024-05-01T10:00:00Z","log.level":"ERROR","message":"m","host":{"name":"h"},"log.logger":"l"}"#,
        r#"{"ts":1714557600.0,"level":"error","msg":"m","hostname":"h","logger":"l"}"#,
        r#"{"time":1714557600000,"level":50,"msg":"m","host":"h","logger":"l"}"#,
        r#"{"timestamp":"2024-05-01 10:00:00,000","levelname":"ERROR","message":"m","host":"h","logger":"l"}"#,
        r#" { "@t" : "2024-05-01T10:00:00Z" , "@l" : "Error" , "@m" : "m" , "host" : "h" , "logger" : "l" } "#,
        r#"{"log":{"level":"error","logger":"l"},"time":"2024-05-01T12:00:00+02:00","message":"m","host":"h"}"#,
        r#"{"timestamp":"2024-05-01T10:00:00Z","severity":"ERROR","fields":{"message":"m"},"host":"h","logger":"l"}"#,
    ] {
        let expected = Found {
            time: some("2024-05-01T10:00:00Z"),
            level: Some("error"),
            message: some("m"),
            host: some("h"),
            logger: some("l"),
            ..found("json")
        };
        assert_eq!(auto(line), expected, "{line}");
    }
}

#[test]
fn the_better_key_wins_and_a_bad_value_loses() {
    let line =
        r#"{"msg":"second","time":"never","level":"banana","ts":1714557600,"message":"first","severity":"warn"}"#;
    let found = auto(line);
    assert_eq!((found.message, found.level, found.time), (some("first"), Some("warn"), some("2024-05-01T10:00:00Z")));
}

#[test]
fn what_is_nearly_json_is_text() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(65), "]".repeat(65));
    for line in [
        "{",
        "{}x",
        "{} {}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":.5}"#,
        r#"{"a":1e}"#,
        r#"{"a":+1}"#,
        r#"{"a":tru}"#,
        r#"{"a":NaN}"#,
        r#"{'a':1}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12"}"#,
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\udc00"}"#,
        "{\"a\":\"\t\"}",
        r#"{"a":[1,2}"#,
        r#"{"a":[1,]}"#,
        r#"{"a":{"b":1]}"#,
        r#"{"a":1"#,
        "[1,2]",
        r#"["a":1}"#,
        &deep,
    ] {
        assert_eq!(parse_as(Format::Json, line), None, "{line}");
        assert_eq!(auto(line).format, "text", "{line}");
    }
    for line in
        ["{}", r#"{"a":[]}"#, r#"{"a":-0.5e-10,"b":[{},[[]],{"c":[1,{"d":null}]}]}"#, r#"{"\u0041":"\ud83d\ude00"}"#]
    {
        assert_eq!(auto(line).format, "json", "{line}");
    }
}

#[test]
fn a_byte_order_mark_hides_nothing() {
    assert_eq!(auto("\u{feff}{\"msg\":\"m\"}"), Found { message: some("m"), ..found("json") });
    assert_eq!(auto("\u{feff}plain"), found("text"));
}
