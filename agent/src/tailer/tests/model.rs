//! Random schedules of writers, rotations, kills and answers against what must come out of them.
//!
//! Every line written is unique and has a terminator in the end. The schedule may rename files away, delete them once
//! they were rotated, truncate them, kill the agent and start it again, and lose or delay any answer. Where a line was
//! there for the agent to read (it was not truncated or deleted before the agent could see it), it must have arrived,
//! under one identity.

use std::{collections::BTreeMap, time::Duration};

use logmesh_proto::Flags;
use proptest::prelude::*;

use super::rig::Rig;
use crate::{
    discovery::Hint,
    inflate::tests as archived,
    lines::{FramingConfig, Multiline},
    parcel::{Answer, Returned},
    sift::SiftConfig,
};

#[derive(Clone, Debug)]
enum Act {
    /// Writes whole lines; the flag leaves the last one without its end until the next write.
    Write {
        file: u8,
        lines: u8,
        open: bool,
    },
    /// Renames the file away, as rotation does; a new one is made by the next write.
    Rotate {
        file: u8,
    },
    /// Lets everything be read, then truncates.
    Truncate {
        file: u8,
    },
    /// Lets everything be read, then deletes the oldest rotated file.
    Delete {
        file: u8,
    },
    /// Deletes the oldest rotated file, read or not: what is left of it goes to the spool before the next kill.
    Unlink {
        file: u8,
    },
    /// Compresses the file that was rotated last.
    Compress {
        file: u8,
        zstd: bool,
    },
    /// Turns the tailer, with or without a hint.
    Turn {
        hint: bool,
    },
    Pass {
        millis: u16,
    },
    /// Answers some batch: acknowledged, returned, or kept and the answer lost.
    Answer {
        pick: u8,
        how: u8,
    },
    Kill,
}

/// Acts of a world that also compresses what it rotates.
fn acts_that_compress() -> impl Strategy<Value = Vec<Act>> {
    let compress = (0u8..3, any::<bool>()).prop_map(|(file, zstd)| Act::Compress { file, zstd });
    prop::collection::vec(prop_oneof![1 => compress, 9 => act()], 1..120)
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 1..120)
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0u8..3, 1u8..30, any::<bool>()).prop_map(|(file, lines, open)| Act::Write { file, lines, open }),
        2 => (0u8..3).prop_map(|file| Act::Rotate { file }),
        1 => (0u8..3).prop_map(|file| Act::Truncate { file }),
        1 => (0u8..3).prop_map(|file| Act::Delete { file }),
        1 => (0u8..3).prop_map(|file| Act::Unlink { file }),
        8 => any::<bool>().prop_map(|hint| Act::Turn { hint }),
        3 => (0u16..8000).prop_map(|millis| Act::Pass { millis }),
        8 => (any::<u8>(), 0u8..8).prop_map(|(pick, how)| Act::Answer { pick, how }),
        1 => Just(Act::Kill),
    ]
}

struct Model {
    rig: Rig,
    written: usize,
    /// Lines whose end is still to be written, by file.
    open: BTreeMap<u8, bool>,
    rotated: BTreeMap<u8, Vec<String>>,
    rotations: usize,
    /// Whether a file was deleted that may be unread.
    unlinked: bool,
}

/// Files that are written to.
const FILES: usize = 3;

impl Model {
    fn path(file: u8) -> String {
        format!("/logs/{file}.log")
    }

    fn apply(&mut self, act: &Act) {
        match *act {
            Act::Write { file, lines, open } => self.write(file, lines, open),
            Act::Rotate { file } => self.rotate(file),
            Act::Truncate { file } => self.truncate(file),
            Act::Delete { file } => self.delete(file),
            Act::Unlink { file } => self.unlink(file),
            Act::Compress { file, zstd } => self.compress(file, zstd),
            Act::Turn { hint } => {
                let hints =
                    if hint { (0..3).map(|file| Hint::Appeared(Self::path(file).into())).collect() } else { vec![] };
                self.rig.turn(hints);
            }
            Act::Pass { millis } => self.rig.pass(Duration::from_millis(millis.into())),
            Act::Answer { pick, how } => self.answer(pick, how),
            Act::Kill => {
                if std::mem::take(&mut self.unlinked) {
                    // No answer comes meanwhile; what was called back leaves the shipper.
                    self.rig.run_unanswered(Duration::from_secs(45));
                }
                self.rig.kill();
                self.rig.start();
            }
        }
    }

