//! The agent: tail, batch, ship, checkpoint.
//!
//! The way of a line: [`discovery`] finds its file → [`tailer`] decides which generation of which file it is
//! ([`identity`]), reads it in quanta, cuts it into records ([`lines`]), notes the cut on disk ([`state`]) and builds a
//! batch → [`ship`] sends the batch to a gateway and brings the answer back → the tailer moves the acknowledged prefix of
//! its generation ([`generation`]) and, once a second, the checkpoint. What would be lost if it were only in memory, the rest
//! of deleted files and everything of [`inputs`] that are no files, is on disk in the [`spool`] until it is acknowledged.
//!
//! Invariants: what is acknowledged on disk was acknowledged by a gateway; the same byte of the same generation always
//! has the same stream id and offset, whatever the file is called, and over restarts; memory is bounded by the window of
//! unacknowledged batches, and the files on disk are the only other buffer; one file that fails leaves its neighbours
//! alone. All file state belongs to one thread, all sockets to the async side; [`mailbox`] and one bounded channel are
//! between them.

mod agent;
pub mod clock;
pub mod command;
pub mod config;
pub mod discovery;
pub mod filesystem;
pub mod generation;
pub mod identity;
pub mod inflate;
pub mod inputs;
pub mod kubernetes;
mod labels;
pub mod lines;
pub mod losses;
pub mod mailbox;
mod metrics;
pub mod parcel;
pub mod ship;
pub mod sift;
pub mod spool;
pub mod state;
pub mod tailer;

pub use agent::{Agent, AgentError, tail_once};
pub use clock::{Clock, Now, SystemClock};
pub use config::{Config, DEFAULT_TOML, FilesConfig};
