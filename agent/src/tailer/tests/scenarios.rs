use logmesh_proto::Flags;

use super::rig::{PARTIAL_FLUSH, Rig, SECOND, bodies, lines};
use crate::{discovery::Hint, losses::LossReason, parcel::Returned};

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
fn a_file_that_was_born_and_gone_before_anyone_looked_is_told_once() {
    let mut rig = Rig::new();
    rig.run(SECOND);
    let born = |name: &str| Hint::Appeared(name.into());
    let moved = |from: &str, to: &str| Hint::Moved { from: from.into(), to: to.into() };
    // One that is read under its next name, one that is out of scope, and three that are gone.
    rig.files.append("/logs/a.1", lines("a", 0..10).as_bytes());
    rig.turn(vec![
        born("/logs/a.log"),
        moved("/logs/a.log", "/logs/a.1"),
        born("/logs/a.txt"),
        born("/logs/gone.log"),
        born("/logs/moved.log"),
        moved("/logs/moved.log", "/logs/moved.1"),
        moved("/logs/new", "/logs/new.log"),
    ]);
    rig.run(3 * SECOND);
    assert_eq!(rig.bodies(), bodies(&[("a", 0..10)]));
    let unseen = |name: &str| (name.to_owned(), None, LossReason::Unseen);
    assert_eq!(rig.losses(), [unseen("/logs/gone.log"), unseen("/logs/moved.log"), unseen("/logs/new.log")]);
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
fn a_copy_that_continued_a_generation_does_so_after_a_restart_too() {
    let mut rig = Rig::new();
    for copy in 0..6 {
        rig.files.append("/logs/a.log", lines("a", copy * 100..copy * 100 + 50).as_bytes());
        rig.run(2 * SECOND);
        rig.files.copy("/logs/a.log", &format!("/logs/copies/a.{copy}"));
        rig.files.truncate("/logs/a.log", 0);
        rig.run(2 * SECOND);
    }
    rig.kill();
    rig.start();
    rig.run(20 * SECOND);
    assert_eq!((rig.bodies().len(), rig.deliveries, rig.streams()), (300, 300, 6));
}

#[test]
fn of_the_generations_of_a_file_that_are_known_by_little_the_one_that_it_is_in_goes_on() {
    for attempt in 0..8 {
        let mut rig = Rig::new();
        rig.run(2 * SECOND);
        rig.files.append("/logs/before.log", b"has a checkpoint written\n");
        rig.turn(vec![Hint::Appeared("/logs/before.log".into())]);
        // All of it before the next one.
        rig.files.append("/logs/a.log", lines("a", 0..20).as_bytes());
        rig.turn(vec![Hint::Appeared("/logs/a.log".into())]);
        std::mem::take(&mut rig.waiting).iter().for_each(|parcel| rig.acknowledge(parcel));
        rig.files.truncate("/logs/a.log", 0);
        rig.files.append("/logs/a.log", lines("b", 0..20).as_bytes());
        for _ in 0..3 {
            rig.turn(vec![Hint::Changed("/logs/a.log".into())]);
            std::mem::take(&mut rig.waiting).iter().for_each(|parcel| rig.acknowledge(parcel));
        }
        assert_eq!((rig.bodies().len(), rig.streams()), (41, 3));
        rig.kill();
        rig.start();
        rig.run(20 * SECOND);
        assert_eq!((rig.bodies().len(), rig.streams()), (41, 3), "attempt {attempt}");
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
fn a_file_that_was_born_after_one_like_it_was_gone_is_read_whole() {
    for (polling, name) in
        [(false, "/logs/a.log"), (true, "/logs/a.log"), (false, "/logs/b.log"), (true, "/logs/b.log")]
    {
        let mut rig = Rig::new();
        rig.kill();
        rig.polling = polling;
        rig.start();
        let on_time = |rig: &Rig| rig.files.set_clock(i64::try_from(rig.now.unix_nano).unwrap(), false);
        on_time(&rig);
        rig.files.append("/logs/a.log", lines("same", 0..60).as_bytes());
        rig.run(20 * SECOND);
        on_time(&rig);
        rig.files.delete("/logs/a.log");
        rig.turn(vec![Hint::Vanished("/logs/a.log".into())]);
        rig.run(20 * SECOND);
        on_time(&rig);
        // As long, with the same beginning and the same end.
        let again = lines("same", 0..60).replacen("000030 some", "000030 next", 1);
        rig.files.append(name, again.as_bytes());
        rig.turn(vec![Hint::Appeared(name.into())]);
        rig.run(20 * SECOND);
        assert_eq!((rig.deliveries, rig.streams()), (120, 2), "polling: {polling}, {name}");
    }
}

#[test]
fn a_copy_that_was_made_while_the_agent_stood_still_within_a_turn_is_one() {
    let mut rig = Rig::new();
    rig.kill();
    rig.polling = false;
    rig.start();
    rig.run(SECOND);
    rig.files.append("/logs/a.log", lines("a", 0..60).as_bytes());
    rig.turn(vec![Hint::Appeared("/logs/a.log".into())]);
    rig.run(2 * SECOND);
    assert_eq!(rig.deliveries, 60);
    // SIGSTOP: by the turn's time, which was taken before, all of this is yet to come.
    let later = rig.now.unix_nano + 4_000_000_000;
    rig.files.set_clock(i64::try_from(later).unwrap(), false);
    rig.files.copy("/logs/a.log", "/logs/copies/a.1");
    rig.files.truncate("/logs/a.log", 0);
    rig.files.append("/logs/a.log", lines("b", 0..5).as_bytes());
    rig.turn(vec![Hint::Changed("/logs/a.log".into())]);
    rig.pass(5 * SECOND);
    rig.turn(vec![Hint::Appeared("/logs/copies/a.1".into())]);
    rig.run(20 * SECOND);
    assert_eq!((rig.deliveries, rig.streams()), (65, 2));
}

#[test]
fn a_copy_that_was_made_while_down_of_a_file_that_was_new_then_continues_it() {
    let mut rig = Rig::new();
    rig.run(2 * SECOND);
    rig.files.append("/logs/before.log", b"has a checkpoint written\n");
    rig.turn(vec![Hint::Appeared("/logs/before.log".into())]);
    // All of it before the next one.
    rig.files.append("/logs/a.log", lines("a", 0..20).as_bytes());
    for _ in 0..3 {
        rig.turn(vec![Hint::Appeared("/logs/a.log".into())]);
        std::mem::take(&mut rig.waiting).iter().for_each(|parcel| rig.acknowledge(parcel));
    }
    assert_eq!(rig.bodies().len(), 21);
    rig.kill();
    rig.files.copy("/logs/a.log", "/logs/copies/a.1");
    rig.files.truncate("/logs/a.log", 0);
    rig.files.append("/logs/a.log", lines("b", 0..20).as_bytes());
    rig.start();
    rig.run(20 * SECOND);
    assert_eq!((rig.bodies().len(), rig.streams()), (41, 3));
    assert_eq!(rig.tailer.as_ref().unwrap().tally.lost_events, 0);
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
fn a_containers_log_is_labelled_from_its_path_and_configured_labels_stay() {
    let mut rig = Rig::new();
    rig.kill();
    rig.info.labels.insert("kubernetes_pod".into(), "as configured".into());
    rig.start();
    let uid = "3f0f6a39-8f0b-4a3e-9a1c-0a2b3c4d5e6f";
    rig.files.append(&format!("/var/log/pods/shop_web-0_{uid}/nginx/0.log"), b"one\n");
    rig.files.append("/logs/a.log", b"two\n");
    rig.turn(vec![]);
    for parcel in &rig.waiting {
        let info = &parcel.info;
        let labels = |key: &str| info.labels.get(key).map(String::as_str);
        if info.path.starts_with("/logs") {
            assert_eq!((info.labels.len(), info.service.as_str()), (1, ""));
        } else {
            assert_eq!(
                (labels("kubernetes_namespace"), labels("kubernetes_pod")),
                (Some("shop"), Some("as configured"))
            );
            assert_eq!((labels("kubernetes_pod_uid"), info.service.as_str()), (Some(uid), "nginx"));
        }
    }
    assert_eq!(rig.waiting.len(), 2);
}
