//! An entry of the journal as JSON objects, with names by which the processor knows what is what.
//!
//! `timestamp` (`_SOURCE_REALTIME_TIMESTAMP`, else `__REALTIME_TIMESTAMP`; microseconds), `level` (`PRIORITY`), `host`
//! (`_HOSTNAME`), `pid` (`_PID`, else `SYSLOG_PID`), `service` (the unit without `.service`, else `SYSLOG_IDENTIFIER`, else
//! `_COMM`; none where the configuration names one) and `message`; every other field under its own name, as text, and as
//! an array where it is there more than once. A value that is not UTF-8 is there twice: as text with U+FFFD for what is
//! none, and exact under its name and `_base64`.
//!
//! An entry is one object of at most `record_bytes_max` bytes. Fields for which there is no room are named in `omitted`,
//! with their lengths. A message for which there is none is split, each part in an object of its own with the time,
//! level, host, pid and service of its entry, and `part` from 1.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::export::{Entry, Field};

/// A service's name is no longer.
const SERVICE_BYTES_MAX: usize = 128;
/// So many fields are named for which there was no room.
const OMITTED_MAX: usize = 8;

/// The records of an entry, in order; at least one.
pub(super) fn records(entry: &Entry, names_service: bool, record_bytes_max: usize) -> Vec<Bytes> {
    let head = head(entry, names_service);
    let message = entry.fields.iter().find(|field| field.name == "MESSAGE");
    // A quarter is left for the message, and as much for its name and brackets as they can need.
    let body = with_fields(head.clone(), entry, record_bytes_max - record_bytes_max / 4);
    let Some(message) = message else { return vec![closed(body)] };
    let mut whole = body.clone();
    member(&mut whole, "message", &message.value);
    if whole.len() < record_bytes_max {
        return vec![closed(whole)];
    }
    split(&body, &head, &message.value, record_bytes_max)
}

/// Whether a field is said by [`head`] or as the message.
fn is_moved(name: &str, entry: &Entry) -> bool {
    match name {
        "MESSAGE" => true,
        "_HOSTNAME" | "PRIORITY" | "_PID" => head_value(entry, name).is_some(),
        "__REALTIME_TIMESTAMP" => {
            head_value(entry, "_SOURCE_REALTIME_TIMESTAMP").is_none() && head_value(entry, name).is_some()
        }
        "_SOURCE_REALTIME_TIMESTAMP" => head_value(entry, name).is_some(),
        _ => false,
    }
}

/// A value that is to be a number, or a short text.
fn head_value<'a>(entry: &'a Entry, name: &str) -> Option<&'a str> {
    let field = entry.fields.iter().find(|field| field.name == name)?;
    let text =
        std::str::from_utf8(&field.value).ok().filter(|text| !text.is_empty() && text.len() <= SERVICE_BYTES_MAX)?;
    let is_number =
        text.len() <= 19 && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let is_text = matches!(name, "_HOSTNAME" | "_SYSTEMD_UNIT" | "SYSLOG_IDENTIFIER" | "_COMM");
    (is_text || is_number).then_some(text)
}

/// The beginning of every object of an entry: an open object.
fn head(entry: &Entry, names_service: bool) -> Vec<u8> {
    let value = |name| head_value(entry, name);
    let mut object = vec![b'{'];
    let numbers = [
        ("timestamp", value("_SOURCE_REALTIME_TIMESTAMP").or_else(|| value("__REALTIME_TIMESTAMP"))),
        ("level", value("PRIORITY")),
        ("pid", value("_PID").or_else(|| value("SYSLOG_PID"))),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            key(&mut object, name);
            object.extend_from_slice(number.as_bytes());
        }
    }
    if let Some(host) = value("_HOSTNAME") {
        member(&mut object, "host", host.as_bytes());
    }
    if names_service && let Some(service) = service(entry) {
        member(&mut object, "service", service.as_bytes());
    }
    object
}

/// Units of sessions and of users' managers say less than what runs in them.
fn service(entry: &Entry) -> Option<&str> {
    let unit = head_value(entry, "_SYSTEMD_UNIT").and_then(|unit| unit.strip_suffix(".service"));
    let unit = unit.filter(|unit| !unit.starts_with("user@"));
    unit.or_else(|| head_value(entry, "SYSLOG_IDENTIFIER")).or_else(|| head_value(entry, "_COMM"))
}

