//! Single records: what their documents hold, and that nothing in them breaks a document.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn a_document_says_where_its_record_comes_from() {
    let body = document(b"plain words");
    assert_eq!(
        body,
        json!({
            "@timestamp": "2026-11-23T03:00:00.000Z",
            "message": "plain words",
            "log": {"file": {"path": "/var/log/app.log"}, "offset": 0},
            "agent": {"id": "spiffe://mesh/agent/edge-1", "name": "edge-1"},
            "labels": {"env": "prod"},
            "host": {"name": "edge-1"},
            "event": {"created": "2026-11-23T03:00:00.000Z", "ingested": "2026-11-23T03:00:01.500Z", "dataset": "text"},
        })
    );
}

#[test]
fn a_document_carries_id_offsets_index_and_times_of_its_record() {
    let build = Build { flags: Flags::RESEND, ..Build::default() };
    let lines: [&[u8]; 2] = [b"first", b"2015-05-17 10:05:03 INFO second"];
    let (documents, tally) = build.documents(lines);
    let second = &documents[1];
    assert_eq!(second.id, RecordId::derive(build.envelope.stream_key, 6, lines[1]));
    assert_eq!((second.offset, second.end_offset), (6, 38));
    assert_eq!((&*documents[0].index, &*second.index), ("logmesh-default-2026.11.23", "logmesh-default-2015.05.17"));
    assert_eq!(second.timestamp_unix_nano, 1_431_857_103_000_000_000);
    assert_eq!(second.received_unix_nano, build.envelope.received_unix_nano);
    assert!(second.resend);
    let bodies: usize = documents.iter().map(|document| document.body.len()).sum();
    let expected = Tally {
        records: 2,
        bytes: 36,
        document_bytes: bodies as u64,
        by_level: [0, 0, 1, 0, 0, 0, 1],
        parse_failed: 0,
    };
    assert_eq!(tally, expected);
}

#[test]
fn a_replay_writes_the_same_document_whatever_was_built_before() {
    let build = Build::default();
    let lines: Vec<&[u8]> =
        vec![b"{\"a\":1,\"level\":\"warn\"}", b"Jun 14 15:16:01 combo su: x", b"", b"\xff", b"k=v w=x"];
    let (all, _) = build.documents(lines.iter().copied());
    for (line, whole) in lines.iter().zip(&all) {
        let (alone, _) = build.documents([*line]);
        let offsets = |document: &Document| {
            let mut body = read(document);
            body["log"]["offset"] = json!(0);
            body
        };
        assert_eq!(offsets(&alone[0]), offsets(whole));
    }
    let mut builder = Builder::new(BuilderConfig::default());
    for _ in 0..2 {
        let mut again = Vec::new();
        builder.build(&envelope(), &batch(lines.iter().copied(), Flags::NONE), Format::Auto, &mut again);
        let bodies =
            |documents: &[Document]| documents.iter().map(|document| document.body.clone()).collect::<Vec<_>>();
        assert_eq!(bodies(&again), bodies(&all));
    }
}

#[test]
fn marks_of_a_record_become_its_tags() {
    let flags = Flags::LAST_PARTIAL.union(Flags::FIRST_CONTINUED);
    let (documents, _) = Build { flags, ..Build::default() }.documents([&b"a"[..], b"b", b"c"]);
    let tags: Vec<_> = documents.iter().map(|document| read(document)["tags"].clone()).collect();
    assert_eq!(tags, [json!(["continued"]), Value::Null, json!(["partial"])]);
    let flags = Flags::LAST_SPLIT.union(Flags::RESEND);
    assert_eq!(Build { flags, ..Build::default() }.json(b"a")["tags"], json!(["split"]));
    assert_eq!(document(b"2016-10-06T00:17:09Z stdout P half")["tags"], json!(["partial"]));
}

