//! Names that documents have, each with what it holds: what an index's mapping is made from.

/// What a name holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// RFC 3339 in UTC, with 3, 6 or 9 digits after the second.
    Date,
    /// Text to be searched by its words.
    Text,
    /// Text that is one term.
    Keyword,
    /// Text that is kept, but not searched.
    Stored,
    /// A whole number that is not negative and fits 64 bits with sign.
    Long,
    /// An address, IPv4 or IPv6.
    Ip,
    /// An object of keywords with names of its own, each a string.
    Labels,
    /// An object of any shape within the bounds of free-form fields.
    Flattened,
}

/// Every name that a document may have, dotted.
pub const FIELDS: [(&str, FieldKind); 44] = [
    ("@timestamp", FieldKind::Date),
    ("message", FieldKind::Text),
    ("log.level", FieldKind::Keyword),
    ("log.logger", FieldKind::Keyword),
    ("log.offset", FieldKind::Long),
    ("log.file.path", FieldKind::Keyword),
    ("log.syslog.priority", FieldKind::Long),
    ("log.syslog.facility.code", FieldKind::Long),
    ("log.syslog.severity.code", FieldKind::Long),
    ("log.syslog.msgid", FieldKind::Keyword),
    ("log.syslog.procid", FieldKind::Keyword),
    ("host.name", FieldKind::Keyword),
    ("agent.name", FieldKind::Keyword),
    ("agent.id", FieldKind::Keyword),
    ("service.name", FieldKind::Keyword),
    ("labels", FieldKind::Labels),
    ("event.created", FieldKind::Date),
    ("event.ingested", FieldKind::Date),
    ("event.dataset", FieldKind::Keyword),
    ("event.original", FieldKind::Stored),
    ("event.original_base64", FieldKind::Stored),
    ("process.name", FieldKind::Keyword),
    ("process.pid", FieldKind::Long),
    ("process.thread.name", FieldKind::Keyword),
    ("source.address", FieldKind::Keyword),
    ("source.ip", FieldKind::Ip),
    ("user.name", FieldKind::Keyword),
    ("http.request.method", FieldKind::Keyword),
    ("http.request.referrer", FieldKind::Keyword),
    ("http.response.status_code", FieldKind::Long),
    ("http.response.body.bytes", FieldKind::Long),
    ("http.version", FieldKind::Keyword),
    ("url.original", FieldKind::Keyword),
    ("url.path", FieldKind::Keyword),
    ("url.query", FieldKind::Keyword),
    ("user_agent.original", FieldKind::Keyword),
    ("error.message", FieldKind::Text),
    ("error.stack_trace", FieldKind::Text),
    ("trace.id", FieldKind::Keyword),
    ("span.id", FieldKind::Keyword),
    ("fields", FieldKind::Flattened),
    ("tags", FieldKind::Keyword),
    // Written by an index that had to reduce a document that it refused.
    ("error.type", FieldKind::Keyword),
    ("error.code", FieldKind::Keyword),
];
