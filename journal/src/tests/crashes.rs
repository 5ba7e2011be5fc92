//! Torn tails and what stale bytes could pretend.

use super::{append, crashed, open, options, payloads, read_all, reopen};
use crate::log::segment_path;
use crate::recover::TEMPORARY;

#[tokio::test]
async fn what_was_appended_is_read_again_after_reopening() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let options = crate::Options { segment_bytes: 300, ..options(directory.path()) };
    let payloads: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number; 1 + usize::from(number) * 7]).collect();
    let journal = open(options.clone());
    for payload in &payloads[..20] {
        append(&journal, payload).await;
    }
    drop(journal);
    let journal = open(options);
    for payload in &payloads[20..] {
        append(&journal, payload).await;
    }
    assert_eq!(read_all(journal.log()), (payloads, 0));
    assert!(journal.log().segments().len() > 10, "small segments make many");
}

#[tokio::test]
async fn a_cut_at_any_byte_leaves_every_entry_before_it_and_nothing_else() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let payloads = payloads(6);
    let (path, ends) = crashed(directory.path(), &payloads).await;
    let image = std::fs::read(&path).expect("reads");
    let first = ends[0];
    for cut in first..=ends[5] {
        // The file may end there, or zeros may stand where data should be.
        let truncated = image[..cut as usize].to_vec();
        let mut zeroed = truncated.clone();
        zeroed.resize(image.len(), 0);
        for torn in [truncated, zeroed] {
            std::fs::write(&path, &torn).expect("tears");
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let (found, damaged, recovery) = reopen(directory.path());
            assert_eq!(found, payloads[..whole], "cut at {cut}");
            assert_eq!((damaged, recovery.damage.len()), (0, 0), "cut at {cut}");
            assert!(recovery.torn_bytes <= cut - ends[whole - 1], "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn appending_after_a_cut_goes_on_where_the_sound_entries_end() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let mut payloads = payloads(6);
    let (path, ends) = crashed(directory.path(), &payloads).await;
    let mut image = std::fs::read(&path).expect("reads");
    image[ends[4] as usize + 5..].fill(0);
    std::fs::write(&path, &image).expect("tears");
    let journal = open(options(directory.path()));
    append(&journal, b"after the crash").await;
    drop(journal);
    payloads.truncate(5);
    payloads.push(b"after the crash".to_vec());
    assert_eq!(reopen(directory.path()), (payloads, 0, crate::Recovery::default()));
}

#[tokio::test]
async fn stale_bytes_of_another_segment_or_place_never_pass_for_entries() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let (path, ends) = crashed(directory.path(), &payloads(6)).await;
    let image = std::fs::read(&path).expect("reads");
    let (first, end) = (ends[0] as usize, ends[5] as usize);
    // Sound entries of this segment, right behind the last one and a few bytes further.
    for distance in [0, 8] {
        let mut shifted = image.clone();
        shifted.copy_within(first..end, end + distance);
        std::fs::write(&path, &shifted).expect("writes");
        let (found, _, recovery) = reopen(directory.path());
        assert_eq!((found, recovery.damage.len()), (payloads(6), 0));
    }
    // Entries of segment 1 at their very place in segment 2, as recycled blocks would hold them.
    let journal = open(options(directory.path()));
    append(&journal, b"second").await;
    let second = segment_path(directory.path(), 2);
    let mut recycled = std::fs::read(&second).expect("reads");
    let behind = journal.log().durable().borrow().byte as usize;
    drop(journal);
    recycled[behind..].copy_from_slice(&image[behind..]);
    std::fs::write(&second, &recycled).expect("writes");
    let (found, damaged, recovery) = reopen(directory.path());
    assert_eq!(found.last().map(Vec::as_slice), Some(b"second".as_slice()));
    assert_eq!((found.len(), damaged, recovery.damage.len()), (7, 0, 0));
    assert!(recovery.torn_bytes > 0, "the stale bytes were cut");
}

#[tokio::test]
async fn a_segment_that_was_being_made_is_swept() {
    let directory = tempfile::tempdir().expect("makes a directory");
    drop(open(options(directory.path())));
    let temporary = directory.path().join(format!("{:020}{TEMPORARY}", 1));
    std::fs::write(&temporary, b"half a header").expect("writes");
    let journal = open(options(directory.path()));
    assert!(!temporary.exists());
    append(&journal, b"first").await;
    assert_eq!(read_all(journal.log()).0, [b"first"]);
}

#[tokio::test]
async fn an_unused_segment_is_sealed_and_numbers_go_on() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let (path, _) = crashed(directory.path(), &payloads(1)).await;
    // The crash came right after the segment got its name: a header, then zeros.
    let mut image = std::fs::read(&path).expect("reads");
    image[36..].fill(0);
    std::fs::write(&path, &image).expect("writes");
    let journal = open(options(directory.path()));
    let position = append(&journal, b"first").await;
    assert_eq!(position.segment, 2);
    assert_eq!(read_all(journal.log()), (vec![b"first".to_vec()], 0));
}