#[test]
fn a_line_that_is_not_in_the_format_asked_for_is_delivered_as_it_is() {
    let build = Build { format: Format::Json, ..Build::default() };
    let (documents, tally) = build.documents([&b"2015-05-17 10:05:03 INFO no JSON"[..], b"{}"]);
    assert_eq!(tally.parse_failed, 1);
    let body = read(&documents[0]);
    assert_eq!(body["message"], "2015-05-17 10:05:03 INFO no JSON");
    assert_eq!(body["event"]["dataset"], "text");
    assert_eq!(body["tags"], json!(["parse_failed"]));
    assert_eq!(read(&documents[1]).get("tags"), None);
}

#[test]
fn a_time_that_cannot_be_believed_gives_way_to_when_the_line_was_read() {
    for (time, clamped) in [
        ("1999-12-31T23:59:59.999Z", true),
        ("2000-01-01T00:00:00.000Z", false),
        ("2026-11-24T03:00:00.000Z", false),
        ("2026-11-24T03:00:00.001Z", true),
        ("0001-01-01T00:00:00.000Z", true),
        ("9999-01-01T00:00:00.000Z", true),
    ] {
        let (documents, _) = Build::default().documents([format!("{time} INFO x").as_bytes()]);
        let body = read(&documents[0]);
        let (expected, tags) =
            if clamped { ("2026-11-23T03:00:00.000Z", json!(["time_clamped"])) } else { (time, Value::Null) };
        assert_eq!(body["@timestamp"], expected, "{time}");
        assert_eq!(body["tags"], tags, "{time}");
        assert_eq!(body["fields"].get("time_raw").is_some(), clamped, "{time}");
        assert_eq!(*documents[0].index, format!("logmesh-default-{}", expected[..10].replace('-', ".")));
    }
}

#[test]
fn a_client_that_does_not_say_when_it_read_gets_the_time_of_arrival() {
    let mut records = RecordsBuilder::new();
    records.push(b"x", 2);
    let meta = BatchMeta {
        stream_id: b"s".to_vec().into(),
        first_offset: 0,
        end_offset: 2,
        observed_unix_nano: 0,
        flags: Flags::NONE,
    };
    let sealed = Sealer::new(v1::Codec::None).unwrap().seal(meta, &mut records).unwrap();
    let opened = Opener::new(Limits::default()).open(&sealed).unwrap();
    let mut documents = Vec::new();
    Builder::new(BuilderConfig::default()).build(&envelope(), &opened, Format::Auto, &mut documents);
    assert_eq!(read(&documents[0])["@timestamp"], "2026-11-23T03:00:01.500Z");
}