    fn write(&mut self, file: u8, lines: u8, open: bool) {
        let mut text = String::new();
        for _ in 0..lines {
            if self.open.insert(file, false) == Some(true) {
                text.push('\n');
            }
            // Where lines are joined, every third one goes on from the one before.
            let begin =
                if self.rig.framing.multiline.is_some() && !self.written.is_multiple_of(3) { " more" } else { "line" };
            text.push_str(&format!("{begin} {:08} of file {file}, with some words to make it longer", self.written));
            if self.rig.compressed {
                // What is known of a generation by less than 256 bytes is not recognised in an archive.
                text.push_str(&" and longer".repeat(25));
            }
            self.open.insert(file, true);
            self.written += 1;
        }
        if !open {
            text.push('\n');
            self.open.insert(file, false);
        }
        self.rig.files.append(&Self::path(file), text.as_bytes());
    }

    /// Ends the open line.
    fn close(&mut self, file: u8) {
        if self.open.insert(file, false) == Some(true) {
            self.rig.files.append(&Self::path(file), b"\n");
        }
    }

    fn rotate(&mut self, file: u8) {
        let path = Self::path(file);
        if !self.rig.files.exists(&path) {
            return;
        }
        // The agent must have had a chance to see it: a file born and gone between two looks is lost by definition.
        self.rig.turn(vec![Hint::Appeared(path.clone().into())]);
        self.close(file);
        self.rotations += 1;
        let to = format!("/logs/{file}.{}", self.rotations);
        self.rig.files.rename(&path, &to);
        self.rotated.entry(file).or_default().push(to);
    }

    fn truncate(&mut self, file: u8) {
        let path = Self::path(file);
        if self.rig.files.exists(&path) {
            self.close(file);
            self.settle();
            self.rig.files.truncate(&path, 0);
        }
    }

    fn delete(&mut self, file: u8) {
        if self.rotated.get(&file).is_some_and(|rotated| !rotated.is_empty()) {
            self.settle();
            let oldest = self.rotated.get_mut(&file).unwrap().remove(0);
            self.rig.files.delete(&oldest);
        }
    }

    fn unlink(&mut self, file: u8) {
        if self.rotated.get(&file).is_some_and(|rotated| !rotated.is_empty()) {
            if self.rig.files_open_max < FILES {
                // What is unread of a file that is closed for want of descriptors goes with its name, and is told.
                self.settle();
            }
            let oldest = self.rotated.get_mut(&file).unwrap().remove(0);
            // It was seen, under this name or the one before, so its descriptor is open.
            self.rig.turn(vec![Hint::Appeared(oldest.clone().into())]);
            self.rig.files.delete(&oldest);
            self.unlinked = true;
        }
    }

    fn compress(&mut self, file: u8, zstd: bool) {
        let Some(rotated) = self.rotated.get_mut(&file).and_then(Vec::pop) else { return };
        let content = self.rig.files.content(&rotated).unwrap();
        let archive = if zstd { archived::zstd(&content) } else { archived::gzip(&content) };
        self.rig.files.append(&format!("/logs/copies/{}.packed", rotated.rsplit_once('/').unwrap().1), &archive);
        self.rig.files.delete(&rotated);
    }

    fn answer(&mut self, pick: u8, how: u8) {
        if self.rig.waiting.is_empty() {
            return;
        }
        let parcel = self.rig.waiting.remove(usize::from(pick) % self.rig.waiting.len());
        match how {
            0 => self.rig.give_back(parcel, Returned::Corrupt),
            1 => self.rig.give_back(parcel, Returned::Held { delay: Duration::from_secs(2) }),
            2 if parcel.batch.record_count > 1 => self.rig.give_back(parcel, Returned::TooLarge { limit: 600 }),
            3 => {
                // Stored, and the answer lost with the session: it is sent again.
                self.rig.keep(&parcel);
                self.rig.waiting.push(parcel);
            }
            _ => self.rig.acknowledge(&parcel),
        }
    }

