//! A state that remembers many files.

use std::{fs, time::Instant};

use super::rig::{Rig, SECOND, bodies, lines};
use crate::{
    identity::{Mark, StreamId},
    lines::Start,
    state::{GenerationRecord, Remembered, Store},
};

/// A file of an earlier run, all of it acknowledged.
fn past(number: u64) -> Remembered {
    let generation = GenerationRecord {
        stream_id: StreamId::born(1_000_000 + number, 5, 0),
        inode: 1_000_000 + number,
        birth_nano: Some(5),
        epoch: 0,
        head: Mark::head(lines(&number.to_string(), 0..8).as_bytes()),
        acked: 1000,
        after: Start::Fresh,
        anchor: Mark::anchor(lines(&number.to_string(), 0..8).as_bytes()),
        resend: false,
        path: format!("/logs/application-{number}-of-an-earlier-day.log").into(),
    };
    Remembered { generation, cuts: Vec::new() }
}

fn with_past(count: u64) -> Rig {
    let mut rig = Rig::new();
    rig.kill();
    let (mut store, _) = Store::open(rig.directory.path()).unwrap();
    store.checkpoint(&(0..count).map(past).collect::<Vec<_>>(), true).unwrap();
    drop(store);
    rig.polling = false;
    rig
}

#[test]
fn with_a_hundred_thousand_past_files_a_start_takes_moments_and_those_that_vanished_are_forgotten() {
    let mut rig = with_past(100_000);
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    let began = Instant::now();
    rig.start();
    while !rig.tailer.as_ref().unwrap().has_walked() || rig.waiting.is_empty() {
        rig.turn(Vec::new());
    }
    // Five times the two seconds that are promised.
    assert!(began.elapsed() < 10 * SECOND, "{:?}", began.elapsed());
    println!("100,000 past files: started in {:?}", began.elapsed());
    rig.run(SECOND);
    assert_eq!(rig.tailer.as_ref().unwrap().sources.len(), 100_001, "their files may turn up on other inodes");
    rig.pass(700 * SECOND);
    rig.run(10 * SECOND);
    assert_eq!(rig.tailer.as_ref().unwrap().sources.len(), 1);
    assert_eq!((rig.losses().len(), rig.bodies()), (0, bodies(&[("a", 0..10)])));
    rig.tailer.as_mut().unwrap().stop();
    assert_eq!(Store::look(rig.directory.path()).unwrap().generations.len(), 1);
}

#[test]
fn progress_of_one_file_among_many_is_durable_each_second_and_the_large_checkpoint_is_not_written_for_it() {
    let mut rig = with_past(40_000);
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.start();
    rig.run(2 * SECOND);
    let checkpoint = rig.directory.path().join("checkpoint");
    let before = fs::read(&checkpoint).unwrap();
    for round in 1..4 {
        rig.files.append("/logs/a.log", lines("a", round * 10..(round + 1) * 10).as_bytes());
        rig.run(SECOND);
    }
    rig.run(SECOND);
    assert!(before.len() > 2_000_000 && fs::read(&checkpoint).unwrap() == before);
    let known = Store::look(rig.directory.path()).unwrap().generations;
    let known = known.iter().find(|known| known.generation.path.ends_with("a.log")).unwrap();
    assert_eq!((known.generation.acked, known.cuts.len()), (lines("a", 0..40).len() as u64, 0));
    rig.kill();
    rig.start();
    rig.files.append("/logs/a.log", lines("a", 40..50).as_bytes());
    rig.run(5 * SECOND);
    assert_eq!((rig.bodies(), rig.deliveries, rig.streams()), (bodies(&[("a", 0..50)]), 50, 1));
    // It is written all the same, now and then.
    rig.files.append("/logs/a.log", lines("a", 50..60).as_bytes());
    rig.pass(20 * SECOND);
    rig.run(2 * SECOND);
    assert_ne!(fs::read(&checkpoint).unwrap(), before);
}
