//! Syslog: RFC 3164 as it is found in files and on the wire, and RFC 5424.
//!
//! RFC 3164: `[<PRI>]Jun 14 15:16:01 host tag[pid]: message`, with an ISO time as rsyslog writes it too. The tag may be
//! missing; then everything after the host is message. RFC 5424: `<PRI>1 time host app procid msgid [data] message`, with
//! `-` for what is missing.

use super::cursor::{Cursor, decimal};
use super::{Detail, EventTime, Format, Level, Parsed, Text, time};

/// What only syslog has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syslog<'a> {
    /// Facility times eight plus severity.
    pub(crate) priority: Option<u8>,
    /// RFC 5424's process id, where it is no number.
    pub(crate) process_id: Option<&'a [u8]>,
    /// RFC 5424's message type.
    pub(crate) message_id: Option<&'a [u8]>,
    /// RFC 5424's structured data, brackets and all, known to be well-formed.
    pub(crate) data: Option<&'a [u8]>,
}

/// RFC 3164 with a time of its own or an ISO time.
pub(super) fn rfc3164(line: &[u8], observed_unix_nano: i64) -> Option<Parsed<'_>> {
    let (priority, header) = priority(line)?;
    let (unix_nano, length) = time::month_first(header, observed_unix_nano).or_else(|| time::iso(header))?;
    after_time(header, (unix_nano, length), priority)
}

/// A priority and content alone, as many devices send it: RFC 3164 says (4.3.2) that what has no valid header has its
/// priority all the same. What says that it is RFC 5424 is not taken for it.
pub(super) fn priority_alone(line: &[u8]) -> Option<Parsed<'_>> {
    let (priority, content) = priority(line)?;
    let priority = Some(priority?).filter(|_| !content.starts_with(b"1 "))?;
    let mut cursor = Cursor::new(content);
    let (process, pid) = tag(&mut cursor).unwrap_or_default();
    Some(Parsed {
        level: severity(Some(priority)),
        message: Some(Text::Plain(cursor.rest())),
        process: process.map(Text::Plain),
        pid,
        detail: Detail::Syslog(Syslog { priority: Some(priority), process_id: None, message_id: None, data: None }),
        ..Parsed::new(Format::Syslog3164)
    })
}

/// RFC 3164 by what it looks like: not every line that begins with a month and a time is syslog, but one that goes on
/// with a host and something is.
pub(super) fn auto_3164(line: &[u8], observed_unix_nano: i64) -> Option<Parsed<'_>> {
    let scanned = time::month_first(line, observed_unix_nano)?;
    let parsed = after_time(line, scanned, None)?;
    let host = parsed.host?.raw();
    (Level::from_word(host.trim_ascii_end()).is_none() && !host.starts_with(b"[")).then_some(parsed)
}

/// RFC 3164 with an ISO time and no priority, by what it looks like: only with a tag that has a process id, or the
/// kernel's, since many programs begin their lines with an ISO time.
pub(super) fn iso_3164(line: &[u8]) -> Option<Parsed<'_>> {
    let scanned = time::iso(line).filter(|_| line.get(10) == Some(&b'T'))?;
    let parsed = after_time(line, scanned, None)?;
    let kernel = parsed.process == Some(Text::Plain(b"kernel"));
    (parsed.host.is_some() && (parsed.pid.is_some() || kernel)).then_some(parsed)
}

/// `<PRI>`, which may be missing: 0 to 191.
fn priority(line: &[u8]) -> Option<(Option<u8>, &[u8])> {
    let mut cursor = Cursor::new(line);
    if !cursor.eat(b'<') {
        return Some((None, line));
    }
    let value = decimal(cursor.digits(3)?).and_then(|value| u8::try_from(value).ok()).filter(|value| *value <= 191)?;
    cursor.eat(b'>').then(|| (Some(value), cursor.rest()))
}

fn severity(priority: Option<u8>) -> Option<Level> {
    priority.map(|priority| Level::from_severity(priority & 7))
}

fn after_time(header: &[u8], (unix_nano, length): time::Scanned, priority: Option<u8>) -> Option<Parsed<'_>> {
    let mut cursor = Cursor::new(header);
    cursor.skip(length);
    // Cisco puts a colon behind the time.
    cursor.eat(b':');
    if !cursor.eat(b' ') {
        return None;
    }
    let host = host(&mut cursor);
    if host.is_none() && priority.is_none() {
        return None;
    }
    cursor.blanks();
    let (process, pid) = tag(&mut cursor).unwrap_or_default();
    Some(Parsed {
        time: Some(EventTime { unix_nano, raw: &header[..length] }),
        level: severity(priority),
        message: Some(Text::Plain(cursor.rest())),
        host: host.map(Text::Plain),
        process: process.map(Text::Plain),
        pid,
        detail: Detail::Syslog(Syslog { priority, process_id: None, message_id: None, data: None }),
        ..Parsed::new(Format::Syslog3164)
    })
}

