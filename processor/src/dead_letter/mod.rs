//! Dead letters: records refused for good, kept on the bus with reason, origin and original bytes; and what an operator
//! does with them.
//!
//! Owns the topics `dead-letters.<tenant>`, what a letter looks like ([`Letter`]), and the desk at which letters are listed, shown,
//! tried again and discarded ([`Office`]), the same over every bus and every index. Does not own when a record is refused: that
//! is the lane's business.
//!
//! # Letters on the bus
//!
//! A letter's key is the record's id, so that a repeat is the same letter. Its value is the exact original bytes, its
//! headers those of the record's envelope and, all beginning with `logmesh-dead-letter-`:
//!
//! ```text
//! kind               record | batch: one refused record, or a whole bus record that is no readable batch
//! reason             why, for people
//! topic, partition, offset    where it stood on the bus
//! kept               when, nanoseconds since 1970-01-01 UTC
//! record-offset, record-end-offset, observed, marks, format, index    of a record: all that its document is built from
//! cut-from-bytes     only where the original was larger than the topic takes
//! ```
//!
//! Headers are only ever added; a letter of an earlier version lacks some, and is tried again as well as it can be.
//!
//! A *mark* has a letter's key, no value, and one header, `settled` (`replayed` or `discarded`): letters of this key before it are
//! dealt with. So a letter in the midst of others can be dealt with although the group [`GROUP`] commits only a contiguous
//! prefix. What is below that commit is dealt with as well, and may be removed by the bus.
//!
//! # Invariants
//!
//! - The order is: letter durable, then the reduced document, then the processor's commit; none is ever lost between.
//! - Trying again writes the whole document over the reduced one (same id, same index), is marked only when the index has it,
//!   and does no harm when it is done twice, or by two at once.
//! - A letter that cannot be read is shown as such; it stops nobody.

mod http;
mod letter;
mod office;
mod opened;
mod reduced;
mod replay;
mod shelf;
mod tidy;
mod view;
mod watch;
mod write;

#[cfg(test)]
mod tests;

pub use http::router;
pub use letter::{Content, Fate, Letter, RefusedRecord};
pub use office::{Listing, Office, OfficeError, Selection};
pub use reduced::{original_bytes, reduced};
pub use replay::{Said, Summary, Tried};
pub use view::whole as describe;
pub use watch::watch;
pub use write::{DeadLetters, Origin, Refused};

/// Topic of dead letters, before the tenant: `dead-letters.<tenant>`.
pub const TOPIC: &str = "dead-letters";

/// The group whose commits say what is dealt with. Registered with the bus, it keeps letters until then.
pub const GROUP: &str = "dead-letters";

/// The topics of all tenants' letters, as a pattern.
#[must_use]
pub fn topics() -> String {
    format!("{TOPIC}.*")
}

/// Names of the headers.
mod names {
    pub(super) const KIND: &str = "logmesh-dead-letter-kind";
    pub(super) const REASON: &str = "logmesh-dead-letter-reason";
    pub(super) const TOPIC: &str = "logmesh-dead-letter-topic";
    pub(super) const PARTITION: &str = "logmesh-dead-letter-partition";
    pub(super) const OFFSET: &str = "logmesh-dead-letter-offset";
    pub(super) const KEPT: &str = "logmesh-dead-letter-kept";
    pub(super) const RECORD_OFFSET: &str = "logmesh-dead-letter-record-offset";
    pub(super) const RECORD_END_OFFSET: &str = "logmesh-dead-letter-record-end-offset";
    pub(super) const OBSERVED: &str = "logmesh-dead-letter-observed";
    pub(super) const MARKS: &str = "logmesh-dead-letter-marks";
    pub(super) const FORMAT: &str = "logmesh-dead-letter-format";
    pub(super) const INDEX: &str = "logmesh-dead-letter-index";
    pub(super) const CUT: &str = "logmesh-dead-letter-cut-from-bytes";
    pub(super) const SETTLED: &str = "logmesh-dead-letter-settled";
}
