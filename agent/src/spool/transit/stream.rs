//! How a stream is doing: whether its lane takes anything, and what of it waits.

use std::{collections::BTreeSet, time::Duration};

use logmesh_journal::Position;

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) flow: Flow,
    /// Under way.
    pub(super) parts: usize,
    /// Deferred with the stream.
    pub(super) line: BTreeSet<Position>,
    /// Entries deferred by themselves.
    pub(super) alone: usize,
    /// Its time among those that may try.
    pub(super) try_at: Option<Duration>,
    /// Whether it is among the ready ones.
    pub(super) is_ready: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Flow {
    /// Nothing of it was acknowledged yet.
    #[default]
    New,
    /// Something was, and nothing was held since.
    Open,
    /// Nothing is sent before that time.
    Held(Duration),
    /// That time is over, and a few batches are sent to see.
    Trying,
}

/// What is to become of the next entry of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Admission {
    /// [`super::Transit::begin`] it, once the window lets.
    Begin,
    /// [`super::Transit::defer`] it.
    Defer,
    /// Read no further for now.
    Wait,
}

impl Stream {
    /// Whether nothing is left of it that is not acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.parts == 0 && self.line.is_empty() && self.alone == 0
    }
}
