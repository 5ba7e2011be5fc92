//! Whatever the bytes, every parser ends, and gives slices of the line.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Bytes that look like logs: pieces of all formats, with noise between.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&str; 40] = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        ":",
        ",",
        "=",
        " ",
        "<",
        ">",
        "<34>",
        "<165>1 ",
        "-",
        "- - ",
        "2015-05-17T10:05:03Z",
        "2015-05-17 10:05:03,747 ",
        "[17/May/2015:10:05:03 +0000] ",
        "Jun 14 15:16:01 ",
        "[Sun Dec 04 04:47:44 2005] ",
        "[error] ",
        "INFO",
        "081109 203615 ",
        "17/06/09 20:10:40 ",
        "stdout F ",
        "{\"a\":",
        "\"level\":\"warn\"",
        "1446249499322",
        "host ",
        "app[1]: ",
        "key=value ",
        "\"GET / HTTP/1.1\" 200 1",
        "\\u00",
        "\\ud800",
        "\u{feff}",
        "é",
        "a.b: ",
        "1234 --- [m] ",
        "req-",
    ];
    let piece = prop_oneof![
        8 => proptest::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn is_part(line: &[u8], part: &[u8]) -> bool {
    part.is_empty() || memchr::memmem::find(line, part).is_some()
}

fn check(line: &[u8]) {
    let mut scratch = Scratch::default();
    for (name, format) in Format::NAMES {
        let mut input = Input { line, observed_unix_nano: OBSERVED, scratch: &mut scratch };
        let Some(parsed) = parse(format, &mut input) else {
            assert!(!matches!(format, Format::Auto | Format::Text), "{name} takes every line");
            continue;
        };
        assert!(!matches!(parsed.format, Format::Auto | Format::Syslog), "a parser says what it found");
        let texts =
            [parsed.message, parsed.host, parsed.service, parsed.logger, parsed.process, parsed.thread, parsed.trace];
        for text in texts.into_iter().flatten() {
            assert!(is_part(line, text.raw()), "{name}: {text:?}");
            let utf8 = std::str::from_utf8(line).is_ok();
            assert!(!utf8 || std::str::from_utf8(text.raw()).is_ok(), "{name} cuts a character: {text:?}");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(line in vec(any::<u8>(), 0..200)) {
        check(&line);
    }

    #[test]
    fn bytes_that_look_like_logs(line in bytes()) {
        check(&line);
    }

    #[test]
    fn sample_lines_cut_and_damaged(which in 0..LINES.len(), cut in 0_usize..200, at in 0_usize..200, byte in any::<u8>()) {
        let mut line = LINES[which].as_bytes().to_vec();
        if let Some(old) = line.get_mut(at) {
            *old = byte;
        }
        check(&line);
        line.truncate(cut);
        check(&line);
    }

    #[test]
    fn json_is_taken_exactly_when_a_json_library_takes_it(line in bytes()) {
        let mut scratch = Scratch::default();
        let text = String::from_utf8_lossy(&line).into_owned();
        for text in [text.clone(), format!("{{\"a\":{text}}}"), format!("{{\"a\":[{text}]}}"), format!("{{\"a\":\"{text}\"}}")] {
            let mut input = Input { line: text.as_bytes(), observed_unix_nano: OBSERVED, scratch: &mut scratch };
            let ours = json::parse(&mut input).is_some();
            let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).is_ok();
            prop_assert_eq!(ours, theirs, "{}", text);
        }
    }
}

proptest! {
    #[test]
    fn damaged_json_is_taken_exactly_when_a_json_library_takes_it(
        damages in vec((0_usize..128, proptest::sample::select(&b"{}[]\",:\\u0123d8e.-+ tfnl\t\n"[..])), 0..3),
    ) {
        let mut text = LINES[1].as_bytes().to_vec();
        for (at, byte) in damages {
            if let Some(old) = text.get_mut(at) {
                *old = byte;
            }
        }
        let mut scratch = Scratch::default();
        let ours = json::parse(&mut Input { line: &text, observed_unix_nano: OBSERVED, scratch: &mut scratch }).is_some();
        let theirs = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&text);
        // A number that no 64-bit float holds is JSON all the same, but the library stops there.
        prop_assume!(!theirs.as_ref().is_err_and(|error| error.to_string().contains("number out of range")));
        let theirs = theirs.is_ok();
        prop_assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&text));
    }
}

const LINES: [&str; 9] = [
    r#"83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a?b HTTP/1.1" 200 203023 "http://x/" "Mozilla/5.0 (X)""#,
    r#"{"timestamp":1446249499322,"level":"info","a":{"b":[1,-2.5e3,null,true,"\ud83d\ude00"]},"msg":"x \"y\""}"#,
    "<165>1 2003-10-11T22:14:15.003Z mymachine evntslog 8710 ID47 [ex@1 iut=\"3\" t=\"a\\]b\"][m@2] An event",
    "<34>Oct 11 22:14:15 mymachine su[1]: 'su root' failed",
    "2016-10-06T00:17:09.669794202Z stdout F time=2024-05-01T10:00:00Z level=warn msg=\"it\"",
    "[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 4328636416] [client 72.15.99.187] File missing",
    "2015-07-29 17:41:44,747 - INFO  [QuorumPeer[myid=1]/0:0:2181:FastLeaderElection@774] - Notification",
    "nova.log 2017-05-16 00:00:00.008 25746 INFO nova.compute.manager [req-1 u p - - -] [instance: a] gone",
    "2015/05/17 10:05:03 [crit] 123#0: *1 open() failed",
];

#[test]
fn nesting_is_bounded_and_needs_no_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{{\"a\":{}1{}}}", open.repeat(100_000), close.repeat(100_000));
        assert_eq!(parse_as(Format::Json, &deep), None);
        assert_eq!(auto(&deep).format, "text");
    }
    let brackets = "[".repeat(1_000_000);
    assert_eq!(auto(&brackets).format, "text");
}
