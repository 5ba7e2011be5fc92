//! What goes wrong around the tailer: no room on disk, refusals, files that cannot be read, losses.

use super::rig::{Rig, SECOND, bodies, lines};
use crate::{
    losses::{LossReason, Lost},
    parcel::Returned,
    tailer::pace,
};

#[test]
fn a_batch_that_is_too_large_for_its_lane_is_cut_between_records() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..16).as_bytes());
    rig.run_unanswered(SECOND);
    let parcel = rig.waiting.pop().unwrap();
    let first = parcel.batch.record_count;
    rig.give_back(parcel, Returned::TooLarge { limit: 400 });
    for _ in 0..20 {
        rig.run_unanswered(SECOND);
        for parcel in std::mem::take(&mut rig.waiting) {
            assert!(parcel.encoded <= 400 && parcel.batch.record_count < first);
            rig.acknowledge(&parcel);
        }
    }
    assert_eq!(rig.bodies(), bodies(&[("a", 0..16)]));
}

#[test]
fn an_unreadable_file_is_told_and_read_once_it_can_be() {
    let mut rig = Rig::new();
    rig.files.set_unreadable("/logs/a.log", true);
    rig.files.append("/logs/a.log", b"secret\n");
    rig.files.append("/logs/b.log", b"open\n");
    rig.run(3 * SECOND);
    assert_eq!((rig.bodies(), rig.tailer.as_ref().unwrap().unreadable().len()), (vec!["open".to_owned()], 1));
    rig.files.set_unreadable("/logs/a.log", false);
    rig.run(3 * SECOND);
    assert_eq!((rig.bodies().len(), rig.tailer.as_ref().unwrap().unreadable().len()), (2, 0));
}

#[test]
fn what_a_truncation_took_away_unread_is_counted() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run(2 * SECOND);
    // Without a session little more is read than was.
    rig.answer(crate::parcel::Answer::Closed);
    rig.files.append("/logs/a.log", lines("a", 10..30_000).as_bytes());
    let size = rig.files.content("/logs/a.log").unwrap().len() as u64;
    rig.run_unanswered(3 * SECOND);
    let read = rig.tailer.as_ref().unwrap().tally.read_bytes;
    assert!(read < size, "all of it was read");
    rig.files.truncate("/logs/a.log", 0);
    rig.run_unanswered(3 * SECOND);
    rig.run(30 * SECOND);
    assert_eq!(rig.lost_bytes(), size - read);
    assert_eq!(rig.losses(), [("/logs/a.log".to_owned(), Some(size - read), LossReason::Truncated)]);
    let snapshot = rig.tailer.as_ref().unwrap().snapshot(rig.now, 10);
    assert_eq!((snapshot.files[0].lost_bytes, snapshot.files[0].lost_events), (size - read, 1));
    assert_eq!(snapshot.lost[&LossReason::Truncated], Lost { bytes: size - read, events: 1 });
}

#[test]
fn a_truncation_of_a_file_that_was_read_is_a_loss_of_unknown_size_unless_a_copy_turns_up() {
    for copied in [false, true] {
        let mut rig = Rig::new();
        rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
        rig.run(2 * SECOND);
        if copied {
            rig.files.copy("/logs/a.log", "/logs/copies/a.1");
        }
        rig.files.truncate("/logs/a.log", 0);
        rig.run(30 * SECOND);
        let expected = if copied { vec![] } else { vec![("/logs/a.log".to_owned(), None, LossReason::Truncated)] };
        assert_eq!((rig.losses(), rig.lost_bytes()), (expected, 0), "copied: {copied}");
    }
}

#[test]
fn what_was_cut_and_never_acknowledged_of_a_file_deleted_while_the_agent_was_down_is_counted() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run_unanswered(2 * SECOND);
    let size = rig.files.content("/logs/a.log").unwrap().len() as u64;
    rig.kill();
    rig.files.delete("/logs/a.log");
    rig.start();
    rig.run(3 * SECOND);
    assert_eq!(rig.losses(), [], "it may turn up under another inode");
    rig.pass(pace::VANISHED_KEPT);
    rig.run(10 * SECOND);
    assert_eq!(rig.losses(), [("/logs/a.log".to_owned(), Some(size), LossReason::Deleted)]);
}

#[test]
fn no_batch_leaves_without_its_cut_and_all_are_delivered_once_there_is_room() {
    for killed in [false, true] {
        let mut rig = Rig::new();
        rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
        rig.run(2 * SECOND);
        rig.set_disk_full(true);
        rig.files.append("/logs/a.log", lines("a", 50..100).as_bytes());
        rig.files.append("/logs/b.log", lines("b", 0..50).as_bytes());
        rig.run_unanswered(5 * SECOND);
        assert!(rig.waiting.is_empty(), "{} batches left without their cuts", rig.waiting.len());
        let tailer = rig.tailer.as_ref().unwrap();
        assert!(tailer.state_failure().is_some() && tailer.is_held_by_state());
        if killed {
            rig.kill();
            rig.start();
        }
        rig.set_disk_full(false);
        rig.run(5 * SECOND);
        assert_eq!(rig.bodies(), bodies(&[("a", 0..100), ("b", 0..50)]));
        assert_eq!((rig.deliveries, rig.streams(), rig.lost_bytes()), (150, 2, 0), "killed: {killed}");
        assert!(rig.tailer.as_ref().unwrap().state_failure().is_none());
    }
}

