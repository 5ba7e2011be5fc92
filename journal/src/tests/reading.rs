//! Readers.

use std::sync::Arc;
use std::time::Duration;

use super::{append, open, options, read_all};
use crate::{Item, Position, ReadError};

#[tokio::test]
async fn two_readers_follow_while_entries_are_appended() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let journal = Arc::new(open(crate::Options { segment_bytes: 500, ..options(directory.path()) }));
    let follow = || {
        let mut reader = journal.log().reader(Position::default());
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 100 {
                match reader.next().await.expect("reads") {
                    Item::Entry { payload, .. } => seen.push(payload.to_vec()),
                    Item::Damage(damage) => panic!("{damage}"),
                }
            }
            seen
        })
    };
    let readers = [follow(), follow()];
    let sent: Vec<Vec<u8>> = (0..100_u8).map(|number| vec![number; 30]).collect();
    for payload in &sent {
        append(&journal, payload).await;
    }
    for reader in readers {
        let seen = tokio::time::timeout(Duration::from_secs(30), reader).await.expect("ends").expect("joins");
        assert_eq!(seen, sent);
    }
}

#[tokio::test]
async fn an_entry_is_read_by_its_position() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let journal = open(options(directory.path()));
    let positions = [append(&journal, b"one").await, append(&journal, b"three").await];
    assert!(positions[0] < positions[1]);
    assert_eq!(journal.log().read_at(positions[1]).expect("reads"), "three");
    assert_eq!(journal.log().read_exact(positions[0], 3).expect("reads"), "one");
    let beside = Position { byte: positions[0].byte + 1, ..positions[0] };
    assert!(matches!(journal.log().read_at(beside), Err(ReadError::Damaged { .. })));
    assert!(matches!(journal.log().read_exact(positions[0], 4), Err(ReadError::Damaged { .. })));
}

#[tokio::test]
async fn removal_takes_the_lowest_segments_and_never_the_last() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let journal = open(crate::Options { segment_bytes: 300, ..options(directory.path()) });
    let mut last = Position::default();
    for number in 0..20_u8 {
        last = append(&journal, &[number; 100]).await;
    }
    let mut behind = journal.log().reader(Position { segment: 2, byte: 0 });
    assert_eq!(journal.remove_below(4).expect("removes"), 3);
    assert_eq!(journal.log().bounds(), Some((4, last.segment)));
    let removed = journal.log().read_at(Position { segment: 1, byte: 36 });
    assert!(matches!(removed, Err(ReadError::Removed { segment: 1, first: Some(4) })), "{removed:?}");
    let item = behind.try_next().expect("reads").expect("something");
    assert!(matches!(item, Item::Damage(_)), "a reader that was overtaken hears of it: {item:?}");
    journal.remove_below(u64::MAX).expect("removes");
    assert_eq!(journal.log().bounds(), Some((last.segment, last.segment)));
    assert!(!read_all(journal.log()).0.is_empty());
}
