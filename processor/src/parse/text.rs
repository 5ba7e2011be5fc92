//! Plain text, with a time and a level where the line has them.
//!
//! Every line is taken. At the start of a line a time is looked for in the notations of [`time`], perhaps in brackets,
//! behind one word (`nova-api.log 2017-05-16 00:00:00.008 25746 INFO …`), or behind a level. After the time a level is
//! looked for, past thread, process id, logger and separators as log4j, logback, Python, Spring, glog and the like set
//! them; without a level nothing between the time and the end is interpreted. What is left is the message:
//!
//! `2015-10-18 18:01:47,978 INFO [main] org.apache.MRAppMaster: Created` → thread `main`, logger `org.apache.MRAppMaster`,
//! message `Created`.

use super::cursor::{Cursor, decimal};
use super::{Detail, EventTime, Format, Level, Parsed, Text, time};

/// Most words between a time and its level.
const WORDS_MAX: usize = 6;
/// Longest word in front of a time, or name of a logger, in bytes.
const NAME_MAX: usize = 128;

pub(super) fn parse(line: &[u8], observed_unix_nano: i64) -> Parsed<'_> {
    timed(line, observed_unix_nano)
        .or_else(|| bracketed_head(line, observed_unix_nano))
        .or_else(|| glog(line, observed_unix_nano))
        .or_else(|| level_first(line, observed_unix_nano))
        .or_else(|| prefixed(line))
        .unwrap_or_else(|| Parsed::new(Format::Text))
}

/// A time in any notation, with its end at the end of a word.
fn time_at(text: &[u8], observed_unix_nano: i64) -> Option<time::Scanned> {
    let scanned = match text.first()? {
        b'0'..=b'9' => time::iso(text)
            .or_else(|| time::short_year(text))
            .or_else(|| time::compact(text))
            .or_else(|| time::clf(text))
            .or_else(|| time::epoch_fraction(text)),
        b'A'..=b'Z' => time::asctime(text).or_else(|| time::month_first(text, observed_unix_nano)),
        _ => None,
    };
    scanned.filter(|(_, end)| matches!(text.get(*end), None | Some(b' ' | b'\t' | b']' | b'|' | b':' | b',')))
}

fn with_time<'a>(text: &'a [u8], (unix_nano, end): time::Scanned) -> (Parsed<'a>, Cursor<'a>) {
    let time = Some(EventTime { unix_nano, raw: &text[..end] });
    let mut cursor = Cursor::new(text);
    cursor.skip(end);
    (Parsed { time, ..Parsed::new(Format::Text) }, cursor)
}

/// `time …` and `[time] …`.
fn timed(line: &[u8], observed_unix_nano: i64) -> Option<Parsed<'_>> {
    let text = line.strip_prefix(b"[").unwrap_or(line);
    let (parsed, mut cursor) = with_time(text, time_at(text, observed_unix_nano)?);
    if text.len() < line.len() && !cursor.eat(b']') {
        return None;
    }
    if let Some(parsed) = levelled(parsed, cursor) {
        return Some(parsed);
    }
    separators(&mut cursor);
    Some(Parsed { message: Some(Text::Plain(cursor.rest())), ..parsed })
}

/// `[time LEVEL logger] message`, as Rust's env_logger writes it.
fn bracketed_head(line: &[u8], observed_unix_nano: i64) -> Option<Parsed<'_>> {
    let text = line.strip_prefix(b"[")?;
    let (parsed, mut cursor) = with_time(text, time_at(text, observed_unix_nano)?);
    cursor.blanks();
    let level = bare_level(&mut cursor)?;
    let name = cursor.until(b']')?.trim_ascii();
    let logger = Some(Text::Plain(name)).filter(|_| !name.is_empty());
    cursor.blanks();
    Some(Parsed { level: Some(level), logger, message: Some(Text::Plain(cursor.rest())), ..parsed })
}

/// `I0102 15:04:05.000000 12345 file.go:12] message`.
fn glog(line: &[u8], observed_unix_nano: i64) -> Option<Parsed<'_>> {
    let level = Level::from_letter(*line.first()?)?;
    let (parsed, mut cursor) = with_time(line, time::glog(line, observed_unix_nano)?);
    cursor.blanks();
    let pid = pid(cursor.digits(10)?);
    if !cursor.eat(b' ') {
        return None;
    }
    let place = cursor.until(b']').filter(|place| place.len() <= NAME_MAX && !place.contains(&b' '))?;
    cursor.blanks();
    let message = Some(Text::Plain(cursor.rest()));
    Some(Parsed { level: Some(level), pid, logger: Some(Text::Plain(place)), message, ..parsed })
}

