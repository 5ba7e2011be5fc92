use std::time::Duration;

use logmesh_proto::Flags;

use super::rig::{PARTIAL_FLUSH, Rig};
use crate::{
    discovery::Hint,
    parcel::Returned,
    tailer::{LossReason, Lost, pace},
};

const SECOND: Duration = Duration::from_secs(1);

/// Lines of one generation, long enough together for heads and anchors to tell it from others.
fn lines(name: &str, range: std::ops::Range<usize>) -> String {
    range.map(|number| format!("{name} {number:06} some words to make the line longer\n")).collect()
}

fn bodies(parts: &[(&str, std::ops::Range<usize>)]) -> Vec<String> {
    let mut all: Vec<String> = parts
        .iter()
        .flat_map(|(name, range)| lines(name, range.clone()).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    all.sort();
    all
}

#[test]
fn files_in_scope_are_read_whole_and_others_not_at_all() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..100).as_bytes());
    rig.files.append("/logs/not.log", b"excluded\n");
    rig.files.append("/logs/a.txt", b"no match\n");
    rig.run(3 * SECOND);
    assert_eq!(rig.bodies(), bodies(&[("a", 0..100)]));
    assert_eq!(rig.deliveries, 100);
}

#[test]
fn a_renamed_file_is_read_to_its_end_under_any_name_and_the_new_one_too() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run(2 * SECOND);
    rig.files.append("/logs/a.log", lines("a", 10..20).as_bytes());
    rig.files.rename("/logs/a.log", "/logs/a.1");
    rig.files.append("/logs/a.log", lines("b", 0..10).as_bytes());
    rig.run(3 * SECOND);
    rig.files.append("/logs/a.1", lines("a", 20..30).as_bytes());
    rig.run(3 * SECOND);
    assert_eq!(rig.bodies(), bodies(&[("a", 0..30), ("b", 0..10)]));
    assert_eq!((rig.deliveries, rig.streams()), (40, 2));
}

#[test]
fn a_file_renamed_out_of_scope_while_the_agent_was_down_is_found_by_its_inode() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run(2 * SECOND);
    rig.kill();
    rig.files.append("/logs/a.log", lines("a", 10..20).as_bytes());
    rig.files.rename("/logs/a.log", "/logs/a.1");
    rig.files.append("/logs/a.log", lines("b", 0..10).as_bytes());
    rig.start();
    rig.run(3 * SECOND);
    assert_eq!(rig.bodies(), bodies(&[("a", 0..20), ("b", 0..10)]));
    assert_eq!(rig.streams(), 2);
}

#[test]
fn rotations_between_two_walks_are_followed_by_hints() {
    let mut rig = Rig::new();
    rig.run(SECOND);
    let moved = |from: &str, to: &str| Hint::Moved { from: from.into(), to: to.into() };
    // A generation that is never seen under a name in scope.
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.files.rename("/logs/a.log", "/logs/a.1");
    rig.files.append("/logs/a.log", lines("b", 0..10).as_bytes());
    rig.files.rename("/logs/a.1", "/logs/a.2");
    rig.files.rename("/logs/a.log", "/logs/a.1");
    rig.turn(vec![
        moved("/logs/a.log", "/logs/a.1"),
        moved("/logs/a.1", "/logs/a.2"),
        moved("/logs/a.log", "/logs/a.1"),
    ]);
    rig.run(3 * SECOND);
    assert_eq!(rig.bodies(), bodies(&[("a", 0..10), ("b", 0..10)]));
}

#[test]
fn a_truncated_file_is_a_new_generation_and_both_are_read() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run(2 * SECOND);
    rig.files.truncate("/logs/a.log", 0);
    rig.files.append("/logs/a.log", lines("b", 0..5).as_bytes());
    rig.run(2 * SECOND);
    assert_eq!(rig.bodies(), bodies(&[("a", 0..10), ("b", 0..5)]));
    assert_eq!((rig.streams(), rig.lost_bytes()), (2, 0));
}

#[test]
fn a_file_rewritten_with_the_same_or_a_greater_length_is_noticed() {
    for (count, while_down) in [(10, false), (25, false), (10, true), (25, true)] {
        let mut rig = Rig::new();
        rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
        rig.run(2 * SECOND);
        if while_down {
            rig.kill();
        }
        rig.files.truncate("/logs/a.log", 0);
        rig.files.append("/logs/a.log", lines("b", 0..count).as_bytes());
        if while_down {
            rig.start();
        }
        rig.run(2 * SECOND);
        assert_eq!(rig.bodies(), bodies(&[("a", 0..10), ("b", 0..count)]), "{count} {while_down}");
    }
}

