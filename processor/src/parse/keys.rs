//! Keys that many programs write, recognised in JSON and logfmt alike.
//!
//! Of several keys for one thing the first in the table wins, then the first in the line. A key whose value is not what
//! the key promises (a time that is none, a level of no known name) is left where it is, among the free-form fields.

use super::json::Scan;
use super::{EventTime, Level, Parsed, Scratch, Text, cursor, time};

/// What a value is, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The inside of a JSON string.
    String,
    Number,
    /// true, false, null
    Literal,
    Object,
    Array,
    /// The inside of a logfmt string.
    Backslashed,
    /// A logfmt value without quotes.
    Bare,
}

/// A value where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a [u8],
}

impl<'a> Value<'a> {
    /// The value as text, if it is some and not empty.
    pub(crate) fn text(self) -> Option<Text<'a>> {
        if self.text.is_empty() {
            return None;
        }
        match self.kind {
            Kind::String => Some(Text::Json(self.text)),
            Kind::Backslashed => Some(Text::Backslashed(self.text)),
            Kind::Bare => Some(Text::Plain(self.text)),
            Kind::Number | Kind::Literal | Kind::Object | Kind::Array => None,
        }
    }

    fn number(self) -> Option<u64> {
        match self.kind {
            Kind::Number | Kind::Bare => cursor::decimal(self.text),
            Kind::String | Kind::Backslashed | Kind::Literal | Kind::Object | Kind::Array => None,
        }
    }

    fn level(self) -> Option<Level> {
        if let Some(number) = self.number() {
            return Level::from_number(number);
        }
        match self.text()?.raw() {
            [letter] => Level::from_letter(*letter),
            word => Level::from_word(word),
        }
    }

    fn time(self, observed_unix_nano: i64) -> Option<EventTime<'a>> {
        let unix_nano = match self.kind {
            Kind::Number => time::epoch(self.text)?,
            Kind::String | Kind::Backslashed | Kind::Bare => time::any(self.text, observed_unix_nano)?,
            Kind::Literal | Kind::Object | Kind::Array => return None,
        };
        Some(EventTime { unix_nano, raw: self.text })
    }

    /// A member of an object by its key.
    fn inner(self, key: &[u8]) -> Option<Value<'a>> {
        if self.kind != Kind::Object {
            return None;
        }
        let mut scan = Scan::new(self.text);
        scan.open()?;
        while let Some((found, value)) = scan.member()? {
            if found == key {
                return Some(value);
            }
        }
        None
    }
}

/// One key and value of a line, as places in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    key: (u32, u32),
    value: (u32, u32),
    kind: Kind,
    /// It has a place of its own in the document, and is no free-form field.
    pub(crate) taken: bool,
}

impl Member {
    /// Notes where `key` and `value`, which are slices of `base`, stand in it.
    pub(super) fn new(base: &[u8], key: &[u8], value: Value<'_>) -> Self {
        Self { key: place(base, key), value: place(base, value.text), kind: value.kind, taken: false }
    }

    pub(crate) fn key<'a>(&self, base: &'a [u8]) -> &'a [u8] {
        slice(base, self.key)
    }

    pub(crate) fn value<'a>(&self, base: &'a [u8]) -> Value<'a> {
        Value { kind: self.kind, text: slice(base, self.value) }
    }
}

/// Where a slice of `base`, whose length fits 32 bits, stands in it.
fn place(base: &[u8], part: &[u8]) -> (u32, u32) {
    let start = (part.as_ptr() as usize).wrapping_sub(base.as_ptr() as usize);
    debug_assert!(start + part.len() <= base.len(), "a member is a part of its line");
    (u32::try_from(start).unwrap_or(0), u32::try_from(part.len()).unwrap_or(0))
}

fn slice(base: &[u8], (start, length): (u32, u32)) -> &[u8] {
    base.get(start as usize..).and_then(|rest| rest.get(..length as usize)).unwrap_or_default()
}

/// What a key stands for. The number is the key's rank among those for the same thing, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Time(u8),
    Level(u8),
    Message(u8),
    Host,
    Service,
    Logger,
    Thread,
    Pid,
    Trace,
    Span,
    Error,
    Stack,
    /// An object of ECS or of a logging library, which may hold some of the above.
    Nest,
}

#[rustfmt::skip]
fn role(key: &[u8]) -> Option<Role> {
    Some(match key {
        b"@timestamp" => Role::Time(0),
        b"timestamp" | b"@t" => Role::Time(1),
        b"time" => Role::Time(2),
        b"ts" => Role::Time(3),
        b"datetime" | b"eventTime" | b"event_time" | b"asctime" | b"date" => Role::Time(4),
        b"level" | b"log.level" | b"@l" => Role::Level(0),
        b"severity" => Role::Level(1),
        b"lvl" | b"loglevel" | b"log_level" | b"levelname" | b"priority" => Role::Level(2),
        b"message" | b"@m" => Role::Message(0),
        b"msg" => Role::Message(1),
        b"short_message" | b"@message" => Role::Message(2),
        b"log" => Role::Message(3),
        b"event" => Role::Message(5),
        b"host" | b"hostname" | b"host.name" => Role::Host,
        b"service" | b"service.name" | b"service_name" => Role::Service,
        b"logger" | b"logger_name" | b"log.logger" => Role::Logger,
        b"thread" | b"thread_name" | b"process.thread.name" => Role::Thread,
        b"pid" | b"process.pid" => Role::Pid,
        b"trace_id" | b"trace.id" | b"traceId" | b"traceID" | b"traceid" | b"dd.trace_id" => Role::Trace,
        b"span_id" | b"span.id" | b"spanId" | b"spanID" | b"spanid" | b"dd.span_id" => Role::Span,
        b"error" | b"err" | b"error.message" => Role::Error,
        b"stack" | b"stack_trace" | b"stacktrace" | b"error.stack_trace" | b"@x" => Role::Stack,
        b"trace" | b"span" | b"fields" => Role::Nest,
        _ => return None,
    })
}