    /// Lets the agent read and get acknowledged everything there is.
    fn settle(&mut self) {
        self.rig.answer(Answer::Opened { credit: 1 << 20, encoded_bytes_max: 640 * 1024, records_max: 10_000 });
        self.rig.run(Duration::from_secs(12));
    }
}

fn check(acts: &[Act], rig: Rig) {
    check_rig(acts, rig, |_| true);
}

/// `is_kept` says of a line whether it must arrive; one that need not may, where it was parted.
fn check_rig(acts: &[Act], rig: Rig, is_kept: fn(usize) -> bool) {
    let mut model =
        Model { rig, written: 0, open: BTreeMap::new(), rotated: BTreeMap::new(), rotations: 0, unlinked: false };
    acts.iter().for_each(|act| model.apply(act));
    (0..3).for_each(|file| model.close(file));
    model.settle();
    model.settle();
    model.rig.deliver_spooled();
    if model.rig.compressed {
        // Descriptors of deleted files stay open for a while, and their archives wait for that.
        model.rig.run(Duration::from_secs(60));
    }
    let mut times: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    // Records that were flushed and continued belong together: their bodies end where the next one begins.
    for (body, flags) in model.rig.kept.values() {
        for text in std::str::from_utf8(body).unwrap().lines() {
            let number = text.trim_start().split(' ').nth(1).and_then(|number| number.parse().ok());
            let number = number.unwrap_or_else(|| panic!("no line was ever written as {text:?}"));
            assert!(is_kept(number) || *flags != Flags::NONE, "{text:?} was to be dropped");
            times.entry(number).or_default().push(text.to_owned());
        }
    }
    let missing: Vec<usize> =
        (0..model.written).filter(|number| is_kept(*number) && !times.contains_key(number)).collect();
    assert!(missing.is_empty(), "lines {missing:?} of {} never arrived", model.written);
    let twice: Vec<_> = times.values().filter(|texts| texts.len() > 1).collect();
    assert!(twice.is_empty(), "more than one identity for {twice:?}");
    assert_eq!(model.rig.lost_bytes(), 0);
}

/// How many schedules are tried: 510 by all models together, and many more in `make soak`.
fn schedules(small: u32, full: u32) -> ProptestConfig {
    let cases = if std::env::var("LOGMESH_SOAK").is_ok_and(|value| value == "1") { full } else { small };
    ProptestConfig { cases, max_shrink_iters: 2000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(schedules(140, 2000))]

    #[test]
    fn every_line_arrives_under_one_identity_whatever_happens(acts in acts()) {
        check(&acts, Rig::new());
    }

    #[test]
    fn every_line_that_is_kept_arrives_under_one_identity_whatever_happens(acts in acts()) {
        // Long runs of both, and short ones.
        let sift = SiftConfig { exclude_lines: vec!["^line 0*[0-9]*([0-3][0-9]|[13579]) ".into()], ..SiftConfig::default() };
        let mut rig = Rig::new();
        rig.kill();
        rig.sift = sift;
        rig.start();
        check_rig(&acts, rig, |number| number % 100 >= 40 && number % 2 == 0);
    }

    #[test]
    fn every_line_of_joined_records_arrives_under_one_identity_whatever_happens(acts in acts(), lines_max in 2usize..40) {
        let multiline = Some(Multiline::Start("^line".into()));
        let framing = FramingConfig { multiline, lines_max: Some(lines_max), ..FramingConfig::default() };
        check(&acts, Rig::with_framing(framing));
    }

}

proptest! {
    // Each takes minutes of the clock of the model.
    #![proptest_config(schedules(30, 1000))]

    #[test]
    fn every_line_arrives_under_one_identity_whatever_is_compressed_when(acts in acts_that_compress()) {
        check(&acts, Rig::with_archives());
    }

    #[test]
    fn every_line_arrives_under_one_identity_when_only_changes_of_the_state_are_written(acts in acts()) {
        let mut rig = Rig::new();
        rig.kill();
        rig.changes_alone = true;
        rig.start();
        check(&acts, rig);
    }

    #[test]
    fn every_line_arrives_under_one_identity_with_two_descriptors(acts in acts()) {
        let mut rig = Rig::new();
        rig.kill();
        rig.files_open_max = 2;
        rig.start();
        check(&acts, rig);
    }
}
