//! What was lost: bytes of the source that were gone before they were delivered.
//!
//! Owns the last losses and the totals by reason; does not own when something counts as lost. A loss has a number of
//! bytes where their size was seen, and none where only the event is known.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
};

use serde::Serialize;

/// Losses kept; the totals know of all.
const LOSSES_MAX: usize = 100;

/// Why bytes were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// The file was truncated or rewritten, and no copy turned up.
    Truncated,
    /// The file was gone before it was read, or before what was read of it was acknowledged.
    Deleted,
    /// The file was born and gone before anyone looked into it.
    Unseen,
    /// A copy took the place of the file and ends before what was read of it.
    ShortCopy,
    /// The file was deleted, and the budget of the spool for deleted files was used up.
    SpoolFull,
    /// The same, and it was kept for as long as it may be.
    SpoolAged,
    /// Entries of the spool were damaged on disk.
    SpoolDamaged,
}

impl LossReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Truncated,
        Self::Deleted,
        Self::Unseen,
        Self::ShortCopy,
        Self::SpoolFull,
        Self::SpoolAged,
        Self::SpoolDamaged,
    ];

    /// Its name, in metrics and the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Deleted => "deleted",
            Self::Unseen => "unseen",
            Self::ShortCopy => "short_copy",
            Self::SpoolFull => "spool_full",
            Self::SpoolAged => "spool_aged",
            Self::SpoolDamaged => "spool_damaged",
        }
    }
}

/// One loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Last known path of the file.
    pub path: String,
    /// Bytes of the source; `None` where it is not known how many, if any.
    pub bytes: Option<u64>,
    /// Why.
    pub reason: LossReason,
    /// When it was noticed, milliseconds since 1970.
    pub time_unix_ms: u64,
}

/// How much was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Bytes, where their number is known.
    pub bytes: u64,
    /// Times, the number of bytes known or not.
    pub events: u64,
}

impl Lost {
    fn add(&mut self, bytes: Option<u64>) {
        self.bytes += bytes.unwrap_or(0);
        self.events += 1;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    last: VecDeque<Loss>,
    totals: BTreeMap<LossReason, Lost>,
}

impl Losses {
    /// Notes and logs a loss.
    pub(crate) fn note(&mut self, path: &Path, bytes: Option<u64>, reason: LossReason, unix_nano: u64) {
        match bytes {
            Some(bytes) => tracing::error!(
                path = %path.display(), bytes, reason = reason.name(),
                "bytes are lost: they were gone before they were delivered"
            ),
            None => tracing::warn!(
                path = %path.display(), reason = reason.name(),
                "what was written to a file between the last look at it and its end is lost, if there was any"
            ),
        }
        self.totals.entry(reason).or_default().add(bytes);
        if self.last.len() >= LOSSES_MAX {
            self.last.pop_front();
        }
        let path = path.to_string_lossy().into_owned();
        self.last.push_back(Loss { path, bytes, reason, time_unix_ms: unix_nano / 1_000_000 });
    }

    /// The last losses, the oldest first.
    pub(crate) fn last(&self) -> Vec<Loss> {
        self.last.iter().cloned().collect()
    }

    /// Totals since the start, for every reason.
    pub(crate) fn totals(&self) -> BTreeMap<LossReason, Lost> {
        LossReason::ALL.iter().map(|reason| (*reason, self.totals.get(reason).copied().unwrap_or_default())).collect()
    }

    /// The last losses by path.
    pub(crate) fn by_path(&self) -> BTreeMap<&str, Lost> {
        let mut by_path: BTreeMap<&str, Lost> = BTreeMap::new();
        for loss in &self.last {
            by_path.entry(&loss.path).or_default().add(loss.bytes);
        }
        by_path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_losses_are_kept_and_the_totals_know_of_all() {
        let mut losses = Losses::default();
        for number in 0..150 {
            let bytes = (number % 2 == 0).then_some(10);
            losses.note(Path::new("/logs/a.log"), bytes, LossReason::Truncated, number * 1_000_000);
        }
        assert_eq!((losses.last().len(), losses.last()[0].time_unix_ms), (LOSSES_MAX, 50));
        assert_eq!(losses.totals()[&LossReason::Truncated], Lost { bytes: 750, events: 150 });
        assert_eq!(losses.totals()[&LossReason::Deleted], Lost::default());
        assert_eq!(losses.by_path()["/logs/a.log"], Lost { bytes: 500, events: 100 });
    }
}