/// The best found so far, with its rank and the member it came from.
struct Best<T> {
    rank: u8,
    member: Option<usize>,
    value: Option<T>,
}

impl<T> Best<T> {
    fn new() -> Self {
        Self { rank: u8::MAX, member: None, value: None }
    }

    /// Takes a value if it is better; `member` is what it uses up.
    fn offer(&mut self, rank: u8, member: Option<usize>, value: impl FnOnce() -> Option<T>) {
        if rank >= self.rank {
            return;
        }
        if let Some(value) = value() {
            *self = Self { rank, member, value: Some(value) };
        }
    }

    fn take(self, scratch: &mut Scratch) -> Option<T> {
        if let Some(member) = self.member.and_then(|at| scratch.members.get_mut(at)) {
            member.taken = true;
        }
        self.value
    }
}

/// Everything that keys can tell.
struct Found<'a> {
    time: Best<EventTime<'a>>,
    level: Best<Level>,
    message: Best<Text<'a>>,
    host: Best<Text<'a>>,
    service: Best<Text<'a>>,
    logger: Best<Text<'a>>,
    thread: Best<Text<'a>>,
    pid: Best<u32>,
    trace: Best<Text<'a>>,
    span: Best<Text<'a>>,
    error: Best<Text<'a>>,
    stack: Best<Text<'a>>,
}

/// Moves what known keys say from the scratch list's members to their places.
pub(super) fn recognise<'a>(
    parsed: Parsed<'a>,
    base: &'a [u8],
    scratch: &mut Scratch,
    observed_unix_nano: i64,
) -> Parsed<'a> {
    let mut found = Found::new();
    for (at, member) in scratch.members.iter().enumerate() {
        let key = member.key(base);
        if let Some(role) = role(key) {
            found.weigh(role, key, at, member.value(base), observed_unix_nano);
        }
    }
    Parsed {
        time: found.time.take(scratch),
        level: found.level.take(scratch),
        message: found.message.take(scratch),
        host: found.host.take(scratch),
        service: found.service.take(scratch),
        logger: found.logger.take(scratch),
        thread: found.thread.take(scratch),
        pid: found.pid.take(scratch),
        trace: found.trace.take(scratch),
        span: found.span.take(scratch),
        error: found.error.take(scratch),
        stack: found.stack.take(scratch),
        ..parsed
    }
}

impl<'a> Found<'a> {
    fn new() -> Self {
        Self {
            time: Best::new(),
            level: Best::new(),
            message: Best::new(),
            host: Best::new(),
            service: Best::new(),
            logger: Best::new(),
            thread: Best::new(),
            pid: Best::new(),
            trace: Best::new(),
            span: Best::new(),
            error: Best::new(),
            stack: Best::new(),
        }
    }

    fn weigh(&mut self, role: Role, key: &[u8], at: usize, value: Value<'a>, observed_unix_nano: i64) {
        if value.kind == Kind::Object {
            return self.look_inside(key, value);
        }
        let member = Some(at);
        match role {
            Role::Time(rank) => self.time.offer(rank, member, || value.time(observed_unix_nano)),
            Role::Level(rank) => self.level.offer(rank, member, || value.level()),
            Role::Message(rank) => self.message.offer(rank, member, || value.text()),
            Role::Host => self.host.offer(0, member, || value.text()),
            Role::Service => self.service.offer(0, member, || value.text()),
            Role::Logger => self.logger.offer(0, member, || value.text()),
            Role::Thread => self.thread.offer(0, member, || value.text()),
            Role::Pid => self.pid.offer(0, member, || value.number().and_then(|pid| u32::try_from(pid).ok())),
            Role::Trace => self.trace.offer(0, member, || value.text()),
            Role::Span => self.span.offer(0, member, || value.text()),
            Role::Error => self.error.offer(0, member, || value.text()),
            Role::Stack => self.stack.offer(0, member, || value.text()),
            Role::Nest => {}
        }
    }

    /// What an object tells is copied to its place; the object stays among the fields, whole.
    fn look_inside(&mut self, key: &[u8], value: Value<'a>) {
        let text = |inner: &[u8]| value.inner(inner).and_then(Value::text);
        match key {
            b"log" => {
                self.level.offer(0, None, || value.inner(b"level").and_then(Value::level));
                self.logger.offer(0, None, || text(b"logger"));
            }
            b"host" => self.host.offer(0, None, || text(b"name")),
            b"service" => self.service.offer(0, None, || text(b"name")),
            b"trace" => self.trace.offer(0, None, || text(b"id")),
            b"span" => self.span.offer(0, None, || text(b"id")),
            // The `tracing` crate's JSON.
            b"fields" => self.message.offer(4, None, || text(b"message")),
            b"error" | b"err" => {
                self.error.offer(0, None, || text(b"message"));
                self.stack.offer(0, None, || text(b"stack_trace").or_else(|| text(b"stack")));
            }
            _ => {}
        }
    }
}
