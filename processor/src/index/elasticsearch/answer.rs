//! The answer to a bulk request, read without a tree: of each item its status, and of a failed one what the server says
//! of it, which is looked into only then.

use serde::Deserialize;
use serde_json::Value;
use sonic_rs::LazyValue;

use super::super::{Mode, Outcome};

/// Longest reason in bytes that is kept of what a server says: it may quote a document.
const REASON_MAX: usize = 600;

/// Deepest nesting of causes that is followed.
const CAUSES_MAX: usize = 32;

/// Faults that come with 400 and are not the document's.
const NOT_THE_DOCUMENTS_FAULT: [&str; 3] =
    ["validation_exception", "index_closed_exception", "invalid_index_name_exception"];

/// What a block on an index is called.
const BLOCKED: &str = "cluster_block_exception";

/// What the server said went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cause {
    /// The type of the outermost failure: what decides.
    pub(super) kind: String,
    /// For people: the innermost cause, and what it was met in.
    pub(super) words: String,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    items: Vec<Item<'a>>,
}

#[derive(Deserialize)]
enum Item<'a> {
    #[serde(rename = "create", borrow)]
    Create(Done<'a>),
    #[serde(rename = "index", borrow)]
    Index(Done<'a>),
}

#[derive(Deserialize)]
struct Done<'a> {
    status: u16,
    #[serde(borrow)]
    error: Option<LazyValue<'a>>,
}

/// A bulk's answer.
#[derive(Debug, PartialEq)]
pub(super) struct Answered {
    /// One for each document, in order.
    pub(super) outcomes: Vec<Outcome>,
    /// The server has more work than it can do. (A block on one index, which also answers 429, says nothing of the kind.)
    pub(super) pressed: bool,
}

/// Reads the answer to documents, each written with its mode to an index. `None` if this is no answer to them.
pub(super) fn read<'d>(body: &[u8], sent: impl ExactSizeIterator<Item = (Mode, &'d str)>) -> Option<Answered> {
    let answer: Answer<'_> = sonic_rs::from_slice(body).ok()?;
    if answer.items.len() != sent.len() {
        return None;
    }
    let mut pressed = false;
    let one = |(item, (mode, index)): (&Item<'_>, (Mode, &str))| {
        let (Item::Create(done) | Item::Index(done)) = item;
        outcome(done, mode, index, &mut pressed)
    };
    let outcomes = answer.items.iter().zip(sent).map(one).collect();
    Some(Answered { outcomes, pressed })
}

fn outcome(done: &Done<'_>, mode: Mode, index: &str, pressed: &mut bool) -> Outcome {
    let Done { status, error } = done;
    if (200..300).contains(status) {
        return Outcome::Created;
    }
    if *status == 409 && mode == Mode::Create {
        return Outcome::Exists;
    }
    let cause = error.as_ref().map(|error| cause(error.as_raw_str().as_bytes())).unwrap_or_default();
    *pressed |= *status == 429 && cause.kind != BLOCKED;
    refused(*status, &cause, Some(index))
}

/// What becomes of a document, or of a whole request where `index` is none, that was refused with `status`.
pub(super) fn refused(status: u16, cause: &Cause, index: Option<&str>) -> Outcome {
    let words = if cause.words.is_empty() { "no reason given" } else { cause.words.as_str() };
    let place = index.map_or_else(|| "bulk requests".to_owned(), |index| format!("writing to {index}"));
    match status {
        408 | 409 | 425 | 429 | 500.. => {
            Outcome::Retry { reason: format!("the index server asks for patience ({status}): {words}"), after: None }
        }
        400 if index.is_some() && !NOT_THE_DOCUMENTS_FAULT.contains(&cause.kind.as_str()) => {
            Outcome::Rejected { reason: words.to_owned() }
        }
        413 if index.is_some() => Outcome::Rejected { reason: format!("too large for the index server: {words}") },
        401 => Outcome::Held {
            reason: format!(
                "the index server refuses our credentials (401): {words}; correct api_key, or username and password, in [index]"
            ),
        },
        403 => Outcome::Held {
            reason: format!(
                "the index server forbids {place} (403): {words}; grant the role that `logmesh check --connect` prints, or lift the block"
            ),
        },
        404 => Outcome::Held {
            reason: format!(
                "the index server does not know the way for {place} (404): {words}; let it create indices by itself (action.auto_create_index), and check `urls` in [index]"
            ),
        },
        _ => Outcome::Held { reason: format!("the index server refuses {place} ({status}): {words}") },
    }
}

