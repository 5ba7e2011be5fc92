//! State as it was written before records could be joined, byte for byte. It is read for ever.

use std::fs;

use super::*;

/// A checkpoint of one generation whose last acknowledged record was flushed, and a log with a cut that was split.
const CHECKPOINT: &str = "\
    4c4d434845434b3172000000054f7ab70102030405060708090a0b0c0d0e0f1002000000000000000001000000a35dea25a2bbdda955d515\
    e31eeee780070000000000000005000000000000000000000000000000040077f0b168946bc8710a00000000000000010600115683f51c41\
    20c5000b0000002f6c6f67732f612e6c6f67";
const CUTS: &str = "\
    4c4d435554535f310102030405060708090a0b0c0d0e0f10ab424aa740000000e6d9ce0e02a35dea25a2bbdda955d515e31eeee7800b0000\
    0000000000140000000000000009000000000000000b000000000000000800000002010011cdb280646cf0ea400000000b245c1a02a35dea\
    25a2bbdda955d515e31eeee78014000000000000001e0000000000000009000000000000000b000000000000000800000000010011cdb280\
    646cf0ea";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn generation(after: Start) -> GenerationRecord {
    GenerationRecord {
        stream_id: StreamId::born(7, 5, 0),
        inode: 7,
        birth_nano: Some(5),
        epoch: 0,
        head: Mark::head(b"head"),
        acked: 10,
        after,
        anchor: Mark::anchor(b"anchor"),
        resend: false,
        path: "/logs/a.log".into(),
    }
}

fn cut(first: u64, end: u64, after: Start) -> CutRecord {
    let anchor = Mark::anchor(b"x");
    CutRecord { first, end, observed_unix_nano: 9, flags: 8, hash: 11, after, anchor }
}

#[test]
fn state_that_was_written_before_records_could_be_joined_is_read() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("checkpoint"), bytes(CHECKPOINT)).unwrap();
    fs::write(directory.path().join("cuts-0000000000000002.log"), bytes(CUTS)).unwrap();
    let recovered = Store::open(directory.path()).unwrap().1;
    // Written under another boot.
    assert_eq!((recovered.trust, recovered.notes.len()), (Trust::PowerCut, 0), "{:?}", recovered.notes);
    let cuts = vec![cut(11, 20, Start::Split), cut(20, 30, Start::Fresh)];
    assert_eq!(recovered.generations, [Remembered { generation: generation(Start::Unterminated), cuts }]);
}

#[test]
fn every_way_that_a_record_ends_is_remembered() {
    for after in [Start::Fresh, Start::Unterminated, Start::Split, Start::Joined] {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(directory.path()).unwrap();
        store.checkpoint(&[], false).unwrap();
        let (generation, cut) = (generation(after), cut(11, 20, after));
        store.append(&[Fact::Generation(generation.clone()), Fact::Cut(generation.stream_id, cut)]).unwrap();
        drop(store);
        let recovered = Store::open(directory.path()).unwrap().1;
        assert_eq!(recovered.generations, [Remembered { generation, cuts: vec![cut] }]);
    }
}