/// The object with all other fields that fit into so many bytes.
fn with_fields(mut object: Vec<u8>, entry: &Entry, bytes_max: usize) -> Vec<u8> {
    let mut omitted: Vec<(&str, u64)> = Vec::new();
    let mut more = 0_u64;
    let mut omit = |name, length| {
        if omitted.len() < OMITTED_MAX { omitted.push((name, length)) } else { more += 1 }
    };
    // Names of fields for which there was no room are written, too.
    let bytes_max = bytes_max.saturating_sub((OMITTED_MAX + 1) * 64).max(bytes_max / 2);
    for (at, field) in entry.fields.iter().enumerate() {
        let name = field.name.as_str();
        let came_before = |other: &Field| other.name == name;
        if entry.fields[..at].iter().any(came_before) {
            continue;
        }
        // Of one that an entry has several times the first value is moved, the others are not.
        let moved = usize::from(is_moved(name, entry));
        let same: Vec<&Field> = entry.fields[at..].iter().filter(|other| other.name == name).skip(moved).collect();
        if same.is_empty() {
            continue;
        }
        let before = object.len();
        let cut: u64 = same.iter().map(|field| field.omitted).sum();
        let length: u64 = same.iter().map(|field| field.value.len() as u64).sum();
        if cut == 0 && before as u64 + length < bytes_max as u64 {
            match same.as_slice() {
                [one] => member(&mut object, name, &one.value),
                several => members(&mut object, name, several),
            }
        }
        if object.len() == before || object.len() > bytes_max {
            object.truncate(before);
            omit(name, length + cut);
        }
    }
    if let Some(message) = entry.fields.iter().find(|field| field.name == "MESSAGE" && field.omitted > 0) {
        omit("MESSAGE", message.omitted);
    }
    if !omitted.is_empty() {
        key(&mut object, "omitted");
        object.push(b'{');
        for (name, length) in omitted {
            key(&mut object, &name[..name.floor_char_boundary(32)]);
            object.extend_from_slice(length.to_string().as_bytes());
        }
        if more > 0 {
            key(&mut object, "further_fields");
            object.extend_from_slice(more.to_string().as_bytes());
        }
        object.push(b'}');
    }
    object
}

/// A message in several objects: the first with all fields, the others with the head alone.
fn split(first: &[u8], head: &[u8], message: &[u8], record_bytes_max: usize) -> Vec<Bytes> {
    let (mut records, mut rest) = (Vec::new(), message);
    while !rest.is_empty() {
        let part = records.len() + 1;
        let mut open = if part == 1 { first.to_vec() } else { head.to_vec() };
        key(&mut open, "part");
        open.extend_from_slice(part.to_string().as_bytes());
        let mut length = rest.len().min(record_bytes_max);
        loop {
            length = boundary(rest, length);
            let mut object = open.clone();
            member(&mut object, "message", &rest[..length]);
            // A record with nothing but a head that is too long for it is still sent, letter by letter.
            if object.len() < record_bytes_max || length <= 4 {
                records.push(closed(object));
                break;
            }
            length -= (length / 4).max(1);
        }
        rest = &rest[length..];
    }
    records
}

/// The last place up to `length` at which no character is cut, if the bytes are text.
fn boundary(bytes: &[u8], length: usize) -> usize {
    let is_inner = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let back = (0..4.min(length)).find(|back| !is_inner(length - back)).unwrap_or(0);
    if length > back { length - back } else { length }
}

fn key(object: &mut Vec<u8>, name: &str) {
    if !object.ends_with(b"{") {
        object.push(b',');
    }
    string(object, name);
    object.push(b':');
}

fn string(object: &mut Vec<u8>, text: &str) {
    // Writing to memory cannot fail, and text is always a JSON string.
    let _ = serde_json::to_writer(object, text);
}

fn member(object: &mut Vec<u8>, name: &str, value: &[u8]) {
    let text = String::from_utf8_lossy(value);
    key(object, name);
    string(object, &text);
    if matches!(text, std::borrow::Cow::Owned(_)) {
        key(object, &format!("{name}_base64"));
        string(object, &STANDARD.encode(value));
    }
}

fn members(object: &mut Vec<u8>, name: &str, fields: &[&Field]) {
    let mut list = |name: &str, write: &dyn Fn(&mut Vec<u8>, &[u8])| {
        key(object, name);
        for (at, field) in fields.iter().enumerate() {
            object.push(if at == 0 { b'[' } else { b',' });
            write(object, &field.value);
        }
        object.push(b']');
    };
    list(name, &|object, value| string(object, &String::from_utf8_lossy(value)));
    if fields.iter().any(|field| std::str::from_utf8(&field.value).is_err()) {
        list(&format!("{name}_base64"), &|object, value| string(object, &STANDARD.encode(value)));
    }
}

