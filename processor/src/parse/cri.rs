//! CRI: what container runtimes write around each line, `2016-10-06T00:17:09.669794202Z stdout F message`.
//!
//! The message is parsed again by what it looks like; the outer time stands, since it has a zone and nanoseconds. A line
//! marked `P` is a piece of a longer one and is taken as it is.

use super::cursor::Cursor;
use super::{EventTime, Format, Input, Parsed, Text, auto_inner, time};

/// What the runtime adds to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cri<'a> {
    /// `stdout` or `stderr`.
    pub(crate) stream: &'a [u8],
    /// The line goes on in the next record.
    pub(crate) partial: bool,
}

pub(super) fn parse<'a>(input: &mut Input<'a, '_>) -> Option<Parsed<'a>> {
    let line = input.line;
    if line.get(10) != Some(&b'T') {
        return None;
    }
    let (unix_nano, length) = time::iso(line)?;
    let mut cursor = Cursor::new(line);
    cursor.skip(length);
    if !cursor.eat(b' ') {
        return None;
    }
    let stream = cursor.token().filter(|stream| matches!(*stream, b"stdout" | b"stderr"))?;
    // Tags are separated by colons, and the first says whether the line is whole. Nothing after it: an empty message.
    let tags = cursor.token().unwrap_or_else(|| {
        let tags = cursor.rest();
        cursor.skip(tags.len());
        tags
    });
    let partial = match tags.split(|byte| *byte == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    let message = cursor.rest();
    let parsed = if partial || message.is_empty() {
        Parsed::new(Format::Cri)
    } else {
        let mut inner = Input { line: message, observed_unix_nano: input.observed_unix_nano, scratch: &mut *input.scratch };
        auto_inner(&mut inner)
    };
    Some(Parsed {
        format: Format::Cri,
        time: Some(EventTime { unix_nano, raw: &line[..length] }),
        message: parsed.message.or(Some(Text::Plain(message))),
        cri: Some(Cri { stream, partial }),
        ..parsed
    })
}