/// Reads an `error`, which is an object, or a text where something else than Elasticsearch answers.
pub(super) fn cause(error: &[u8]) -> Cause {
    serde_json::from_slice(error).map(|error| cause_of(&error)).unwrap_or_default()
}

/// Reads the body of a whole request's failure.
pub(super) fn cause_of_whole(body: &[u8]) -> Cause {
    match serde_json::from_slice::<Value>(body) {
        Ok(body) => body.get("error").map(cause_of).unwrap_or_default(),
        Err(_) => Cause { kind: String::new(), words: short(&excerpt(body)) },
    }
}

fn cause_of(error: &Value) -> Cause {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    if let Some(words) = error.as_str() {
        return Cause { kind: String::new(), words: short(words) };
    }
    let line = |failure: &Value| {
        let parts = [text(failure, "type"), text(failure, "reason")];
        parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
    };
    let mut innermost = error;
    for _ in 0..CAUSES_MAX {
        match innermost.get("caused_by").filter(|cause| cause.is_object()) {
            Some(deeper) => innermost = deeper,
            None => break,
        }
    }
    let met = line(error);
    let words = if std::ptr::eq(innermost, error) { met } else { format!("{} (in {met})", line(innermost)) };
    Cause { kind: text(error, "type").unwrap_or_default(), words: short(&words) }
}