fn closed(mut object: Vec<u8>) -> Bytes {
    object.push(b'}');
    object.shrink_to_fit();
    object.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn entry(fields: &[(&str, &[u8])]) -> Entry {
        let field = |(name, value): &(&str, &[u8])| Field { name: (*name).into(), value: value.to_vec(), omitted: 0 };
        Entry { fields: fields.iter().map(field).collect(), cursor: None }
    }

    fn objects(entry: &Entry, record_bytes_max: usize) -> Vec<Value> {
        let records = records(entry, true, record_bytes_max);
        assert!(records.iter().all(|record| record.len() <= record_bytes_max), "{records:?}");
        records.iter().map(|record| serde_json::from_slice(record).unwrap()).collect()
    }

    #[test]
    fn of_a_field_that_comes_several_times_no_value_is_left_out() {
        let entry = entry(&[("MESSAGE", b"one"), ("A", b"1"), ("MESSAGE", b"two"), ("A", b"2"), ("PRIORITY", b"3")]);
        let expected = json!({ "level": 3, "message": "one", "MESSAGE": "two", "A": ["1", "2"] });
        assert_eq!(objects(&entry, 4096), [expected]);
    }

    #[test]
    fn the_fields_that_everybody_has_get_the_names_that_everybody_knows() {
        let entry = entry(&[
            ("__REALTIME_TIMESTAMP", b"1700000000000002"),
            ("_SOURCE_REALTIME_TIMESTAMP", b"1700000000000001"),
            ("PRIORITY", b"3"),
            ("_HOSTNAME", b"edge-1"),
            ("_PID", b"42"),
            ("SYSLOG_IDENTIFIER", b"nginx"),
            ("_SYSTEMD_UNIT", b"web.service"),
            ("MESSAGE", b"two\nlines"),
        ]);
        let expected = json!({
            "timestamp": 1_700_000_000_000_001_u64, "level": 3, "host": "edge-1", "pid": 42, "service": "web",
            "message": "two\nlines", "SYSLOG_IDENTIFIER": "nginx", "_SYSTEMD_UNIT": "web.service",
            "__REALTIME_TIMESTAMP": "1700000000000002",
        });
        assert_eq!(objects(&entry, 4096), [expected]);
        let named: Value = serde_json::from_slice(&records(&entry, false, 4096)[0]).unwrap();
        assert_eq!(named.get("service"), None, "the configuration names it");
    }

    #[test]
    fn values_that_are_no_text_survive_and_names_that_are_there_twice_too() {
        let entry =
            entry(&[("MESSAGE", b"caf\xe9"), ("X", b"a"), ("X", b"\xff"), ("PRIORITY", b"high"), ("EMPTY", b"")]);
        let expected = json!({
            "message": "caf\u{fffd}", "message_base64": STANDARD.encode(b"caf\xe9"), "X": ["a", "\u{fffd}"],
            "X_base64": [STANDARD.encode(b"a"), STANDARD.encode(b"\xff")], "PRIORITY": "high", "EMPTY": "",
        });
        assert_eq!(objects(&entry, 4096), [expected]);
    }

    #[test]
    fn what_has_no_room_is_named_and_a_long_message_is_split() {
        let long = "é\"".repeat(2000);
        let mut entry =
            entry(&[("_HOSTNAME", b"h"), ("COREDUMP", &[b'x'; 5000]), ("A", b"b"), ("MESSAGE", long.as_bytes())]);
        entry.fields[1].omitted = 7;
        let objects = objects(&entry, 1024);
        assert_eq!((&objects[0]["omitted"], &objects[0]["A"]), (&json!({ "COREDUMP": 5007 }), &json!("b")));
        let joined: String = objects.iter().map(|object| object["message"].as_str().unwrap()).collect();
        assert_eq!(joined, long);
        assert!(objects.iter().enumerate().all(|(at, object)| object["part"] == at + 1 && object["host"] == "h"));
    }

    proptest! {
        #[test]
        fn every_entry_is_json_within_its_bound_and_keeps_its_message(
            message in prop::collection::vec(any::<u8>(), 1..3000),
            fields in prop::collection::vec(("[A-Z_]{1,20}", prop::collection::vec(any::<u8>(), 0..300)), 0..30),
        ) {
            let mut all: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
            all.retain(|(name, _)| *name != "MESSAGE");
            all.push(("MESSAGE", &message));
            let exact = |object: &Value| match object["message_base64"].as_str() {
                Some(text) => STANDARD.decode(text).unwrap(),
                None => object["message"].as_str().unwrap().as_bytes().to_vec(),
            };
            let found: Vec<u8> = objects(&entry(&all), 1024).iter().flat_map(exact).collect();
            prop_assert_eq!(found, message);
        }
    }
}
