//! Random schedules of appends, crashes, torn writes, removals and reopenings, against a list.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use proptest::prelude::*;

use super::faults::{Broken, open_on};
use super::{options, read_all, reopen};
use crate::log::segment_path;
use crate::{Opened, Options};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Entries of these lengths, appended at once, all acknowledged.
    Append(Vec<usize>),
    /// Entries of these lengths are being written when the machine dies: of every 64 bytes behind the acknowledged end those
    /// survive whose turn in `pages` says so.
    Crash { lengths: Vec<usize>, pages: Vec<bool> },
    /// Closed and opened.
    Reopen,
    /// All segments up to the one at this share (of 8) are removed.
    Remove(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = || prop::collection::vec(1_usize..300, 1..6);
    let step = prop_oneof![
        4 => lengths().prop_map(Step::Append),
        3 => (lengths(), prop::collection::vec(any::<bool>(), 40)).prop_map(|(lengths, pages)| Step::Crash { lengths, pages }),
        1 => Just(Step::Reopen),
        1 => (0_usize..8).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 1..14)
}

/// An entry that names itself.
fn payload(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(4 + length, number as u8);
    bytes
}

/// Damages what stands behind `end` of the last segment as a power cut may: any 64 bytes either arrived or did not.
fn tear(path: &Path, image: &mut [u8], end: u64, pages: &[bool]) {
    let chunks = image[end as usize..].chunks_mut(64);
    for (chunk, survived) in chunks.zip(pages.iter().cycle()) {
        if !survived {
            chunk.fill(0);
        }
    }
    std::fs::write(path, image).expect("writes");
}

async fn run(directory: &Path, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let options = Options { segment_bytes: 1500, ..options(directory) };
    let mut storage = Broken::new();
    let mut journal = open_on(options.clone(), storage.clone());
    let mut kept = VecDeque::<Vec<u8>>::new();
    let mut number = 0;
    let mut make = |length: &usize| {
        number += 1;
        payload(number, *length)
    };
    for step in steps {
        match step {
            Step::Append(lengths) => {
                let mut tickets = Vec::new();
                for payload in lengths.iter().map(&mut make) {
                    tickets.push(journal.append_bytes(Bytes::from(payload.clone())).await.expect("queues"));
                    kept.push_back(payload);
                }
                for ticket in tickets {
                    ticket.await.expect("is durable");
                }
            }
            Step::Crash { lengths, pages } => {
                let before = *journal.log().durable().borrow();
                storage.fail_sync.store(true, Ordering::Relaxed);
                let sent: Vec<_> = lengths.iter().map(&mut make).collect();
                for payload in &sent {
                    if let Ok(ticket) = journal.append_bytes(Bytes::from(payload.clone())).await {
                        prop_assert!(ticket.await.is_err(), "nobody is acknowledged without a sync");
                    }
                }
                let path = segment_path(directory, before.segment);
                let image = std::fs::read(&path).ok();
                drop(journal);
                if let Some(mut image) = image {
                    tear(&path, &mut image, before.byte, &pages);
                }
                storage = Broken::new();
                let opened = Opened::open_on(options.clone(), storage.clone()).expect("opens");
                prop_assert!(opened.recovery().damage.is_empty(), "a torn write is no damage");
                let found = read_all(opened.log()).0;
                prop_assert!(found.len() >= kept.len(), "what was acknowledged is there");
                // Of the unacknowledged a beginning may have made it.
                let more = found[kept.len()..].to_vec();
                prop_assert_eq!(&more, &sent[..more.len()]);
                kept.extend(more);
                journal = opened.start(crate::Plain).expect("starts");
            }
            Step::Reopen => {
                drop(journal);
                storage = Broken::new();
                journal = open_on(options.clone(), storage.clone());
            }
            Step::Remove(share) => {
                let segments = journal.log().segments();
                let Some(limit) = segments.get(segments.len() * share / 8) else { continue };
                journal.remove_below(limit.number).expect("removes");
                let left = read_all(journal.log()).0.len();
                prop_assert!(left <= kept.len());
                kept.drain(..kept.len() - left);
            }
        }
        let (found, damaged) = read_all(journal.log());
        prop_assert_eq!((found, damaged), (kept.iter().cloned().collect::<Vec<_>>(), 0));
    }
    drop(journal);
    prop_assert_eq!(reopen(directory).0, Vec::from(kept));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_keeps_exactly_what_was_acknowledged_and_a_beginning_of_the_rest(steps in steps()) {
        let directory = tempfile::tempdir().expect("makes a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(directory.path(), steps))?;
    }
}