/// `LEVEL time message` and `[level] time message`; without a time the whole line stays the message.
fn level_first(line: &[u8], observed_unix_nano: i64) -> Option<Parsed<'_>> {
    let mut cursor = Cursor::new(line);
    let level = bracketed_level(&mut cursor).or_else(|| bare_level(&mut cursor))?;
    separators(&mut cursor);
    let text = cursor.rest();
    let bracketed = text.strip_prefix(b"[").unwrap_or(text);
    let Some(scanned) = time_at(bracketed, observed_unix_nano) else {
        return Some(Parsed { level: Some(level), ..Parsed::new(Format::Text) });
    };
    let (parsed, mut cursor) = with_time(bracketed, scanned);
    if bracketed.len() < text.len() && !cursor.eat(b']') {
        return Some(Parsed { level: Some(level), ..Parsed::new(Format::Text) });
    }
    Some(after_level(Parsed { level: Some(level), ..parsed }, cursor))
}

/// `word time … LEVEL …`: only with a level, since prose may name a time too.
fn prefixed(line: &[u8]) -> Option<Parsed<'_>> {
    let mut cursor = Cursor::new(line);
    let prefix = cursor.token().filter(|prefix| prefix.len() <= NAME_MAX)?;
    let text = cursor.rest();
    let (parsed, cursor) = with_time(text, time::iso(text)?);
    let mut parsed = levelled(parsed, cursor)?;
    let request = match parsed.detail {
        Detail::Text { request, .. } => request,
        Detail::None | Detail::Access(_) | Detail::Syslog(_) | Detail::Members { .. } => None,
    };
    parsed.detail = Detail::Text { prefix: Some(prefix), request };
    Some(parsed)
}

/// Looks for the level after a time; None without one.
fn levelled<'a>(mut parsed: Parsed<'a>, mut cursor: Cursor<'a>) -> Option<Parsed<'a>> {
    for _ in 0..WORDS_MAX {
        separators(&mut cursor);
        if let Some(level) = bracketed_level(&mut cursor).or_else(|| bare_level(&mut cursor)) {
            return Some(after_level(Parsed { level: Some(level), ..parsed }, cursor));
        }
        head_word(&mut parsed, &mut cursor)?;
    }
    None
}

/// A thread or process id in brackets, a process id, or a logger before a dash.
fn head_word<'a>(parsed: &mut Parsed<'a>, cursor: &mut Cursor<'a>) -> Option<()> {
    if let Some(inside) = cursor.bracketed() {
        match pid(inside) {
            Some(number) => parsed.pid = Some(number),
            None => parsed.thread = Some(Text::Plain(inside)).filter(|_| inside.len() <= NAME_MAX),
        }
    } else if let Some(digits) = cursor.digits(10) {
        parsed.pid = pid(digits);
    } else {
        let name = cursor.token().filter(|name| name.len() <= NAME_MAX && is_name(name))?;
        parsed.logger = Some(Text::Plain(name));
        return cursor.literal(b"- ").then_some(());
    }
    (cursor.is_empty() || matches!(cursor.peek(), Some(b' ' | b'\t' | b':' | b'|' | b'['))).then_some(())
}

/// What stands between the level and the message.
fn after_level<'a>(mut parsed: Parsed<'a>, mut cursor: Cursor<'a>) -> Parsed<'a> {
    separators(&mut cursor);
    spring(&mut parsed, &mut cursor);
    let mut ahead = cursor;
    if let Some(inside) = ahead.bracketed() {
        // In brackets stands a thread if a logger or a separator follows; otherwise it belongs to the message.
        let follows = ahead.literal(b" - ") || (ahead.literal(b" ") && logger(&mut parsed, &mut ahead));
        if follows && parsed.thread.is_none() && inside.len() <= NAME_MAX {
            parsed.thread = Some(Text::Plain(inside));
        }
        if follows {
            cursor = ahead;
        }
    } else {
        logger(&mut parsed, &mut cursor);
    }
    request(&mut parsed, &mut cursor);
    cursor.blanks();
    parsed.message = Some(Text::Plain(cursor.rest()));
    parsed
}

