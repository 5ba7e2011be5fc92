//! Records dropped at the source, over kills, halves and changes of mind.

use logmesh_proto::Flags;

use super::rig::{PARTIAL_FLUSH, Rig, SECOND, lines};
use crate::{
    parcel::Returned,
    sift::{Level, SiftConfig},
};

fn sifting(sift: SiftConfig) -> Rig {
    let mut rig = Rig::new();
    rig.kill();
    rig.sift = sift;
    rig.start();
    rig
}

fn without(pattern: &str) -> Rig {
    sifting(SiftConfig { exclude_lines: vec![pattern.into()], ..SiftConfig::default() })
}

fn odd() -> Rig {
    without(r"^\w+ \d+[13579] ")
}

/// Every second line.
fn even(name: &str, range: std::ops::Range<usize>) -> Vec<String> {
    let mut lines: Vec<String> = lines(name, range).lines().step_by(2).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn dropped_records_are_counted_by_reason_and_the_rest_arrives() {
    let config = SiftConfig {
        include_lines: vec!["a".into()],
        exclude_lines: vec!["health".into()],
        level_min: Some(Level::Info),
        sample: None,
    };
    let mut rig = sifting(config);
    rig.files.append("/logs/a.log", b"INFO a\nDEBUG a\nb\na health\na\nINFO b\n");
    rig.run(2 * SECOND);
    assert_eq!(rig.bodies(), ["INFO a", "a"]);
    let tally = rig.tailer.as_ref().unwrap().tally;
    let dropped = tally.dropped;
    assert_eq!([dropped.level, dropped.excluded, dropped.not_included].map(|count| count.records), [1, 1, 2]);
    assert_eq!((dropped.level.bytes, dropped.excluded.bytes, dropped.not_included.bytes), (8, 9, 9));
    assert_eq!((tally.read_records, tally.read_bytes, tally.acked_bytes), (2, 35, 35));
}

#[test]
fn a_file_of_which_nothing_is_kept_is_read_once_over_kills() {
    let mut rig = without("^a ");
    rig.files.append("/logs/a.log", lines("a", 0..200).as_bytes());
    rig.run(2 * SECOND);
    assert!(rig.tailer.as_ref().unwrap().is_settled());
    let before = rig.files.bytes_read();
    for _ in 0..3 {
        rig.kill();
        rig.start();
        rig.run(2 * SECOND);
    }
    assert!(rig.files.bytes_read() - before < 20_000, "it is not read again");
    rig.files.append("/logs/a.log", b"b\n");
    rig.run(2 * SECOND);
    assert_eq!((rig.bodies(), rig.deliveries), (vec!["b".to_owned()], 1));
}

#[test]
fn what_was_sent_is_cut_the_same_way_after_a_kill_with_dropped_records_before_and_between() {
    let mut rig = odd();
    let mut written = 0;
    for _ in 0..3 {
        // One that is dropped, alone in its read, and then some of both.
        rig.files.append("/logs/a.log", lines("a", written + 1..written + 2).as_bytes());
        rig.run_unanswered(SECOND);
        rig.files.append("/logs/a.log", lines("a", written + 2..written + 12).as_bytes());
        rig.run_unanswered(SECOND);
        written += 12;
    }
    for parcel in std::mem::take(&mut rig.waiting) {
        rig.keep(&parcel);
    }
    let batches = rig.batches.clone();
    assert_eq!(rig.deliveries, 15);
    rig.kill();
    rig.start();
    rig.pass(3600 * SECOND);
    rig.run(2 * SECOND);
    assert_eq!(rig.batches, batches, "the same batches, with the same times");
    assert_eq!((rig.kept.len(), rig.deliveries), (15, 30));
}

#[test]
fn a_batch_is_halved_between_kept_records() {
    let mut rig = odd();
    rig.files.append("/logs/a.log", lines("a", 0..12).as_bytes());
    rig.turn(vec![]);
    for _ in 0..4 {
        for parcel in std::mem::take(&mut rig.waiting) {
            if parcel.batch.record_count > 1 {
                rig.give_back(parcel, Returned::TooLarge { limit: 200 });
            } else {
                rig.acknowledge(&parcel);
            }
        }
        rig.turn(vec![]);
    }
    rig.run(2 * SECOND);
    assert_eq!((rig.bodies(), rig.deliveries), (even("a", 0..12), 6));
    assert!(rig.batches.len() > 3, "{:?}", rig.batches);
}

#[test]
fn a_sample_is_the_same_share_after_a_kill() {
    let mut rig = sifting(SiftConfig { sample: Some("25%".parse().unwrap()), ..SiftConfig::default() });
    rig.files.append("/logs/a.log", lines("a", 0..400).as_bytes());
    rig.run(2 * SECOND);
    let sample = rig.bodies();
    assert!((50..150).contains(&sample.len()), "{}", sample.len());
    rig.kill();
    // Without its state the agent reads everything again.
    rig.directory = tempfile::tempdir().unwrap();
    rig.start();
    rig.run(2 * SECOND);
    assert_eq!((rig.bodies(), rig.deliveries), (sample.clone(), 2 * sample.len()));
}

#[test]
fn rules_that_change_over_a_restart_hold_for_what_is_not_cut_yet() {
    let mut rig = odd();
    rig.files.append("/logs/a.log", lines("a", 1..12).as_bytes());
    rig.run_unanswered(SECOND);
    rig.kill();
    // What was dropped stays dropped; what was kept first in its batch stays where it begins.
    rig.sift = SiftConfig { exclude_lines: vec![r"^\w+ \d+[02468] ".into()], ..SiftConfig::default() };
    rig.start();
    rig.files.append("/logs/a.log", lines("a", 12..16).as_bytes());
    rig.run(2 * SECOND);
    let all = rig.bodies();
    for (line, is_there) in [(1, false), (2, true), (4, false), (5, true), (12, false), (13, true), (15, true)] {
        assert_eq!(all.contains(&lines("a", line..line + 1).trim_end().to_owned()), is_there, "{line}");
    }
    assert!(rig.tailer.as_ref().unwrap().is_settled());
    assert_eq!(rig.lost_bytes(), 0);
}

#[test]
fn a_line_that_was_flushed_without_its_end_is_kept_whole() {
    let mut rig = without("^no");
    rig.files.append("/logs/a.log", b"no begin");
    rig.run(2 * PARTIAL_FLUSH);
    rig.files.append("/logs/a.log", b" no end\nno more\nyes\n");
    rig.run(2 * SECOND);
    assert_eq!(rig.bodies(), [" no end", "no begin", "yes"]);
    assert_eq!((rig.flags_of("no begin"), rig.flags_of(" no end")), (Flags::LAST_PARTIAL, Flags::FIRST_CONTINUED));
}

#[test]
fn a_full_disk_holds_dropped_records_back_and_counts_them_once() {
    let mut rig = without("^no");
    rig.run(SECOND);
    rig.set_disk_full(true);
    rig.files.append("/logs/a.log", b"no 1\nno 2\nyes\n");
    rig.run(3 * SECOND);
    assert_eq!(rig.deliveries, 0);
    rig.set_disk_full(false);
    rig.run(5 * SECOND);
    assert_eq!((rig.bodies(), rig.deliveries), (vec!["yes".to_owned()], 1));
    assert_eq!(rig.tailer.as_ref().unwrap().tally.dropped.excluded.records, 2);
}
