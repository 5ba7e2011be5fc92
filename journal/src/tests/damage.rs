//! Bits that flip.

use super::{append, crashed, open, options, payloads, read_all, reopen};
use crate::Opened;
use crate::log::segment_path;

/// Flips each bit of `range` of the file in turn, and hands what is found to `check` with the flipped byte.
fn each_flip(
    path: &std::path::Path,
    range: std::ops::Range<usize>,
    directory: &std::path::Path,
    mut check: impl FnMut(usize, Vec<Vec<u8>>, usize, crate::Recovery),
) {
    let image = std::fs::read(path).expect("reads");
    for bit in range.start * 8..range.end * 8 {
        let mut flipped = image.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(path, &flipped).expect("writes");
        let (found, damaged, recovery) = reopen(directory);
        check(bit / 8, found, damaged, recovery);
    }
}

#[tokio::test]
async fn a_flip_in_the_last_entry_cuts_it_and_no_other() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let payloads = payloads(4);
    let (path, ends) = crashed(directory.path(), &payloads).await;
    each_flip(&path, ends[2] as usize..ends[3] as usize, directory.path(), |byte, found, damaged, recovery| {
        assert_eq!((found, damaged), (payloads[..3].to_vec(), 0), "byte {byte}");
        assert!(recovery.damage.is_empty() && recovery.torn_bytes > 0, "byte {byte}");
    });
}

#[tokio::test]
async fn a_flip_in_an_acknowledged_entry_loses_that_one_and_says_so() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let payloads = payloads(4);
    let (path, ends) = crashed(directory.path(), &payloads).await;
    let others: Vec<_> = [&payloads[0], &payloads[2], &payloads[3]].into_iter().cloned().collect();
    each_flip(&path, ends[0] as usize..ends[1] as usize, directory.path(), |byte, found, damaged, recovery| {
        assert_eq!((found, damaged, recovery.torn_bytes), (others.clone(), 1, 0), "byte {byte}");
        let damage = &recovery.damage[0];
        assert_eq!((damage.from.byte, damage.to.byte), (ends[0], ends[1]), "byte {byte}");
    });
}

#[tokio::test]
async fn a_flip_in_the_header_leaves_the_entries() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let payloads = payloads(3);
    let (path, _) = crashed(directory.path(), &payloads).await;
    each_flip(&path, 0..36, directory.path(), |byte, found, damaged, recovery| {
        assert_eq!((found, damaged, recovery.damage.len()), (payloads.clone(), 1, 1), "byte {byte}");
    });
    let opened = Opened::open(options(directory.path())).expect("opens");
    assert!(opened.log().preamble(1).is_err(), "the preamble is not believed");
}

#[tokio::test]
async fn damage_in_an_older_segment_is_stepped_over() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let options = crate::Options { segment_bytes: 400, ..options(directory.path()) };
    let payloads: Vec<Vec<u8>> = (0..30_u8).map(|number| vec![number; 50]).collect();
    let journal = open(options.clone());
    for payload in &payloads {
        append(&journal, payload).await;
    }
    drop(journal);
    let path = segment_path(directory.path(), 2);
    let mut image = std::fs::read(&path).expect("reads");
    image[60] ^= 1;
    std::fs::write(&path, &image).expect("writes");
    let journal = open(options);
    let (found, damaged) = read_all(journal.log());
    assert_eq!((found.len(), damaged), (29, 1));
    assert!(found.iter().all(|payload| payloads.contains(payload)));
}

#[tokio::test]
async fn a_missing_segment_is_reported() {
    let directory = tempfile::tempdir().expect("makes a directory");
    for payload in [b"one", b"two", b"six"] {
        let journal = open(options(directory.path()));
        append(&journal, payload).await;
    }
    std::fs::remove_file(segment_path(directory.path(), 2)).expect("removes");
    let (found, damaged, _) = reopen(directory.path());
    assert_eq!((found, damaged), (vec![b"one".to_vec(), b"six".to_vec()], 1));
}
