mod records;
mod samples;

use std::collections::BTreeMap;

use base64::Engine as _;
use logmesh_proto::{BatchMeta, Envelope, Flags, Limits, OpenBatch, Opener, RecordsBuilder, Sealer, StreamKey, v1};
use serde_json::Value;

use super::*;
use crate::parse::Format;

/// 2026-11-23T03:00:00Z
const OBSERVED: u64 = 1_795_402_800_000_000_000;

/// A stream of the agent `edge-1`, as the gateway notes it.
fn envelope() -> Envelope {
    let identity = "spiffe://mesh/agent/edge-1";
    Envelope {
        tenant: "default".into(),
        identity: identity.into(),
        stream_key: StreamKey::derive(identity, b"generation"),
        first_offset: 0,
        end_offset: 0,
        record_count: 0,
        codec: v1::Codec::None,
        flags: Flags::NONE,
        received_unix_nano: OBSERVED + 1_500_000_000,
        topic: "logs".into(),
        info: v1::StreamInfo {
            path: "/var/log/app.log".into(),
            host: "edge-1".into(),
            service: String::new(),
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            input_format: String::new(),
            topic: "logs".into(),
            agent: "edge-1".into(),
        },
    }
}

/// A batch of lines, each with its LF in the source.
fn batch<'a>(lines: impl IntoIterator<Item = &'a [u8]>, flags: Flags) -> OpenBatch {
    let mut records = RecordsBuilder::new();
    let mut end_offset = 0;
    for line in lines {
        records.push(line, u32::try_from(line.len()).unwrap() + 1);
        end_offset += line.len() as u64 + 1;
    }
    let meta = BatchMeta {
        stream_id: b"generation".to_vec().into(),
        first_offset: 0,
        end_offset,
        observed_unix_nano: OBSERVED,
        flags,
    };
    let sealed = Sealer::new(v1::Codec::None).unwrap().seal(meta, &mut records).unwrap();
    Opener::new(Limits::default()).open(&sealed).unwrap()
}

/// Builds documents of some lines.
struct Build {
    envelope: Envelope,
    format: Format,
    flags: Flags,
    config: BuilderConfig,
}

impl Default for Build {
    fn default() -> Self {
        Self { envelope: envelope(), format: Format::Auto, flags: Flags::NONE, config: BuilderConfig::default() }
    }
}

impl Build {
    fn documents<'a>(&self, lines: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Document>, Tally) {
        let mut envelope = self.envelope.clone();
        envelope.flags = self.flags;
        let mut documents = Vec::new();
        let tally = Builder::new(self.config).build(&envelope, &batch(lines, self.flags), self.format, &mut documents);
        (documents, tally)
    }

    /// The body of the only document of one line.
    fn json(&self, line: &[u8]) -> Value {
        let (documents, _) = self.documents([line]);
        assert_eq!(documents.len(), 1);
        read(&documents[0])
    }
}

fn document(line: &[u8]) -> Value {
    Build::default().json(line)
}

/// Reads a body, and checks what holds for every body.
fn read(document: &Document) -> Value {
    let text = std::str::from_utf8(&document.body).expect("a body is UTF-8");
    assert!(!text.contains(['\n', '\r']), "a body is one line: {text}");
    let body: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(serde_json::to_string(&body).unwrap().len(), text.len(), "a name stands twice in {text}");
    names_are_known("", &body);
    let day = &body["@timestamp"].as_str().unwrap()[..10];
    assert!(document.index.ends_with(&day.replace('-', ".")), "{} but {day}", document.index);
    body
}

fn names_are_known(path: &str, value: &Value) {
    if FIELDS.iter().any(|(name, _)| *name == path) {
        return;
    }
    let object = value.as_object().unwrap_or_else(|| panic!("{path} is not among the known names"));
    for (name, value) in object {
        let dot = if path.is_empty() { "" } else { "." };
        names_are_known(&format!("{path}{dot}{name}"), value);
    }
}

/// The exact line, got back out of a document by the published rule.
fn original(body: &Value) -> Vec<u8> {
    let event = &body["event"];
    if let Some(text) = event.get("original_base64") {
        return base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
    }
    let line = event.get("original").unwrap_or(&body["message"]);
    line.as_str().unwrap().as_bytes().to_vec()
}