#[test]
fn the_new_generations_epoch_outlives_a_kill() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run(2 * SECOND);
    rig.files.truncate("/logs/a.log", 0);
    rig.files.append("/logs/a.log", lines("b", 0..10).as_bytes());
    // Sent, and never answered.
    rig.run_unanswered(SECOND);
    for parcel in std::mem::take(&mut rig.waiting) {
        rig.keep(&parcel);
    }
    rig.kill();
    rig.start();
    rig.run(3 * SECOND);
    assert_eq!((rig.streams(), rig.bodies().len()), (2, 20));
}

#[test]
fn copytruncate_with_the_copy_in_scope_reads_only_the_unread_tail() {
    for while_down in [false, true] {
        let mut rig = Rig::new();
        rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
        rig.run(2 * SECOND);
        if while_down {
            rig.kill();
        }
        rig.files.append("/logs/a.log", lines("a", 50..60).as_bytes());
        rig.files.copy("/logs/a.log", "/logs/copies/a.1");
        rig.files.truncate("/logs/a.log", 0);
        rig.files.append("/logs/a.log", lines("b", 0..5).as_bytes());
        if while_down {
            rig.start();
        }
        rig.run(20 * SECOND);
        assert_eq!(rig.bodies(), bodies(&[("a", 0..60), ("b", 0..5)]), "while down: {while_down}");
        assert_eq!((rig.deliveries, rig.streams()), (65, 2));
    }
}

#[test]
fn a_copy_that_is_seen_before_the_truncation_waits_and_becomes_the_continuation() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
    rig.run(2 * SECOND);
    rig.files.copy("/logs/a.log", "/logs/copies/a.1");
    rig.run(3 * SECOND);
    assert_eq!(rig.deliveries, 50, "held back");
    rig.files.append("/logs/a.log", lines("lost to the copy", 0..5).as_bytes());
    rig.run(SECOND);
    rig.files.truncate("/logs/a.log", 0);
    rig.files.append("/logs/a.log", lines("b", 0..5).as_bytes());
    rig.run(20 * SECOND);
    assert_eq!(rig.bodies(), bodies(&[("a", 0..50), ("lost to the copy", 0..5), ("b", 0..5)]));
    assert_eq!(rig.deliveries, 60);
}

#[test]
fn equal_content_never_merges_two_live_files() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("same", 0..50).as_bytes());
    rig.run(2 * SECOND);
    rig.files.append("/logs/b.log", lines("same", 0..50).as_bytes());
    rig.run(20 * SECOND);
    assert_eq!((rig.deliveries, rig.streams()), (100, 2));
}

#[test]
fn a_moved_disk_continues_under_new_inodes() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
    rig.run(2 * SECOND);
    rig.kill();
    rig.files.append("/logs/copies/moved", &rig.files.content("/logs/a.log").unwrap());
    rig.files.delete("/logs/a.log");
    rig.files.append("/logs/copies/moved", lines("a", 50..60).as_bytes());
    rig.files.set_device(99);
    rig.start();
    rig.run(20 * SECOND);
    assert_eq!(rig.bodies(), bodies(&[("a", 0..60)]));
    assert_eq!((rig.deliveries, rig.streams()), (60, 1));
}

#[test]
fn a_device_number_that_changed_with_a_reboot_changes_nothing() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run(2 * SECOND);
    rig.kill();
    rig.files.set_device(99);
    rig.start();
    rig.run(3 * SECOND);
    assert_eq!((rig.deliveries, rig.streams()), (10, 1));
}

#[test]
fn a_reused_inode_is_another_file() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run(2 * SECOND);
    rig.kill();
    rig.files.delete("/logs/a.log");
    rig.files.append("/logs/b.log", lines("b", 0..20).as_bytes());
    rig.start();
    rig.run(3 * SECOND);
    assert_eq!(rig.bodies(), bodies(&[("a", 0..10), ("b", 0..20)]));
}

#[test]
fn without_birth_times_inodes_are_told_apart_by_the_first_line() {
    let mut rig = Rig::new();
    rig.files.forget_births();
    rig.files.append("/logs/a.log", b"begun, not ended");
    rig.run(2 * SECOND);
    assert_eq!(rig.deliveries, 0, "no identity before the first line is whole");
    rig.files.append("/logs/a.log", b" yet\n");
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run(2 * SECOND);
    rig.kill();
    rig.files.delete("/logs/a.log");
    rig.files.append("/logs/a.log", lines("b", 0..30).as_bytes());
    rig.start();
    rig.run(3 * SECOND);
    assert_eq!((rig.deliveries, rig.streams()), (41, 2));
}

