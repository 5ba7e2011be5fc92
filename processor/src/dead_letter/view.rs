//! Letters as JSON, for people and programs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::letter::{Content, Fate, Letter};

/// Characters of the original that a list shows.
const PREVIEW_CHARS: usize = 120;

/// A letter in a list.
pub(super) fn summary(letter: &Letter, fate: Fate) -> Value {
    let envelope = letter.envelope();
    let info = envelope.as_ref().map(|envelope| &envelope.info);
    let offset = match &letter.content {
        Content::Record(record) => Some(record.offset),
        Content::Batch(_) => envelope.as_ref().map(|envelope| envelope.first_offset),
        Content::Unreadable { .. } => None,
    };
    without_nulls(json!({
        "id": letter.id,
        "tenant": letter.tenant,
        "kind": letter.kind(),
        "state": fate.word(),
        "reason": letter.reason,
        "kept": letter.kept_unix_nano.and_then(time),
        "host": info.map(|info| info.host.as_str()).filter(|host| !host.is_empty()),
        "path": info.map(|info| info.path.as_str()).filter(|path| !path.is_empty()),
        "offset": offset,
        "bytes": letter.original.len(),
        "preview": preview(letter),
    }))
}

/// A letter with all that it holds, as a JSON object.
#[must_use]
pub fn whole(letter: &Letter, fate: Fate) -> Value {
    let mut value = summary(letter, fate);
    let Value::Object(fields) = &mut value else { return value };
    fields.remove("preview");
    let text = std::str::from_utf8(&letter.original).ok().filter(|_| !matches!(letter.content, Content::Batch(_)));
    let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    match text {
        Some(text) => add("original", text.into()),
        None => add("original_base64", STANDARD.encode(&letter.original).into()),
    };
    add("cut_from_bytes", json!(letter.cut_from_bytes));
    let origin = letter.origin.as_ref();
    add(
        "origin",
        json!(origin.map(|at| json!({ "topic": &*at.topic, "partition": at.partition, "offset": at.offset }))),
    );
    let place = &letter.partition;
    add("place", json!({ "topic": &*place.topic, "partition": place.partition, "offset": letter.offset }));
    if let Some(envelope) = letter.envelope() {
        add("identity", envelope.identity.into());
        add("stream_key", envelope.stream_key.to_string().into());
        add("topic", envelope.topic.into());
        add("service", envelope.info.service.into());
        add("labels", json!(envelope.info.labels));
        add("received", json!(time(envelope.received_unix_nano)));
    }
    match &letter.content {
        Content::Record(record) => {
            add("end_offset", record.end_offset.into());
            add("observed", json!(time(record.observed_unix_nano)));
            add("format", json!(record.format.map(crate::parse::Format::name)));
            add("index", json!(record.index.as_deref()));
            let marks = record.marks;
            let marks = [(marks.partial, "partial"), (marks.continued, "continued"), (marks.split, "split")];
            add("marks", marks.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect::<Vec<_>>().into());
        }
        Content::Batch(_) => {}
        Content::Unreadable { why } => {
            add("why", why.as_str().into());
        }
    }
    without_nulls(value)
}

fn time(unix_nano: u64) -> Option<String> {
    Timestamp::from_nanosecond(i128::from(unix_nano)).ok().map(|time| format!("{time:.3}"))
}

fn preview(letter: &Letter) -> Option<String> {
    if !matches!(letter.content, Content::Record(_)) {
        return None;
    }
    let head = &letter.original[..letter.original.len().min(4 * PREVIEW_CHARS)];
    Some(String::from_utf8_lossy(head).chars().take(PREVIEW_CHARS).collect())
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    value
}
