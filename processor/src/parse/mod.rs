//! Parsing: what one line says, as slices of that line.
//!
//! Owns the formats known by name and `auto`, which finds out. Does not own what becomes of the result: documents are
//! written elsewhere. Invariants:
//!
//! * A parse is a pure function of the line, the format and the time at which the line was read. `auto` too looks at
//!   nothing else, in particular at no line before: so a replay of any part of a stream gives the same documents.
//! * A parser accepts strictly or not at all. What none accepts is plain text, and no line is ever lost to a parser.
//! * Time is linear in the line's length, and nothing is allocated; the members of JSON and logfmt go to a scratch list
//!   that is kept from line to line and bounded by [`MEMBERS_MAX`].
//! * Slices are cut at ASCII bytes only: of a line that is UTF-8, every slice is UTF-8.

mod access;
mod cri;
mod cursor;
mod error_log;
pub(crate) mod json;
mod keys;
mod level;
mod logfmt;
mod syslog;
mod text;
pub(crate) mod time;

#[cfg(test)]
mod tests;

pub use level::Level;

pub(crate) use access::Access;
pub(crate) use keys::{Kind, Value};
pub(crate) use syslog::{Params, Syslog};

/// Most members of one JSON object or logfmt line that are looked at; the rest is left out of the document's fields.
pub(crate) const MEMBERS_MAX: usize = 1024;

/// U+FEFF in UTF-8.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// Find out, line by line.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// `key=value key="value"`.
    Logfmt,
    /// RFC 3164 or RFC 5424, told apart line by line.
    Syslog,
    /// `[<PRI>]Jun 14 15:16:01 host tag[pid]: message` (RFC 3164), with an ISO time too.
    Syslog3164,
    /// `<PRI>1 time host app procid msgid [data] message` (RFC 5424).
    Syslog5424,
    /// Common Log Format of Apache and nginx; lines with referrer and user agent are taken too.
    Common,
    /// Combined Log Format of Apache and nginx; lines without referrer and user agent are taken too.
    Combined,
    /// `[Sun Dec 04 04:47:44 2005] [error] message`, Apache 2.2 and 2.4.
    ApacheError,
    /// `2015/05/17 10:05:03 [error] 123#0: *1 message`.
    NginxError,
    /// `time stdout F message`, what container runtimes write; the message is parsed as by [`Format::Auto`].
    Cri,
    /// Plain text, with a time and a level where the line has them.
    Text,
}

impl Format {
    /// Every format with the name by which settings and `event.dataset` know it.
    pub const NAMES: [(&'static str, Self); 12] = [
        ("auto", Self::Auto),
        ("json", Self::Json),
        ("logfmt", Self::Logfmt),
        ("syslog", Self::Syslog),
        ("syslog3164", Self::Syslog3164),
        ("syslog5424", Self::Syslog5424),
        ("common", Self::Common),
        ("combined", Self::Combined),
        ("apache_error", Self::ApacheError),
        ("nginx_error", Self::NginxError),
        ("cri", Self::Cri),
        ("text", Self::Text),
    ];

    /// The format of that name; None for a name that is not known.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Json => "json",
            Self::Logfmt => "logfmt",
            Self::Syslog => "syslog",
            Self::Syslog3164 => "syslog3164",
            Self::Syslog5424 => "syslog5424",
            Self::Common => "common",
            Self::Combined => "combined",
            Self::ApacheError => "apache_error",
            Self::NginxError => "nginx_error",
            Self::Cri => "cri",
            Self::Text => "text",
        }
    }
}

/// A piece of a line, and how it is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text<'a> {
    /// As it is.
    Plain(&'a [u8]),
    /// The inside of a JSON string, escapes and all, known to be valid.
    Json(&'a [u8]),
    /// The inside of a logfmt string with backslash escapes.
    Backslashed(&'a [u8]),
}

impl<'a> Text<'a> {
    /// The bytes as they stand in the line.
    pub(crate) fn raw(self) -> &'a [u8] {
        match self {
            Self::Plain(bytes) | Self::Json(bytes) | Self::Backslashed(bytes) => bytes,
        }
    }
}

/// When the event happened, by the line's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventTime<'a> {
    /// Nanoseconds since 1970-01-01 UTC, saturated.
    pub(crate) unix_nano: i64,
    /// The time as the line has it.
    pub(crate) raw: &'a [u8],
}

