//! The members of a document that only some formats have.

use std::net::IpAddr;

use super::fields::{Changes, Fields, Key};
use super::writer::{member, unsigned};
use crate::parse::{Access, Detail, Params, Parsed, Scratch, Syslog, Text};

/// `,"level":…`, `,"logger":…` and `,"syslog":{…}`, inside `log`.
pub(super) fn log(out: &mut Vec<u8>, parsed: &Parsed<'_>) {
    if let Some(level) = parsed.level {
        member(out, b",\"level\":\"", Text::Plain(level.name().as_bytes()));
    }
    if let Some(logger) = parsed.logger {
        member(out, b",\"logger\":\"", logger);
    }
    if let Detail::Syslog(syslog) = parsed.detail {
        syslog_header(out, syslog);
    }
}

fn syslog_header(out: &mut Vec<u8>, syslog: Syslog<'_>) {
    let start = out.len();
    if let Some(priority) = syslog.priority {
        for (name, number) in [
            (&b",\"priority\":"[..], priority),
            (b",\"facility\":{\"code\":", priority >> 3),
            (b"},\"severity\":{\"code\":", priority & 7),
        ] {
            out.extend_from_slice(name);
            unsigned(out, number.into());
        }
        out.push(b'}');
    }
    if let Some(id) = syslog.message_id {
        member(out, b",\"msgid\":\"", Text::Plain(id));
    }
    if let Some(id) = syslog.process_id {
        member(out, b",\"procid\":\"", Text::Plain(id));
    }
    if out.len() > start {
        // The first comma turns into the object's beginning.
        out.splice(start..=start, *b",\"syslog\":{");
        out.push(b'}');
    }
}

/// `,"process":{…}`
pub(super) fn process(out: &mut Vec<u8>, parsed: &Parsed<'_>) {
    let mut separator: &[u8] = b",\"process\":{";
    if let Some(name) = parsed.process {
        out.extend_from_slice(separator);
        member(out, b"\"name\":\"", name);
        separator = b",";
    }
    if let Some(pid) = parsed.pid {
        out.extend_from_slice(separator);
        out.extend_from_slice(b"\"pid\":");
        unsigned(out, pid.into());
        separator = b",";
    }
    if let Some(thread) = parsed.thread {
        out.extend_from_slice(separator);
        member(out, b"\"thread\":{\"name\":\"", thread);
        out.push(b'}');
        separator = b",";
    }
    if separator == b"," {
        out.push(b'}');
    }
}

/// `,"source":…`, `,"user":…`, `,"http":…`, `,"url":…`, `,"user_agent":…`
pub(super) fn access(out: &mut Vec<u8>, access: &Access<'_>) {
    member(out, b",\"source\":{\"address\":\"", Text::Plain(access.client));
    if is_address(access.client) {
        member(out, b",\"ip\":\"", Text::Plain(access.client));
    }
    if let Some(user) = access.user {
        member(out, b"},\"user\":{\"name\":\"", Text::Plain(user));
    }
    out.extend_from_slice(b"},\"http\":{\"response\":{\"status_code\":");
    unsigned(out, access.status.into());
    if let Some(bytes) = access.bytes {
        out.extend_from_slice(b",\"body\":{\"bytes\":");
        unsigned(out, bytes);
        out.push(b'}');
    }
    out.push(b'}');
    match (access.request, access.referrer) {
        (Some(request), referrer) => {
            member(out, b",\"request\":{\"method\":\"", Text::Plain(request.method));
            if let Some(referrer) = referrer {
                member(out, b",\"referrer\":\"", Text::Plain(referrer));
            }
            member(out, b"},\"version\":\"", Text::Plain(request.version));
        }
        (None, Some(referrer)) => {
            member(out, b",\"request\":{\"referrer\":\"", Text::Plain(referrer));
            out.push(b'}');
        }
        (None, None) => {}
    }
    out.push(b'}');
    if let Some(request) = access.request {
        url(out, request.target);
    }
    if let Some(agent) = access.agent {
        member(out, b",\"user_agent\":{\"original\":\"", Text::Plain(agent));
        out.push(b'}');
    }
}