#[test]
fn a_deleted_file_is_read_to_its_end_and_then_closed() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run(2 * SECOND);
    rig.files.append("/logs/a.log", lines("a", 10..20).as_bytes());
    rig.files.append("/logs/a.log", b"unterminated");
    rig.files.delete("/logs/a.log");
    rig.run(2 * SECOND);
    assert_eq!(rig.bodies().len(), 21, "and its rest is sent at once, for its generation has ended");
    assert_eq!(rig.files.open_files(), 1);
    rig.run(60 * SECOND);
    assert_eq!((rig.files.open_files(), rig.tailer.as_ref().unwrap().sources.len()), (0, 0));
}

#[test]
fn an_unterminated_line_is_sent_after_a_time_and_its_terminator_swallowed() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", b"one\ntwo");
    rig.run(PARTIAL_FLUSH / 2);
    assert_eq!(rig.bodies(), ["one"]);
    rig.run(PARTIAL_FLUSH);
    assert_eq!(rig.bodies(), ["one", "two"]);
    assert!(rig.flags_of("two").contains(Flags::LAST_PARTIAL));
    rig.files.append("/logs/a.log", b"\n");
    rig.run(PARTIAL_FLUSH);
    rig.files.append("/logs/a.log", b"three\nfo");
    rig.run(PARTIAL_FLUSH * 2);
    rig.files.append("/logs/a.log", b"ur\n");
    rig.run(PARTIAL_FLUSH);
    assert_eq!(rig.bodies(), ["fo", "one", "three", "two", "ur"]);
    assert!(rig.flags_of("ur").contains(Flags::FIRST_CONTINUED));
    let offsets: Vec<u64> = rig.kept.keys().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, [0, 4, 8, 14, 16], "records are named by where their bodies begin");
}

#[test]
fn a_kill_after_a_partial_flush_cuts_the_same_way_again() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", b"one\ntw");
    rig.run_unanswered(PARTIAL_FLUSH * 2);
    for parcel in std::mem::take(&mut rig.waiting) {
        rig.keep(&parcel);
    }
    rig.kill();
    rig.files.append("/logs/a.log", b"o\nthree\n");
    rig.start();
    rig.pass(3600 * SECOND);
    rig.run(3 * SECOND);
    assert_eq!(
        rig.bodies(),
        ["one", "o", "three", "tw"]
            .map(str::to_owned)
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    assert_eq!(rig.batches.len(), 3, "the same batches with the same times: {:?}", rig.batches);
}

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
fn a_batch_that_came_back_is_built_again_and_held_ones_wait() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..60).as_bytes());
    rig.run_unanswered(SECOND);
    let sent = std::mem::take(&mut rig.waiting);
    let facts: Vec<_> = sent.iter().map(|parcel| parcel.batch.clone()).collect();
    for parcel in sent {
        rig.give_back(parcel, Returned::Held { delay: 10 * SECOND });
    }
    rig.run_unanswered(5 * SECOND);
    assert!(rig.waiting.is_empty(), "held");
    rig.run_unanswered(6 * SECOND);
    let again: Vec<_> = rig.waiting.iter().map(|parcel| parcel.batch.clone()).collect();
    assert_eq!(again, facts, "byte for byte");
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
fn with_the_state_lost_everything_is_read_again_and_marked() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..10).as_bytes());
    rig.run(2 * SECOND);
    rig.kill();
    for entry in std::fs::read_dir(rig.directory.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    rig.fresh = false;
    rig.start();
    rig.run(2 * SECOND);
    rig.files.append("/logs/b.log", b"new\n");
    rig.run(3 * SECOND);
    assert_eq!((rig.deliveries, rig.streams()), (21, 2), "the same ids");
    let first = lines("a", 0..1);
    assert!(rig.flags_of(first.trim_end()).contains(Flags::RESEND));
    assert!(!rig.flags_of("new").contains(Flags::RESEND), "it was not there when the state was lost");
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
fn one_busy_file_does_not_starve_the_others() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..300_000).as_bytes());
    (0..50).for_each(|file| rig.files.append(&format!("/logs/small-{file}.log"), b"small\n"));
    for _ in 0..4 {
        rig.turn(Vec::new());
        for parcel in std::mem::take(&mut rig.waiting) {
            rig.acknowledge(&parcel);
        }
    }
    let small = rig.kept.values().filter(|(body, _)| body == b"small").count();
    assert_eq!(small, 50);
    assert!(rig.kept.len() < 250_000);
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