/// What a line says, as slices of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed<'a> {
    /// The format that was recognised; never [`Format::Auto`] or [`Format::Syslog`].
    pub(crate) format: Format,
    pub(crate) time: Option<EventTime<'a>>,
    pub(crate) level: Option<Level>,
    /// None: the whole line.
    pub(crate) message: Option<Text<'a>>,
    pub(crate) host: Option<Text<'a>>,
    pub(crate) service: Option<Text<'a>>,
    pub(crate) logger: Option<Text<'a>>,
    pub(crate) process: Option<Text<'a>>,
    pub(crate) pid: Option<u32>,
    pub(crate) thread: Option<Text<'a>>,
    pub(crate) trace: Option<Text<'a>>,
    pub(crate) span: Option<Text<'a>>,
    pub(crate) error: Option<Text<'a>>,
    pub(crate) stack: Option<Text<'a>>,
    pub(crate) cri: Option<cri::Cri<'a>>,
    pub(crate) detail: Detail<'a>,
}

/// What only one format has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Detail<'a> {
    None,
    Access(Access<'a>),
    Syslog(Syslog<'a>),
    /// Members stand in the scratch list, as places in `base`.
    Members {
        base: &'a [u8],
    },
    /// A word before the time, and a request id in brackets after the logger.
    Text {
        prefix: Option<&'a [u8]>,
        request: Option<&'a [u8]>,
    },
}

impl<'a> Parsed<'a> {
    /// A line of which nothing is known, for one that is not in the format that was asked for.
    pub(crate) fn unparsed() -> Self {
        Self::new(Format::Text)
    }

    /// Nothing known but the format.
    fn new(format: Format) -> Self {
        Self {
            format,
            time: None,
            level: None,
            message: None,
            host: None,
            service: None,
            logger: None,
            process: None,
            pid: None,
            thread: None,
            trace: None,
            span: None,
            error: None,
            stack: None,
            cri: None,
            detail: Detail::None,
        }
    }
}

/// Room that parsers use from line to line.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Members of the last JSON object or logfmt line, at most [`MEMBERS_MAX`].
    pub(crate) members: Vec<keys::Member>,
    /// The last line had more members than that.
    pub(crate) overflow: bool,
}

/// What a parser is given beside the line.
pub(crate) struct Input<'a, 's> {
    pub(crate) line: &'a [u8],
    /// When the line was read, in nanoseconds since 1970-01-01 UTC.
    pub(crate) observed_unix_nano: i64,
    pub(crate) scratch: &'s mut Scratch,
}

/// Reads a line in one format; None if it is not in that format. `Auto` and `Text` take every line. A byte order mark,
/// as some programs write it at the beginning of a file, is passed over.
pub(crate) fn parse<'a>(format: Format, input: &mut Input<'a, '_>) -> Option<Parsed<'a>> {
    input.line = input.line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(input.line);
    let (line, observed) = (input.line, input.observed_unix_nano);
    match format {
        Format::Auto => Some(auto(input)),
        Format::Json => json::parse(input),
        Format::Logfmt => logfmt::parse(input),
        Format::Syslog => {
            syslog::rfc5424(line).or_else(|| syslog::rfc3164(line, observed)).or_else(|| syslog::priority_alone(line))
        }
        Format::Syslog3164 => syslog::rfc3164(line, observed).or_else(|| syslog::priority_alone(line)),
        Format::Syslog5424 => syslog::rfc5424(line),
        Format::Common | Format::Combined => access::parse(line),
        Format::ApacheError => error_log::apache(line),
        Format::NginxError => error_log::nginx(line),
        Format::Cri => cri::parse(input),
        Format::Text => Some(text::parse(line, observed)),
    }
}

/// Recognises the format from the first bytes, and reads the line in it; plain text if none takes it.
fn auto<'a>(input: &mut Input<'a, '_>) -> Parsed<'a> {
    if let Some(parsed) = cri::parse(input) {
        return parsed;
    }
    auto_inner(input)
}

/// The same without CRI, for what stands inside a CRI line.
fn auto_inner<'a>(input: &mut Input<'a, '_>) -> Parsed<'a> {
    let (line, observed) = (input.line, input.observed_unix_nano);
    let known = match line.trim_ascii_start().first() {
        Some(b'{') => json::parse(input),
        Some(b'<') => syslog::rfc5424(line).or_else(|| syslog::rfc3164(line, observed)),
        Some(b'[') => error_log::apache(line),
        Some(b'0'..=b'9') => match line.get(4) {
            Some(b'/') => error_log::nginx(line),
            Some(b'-') => syslog::iso_3164(line),
            _ => access::parse(line),
        },
        Some(b'A'..=b'Z') => syslog::auto_3164(line, observed).or_else(|| access::parse(line)),
        Some(_) => access::parse(line),
        None => None,
    };
    known.or_else(|| logfmt::parse(input)).unwrap_or_else(|| text::parse(line, observed))
}
