//! The free-form fields: one bounded object for all that has no name of its own.
//!
//! Whatever a producer writes, the object is valid for every index: no key twice in an object (the first stands), no
//! empty key (it becomes `_`), no NUL in a key (it becomes U+FFFD), no number that a reader of 64-bit floats refuses (it
//! becomes a string). Beyond the bounds fields are left out, which the document then says with a tag.

use super::writer;
use crate::parse::json::{Scan, code_unit};
use crate::parse::{Kind, Text, Value};

/// Most keys and array elements in all.
const NUMBER_MAX: usize = 512;
/// Deepest nesting: `fields.a.b` is two deep. What is deeper becomes null.
const DEPTH_MAX: usize = 8;
/// Longest key in bytes.
const KEY_MAX: usize = 256;

/// What had to be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Something was left out for the bounds.
    pub(super) truncated: bool,
    /// A key was there twice.
    pub(super) duplicate: bool,
}

/// A key that was written: where in the block, and a hash to compare with first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    hash: u32,
    start: usize,
    end: usize,
}

/// Writes the object, which begins with its first field and is left out without one.
pub(super) struct Fields<'o> {
    out: &'o mut Vec<u8>,
    /// Keys of the objects that are open, outermost first; room that is kept from record to record.
    keys: &'o mut Vec<Key>,
    /// Where in `keys` those of the innermost object begin.
    scope: usize,
    depth: usize,
    number: usize,
    changes: Changes,
}

impl<'o> Fields<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>, keys: &'o mut Vec<Key>) -> Self {
        keys.clear();
        Self { out, keys, scope: 0, depth: 0, number: 0, changes: Changes::default() }
    }

    /// Ends the object.
    pub(super) fn close(self) -> Changes {
        if self.depth > 0 {
            self.out.push(b'}');
        }
        self.changes
    }

    /// Notes that fields were left out elsewhere.
    pub(super) fn truncated(&mut self) {
        self.changes.truncated = true;
    }

    /// A field with a text; in the object that is being filled, if one is.
    pub(super) fn text(&mut self, key: &[u8], text: Text<'_>) {
        self.value(Text::Plain(key), |fields| fields.string(text));
    }

    /// A field with what stands in JSON or logfmt.
    pub(super) fn member(&mut self, key: &[u8], value: Value<'_>) {
        let key = if value.kind == Kind::Bare || value.kind == Kind::Backslashed { Text::Plain(key) } else { Text::Json(key) };
        self.value(key, |fields| fields.json(value));
    }

    /// A field with an object, which `write` fills.
    pub(super) fn object(&mut self, key: &[u8], write: impl FnOnce(&mut Self)) {
        self.value(Text::Plain(key), |fields| fields.nest(b'{', b'}', write));
    }

    fn value(&mut self, key: Text<'_>, write: impl FnOnce(&mut Self)) {
        if self.depth == 0 {
            self.depth = 1;
            self.out.extend_from_slice(b",\"fields\":{");
        }
        if self.key(key) {
            write(self);
        }
    }

    /// Counts one more key or element; false beyond the bound.
    fn admit(&mut self) -> bool {
        let room = self.number < NUMBER_MAX;
        self.number += 1;
        self.changes.truncated |= !room;
        room
    }

    /// Writes a key with what stands around it; false if the field must be left out.
    fn key(&mut self, key: Text<'_>) -> bool {
        let before = self.out.len();
        if key.raw().len() > KEY_MAX {
            self.changes.truncated = true;
            return false;
        }
        if !self.admit() {
            return false;
        }
        if self.keys.len() > self.scope {
            self.out.push(b',');
        }
        self.out.push(b'"');
        let start = self.out.len();
        match key {
            Text::Plain(b"") | Text::Json(b"") => self.out.push(b'_'),
            Text::Json(raw) if raw.contains(&b'\\') => unescaped_key(self.out, raw),
            Text::Plain(_) | Text::Json(_) | Text::Backslashed(_) => writer::text(self.out, key),
        }
        let key = Key { hash: hash(&self.out[start..]), start, end: self.out.len() };
        if self.is_known(key) {
            self.out.truncate(before);
            self.changes.duplicate = true;
            return false;
        }
        self.keys.push(key);
        self.out.extend_from_slice(b"\":");
        true
    }

    fn is_known(&self, key: Key) -> bool {
        let same = |known: &Key| {
            known.hash == key.hash && self.out[known.start..known.end] == self.out[key.start..key.end]
        };
        self.keys[self.scope..].iter().any(same)
    }

    fn string(&mut self, text: Text<'_>) {
        writer::member(self.out, b"\"", text);
    }

    fn json(&mut self, value: Value<'_>) {
        match value.kind {
            Kind::String => self.string(Text::Json(value.text)),
            Kind::Backslashed => self.string(Text::Backslashed(value.text)),
            Kind::Bare => self.string(Text::Plain(value.text)),
            Kind::Literal => self.out.extend_from_slice(value.text),
            Kind::Number if is_modest(value.text) => self.out.extend_from_slice(value.text),
            Kind::Number => self.string(Text::Plain(value.text)),
            Kind::Object => self.nest(b'{', b'}', |fields| fields.members(value.text)),
            Kind::Array => self.nest(b'[', b']', |fields| fields.elements(value.text)),
        }
    }

    fn nest(&mut self, open: u8, close: u8, write: impl FnOnce(&mut Self)) {
        if self.depth == DEPTH_MAX {
            self.changes.truncated = true;
            self.out.extend_from_slice(b"null");
            return;
        }
        let scope = std::mem::replace(&mut self.scope, self.keys.len());
        self.depth += 1;
        self.out.push(open);
        write(self);
        self.out.push(close);
        self.depth -= 1;
        self.keys.truncate(self.scope);
        self.scope = scope;
    }

    fn members(&mut self, object: &[u8]) {
        let mut scan = Scan::new(object);
        if scan.open().is_none() {
            return;
        }
        while let Some(Some((key, value))) = scan.member() {
            if self.key(Text::Json(key)) {
                self.json(value);
            } else if self.number > NUMBER_MAX {
                return;
            }
        }
    }

    fn elements(&mut self, array: &[u8]) {
        let mut scan = Scan::new(array);
        if scan.open().is_none() {
            return;
        }
        let mut first = true;
        while let Some(Some(value)) = scan.element() {
            if !self.admit() {
                return;
            }
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            self.json(value);
        }
    }
}

