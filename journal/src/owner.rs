//! What the owner of a journal contributes.

use crate::{AppendError, Position, State};

/// The owner's part, called on the writer's thread, one call at a time. It must not block for long: nobody is
/// acknowledged meanwhile.
///
/// Order of calls: `encode` for each entry of a group; then, once all of them are durable, `durable` for exactly these (a group
/// is durable as a whole), or `failed` for all that were encoded and are not durable, and all behind them. `preamble`
/// comes when a segment is begun: everything that was `durable` before is in earlier segments, everything encoded and not
/// durable yet will be in this one or in none.
pub trait Owner: Send + 'static {
    /// What is queued.
    type Entry: Send + 'static;

    /// Appends the bytes of `entry` to `out`: at least one, at most the journal's largest entry.
    fn encode(&mut self, entry: &mut Self::Entry, out: &mut Vec<u8>);

    /// Bytes to keep at the head of the segment that begins now.
    fn preamble(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// These entries are durable, at these places, in order; `length` is each one's payload in bytes.
    fn durable(&mut self, entries: Vec<Written<Self::Entry>>);

    /// These entries were not made durable, in the order in which they were queued.
    fn failed(&mut self, entries: Vec<Self::Entry>, error: AppendError);

    /// The journal's state changed.
    fn state_changed(&mut self, _state: &State) {}
}

/// An entry that is durable.
#[derive(Debug)]
pub struct Written<E> {
    /// Its place.
    pub position: Position,
    /// Bytes of its payload.
    pub length: u32,
    /// What was queued.
    pub entry: E,
}