#[test]
fn the_original_is_kept_as_configured() {
    let keep = |keep_original, line: &[u8]| {
        let build = Build { config: BuilderConfig { keep_original }, ..Build::default() };
        build.json(line)["event"].get("original").is_some()
    };
    for (policy, parsed, plain) in [
        (KeepOriginal::WhenParsed, true, false),
        (KeepOriginal::Always, true, true),
        (KeepOriginal::Never, false, false),
    ] {
        assert_eq!(keep(policy, b"ERROR 2015-05-17 10:05:03 x"), parsed, "{policy:?}");
        assert_eq!(keep(policy, b"no \"time\" in it"), plain, "{policy:?}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_repaired_and_kept() {
    let body = document(b"caf\xe9 \"\xff\"");
    assert_eq!(body["message"], "caf\u{fffd} \"\u{fffd}\"");
    assert_eq!(original(&body), b"caf\xe9 \"\xff\"");
    assert_eq!(body["tags"], json!(["invalid_utf8"]));
}

#[test]
fn host_and_service_come_from_where_they_are_known_best() {
    let mut build = Build::default();
    let names = |build: &Build, line: &[u8]| {
        let body = build.json(line);
        (body["host"]["name"].clone(), body["service"]["name"].clone(), body["fields"]["service"].clone())
    };
    let json = br#"{"host":"db-1","service":"shop"}"#;
    assert_eq!(names(&build, json), (json!("db-1"), json!("shop"), Value::Null));
    assert_eq!(names(&build, b"Jun 14 15:16:01 combo su: x"), (json!("combo"), json!("su"), Value::Null));
    build.envelope.info.service = "configured".into();
    assert_eq!(names(&build, json), (json!("db-1"), json!("configured"), json!("shop")));
    assert_eq!(names(&build, b"x"), (json!("edge-1"), json!("configured"), Value::Null));
    build.envelope.info = v1::StreamInfo::default();
    let body = build.json(b"x");
    assert_eq!((body.get("host"), body.get("service"), body.get("labels")), (None, None, None));
    assert_eq!(body["log"], json!({"offset": 0}));
}

#[test]
fn syslog_headers_and_data_have_their_places() {
    let body = document(
        b"<165>1 2003-10-11T22:14:15.003Z m evntslog x7 ID47 [ex@1 iut=\"3\" t=\"a\\]\\\"b\" iut=\"4\"][ex@2] An event",
    );
    let expected =
        json!({"priority": 165, "facility": {"code": 20}, "severity": {"code": 5}, "msgid": "ID47", "procid": "x7"});
    assert_eq!(body["log"]["syslog"], expected);
    assert_eq!(body["fields"], json!({"ex@1": {"iut": "3", "t": "a]\"b"}, "ex@2": {}}));
    assert_eq!(body["tags"], json!(["fields_duplicate"]));
    assert_eq!(body["message"], "An event");
}

#[test]
fn errors_and_traces_have_their_places() {
    let line =
        br#"{"msg":"m","error":"no\tspace","stack_trace":"at x","trace_id":"t1","span_id":"s1","pid":7,"thread":"w"}"#;
    let body = document(line);
    assert_eq!(body["error"], json!({"message": "no\tspace", "stack_trace": "at x"}));
    assert_eq!((&body["trace"]["id"], &body["span"]["id"]), (&json!("t1"), &json!("s1")));
    assert_eq!(body["process"], json!({"pid": 7, "thread": {"name": "w"}}));
    assert_eq!(body.get("fields"), None);
}

#[test]
fn free_form_fields_keep_their_shape() {
    let body = document(br#"{"a":1.50,"b":[true,null,{"c":"\u00e9\n"}],"d":{},"e":"","f":12345678901234567890}"#);
    let fields =
        json!({"a": 1.5, "b": [true, null, {"c": "\u{e9}\n"}], "d": {}, "e": "", "f": 12_345_678_901_234_567_890_u64});
    assert_eq!(body["fields"], fields);
    let body = document(br#"took=3ms msg="a \"b\" \q" path=C:\x k="#);
    assert_eq!(body["fields"], json!({"took": "3ms", "path": "C:\\x", "k": ""}));
    assert_eq!(body["message"], "a \"b\" \\q");
}

#[test]
fn odd_keys_and_numbers_harm_no_document() {
    let body =
        document(br#"{"a":1,"\u0061":2,"a":3,"":4,"x\u0000y":5,"o":{"b":1,"b":2},"n":1e999,"m":-1E+99,"q\"":6}"#);
    let fields = json!({"a": 1, "_": 4, "x\u{fffd}y": 5, "o": {"b": 1}, "n": "1e999", "m": -1e99, "q\"": 6});
    assert_eq!(body["fields"], fields);
    assert_eq!(body["tags"], json!(["fields_duplicate"]));
}

#[test]
fn free_form_fields_are_bounded() {
    let many: Vec<String> = (0..2000).map(|number| format!("\"k{number}\":{number}")).collect();
    let body = document(format!("{{{}}}", many.join(",")).as_bytes());
    assert_eq!(body["fields"].as_object().unwrap().len(), 512);
    assert_eq!(body["tags"], json!(["fields_truncated"]));

    let body = document(format!("{{\"a\":[{}]}}", vec!["1"; 2000].join(",")).as_bytes());
    assert_eq!(body["fields"]["a"].as_array().unwrap().len(), 511);
    assert_eq!(body["tags"], json!(["fields_truncated"]));

    let body = document(format!("{}1{}", "{\"a\":".repeat(20), "}".repeat(20)).as_bytes());
    assert_eq!(body["fields"], json!({"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": null}}}}}}}}));
    assert_eq!(body["tags"], json!(["fields_truncated"]));

    let body = document(format!("{{\"{}\":1,\"b\":2}}", "k".repeat(257)).as_bytes());
    assert_eq!(body["fields"], json!({"b": 2}));
    assert_eq!(body["tags"], json!(["fields_truncated"]));
}