/// Whether a JSON number surely fits a 64-bit float, and is short.
fn is_modest(number: &[u8]) -> bool {
    let exponent = number.iter().position(|byte| matches!(byte, b'e' | b'E')).map_or(&[][..], |at| &number[at + 1..]);
    number.len() <= 40 && exponent.iter().filter(|byte| byte.is_ascii_digit()).count() <= 2
}

fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A JSON key with escapes, unescaped and escaped again, so that one key has one spelling.
fn unescaped_key(out: &mut Vec<u8>, raw: &[u8]) {
    let mut key = String::new();
    let mut units = Vec::new();
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        if *byte != b'\\' {
            let end = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
            key.push_str(&String::from_utf8_lossy(&rest[..end]));
            rest = &rest[end..];
            continue;
        }
        if after.first() == Some(&b'u') {
            units.push(after.get(1..5).and_then(code_unit).unwrap_or(0xfffd));
            rest = after.get(5..).unwrap_or_default();
            if rest.starts_with(b"\\u") {
                continue;
            }
            key.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
        } else {
            key.push(match after.first() {
                Some(b'n') => '\n',
                Some(b't') => '\t',
                Some(b'r') => '\r',
                Some(b'b') => '\u{8}',
                Some(b'f') => '\u{c}',
                Some(other) => char::from(*other),
                None => char::REPLACEMENT_CHARACTER,
            });
            rest = after.get(1..).unwrap_or_default();
        }
    }
    writer::escaped(out, key.replace('\0', "\u{fffd}").as_bytes());
}
