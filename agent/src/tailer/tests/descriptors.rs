//! Few descriptors: files are closed and opened again, and nothing is lost or doubled for it.

use super::rig::{Rig, SECOND, bodies, lines};
use crate::{discovery::Hint, losses::LossReason};

fn rig(files_open_max: usize) -> Rig {
    let mut rig = Rig::new();
    rig.kill();
    rig.files_open_max = files_open_max;
    rig.start();
    rig
}

/// `/logs/0.log` and the next ones, each with ten lines that are read and acknowledged.
fn with_files(files_open_max: usize, count: usize) -> Rig {
    let mut rig = rig(files_open_max);
    for file in 0..count {
        rig.files.append(&format!("/logs/{file}.log"), lines(&file.to_string(), 0..10).as_bytes());
        rig.run(SECOND / 4);
    }
    rig.run(5 * SECOND);
    assert_eq!(rig.kept.len(), count * 10);
    rig
}

#[test]
fn files_beyond_the_bound_are_closed_and_read_on_when_they_grow() {
    let mut rig = rig(4);
    (0..20).for_each(|file| rig.files.append(&format!("/logs/{file}.log"), lines(&file.to_string(), 0..10).as_bytes()));
    for round in 1..4 {
        for _ in 0..80 {
            rig.run(SECOND / 4);
            assert!(rig.files.open_files() <= 4, "{} files are open", rig.files.open_files());
        }
        assert_eq!((rig.kept.len(), rig.deliveries), (20 * 10 * round, 20 * 10 * round));
        (0..20).for_each(|file| {
            let more = lines(&file.to_string(), 10 * round..10 * (round + 1));
            rig.files.append(&format!("/logs/{file}.log"), more.as_bytes());
        });
    }
    assert_eq!((rig.streams(), rig.lost_bytes()), (20, 0));
    rig.files.take_asked();
    rig.run(5 * SECOND);
    rig.files.take_asked();
    rig.run(60 * SECOND);
    assert_eq!(rig.files.take_asked().opens, 0, "at rest none is opened");
}

#[test]
fn more_files_with_unread_lines_than_descriptors_take_turns() {
    let mut rig = rig(2);
    (0..6).for_each(|file| {
        rig.files.append(&format!("/logs/{file}.log"), lines(&file.to_string(), 0..500).as_bytes());
    });
    rig.run_unanswered(3 * SECOND);
    assert!(rig.files.open_files() <= 2);
    let waiting = std::mem::take(&mut rig.waiting);
    waiting.iter().for_each(|parcel| rig.acknowledge(parcel));
    rig.run(20 * SECOND);
    assert_eq!((rig.kept.len(), rig.deliveries, rig.streams()), (3000, 3000, 6));
}

#[test]
fn a_closed_file_is_the_same_under_any_name_that_a_walk_comes_to() {
    for to in ["/logs/renamed.log", "/logs/0.1", "/logs/copies/0"] {
        let mut rig = with_files(2, 5);
        rig.files.rename("/logs/0.log", to);
        rig.files.append(to, lines("0", 10..20).as_bytes());
        rig.files.append("/logs/0.log", lines("new", 0..10).as_bytes());
        rig.run(10 * SECOND);
        rig.files.append(to, lines("0", 20..30).as_bytes());
        rig.run(10 * SECOND);
        let mut expected = bodies(&[("0", 0..30), ("new", 0..10)]);
        expected.extend(bodies(&[("1", 0..10), ("2", 0..10), ("3", 0..10), ("4", 0..10)]));
        expected.sort();
        assert_eq!((rig.bodies(), rig.streams(), rig.deliveries), (expected, 6, 80), "{to}");
    }
}

#[test]
fn a_closed_file_that_is_deleted_is_no_loss_unless_it_changed_unseen() {
    for changed in [false, true] {
        let mut rig = with_files(2, 5);
        rig.files.delete("/logs/0.log");
        if changed {
            rig.turn(vec![Hint::Changed("/logs/0.log".into())]);
        }
        rig.turn(vec![Hint::Vanished("/logs/0.log".into())]);
        rig.run(400 * SECOND);
        let expected = [("/logs/0.log".to_owned(), None, LossReason::Deleted)];
        assert_eq!(rig.losses(), expected[..usize::from(changed)]);
        assert_eq!(rig.tailer.as_ref().unwrap().sources.len(), 4, "it is forgotten");
        assert!(rig.tailer.as_ref().unwrap().walk.wanted.len() <= 4);
    }
}