/// `1234 --- [           main] `, Spring Boot's: process and thread.
fn spring<'a>(parsed: &mut Parsed<'a>, cursor: &mut Cursor<'a>) {
    let mut ahead = *cursor;
    let Some(digits) = ahead.digits(10).filter(|_| ahead.literal(b" --- ")) else {
        return;
    };
    let Some(inside) = ahead.bracketed() else {
        return;
    };
    ahead.blanks();
    parsed.pid = pid(digits);
    parsed.thread = Some(Text::Plain(inside.trim_ascii()));
    *cursor = ahead;
}

/// `org.apache.Class: `, `org.apache.Class - `, `o.a.Class  : ` and `nova.compute.manager [`: a name with a point, a `$`
/// or `::` in it. Tells whether there was one.
fn logger<'a>(parsed: &mut Parsed<'a>, cursor: &mut Cursor<'a>) -> bool {
    let rest = cursor.rest();
    let end =
        rest.iter().take(NAME_MAX).position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(rest.len().min(NAME_MAX));
    let word = &rest[..end];
    let (name, colon) = match word.strip_suffix(b":") {
        Some(name) => (name, true),
        None => (word, false),
    };
    let qualified = name.iter().any(|byte| matches!(byte, b'.' | b'$')) || name.windows(2).any(|pair| pair == b"::");
    if !qualified || !is_name(name) {
        return false;
    }
    let mut ahead = *cursor;
    ahead.skip(end);
    let blank = ahead.peek().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    ahead.blanks();
    let found = blank && (colon || ahead.literal(b"- ") || ahead.literal(b": ") || ahead.peek() == Some(b'['));
    if found {
        parsed.logger = Some(Text::Plain(name));
        *cursor = ahead;
    }
    found
}

/// `[req-… … - - -]` and `[-]`, OpenStack's: the id of the request.
fn request<'a>(parsed: &mut Parsed<'a>, cursor: &mut Cursor<'a>) {
    let mut ahead = *cursor;
    ahead.blanks();
    let Some(inside) = ahead.bracketed() else {
        return;
    };
    let id = inside.split(|byte| *byte == b' ').next().filter(|id| id.starts_with(b"req-"));
    if id.is_some() {
        parsed.detail = Detail::Text { prefix: None, request: id };
    }
    if id.is_some() || inside == b"-" {
        *cursor = ahead;
    }
}

/// A level by itself: in capitals, or in any case before a colon or a tab.
fn bare_level(cursor: &mut Cursor<'_>) -> Option<Level> {
    let rest = cursor.rest();
    let end = rest.iter().take(14).take_while(|byte| byte.is_ascii_alphabetic()).count();
    let (word, after) = (&rest[..end], rest.get(end));
    let level = Level::from_word(word)?;
    let capitals =
        word.iter().all(u8::is_ascii_uppercase) && !matches!(word, b"NOTE" | b"FINE" | b"ALERT" | b"VERBOSE");
    let ends = match after {
        Some(b':' | b'\t') => true,
        None | Some(b' ' | b'|' | b']') => capitals,
        Some(_) => false,
    };
    if !ends {
        return None;
    }
    cursor.skip(end);
    cursor.eat(b':');
    Some(level)
}

/// A level in brackets of either kind, in any case.
fn bracketed_level(cursor: &mut Cursor<'_>) -> Option<Level> {
    let close = match cursor.peek()? {
        b'[' => b']',
        b'<' => b'>',
        _ => return None,
    };
    let inside = cursor.rest().iter().take(16).position(|byte| *byte == close)?;
    let level = Level::from_word(cursor.rest()[1..inside].trim_ascii())?;
    cursor.skip(inside + 1);
    Some(level)
}

/// Passes blanks, dashes, bars and a colon between the parts of a line's head.
fn separators(cursor: &mut Cursor<'_>) {
    cursor.blanks();
    while cursor.literal(b"- ") || cursor.literal(b"| ") || cursor.literal(b": ") || cursor.literal(b"--- ") {
        cursor.blanks();
    }
}

fn is_name(name: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.$:/@<>-".contains(byte);
    name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_') && name.iter().all(allowed)
}

fn pid(digits: &[u8]) -> Option<u32> {
    decimal(digits).and_then(|pid| u32::try_from(pid).ok())
}
