//! Access logs of Apache and nginx: Common Log Format, Combined Log Format, and lines that go on after them.
//!
//! `host ident user [17/May/2015:10:05:03 +0000] "request" status bytes`, then for combined `"referrer" "user agent"`.
//! Everything up to the bytes must be there and well-formed. What follows and is no quoted pair is kept as it is.

use super::cursor::{Cursor, decimal};
use super::{Detail, EventTime, Format, Parsed, time};

/// What an access log says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access<'a> {
    /// Address or name of the client.
    pub(crate) client: &'a [u8],
    /// Name that the client authenticated with.
    pub(crate) user: Option<&'a [u8]>,
    /// Method, target and HTTP version, where the request line is well-formed.
    pub(crate) request: Option<Request<'a>>,
    pub(crate) status: u16,
    /// Bytes of the response's body.
    pub(crate) bytes: Option<u64>,
    pub(crate) referrer: Option<&'a [u8]>,
    pub(crate) agent: Option<&'a [u8]>,
    /// What follows the known part, without leading blanks.
    pub(crate) rest: Option<&'a [u8]>,
}

/// The request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) target: &'a [u8],
    /// `1.1`
    pub(crate) version: &'a [u8],
}

pub(super) fn parse(line: &[u8]) -> Option<Parsed<'_>> {
    let mut cursor = Cursor::new(line);
    let client = cursor.token()?;
    let _ident = cursor.token()?;
    let user = user(&mut cursor)?;
    let (unix_nano, length) = time::clf(cursor.rest())?;
    let raw = &cursor.rest()[..length];
    cursor.skip(length);
    if !cursor.literal(b"] ") {
        return None;
    }
    let request = request(cursor.quoted()?);
    if !cursor.eat(b' ') {
        return None;
    }
    let status = decimal(cursor.digits(3)?).and_then(|status| u16::try_from(status).ok()).filter(|status| *status >= 100)?;
    if !cursor.eat(b' ') {
        return None;
    }
    let bytes = if cursor.eat(b'-') { None } else { Some(decimal(cursor.digits(18)?)?) };
    if !cursor.is_empty() && !cursor.eat(b' ') {
        return None;
    }
    let (referrer, agent, format) = match agents(&mut cursor) {
        Some((referrer, agent)) => (present(referrer), present(agent), Format::Combined),
        None => (None, None, Format::Common),
    };
    let rest = Some(cursor.rest().trim_ascii()).filter(|rest| !rest.is_empty());
    let access = Access { client, user, request, status, bytes, referrer, agent, rest };
    Some(Parsed { time: Some(EventTime { unix_nano, raw }), detail: Detail::Access(access), ..Parsed::new(format) })
}

/// Passes the user and ` [`. A name may hold spaces, and nearly always is `-`.
fn user<'a>(cursor: &mut Cursor<'a>) -> Option<Option<&'a [u8]>> {
    if cursor.literal(b"- [") {
        return Some(None);
    }
    let name = cursor.until(b'[')?.strip_suffix(b" ").filter(|name| !name.is_empty())?;
    Some(present(name))
}

fn request(line: &[u8]) -> Option<Request<'_>> {
    let mut cursor = Cursor::new(line);
    let method = cursor.token().filter(|method| method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-'))?;
    let target = cursor.rest();
    let space = memchr::memrchr(b' ', target)?;
    let version = target[space + 1..].strip_prefix(b"HTTP/").filter(|version| version.len() <= 3)?;
    Some(Request { method, target: &target[..space], version })
}

/// Referrer and user agent, both with their closing quotes.
fn agents<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let mut ahead = *cursor;
    let referrer = ahead.quoted()?;
    if !ahead.eat(b' ') {
        return None;
    }
    let agent = ahead.quoted()?;
    *cursor = ahead;
    Some((referrer, agent))
}

fn present(value: &[u8]) -> Option<&[u8]> {
    (value != b"-" && !value.is_empty()).then_some(value)
}
