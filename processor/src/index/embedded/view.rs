//! What searches see: all days as of one moment.

use std::sync::Arc;

use tantivy::Searcher;

use super::schema::Fields;

/// A consistent view of the index: the documents that were searchable at one moment, and no others, for as long as it
/// is held. It keeps the files of that moment on the disk, so let go of it.
#[derive(Clone)]
pub struct View {
    pub(crate) days: Arc<[DayView]>,
    pub(crate) fields: Fields,
    /// Every document in the view has a sequence number below this, every later one this or a greater one.
    pub(crate) next_sequence: u64,
}

/// One arrival day in a view.
pub(crate) struct DayView {
    pub(crate) searcher: Searcher,
}

impl View {
    /// Number of documents in the view.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.days.iter().map(|day| day.searcher.num_docs()).sum()
    }
}
