//! What OpenSearch cannot index, made to fit: long strings in free-form objects.
//!
//! Its `flat_object` knows no `ignore_above`: one value beyond Lucene's longest term, and the whole document is refused. A
//! longer one is therefore cut, which its last letter shows; the exact line is in `event.original` or `message`.

/// Longest string in bytes, as it stands in JSON. Lucene's bound is 32,766 for path and value together.
const STRING_MAX: usize = 24 << 10;

/// Top-level objects that a producer fills.
const FREE_FORM: [&[u8]; 2] = [b"fields", b"labels"];

/// The body with its long strings cut; `None` if all of it fits.
pub(super) fn fit(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() <= STRING_MAX {
        return None;
    }
    let mut out: Option<Vec<u8>> = None;
    let (mut copied, mut at, mut depth) = (0, 0, 0_usize);
    // Whether the top-level member that is being read is free-form.
    let mut free_form = false;
    while let Some(byte) = body.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let Text { end, cut } = text(body, at + 1);
                if depth == 1 && body.get(end + 1) == Some(&b':') {
                    free_form = FREE_FORM.contains(&&body[at + 1..end]);
                } else if let Some(cut) = cut.filter(|_| free_form) {
                    let out = out.get_or_insert_with(|| Vec::with_capacity(body.len()));
                    out.extend_from_slice(&body[copied..cut]);
                    out.extend_from_slice("…".as_bytes());
                    copied = end;
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    out.map(|mut out| {
        out.extend_from_slice(&body[copied..]);
        out
    })
}

/// A string in JSON.
struct Text {
    /// Where its closing quote stands, or the body ends.
    end: usize,
    /// Where to cut it, if it is long: between two letters.
    cut: Option<usize>,
}

fn text(body: &[u8], start: usize) -> Text {
    let mut at = start;
    let mut cut = None;
    while let Some(byte) = body.get(at) {
        if cut.is_none() && at - start > STRING_MAX - 16 && (byte & 0xc0) != 0x80 && *byte != b'"' {
            cut = Some(at);
        }
        match byte {
            b'"' => break,
            // What an escape stands for is one letter: its digits are no place to cut at.
            b'\\' => at += if body.get(at + 1) == Some(&b'u') { 6 } else { 2 },
            _ => at += 1,
        }
    }
    let end = at.min(body.len());
    Text { end, cut: cut.filter(|_| end - start > STRING_MAX) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fitted(body: &Value) -> Option<Value> {
        fit(body.to_string().as_bytes()).map(|fitted| serde_json::from_slice(&fitted).expect("still JSON"))
    }

    #[test]
    fn only_long_strings_of_free_form_objects_are_cut() {
        let long = "x".repeat(100_000);
        let body = json!({
            "event": { "original": long, "fields": long }, "message": long, "tags": ["fields"],
            "fields": { "a": { "b": [long, "short", 1e300, "fields"] }, "message": long },
            "labels": { "l": long },
        });
        let fitted = fitted(&body).expect("cut");
        assert_eq!((&fitted["message"], &fitted["event"]), (&body["message"], &body["event"]));
        for pointer in ["/fields/a/b/0", "/fields/message", "/labels/l"] {
            let text = fitted.pointer(pointer).and_then(Value::as_str).expect("a text");
            assert!(text.len() <= STRING_MAX && text.ends_with("x…"), "{pointer}: {}", text.len());
        }
        assert_eq!(fitted["fields"]["a"]["b"][1], "short");
        assert_eq!(fit(fitted.to_string().as_bytes()), None, "what fits is left alone");
    }

    #[test]
    fn no_letter_and_no_escape_is_cut_in_two() {
        for shift in 0..12 {
            for letter in ["😀", "ä", "\u{1}", "\n", "\"", "\\"] {
                let text = format!("{}{}", "x".repeat(shift), letter.repeat(40_000));
                let fitted = fitted(&json!({ "fields": { "a": text } })).expect("cut");
                let cut = fitted["fields"]["a"].as_str().and_then(|cut| cut.strip_suffix('…')).expect("a cut text");
                assert!(text.starts_with(cut) && cut.len() > 1000, "{letter:?} {shift}");
            }
        }
    }

    #[test]
    fn what_is_short_or_no_json_is_left_alone() {
        assert_eq!(fitted(&json!({ "fields": { "a": "x".repeat(STRING_MAX - 100) } })), None);
        for body in [&b"\"".repeat(50_001)[..], &b"\\".repeat(50_000)[..], &b"{\"fields\":\"\\u".repeat(5_000)[..]] {
            fit(body);
        }
    }
}
