//! Documents as the processor builds them, of real logs and of what nobody should write.

use std::{collections::BTreeMap, path::Path};

use logmesh_processor::{
    document::{Builder, BuilderConfig, Document},
    parse::Format,
};
use logmesh_proto::{BatchMeta, Envelope, Flags, Limits, Opener, RecordsBuilder, Sealer, StreamKey, v1};

/// 2026-11-23T03:00:00Z
const OBSERVED: u64 = 1_795_402_800_000_000_000;

/// Documents of lines of one stream.
pub(crate) fn built<'l>(stream: &str, lines: impl IntoIterator<Item = &'l [u8]>) -> Vec<Document> {
    let identity = "spiffe://mesh/agent/edge-1";
    let envelope = Envelope {
        tenant: "default".into(),
        identity: identity.into(),
        stream_key: StreamKey::derive(identity, stream.as_bytes()),
        first_offset: 0,
        end_offset: 0,
        record_count: 0,
        codec: v1::Codec::None,
        flags: Flags::NONE,
        received_unix_nano: OBSERVED + 1_500_000_000,
        topic: "logs".into(),
        info: v1::StreamInfo {
            path: format!("/var/log/{stream}"),
            host: "edge-1".into(),
            service: "web".into(),
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned()), ("a.b".to_owned(), "c".to_owned())]),
            input_format: String::new(),
            topic: "logs".into(),
            agent: "edge-1".into(),
        },
    };
    let (mut records, mut end_offset) = (RecordsBuilder::new(), 0);
    for line in lines {
        records.push(line, u32::try_from(line.len()).unwrap() + 1);
        end_offset += line.len() as u64 + 1;
    }
    let meta = BatchMeta {
        stream_id: stream.as_bytes().to_vec().into(),
        first_offset: 0,
        end_offset,
        observed_unix_nano: OBSERVED,
        flags: Flags::NONE,
    };
    let sealed = Sealer::new(v1::Codec::None).unwrap().seal(meta, &mut records).unwrap();
    let limits = Limits { uncompressed_bytes_max: 64 << 20, encoded_bytes_max: 64 << 20, ..Limits::default() };
    let opened = Opener::new(limits).open(&sealed).unwrap();
    let mut documents = Vec::new();
    Builder::new(BuilderConfig::default()).build(&envelope, &opened, Format::Auto, &mut documents);
    documents
}

/// Lines of each of the ten real logs, some from all over each.
pub(crate) fn real_logs() -> Vec<(String, Vec<Vec<u8>>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/logs");
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let step = (lines.len() / 500).max(1);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        logs.push((name, lines.into_iter().filter(|line| !line.is_empty()).step_by(step).collect()));
    }
    assert_eq!(logs.len(), 10);
    logs
}

/// Lines that have broken other pipelines: each alone must be taken.
pub(crate) fn hostile() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = [
        r#"{"message":{"an":"object"},"level":{"a":1},"time":{"b":2},"host":["a",1,null]}"#,
        r#"{"message":"m","fields":"text","labels":"text","tags":7,"log":"text","http":5,"source":{"ip":"not an address"}}"#,
        r#"{"message":"m","status":"two hundred","http":{"response":{"status_code":"abc"}},"duration":1e400,"n":-0.0}"#,
        r#"{"message":"m","a":null,"b":[],"c":{},"d":[null],"e":[[1],[{"x":[2]}]],"f":true}"#,
        r#"{"message":"m","a.b":1,"a":{"b":2},"a.":3,".":4,"..":5,"":6," ":7,"a..b":8}"#,
        r#"{"message":"m","_id":"x","_index":"y","_source":1,"@timestamp":"yesterday","timestamp":"soon"}"#,
        r#"{"message":"m","n":123456789012345678901234567890,"o":1.7976931348623157e308,"p":-9223372036854775809}"#,
        r#"{"message":"\u0000\ud800 null and half a pair","\u0000":"k","k\u0000":1}"#,
        r#"{"@timestamp":"0001-01-01T00:00:00Z","message":"old"}"#,
        r#"{"@timestamp":"9999-12-31T23:59:59.999999999Z","message":"far"}"#,
        r#"{"@timestamp":"2026-11-23T02:00:00.123456789Z","message":"nanoseconds"}"#,
        "level=info msg=\"x\" a=1 a=2 a.b=3 =4 5",
        "<191>1 2026-11-23T01:02:03.123456+02:00 h a p m [x@1 a=\"b\"][y@2 c=\"d\"] text",
        "1.2.3.4.5 - - [23/Nov/2026:01:02:03 +0000] \"GET / HTTP/1.1\" 99999999999999999999 -",
        "",
        " ",
    ]
    .into_iter()
    .map(|line| line.as_bytes().to_vec())
    .collect();
    lines.push(vec![0xff, 0xfe, 0, 1, 2, b'"', b'\\', 0x7f]);
    lines.push("ä😀".repeat(50_000).into_bytes());
    lines.push(vec![b'x'; 512 << 10]);
    lines.push(format!("{{\"message\":\"m\",\"long\":\"{}\"}}", "v".repeat(100_000)).into_bytes());
    lines.push(format!("{{\"message\":\"m\",\"long\":\"{}\"}}", "ü".repeat(20_000)).into_bytes());
    lines.push(format!("{{\"message\":\"{}\"}}", "w ".repeat(100_000)).into_bytes());
    lines.push(format!("{{\"message\":\"m\",\"{}\":1}}", "k".repeat(300)).into_bytes());
    lines.push(format!("{{\"message\":\"m\",\"deep\":{}1{}}}", "{\"d\":".repeat(100), "}".repeat(100)).into_bytes());
    let many = (0..2000).map(|at| format!("\"k{at}\":{at}")).collect::<Vec<_>>().join(",");
    lines.push(format!("{{\"message\":\"m\",{many}}}").into_bytes());
    lines
}