#[test]
fn a_refused_batch_is_not_split_before_both_halves_are_in_the_cut_log() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run_unanswered(SECOND);
    rig.set_disk_full(true);
    let parcel = rig.waiting.remove(0);
    let limit = parcel.encoded / 2;
    rig.give_back(parcel, Returned::TooLarge { limit });
    rig.run_unanswered(5 * SECOND);
    assert!(rig.waiting.is_empty(), "{} halves left without their cuts", rig.waiting.len());
    rig.set_disk_full(false);
    rig.run(5 * SECOND);
    assert_eq!((rig.bodies(), rig.deliveries), (bodies(&[("a", 0..10)]), 10));
}

#[test]
fn an_unreadable_file_that_is_deleted_is_told_no_more() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", b"secret\n");
    rig.files.append("/logs/b.log", b"secret\n");
    rig.files.set_unreadable("/logs/a.log", true);
    rig.files.set_unreadable("/logs/b.log", true);
    rig.run(5 * SECOND);
    assert_eq!(rig.tailer.as_ref().unwrap().unreadable().len(), 2);
    rig.files.delete("/logs/a.log");
    rig.run(5 * SECOND);
    let unreadable = rig.tailer.as_ref().unwrap().unreadable();
    assert_eq!(unreadable.len(), 1);
    assert_eq!(unreadable[0].0, std::path::Path::new("/logs/b.log"));
}

#[test]
fn a_refused_batch_whose_file_is_gone_is_taken_apart_between_records() {
    let mut rig = Rig::new();
    let crlf = lines("crlf", 0..3).replace('\n', "\r\n");
    rig.files.append("/logs/a.log", format!("{}{crlf}\n", lines("a", 0..12)).as_bytes());
    rig.run_unanswered(SECOND);
    rig.files.truncate("/logs/a.log", 0);
    rig.run_unanswered(SECOND);
    let parcel = rig.waiting.pop().unwrap();
    rig.give_back(parcel, Returned::TooLarge { limit: 400 });
    let mut refused = 0;
    for _ in 0..20 {
        rig.run_unanswered(SECOND);
        for parcel in std::mem::take(&mut rig.waiting) {
            if parcel.encoded > 400 {
                refused += 1;
                rig.give_back(parcel, Returned::TooLarge { limit: 400 });
            } else {
                rig.acknowledge(&parcel);
            }
        }
    }
    let mut expected = bodies(&[("a", 0..12), ("crlf", 0..3)]);
    expected.insert(0, String::new());
    assert_eq!((rig.bodies(), rig.deliveries), (expected, 16));
    assert!(refused <= 3, "it was sent unchanged again and again: {refused}");
    let tailer = rig.tailer.as_ref().unwrap();
    assert_eq!((tailer.window.bytes, tailer.window.parcels, rig.lost_bytes()), (0, 0, 0));
}

#[test]
fn a_lone_record_that_its_topic_does_not_take_is_kept_and_told_until_it_is_taken() {
    for truncated in [false, true] {
        let mut rig = Rig::new();
        rig.files.append("/logs/a.log", format!("{}\n", "x".repeat(1500)).as_bytes());
        rig.run_unanswered(SECOND);
        if truncated {
            rig.files.truncate("/logs/a.log", 0);
            rig.run_unanswered(SECOND);
        }
        let parcel = rig.waiting.pop().unwrap();
        rig.give_back(parcel, Returned::TooLarge { limit: 400 });
        rig.run_unanswered(20 * SECOND);
        assert!(rig.waiting.is_empty(), "it waits");
        let told = rig.tailer.as_ref().unwrap().oversized().unwrap();
        assert!(told.contains("/logs/a.log") && told.contains("400 bytes"), "{told}");
        rig.run(20 * SECOND);
        assert_eq!((rig.deliveries, rig.tailer.as_ref().unwrap().oversized()), (1, None), "{truncated}");
    }
}

#[test]
fn what_a_damaged_cut_log_may_have_known_is_marked_as_a_resend() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..20).as_bytes());
    rig.run(2 * SECOND);
    rig.files.append("/logs/before.log", b"has a checkpoint written\n");
    rig.turn(vec![crate::discovery::Hint::Appeared("/logs/before.log".into())]);
    // All that follows is before the next one.
    rig.files.truncate("/logs/a.log", 0);
    rig.files.append("/logs/a.log", lines("b", 0..20).as_bytes());
    rig.files.append("/logs/new.log", lines("new", 0..20).as_bytes());
    rig.turn(vec![crate::discovery::Hint::Changed("/logs/a.log".into())]);
    rig.turn(vec![crate::discovery::Hint::Appeared("/logs/new.log".into())]);
    rig.turn(Vec::new());
    rig.kill();
    for entry in std::fs::read_dir(rig.directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::write(path, b"").unwrap();
        }
    }
    rig.start();
    rig.run(20 * SECOND);
    for body in lines("b", 0..20).lines().chain(lines("new", 0..20).lines()) {
        assert!(rig.flags_of(body).contains(logmesh_proto::Flags::RESEND), "{body}");
    }
    // What comes later is known to be new.
    rig.files.truncate("/logs/a.log", 0);
    rig.files.append("/logs/a.log", lines("c", 0..5).as_bytes());
    rig.run(20 * SECOND);
    assert!(lines("c", 0..5).lines().all(|body| !rig.flags_of(body).contains(logmesh_proto::Flags::RESEND)));
}
