//! Generations by the mark of their head, so that a new file is compared with few of them.

use std::collections::{BTreeMap, HashMap};

use crate::{
    identity::{Mark, RESEMBLANCE_BYTES_MIN},
    parcel::StreamNumber,
};

/// Heads of at least [`RESEMBLANCE_BYTES_MIN`]; shorter ones resemble nothing.
#[derive(Debug, Default)]
pub(super) struct HeadIndex(BTreeMap<u16, HashMap<u64, Vec<StreamNumber>>>);

impl HeadIndex {
    pub(super) fn insert(&mut self, head: Mark, number: StreamNumber) {
        if usize::from(head.length) >= RESEMBLANCE_BYTES_MIN {
            self.0.entry(head.length).or_default().entry(head.hash).or_default().push(number);
        }
    }

    pub(super) fn remove(&mut self, head: Mark, number: StreamNumber) {
        let Some(by_hash) = self.0.get_mut(&head.length) else { return };
        if let Some(numbers) = by_hash.get_mut(&head.hash) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                by_hash.remove(&head.hash);
            }
        }
        if by_hash.is_empty() {
            self.0.remove(&head.length);
        }
    }

    /// The generations whose head begins `content`.
    pub(super) fn matching(&self, content: &[u8]) -> Vec<StreamNumber> {
        let mut found = Vec::new();
        for (length, by_hash) in self.0.range(..=u16::try_from(content.len()).unwrap_or(u16::MAX)) {
            let mark = Mark::head(&content[..usize::from(*length)]);
            found.extend(by_hash.get(&mark.hash).into_iter().flatten());
        }
        found
    }
}