fn url(out: &mut Vec<u8>, target: &[u8]) {
    member(out, b",\"url\":{\"original\":\"", Text::Plain(target));
    // An absolute target (a proxy's) has its path behind the authority; that is left to the reader.
    if target.first() == Some(&b'/') {
        let question = memchr::memchr(b'?', target);
        member(out, b",\"path\":\"", Text::Plain(&target[..question.unwrap_or(target.len())]));
        if let Some(at) = question {
            member(out, b",\"query\":\"", Text::Plain(&target[at + 1..]));
        }
    }
    out.push(b'}');
}

fn is_address(client: &[u8]) -> bool {
    /// Longest textual IPv6 address.
    const LENGTH_MAX: usize = 45;
    let likely = client.len() <= LENGTH_MAX && client.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':'));
    likely && std::str::from_utf8(client).is_ok_and(|client| client.parse::<IpAddr>().is_ok())
}

/// `,"error":{…}`, `,"trace":{…}`, `,"span":{…}`
pub(super) fn error_and_trace(out: &mut Vec<u8>, parsed: &Parsed<'_>) {
    match (parsed.error, parsed.stack) {
        (Some(error), stack) => {
            member(out, b",\"error\":{\"message\":\"", error);
            if let Some(stack) = stack {
                member(out, b",\"stack_trace\":\"", stack);
            }
            out.push(b'}');
        }
        (None, Some(stack)) => {
            member(out, b",\"error\":{\"stack_trace\":\"", stack);
            out.push(b'}');
        }
        (None, None) => {}
    }
    for (prefix, id) in [(&b",\"trace\":{\"id\":\""[..], parsed.trace), (b",\"span\":{\"id\":\"", parsed.span)] {
        if let Some(id) = id {
            member(out, prefix, id);
            out.push(b'}');
        }
    }
}

/// What goes among the free-form fields beside what a format has none for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extra<'a> {
    /// The event's time as the line has it, when it was not believed.
    pub(super) time: Option<&'a [u8]>,
    /// The line's own service, when the stream's stands in `service.name`.
    pub(super) service: Option<Text<'a>>,
}

/// `,"fields":{…}`
pub(super) fn fields(
    out: &mut Vec<u8>,
    keys: &mut Vec<Key>,
    parsed: &Parsed<'_>,
    scratch: &Scratch,
    extra: Extra<'_>,
) -> Changes {
    let mut fields = Fields::new(out, keys);
    let mut text = |name: &[u8], value: Option<Text<'_>>| {
        if let Some(value) = value {
            fields.text(name, value);
        }
    };
    text(b"time_raw", extra.time.map(Text::Plain));
    text(b"service", extra.service);
    text(b"stream", parsed.cri.map(|cri| Text::Plain(cri.stream)));
    match parsed.detail {
        Detail::None => {}
        Detail::Access(access) => text(b"rest", access.rest.map(Text::Plain)),
        Detail::Text { prefix, request } => {
            text(b"prefix", prefix.map(Text::Plain));
            text(b"request_id", request.map(Text::Plain));
        }
        Detail::Syslog(syslog) => {
            if let Some(data) = syslog.data {
                structured_data(&mut fields, data);
            }
        }
        Detail::Members { base } => {
            for member in scratch.members.iter().filter(|member| !member.taken) {
                fields.member(member.key(base), member.value(base));
            }
            if scratch.overflow {
                fields.truncated();
            }
        }
    }
    fields.close()
}

fn structured_data(fields: &mut Fields<'_>, data: &[u8]) {
    let mut params = Params::new(data);
    while let Some(id) = params.next_element() {
        fields.object(id, |fields| {
            while let Some((name, value)) = params.next_param() {
                fields.text(name, Text::Backslashed(value));
            }
        });
        // An element that was left out is passed all the same.
        while params.next_param().is_some() {}
    }
}