#[test]
fn what_was_seen_of_a_closed_file_and_is_gone_is_counted_exactly() {
    let mut rig = rig(2);
    (0..4).for_each(|file| rig.files.append(&format!("/logs/{file}.log"), lines(&file.to_string(), 0..10).as_bytes()));
    // Nothing is read without room in the window.
    let credit = crate::parcel::Answer::Closed;
    rig.answer(credit);
    rig.turn(Vec::new());
    let sent: u64 = rig.waiting.iter().map(|parcel| parcel.batch.end_offset).sum();
    let size = lines("0", 0..10).len() as u64;
    for file in 0..4 {
        rig.files.delete(&format!("/logs/{file}.log"));
    }
    let waiting = std::mem::take(&mut rig.waiting);
    waiting.iter().for_each(|parcel| rig.acknowledge(parcel));
    rig.run(700 * SECOND);
    let delivered: u64 = rig.batches.iter().map(|(_, first, end, ..)| end - first).sum();
    assert!(sent > 0 && delivered >= sent);
    assert_eq!(delivered + rig.lost_bytes(), 4 * size, "{:?}", rig.losses());
}

#[test]
fn another_file_with_the_inode_of_a_closed_one_is_read_whole() {
    for births in [true, false] {
        let mut rig = Rig::new();
        if !births {
            rig.files.forget_births();
        }
        rig.kill();
        rig.files_open_max = 2;
        rig.start();
        for file in 0..5 {
            rig.files.append(&format!("/logs/{file}.log"), lines(&file.to_string(), 0..10).as_bytes());
            rig.run(SECOND / 4);
        }
        rig.run(5 * SECOND);
        rig.files.delete("/logs/0.log");
        rig.files.append("/logs/9.log", lines("9", 0..15).as_bytes());
        rig.run(10 * SECOND);
        assert_eq!((rig.streams(), rig.deliveries, rig.kept.len()), (6, 65, 65), "births: {births}");
    }
}

#[test]
fn a_closed_file_that_is_rewritten_or_copied_and_truncated_is_noticed() {
    for copied in [false, true] {
        let mut rig = with_files(2, 5);
        if copied {
            rig.files.copy("/logs/0.log", "/logs/copies/0");
        }
        rig.files.truncate("/logs/0.log", 0);
        rig.files.append("/logs/0.log", lines("new", 0..5).as_bytes());
        rig.run(30 * SECOND);
        assert_eq!((rig.kept.len(), rig.deliveries, rig.lost_bytes()), (55, 55, 0), "copied: {copied}");
    }
}

#[test]
fn without_a_descriptor_left_files_are_closed_and_nobody_is_called_unreadable() {
    let mut rig = rig(1000);
    rig.files.set_descriptors(Some(5));
    (0..12).for_each(|file| rig.files.append(&format!("/logs/{file}.log"), lines(&file.to_string(), 0..10).as_bytes()));
    rig.run(20 * SECOND);
    assert_eq!((rig.kept.len(), rig.deliveries), (120, 120));
    let tailer = rig.tailer.as_ref().unwrap();
    assert_eq!(tailer.unreadable(), []);
    let told = tailer.descriptor_shortage().unwrap();
    assert!(told.contains("LimitNOFILE") && told.contains("files_open_max"), "{told}");
    rig.files.set_descriptors(None);
    rig.run(700 * SECOND);
    (0..12).for_each(|file| {
        rig.files.append(&format!("/logs/{file}.log"), lines(&file.to_string(), 10..20).as_bytes());
    });
    rig.run(20 * SECOND);
    assert_eq!((rig.kept.len(), rig.files.open_files()), (240, 12), "there is room for all");
    assert_eq!(rig.tailer.as_ref().unwrap().descriptor_shortage(), None);
}