/// The beginning of something that is no JSON, as one line that can be shown.
pub(super) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(120)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn short(words: &str) -> String {
    match words.char_indices().nth(REASON_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "logmesh-default-2026.11.23";

    fn read(body: &str, modes: &[Mode]) -> Option<Vec<Outcome>> {
        super::read(body.as_bytes(), modes.iter().map(|mode| (*mode, INDEX))).map(|answered| answered.outcomes)
    }

    fn item(status: u16, error: &str) -> Outcome {
        let body =
            format!(r#"{{"took":1,"errors":true,"items":[{{"create":{{"status":{status},"error":{error}}}}}]}}"#);
        read(&body, &[Mode::Create]).expect("an answer").remove(0)
    }

    #[test]
    fn every_status_has_its_outcome() {
        let error = r#"{"type":"some_exception","reason":"why"}"#;
        for (status, expected) in [
            (200, "Created"),
            (201, "Created"),
            (409, "Exists"),
            (429, "Retry"),
            (500, "Retry"),
            (502, "Retry"),
            (503, "Retry"),
            (504, "Retry"),
            (507, "Retry"),
            (408, "Retry"),
            (400, "Rejected"),
            (413, "Rejected"),
            (401, "Held"),
            (403, "Held"),
            (404, "Held"),
            (405, "Held"),
            (302, "Held"),
        ] {
            let outcome = format!("{:?}", item(status, error));
            assert!(outcome.starts_with(expected), "{status}: {outcome}");
            assert!(matches!(expected, "Created" | "Exists") || outcome.contains("some_exception: why"), "{outcome}");
        }
    }

    #[test]
    fn faults_that_are_not_the_documents_hold_the_lane() {
        for kind in NOT_THE_DOCUMENTS_FAULT {
            let outcome = item(400, &format!(r#"{{"type":"{kind}","reason":"why"}}"#));
            assert!(matches!(&outcome, Outcome::Held { reason } if reason.contains(kind)), "{outcome:?}");
        }
    }

    #[test]
    fn a_rejection_names_the_innermost_cause_and_where_it_was_met() {
        let error = r#"{"type":"document_parsing_exception","reason":"[1:9] failed to parse field [a] of type [long]",
            "caused_by":{"type":"x","reason":"y","caused_by":{"type":"illegal_argument_exception","reason":"For input string: \"b\""}}}"#;
        let expected = "illegal_argument_exception: For input string: \"b\" (in document_parsing_exception: [1:9] failed to parse field [a] of type [long])";
        assert_eq!(item(400, error), Outcome::Rejected { reason: expected.into() });
    }

    #[test]
    fn only_too_much_work_counts_as_pressure() {
        let pressed = |status: u16, kind: &str| {
            let body = format!(r#"{{"items":[{{"create":{{"status":{status},"error":{{"type":"{kind}"}}}}}}]}}"#);
            super::read(body.as_bytes(), [(Mode::Create, INDEX)].into_iter()).expect("an answer").pressed
        };
        assert!(pressed(429, "es_rejected_execution_exception"));
        assert!(pressed(429, "circuit_breaking_exception"));
        assert!(!pressed(429, "cluster_block_exception"), "one index is read-only");
        assert!(!pressed(503, "unavailable_shards_exception"), "one index has no primary");
        assert!(!pressed(409, "version_conflict_engine_exception"));
    }

    #[test]
    fn a_conflict_is_done_for_create_only() {
        let body = r#"{"items":[{"index":{"status":409,"error":{"type":"version_conflict_engine_exception"}}}]}"#;
        assert!(matches!(read(body, &[Mode::Index]).expect("an answer")[0], Outcome::Retry { .. }));
    }

    #[test]
    fn an_odd_answer_is_no_answer() {
        let one = [Mode::Create];
        for body in [
            "",
            "<html>502</html>",
            "{}",
            "[]",
            "null",
            r#"{"errors":false}"#,
            r#"{"errors":false,"items":[]}"#,
            r#"{"errors":false,"items":{}}"#,
            r#"{"items":[{"create":{}}]}"#,
            r#"{"items":[{"update":{"status":200}}]}"#,
            r#"{"items":[{"create":{"status":201}},{"create":{"status":201}}]}"#,
            r#"{"items":[{"create":{"status":201}}"#,
            r#"{"items":[{"create":{"status":-1}}]}"#,
            r#"{"items":[{"create":{"status":201}}]} trailing"#,
        ] {
            assert_eq!(read(body, &one), None, "{body}");
        }
    }

    #[test]
    fn both_servers_shapes_are_read() {
        let body = r#"{"took":3,"ingest_took":0,"errors":true,"items":[
            {"create":{"_index":"a","_id":"1","_version":1,"result":"created","_shards":{"total":2,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1,"status":201}},
            {"create":{"_index":"a","_id":"1","status":409,"failure_store":"not_applicable_or_unknown","error":{"type":"version_conflict_engine_exception","reason":"[1]: version conflict","index_uuid":"x","shard":"0","index":"a"}}},
            {"index":{"_index":"a","_id":"1","status":200,"forced_refresh":true}}]}"#;
        let outcomes = read(body, &[Mode::Create, Mode::Create, Mode::Index]);
        assert_eq!(outcomes, Some(vec![Outcome::Created, Outcome::Exists, Outcome::Created]));
    }

    #[test]
    fn what_stands_for_an_error_elsewhere_is_shown_too() {
        assert!(matches!(item(403, r#""no handler""#), Outcome::Held { reason } if reason.contains("no handler")));
        assert_eq!(cause_of_whole(b"<html>\n<title>Bad Gateway</title>").words, "<html> <title>Bad Gateway</title>");
        assert_eq!(cause_of_whole(br#"{"error":{"type":"a","reason":"b"},"status":400}"#).words, "a: b");
    }

    #[test]
    fn reasons_are_bounded() {
        let error = format!(r#"{{"type":"a","reason":"{}"}}"#, "ä".repeat(10_000));
        let Outcome::Rejected { reason } = item(400, &error) else { panic!("rejected") };
        assert_eq!(reason.chars().count(), REASON_MAX + 1);
    }
}
