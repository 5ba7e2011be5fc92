//! Error logs of Apache and nginx.
//!
//! Apache 2.2: `[Sun Dec 04 04:47:44 2005] [error] [client 1.2.3.4] message`; 2.4 adds microseconds, names a module
//! before the level (`[core:error]`) and a process (`[pid 35708:tid 4328636416]`).
//! nginx: `2015/05/17 10:05:03 [error] 123#0: *1 message`.

use super::cursor::{Cursor, decimal};
use super::{EventTime, Format, Level, Parsed, Text, time};

pub(super) fn apache(line: &[u8]) -> Option<Parsed<'_>> {
    let mut cursor = Cursor::new(line);
    let raw = cursor.bracketed()?;
    let (unix_nano, _) = time::asctime(raw).filter(|(_, end)| *end == raw.len())?;
    if !cursor.eat(b' ') {
        return None;
    }
    let name = cursor.bracketed()?;
    let (module, word) = match memchr::memchr(b':', name) {
        Some(colon) => (Some(Text::Plain(&name[..colon])).filter(|_| colon > 0), &name[colon + 1..]),
        None => (None, name),
    };
    let level = apache_level(word)?;
    cursor.blanks();
    let pid = process(&mut cursor);
    let time = Some(EventTime { unix_nano, raw });
    let message = Some(Text::Plain(cursor.rest()));
    Some(Parsed { time, level: Some(level), message, logger: module, pid, ..Parsed::new(Format::ApacheError) })
}

/// Apache's own levels: the usual words, and trace1 to trace8.
fn apache_level(word: &[u8]) -> Option<Level> {
    match word {
        [b't', b'r', b'a', b'c', b'e', b'1'..=b'8'] => Some(Level::Trace),
        _ => Level::from_word(word),
    }
}

fn process(cursor: &mut Cursor<'_>) -> Option<u32> {
    let mut ahead = *cursor;
    let mut inside = Cursor::new(ahead.bracketed()?);
    if !inside.literal(b"pid ") {
        return None;
    }
    let pid = decimal(inside.digits(10)?).and_then(|pid| u32::try_from(pid).ok())?;
    if !(inside.is_empty() || inside.peek() == Some(b':')) {
        return None;
    }
    ahead.blanks();
    *cursor = ahead;
    Some(pid)
}

pub(super) fn nginx(line: &[u8]) -> Option<Parsed<'_>> {
    let (unix_nano, length) = time::iso(line).filter(|_| line.get(4) == Some(&b'/'))?;
    let mut cursor = Cursor::new(line);
    cursor.skip(length);
    if !cursor.eat(b' ') {
        return None;
    }
    let level = Level::from_word(cursor.bracketed()?)?;
    if !cursor.eat(b' ') {
        return None;
    }
    let pid = decimal(cursor.digits(10)?).and_then(|pid| u32::try_from(pid).ok())?;
    if !cursor.eat(b'#') {
        return None;
    }
    cursor.digits(18)?;
    if !cursor.literal(b": ") {
        return None;
    }
    let time = Some(EventTime { unix_nano, raw: &line[..length] });
    let message = Some(Text::Plain(cursor.rest()));
    Some(Parsed { time, level: Some(level), message, pid: Some(pid), ..Parsed::new(Format::NginxError) })
}
