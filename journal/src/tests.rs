//! Tests over the whole journal: crashes, damage, faults, and random schedules against a model.

use bytes::Bytes;

use crate::{Item, Journal, Log, Opened, Options, Plain, Position};

/// A journal of bytes on `options`.
fn open(options: Options) -> Journal<Plain> {
    Opened::open(options).expect("opens").start(Plain).expect("starts")
}

async fn append(journal: &Journal<Plain>, payload: &[u8]) -> Position {
    journal.append_bytes(Bytes::copy_from_slice(payload)).await.expect("queues").await.expect("is durable")
}

/// Everything that can be read: payloads, and how many stretches are damaged.
fn read_all(log: &Log) -> (Vec<Vec<u8>>, usize) {
    let mut reader = log.reader(Position::default());
    let (mut payloads, mut damaged) = (Vec::new(), 0);
    while let Some(item) = reader.try_next().expect("reads") {
        match item {
            Item::Entry { payload, .. } => payloads.push(payload.to_vec()),
            Item::Damage(_) => damaged += 1,
        }
    }
    (payloads, damaged)
}

#[tokio::test]
async fn what_was_appended_is_read_again_after_reopening() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let options = Options { segment_bytes: 300, ..Options::new(directory.path()) };
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