#[test]
fn labels_are_bounded_and_in_order() {
    let mut build = Build::default();
    build.envelope.info.labels = (0..100).map(|number| (format!("l{number:03}"), "v".to_owned())).collect();
    let body = build.json(b"x");
    let names: Vec<_> = body["labels"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, (0..64).map(|number| format!("l{number:03}")).collect::<Vec<_>>());
    assert_eq!(body["tags"], json!(["labels_truncated"]));
}

#[test]
fn lines_of_many_days_and_tenants_leave_nothing_behind() {
    let mut days = days::Days::default();
    for tenant in ["a", "b", "a"] {
        days.tenant(tenant);
        for number in 0..3000 {
            let day = days.day(number * crate::parse::time::DAY);
            assert!(day.index.starts_with(&format!("logmesh-{tenant}-")));
            assert!(days.kept() <= 1024);
        }
    }
}

/// Pieces that make JSON, logfmt and text interesting.
fn line() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&str; 24] = [
        "{",
        "}",
        "\"a\":1",
        "\"b\":{\"a\":\"\\n\"}",
        ",",
        "\"\\u0061\":[1,{}]",
        "k=v ",
        "k=\"\\\" \\x\" ",
        "INFO ",
        "2015-05-17 10:05:03 ",
        "<13>Jun 14 15:16:01 h a: ",
        "\"",
        "\\",
        "\u{1}",
        "\n",
        "\r",
        "\u{2028}",
        "é",
        "[x] ",
        "2016-10-06T00:17:09Z stdout F ",
        "1.1.1.1 - - [17/May/2015:10:05:03 +0000] \"GET /",
        " HTTP/1.1\" 200 1 \"",
        "\" \"",
        "a.b: ",
    ];
    let piece = prop_oneof![
        6 => proptest::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..6),
    ];
    prop_oneof![
        vec(piece, 0..16).prop_map(|pieces| pieces.concat()),
        vec((".{0,6}", any::<i64>()), 0..8).prop_map(|members| {
            let members: Vec<String> = members.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
            format!("{{{}}}", members.join(",")).into_bytes()
        }),
    ]
}

proptest! {
    #[test]
    fn every_record_becomes_one_valid_document_that_holds_its_bytes(lines in vec(line(), 1..8), format in 0..Format::NAMES.len()) {
        let build = Build { format: Format::NAMES[format].1, ..Build::default() };
        let (documents, _) = build.documents(lines.iter().map(Vec::as_slice));
        prop_assert_eq!(documents.len(), lines.len());
        for (document, line) in documents.iter().zip(&lines) {
            let text = std::str::from_utf8(&document.body).unwrap();
            prop_assert!(!text.contains(['\n', '\r']), "{}", text);
            let body: Value = serde_json::from_str(text).unwrap();
            prop_assert!(sonic_rs::from_str::<sonic_rs::Value>(text).is_ok(), "{}", text);
            prop_assert_eq!(names(&body), names_in(text), "a name stands twice in {}", text);
            prop_assert_eq!(&original(&body), line);
            prop_assert!(document.body.len() <= 8 * line.len() * 3 + 2048);
        }
    }
}

/// Number of names in all objects of a value.
fn names(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.len() + object.values().map(names).sum::<usize>(),
        Value::Array(array) => array.iter().map(names).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// The same, counted in the text: strings that a colon follows.
fn names_in(text: &str) -> usize {
    let (mut names, mut inside, mut escaped) = (0, false, false);
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => {
                inside = !inside;
                names += usize::from(!inside && bytes.peek() == Some(&b':'));
            }
            _ => {}
        }
    }
    names
}
