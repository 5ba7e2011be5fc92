//! Who is read when more is written than leaves, and at what rate.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::rig::{Rig, SECOND, bodies, lines};
use crate::{
    discovery::Hint,
    parcel::{Answer, StreamNumber},
};

const GIB: u64 = 1 << 30;
const STEP: Duration = Duration::from_millis(10);

/// A gateway that takes so many bytes a second and no more: the window is closed most of the time.
struct Slow {
    rig: Rig,
    bytes_per_second: f64,
    owed: f64,
    /// Source bytes read, by stream.
    read: BTreeMap<StreamNumber, u64>,
    closed: usize,
}

impl Slow {
    fn new(bytes_per_second: f64) -> Self {
        let mut rig = Rig::new();
        rig.kill();
        rig.limits.batch_bytes_max = 256 * 1024;
        rig.limits.batch_records_max = 10_000;
        rig.start();
        // What is read ahead of it is half a MiB.
        rig.answer(Answer::Credit(1));
        Self { rig, bytes_per_second, owed: 0.0, read: BTreeMap::new(), closed: 0 }
    }

    /// One step of time: the gateway takes what it can, the tailer reads as long as it may.
    fn step(&mut self, mut hints: Vec<Hint>) {
        self.rig.pass(STEP);
        self.owed = (self.owed + self.bytes_per_second * STEP.as_secs_f64()).min(self.bytes_per_second * 0.1);
        loop {
            let before = self.rig.waiting.len();
            self.rig.turn(std::mem::take(&mut hints));
            for parcel in &self.rig.waiting[before..] {
                let bytes = parcel.batch.end_offset - parcel.batch.first_offset;
                *self.read.entry(parcel.stream).or_default() += bytes;
            }
            let is_ready = self.rig.waiting.first().is_some_and(|first| first.encoded as f64 <= self.owed);
            if is_ready {
                let parcel = self.rig.waiting.remove(0);
                self.owed -= parcel.encoded as f64;
                self.rig.answer(Answer::Acked { stream: parcel.stream, first: parcel.batch.first_offset });
            } else if self.rig.waiting.len() == before {
                self.closed += 1;
                return;
            }
        }
    }
}

#[test]
fn first_unread_bytes_of_500_files_beside_one_of_5_gb_are_read_within_a_second_at_saturation() {
    let mut slow = Slow::new(8e6);
    slow.rig.files.generate("/logs/huge.log", 5 * GIB);
    let path = |file: usize| format!("/logs/{file:03}.log");
    for file in 0..500 {
        slow.rig.files.append(&path(file), lines("first", 0..1).as_bytes());
    }
    // Everything is found, and all but the huge one read to its end.
    for _ in 0..300 {
        slow.step(Vec::new());
    }
    let known: BTreeSet<StreamNumber> = slow.read.keys().copied().collect();
    assert_eq!(known.len(), 501);
    let huge = *slow.read.iter().max_by_key(|(_, bytes)| **bytes).unwrap().0;
    // More to every file than the gateway takes in four seconds.
    for file in 0..500 {
        slow.rig.files.append(&path(file), lines("more", 0..1500).as_bytes());
    }
    slow.read.clear();
    let mut hints: Vec<Hint> = (0..500).map(|file| Hint::Appeared(path(file).into())).collect();
    let mut steps = 0;
    while slow.read.keys().filter(|number| **number != huge).count() < 500 {
        slow.step(std::mem::take(&mut hints));
        steps += 1;
        assert!(STEP * steps <= SECOND, "after a second {} of 501 were read", slow.read.len());
    }
    // Over four more seconds they share by bytes: the huge one has its turns, and no more than others.
    for _ in 0..800 {
        slow.step(Vec::new());
    }
    let (huge, others) = (slow.read[&huge], slow.read.values().sum::<u64>() - slow.read[&huge]);
    assert!(huge >= 2 * 256 * 1024, "{huge}");
    assert!(others > 20_000_000, "{others} of the others, {huge} of the huge one");
}

#[test]
fn all_that_is_read_by_turns_arrives_once() {
    let mut rig = Rig::new();
    for round in 0..4 {
        for file in 0..40 {
            let text = lines(&file.to_string(), round * 300..(round + 1) * 300);
            rig.files.append(&format!("/logs/{file}.log"), text.as_bytes());
        }
        rig.run(SECOND);
    }
    rig.run(20 * SECOND);
    let names: Vec<String> = (0..40).map(|file| file.to_string()).collect();
    let parts: Vec<_> = names.iter().map(|name| (name.as_str(), 0..1200)).collect();
    assert_eq!((rig.bodies() == bodies(&parts), rig.deliveries), (true, 48_000));
}

#[test]
fn a_rate_limit_holds_for_the_group_slows_all_of_its_files_alike_and_drops_nothing() {
    let mut rig = Rig::new();
    rig.kill();
    rig.rate_limit = Some(20_000);
    rig.start();
    for (file, count) in [("a", 2500), ("b", 2500), ("c", 3)] {
        rig.files.append(&format!("/logs/{file}.log"), lines(file, 0..count).as_bytes());
    }
    let read = |rig: &Rig| rig.tailer.as_ref().unwrap().tally.read_bytes;
    rig.run(SECOND);
    // A burst of a second, the second itself, and what one read takes too much.
    assert!((20_000..=52_000).contains(&read(&rig)), "{}", read(&rig));
    let begun = read(&rig);
    rig.run(5 * SECOND);
    let ran = read(&rig) - begun;
    assert!((85_000..=115_000).contains(&ran), "{ran}");
    let of = |rig: &Rig, name: &str| rig.bodies().iter().filter(|body| body.starts_with(name)).count();
    assert_eq!(of(&rig, "c"), 3, "the short one did not wait for the others");
    let (a, b) = (of(&rig, "a"), of(&rig, "b"));
    assert!(a.abs_diff(b) < 300, "{a} and {b}");
    assert!(!rig.tailer.as_ref().unwrap().is_settled() || rig.waiting.is_empty());
    rig.run(20 * SECOND);
    assert_eq!((rig.bodies(), rig.deliveries), (bodies(&[("a", 0..2500), ("b", 0..2500), ("c", 0..3)]), 5003));
}

#[test]
fn a_deleted_file_and_a_kill_lose_nothing_to_a_rate_limit() {
    let mut rig = Rig::new();
    rig.kill();
    rig.rate_limit = Some(5000);
    rig.start();
    rig.files.append("/logs/a.log", lines("a", 0..600).as_bytes());
    rig.files.append("/logs/b.log", lines("b", 0..600).as_bytes());
    rig.run(2 * SECOND);
    rig.files.delete("/logs/b.log");
    rig.run(12 * SECOND);
    assert_eq!(rig.bodies().iter().filter(|body| body.starts_with('b')).count(), 600);
    rig.kill();
    rig.start();
    rig.run(12 * SECOND);
    assert_eq!((rig.bodies(), rig.lost_bytes()), (bodies(&[("a", 0..600), ("b", 0..600)]), 0));
}