/// The host, unless the next word already is a tag.
fn host<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let mut ahead = *cursor;
    let host = ahead.token().filter(|host| !host.ends_with(b":") && !host.ends_with(b"]:"))?;
    *cursor = ahead;
    Some(host)
}

/// `name[pid]: ` or `name: `.
fn tag<'a>(cursor: &mut Cursor<'a>) -> Option<(Option<&'a [u8]>, Option<u32>)> {
    /// Longest name taken for one; RFC 3164 says 32, containers and units go beyond.
    const NAME_MAX: usize = 128;
    let rest = cursor.rest();
    let end = rest.iter().take(NAME_MAX).position(|byte| matches!(byte, b' ' | b'\t' | b':' | b'['))?;
    if end == 0 {
        return None;
    }
    let mut ahead = *cursor;
    ahead.skip(end);
    let mut pid = None;
    if ahead.eat(b'[') {
        pid = Some(decimal(ahead.digits(10)?).and_then(|pid| u32::try_from(pid).ok())?);
        if !ahead.eat(b']') {
            return None;
        }
    }
    if !ahead.eat(b':') || !(ahead.is_empty() || ahead.eat(b' ')) {
        return None;
    }
    *cursor = ahead;
    Some((Some(&rest[..end]), pid))
}

/// RFC 5424, whole.
pub(super) fn rfc5424(line: &[u8]) -> Option<Parsed<'_>> {
    let (priority, header) = priority(line)?;
    priority?;
    let mut cursor = Cursor::new(header);
    if !cursor.literal(b"1 ") {
        return None;
    }
    let raw = cursor.token()?;
    let time = match raw {
        b"-" => None,
        _ => {
            let (unix_nano, _) = time::iso(raw).filter(|(_, end)| *end == raw.len() && raw[10] == b'T')?;
            Some(EventTime { unix_nano, raw })
        }
    };
    let host = present(cursor.token()?);
    let process = present(cursor.token()?);
    let process_id = present(cursor.token()?);
    let message_id = present(cursor.token()?);
    let pid = process_id.and_then(decimal).and_then(|pid| u32::try_from(pid).ok());
    let data = structured_data(&mut cursor)?;
    if !cursor.is_empty() && !cursor.eat(b' ') {
        return None;
    }
    cursor.literal(super::BYTE_ORDER_MARK);
    Some(Parsed {
        time,
        level: severity(priority),
        message: Some(Text::Plain(cursor.rest())),
        host: host.map(Text::Plain),
        process: process.map(Text::Plain),
        pid,
        detail: Detail::Syslog(Syslog { priority, process_id: process_id.filter(|_| pid.is_none()), message_id, data }),
        ..Parsed::new(Format::Syslog5424)
    })
}

fn present(value: &[u8]) -> Option<&[u8]> {
    (value != b"-").then_some(value)
}

/// Passes `-` or one or more elements; the latter are given back.
fn structured_data<'a>(cursor: &mut Cursor<'a>) -> Option<Option<&'a [u8]>> {
    if cursor.eat(b'-') {
        return Some(None);
    }
    let start = cursor.rest();
    let mut params = Params { cursor: *cursor, inside: false };
    while params.next_element().is_some() {
        while params.next_param().is_some() {}
        if params.inside {
            return None;
        }
    }
    let length = start.len() - params.cursor.rest().len();
    *cursor = params.cursor;
    (length > 0).then(|| Some(&start[..length]))
}

/// Walks through structured data: `[id name="value" ...][id ...]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Params<'a> {
    cursor: Cursor<'a>,
    inside: bool,
}

impl<'a> Params<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(data), inside: false }
    }

    /// Enters the next element and gives its id.
    pub(crate) fn next_element(&mut self) -> Option<&'a [u8]> {
        if self.inside || !self.cursor.eat(b'[') {
            return None;
        }
        self.inside = true;
        self.name(|byte| matches!(byte, b' ' | b']'))
    }

    /// The next name and value (with its backslash escapes) of the element; None at its end, which is passed.
    pub(crate) fn next_param(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let mut ahead = self.cursor;
        ahead.blanks();
        if ahead.eat(b']') {
            self.cursor = ahead;
            self.inside = false;
            return None;
        }
        if self.cursor.peek() != Some(b' ') {
            return None;
        }
        self.cursor = ahead;
        let name = self.name(|byte| matches!(byte, b'=' | b' '))?;
        if !self.cursor.eat(b'=') {
            return None;
        }
        Some((name, self.cursor.quoted()?))
    }

    fn name(&mut self, is_end: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let rest = self.cursor.rest();
        let end = rest.iter().position(|byte| is_end(*byte) || !byte.is_ascii_graphic() || *byte == b'"')?;
        self.cursor.skip(end);
        (end > 0).then(|| &rest[..end])
    }
}
