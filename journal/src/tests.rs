//! Tests over the whole journal: crashes, damage, faults, and random schedules against a model.

mod crashes;
mod damage;
mod faults;
mod model;
mod reading;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::log::segment_path;
use crate::{Item, Journal, Log, Opened, Options, Plain, Position, Recovery};

/// Options for small segments in `directory`.
fn options(directory: &Path) -> Options {
    Options { segment_bytes: 4096, entry_bytes_max: 4096, ..Options::new(directory) }
}

/// A journal of bytes on `options`.
fn open(options: Options) -> Journal<Plain> {
    Opened::open(options).expect("opens").start(Plain).expect("starts")
}

async fn append(journal: &Journal<Plain>, payload: &[u8]) -> Position {
    journal.append_bytes(Bytes::copy_from_slice(payload)).await.expect("queues").await.expect("is durable")
}

/// Writes `payloads` in a fresh journal in one segment, and leaves the segment's file as a crash would: not sealed. Returns the file and
/// where each entry ends.
async fn crashed(directory: &Path, payloads: &[Vec<u8>]) -> (PathBuf, Vec<u64>) {
    let journal = open(options(directory));
    let mut ends = Vec::new();
    for payload in payloads {
        append(&journal, payload).await;
        ends.push(journal.log().durable().borrow().byte);
    }
    let path = segment_path(directory, 1);
    let image = std::fs::read(&path).expect("reads the segment");
    assert_eq!(image.len(), 4096, "the segment that is written is preallocated");
    drop(journal);
    std::fs::write(&path, image).expect("puts the crash's image back");
    (path, ends)
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

/// Opens what is in `directory`, reads it, and lets go of it.
fn reopen(directory: &Path) -> (Vec<Vec<u8>>, usize, Recovery) {
    let opened = Opened::open(options(directory)).expect("opens");
    let (payloads, damaged) = read_all(opened.log());
    (payloads, damaged, opened.recovery().clone())
}

/// Payloads of several lengths, none all zero.
fn payloads(count: u8) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number + 1; 1 + usize::from(number) * 7 % 40]).collect()
}
