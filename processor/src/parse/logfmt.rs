//! logfmt: `level=info msg="it works" took=3ms`.
//!
//! Strict: the whole line is pairs separated by blanks, the keys begin with a letter and hold no odd bytes, and there are
//! two pairs at least; so prose with a lone `=` in it stays prose.

use super::cursor::Cursor;
use super::keys::{Kind, Member, Value};
use super::{Detail, Format, Input, MEMBERS_MAX, Parsed, keys};

pub(super) fn parse<'a>(input: &mut Input<'a, '_>) -> Option<Parsed<'a>> {
    let line = input.line.trim_ascii_end();
    u32::try_from(line.len()).ok()?;
    let scratch = &mut *input.scratch;
    scratch.members.clear();
    scratch.overflow = false;
    let mut cursor = Cursor::new(line);
    cursor.blanks();
    let mut pairs = 0_usize;
    while !cursor.is_empty() {
        let key = key(&mut cursor)?;
        let value = value(&mut cursor)?;
        pairs += 1;
        if scratch.members.len() < MEMBERS_MAX {
            scratch.members.push(Member::new(line, key, value));
        } else {
            scratch.overflow = true;
        }
    }
    if pairs < 2 {
        return None;
    }
    let parsed = Parsed { detail: Detail::Members { base: line }, ..Parsed::new(Format::Logfmt) };
    Some(keys::recognise(parsed, line, scratch, input.observed_unix_nano))
}

/// A key and its `=`.
fn key<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let rest = cursor.rest();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/' | b'@' | b':');
    let end = rest.iter().position(|byte| !allowed(byte))?;
    if rest[end] != b'=' || !(rest[0].is_ascii_alphabetic() || matches!(rest[0], b'_' | b'@')) {
        return None;
    }
    cursor.skip(end + 1);
    Some(&rest[..end])
}

/// A value and the blanks after it.
fn value<'a>(cursor: &mut Cursor<'a>) -> Option<Value<'a>> {
    let value = if cursor.peek() == Some(b'"') {
        Value { kind: Kind::Backslashed, text: cursor.quoted()? }
    } else {
        let rest = cursor.rest();
        let end = rest.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(rest.len());
        cursor.skip(end);
        let text = &rest[..end];
        if text.contains(&b'"') {
            return None;
        }
        Value { kind: Kind::Bare, text }
    };
    if !cursor.is_empty() && !matches!(cursor.peek(), Some(b' ' | b'\t')) {
        return None;
    }
    cursor.blanks();
    Some(value)
}
