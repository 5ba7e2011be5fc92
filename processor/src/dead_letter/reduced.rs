//! The document that stands in for a refused one.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::document::Document;

/// The record's exact bytes, by the rule of every document: `event.original_base64` where they are no text, else
/// `event.original`, else `message`. `None` for a body that is no document.
pub fn original_bytes(body: &[u8]) -> Option<Bytes> {
    let document: Value = serde_json::from_slice(body).ok()?;
    if let Some(encoded) = document.pointer("/event/original_base64").and_then(Value::as_str) {
        return STANDARD.decode(encoded).ok().map(Bytes::from);
    }
    let original = document.pointer("/event/original").or_else(|| document.get("message"))?;
    original.as_str().map(|line| Bytes::copy_from_slice(line.as_bytes()))
}

/// The document that stands in for a refused one: raw text, origin and the error, nothing that can be refused again.
pub fn reduced(document: &Document, reason: &str) -> Document {
    let full: Value = serde_json::from_slice(&document.body).unwrap_or_default();
    let pick = |names: &[&str]| {
        names.iter().try_fold(&full, |value, name| value.get(name)).filter(|value| value.is_string()).cloned()
    };
    let line = pick(&["event", "original"]).or_else(|| pick(&["message"])).unwrap_or_default();
    let mut body = json!({
        "@timestamp": pick(&["@timestamp"]),
        "message": line,
        "event": { "created": pick(&["event", "created"]), "ingested": pick(&["event", "ingested"]) },
        "agent": { "id": pick(&["agent", "id"]), "name": pick(&["agent", "name"]) },
        "host": { "name": pick(&["host", "name"]) },
        "log": { "offset": document.offset, "file": { "path": pick(&["log", "file", "path"]) } },
        "error": { "message": reason },
        "tags": ["dead_lettered"],
    });
    drop_nulls(&mut body);
    Document { body: body.to_string().into(), ..document.clone() }
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        let kept = std::mem::take(fields).into_iter().filter(|(_, value)| !value.is_null());
        *fields = kept.collect::<Map<_, _>>();
        fields.values_mut().for_each(drop_nulls);
    }
}

#[cfg(test)]
mod tests {
    use logmesh_proto::{RecordId, StreamKey};

    use super::*;

    fn document(body: &'static str) -> Document {
        let stream_key = StreamKey::from_bytes([1; 16]);
        Document {
            id: RecordId::derive(stream_key, 5, b""),
            stream_key,
            offset: 5,
            end_offset: 9,
            index: "logmesh-default-2026.11.23".into(),
            timestamp_unix_nano: 0,
            received_unix_nano: 0,
            resend: false,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn the_original_bytes_are_found_wherever_the_document_keeps_them() {
        let of = |body: &str| original_bytes(body.as_bytes());
        assert_eq!(of(r#"{"message":"m"}"#).as_deref(), Some(b"m".as_slice()));
        assert_eq!(of(r#"{"message":"m","event":{"original":"the line"}}"#).as_deref(), Some(b"the line".as_slice()));
        assert_eq!(of(r#"{"message":"m","event":{"original_base64":"/wA="}}"#).as_deref(), Some([255, 0].as_slice()));
        assert_eq!(of("[]"), None);
        assert_eq!(of("nonsense"), None);
    }

    #[test]
    fn a_reduced_document_keeps_line_and_origin_and_says_why() {
        let full = document(
            r#"{"@timestamp":"2026-01-01T00:00:00Z","message":"m","event":{"original":"line"},"fields":{"a":{}},"log":{"file":{"path":"/a"}}}"#,
        );
        let reduced = reduced(&full, "mapping conflict");
        assert_eq!(reduced.id, full.id);
        let body: Value = serde_json::from_slice(&reduced.body).expect("json");
        assert_eq!(body["message"], "line");
        assert_eq!(body["log"], json!({"offset": 5, "file": {"path": "/a"}}));
        assert_eq!(body["error"]["message"], "mapping conflict");
        assert_eq!(body["tags"], json!(["dead_lettered"]));
        assert!(body.get("fields").is_none());
    }

    #[test]
    fn a_body_that_is_no_object_still_gets_a_reduced_document() {
        let reduced = reduced(&document("nonsense"), "no json");
        assert_eq!(serde_json::from_slice::<Value>(&reduced.body).expect("json")["error"]["message"], "no json");
    }
}
