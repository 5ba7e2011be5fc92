//! Records of several lines, other encodings and padding, over rotation, kills and flushes.

use logmesh_proto::Flags;

use super::rig::{PARTIAL_FLUSH, Rig, SECOND};
use crate::{
    lines::{Encoding, FramingConfig, Multiline, Preset},
    parcel::Returned,
    tailer::pace,
};

fn java() -> Rig {
    Rig::with_framing(FramingConfig { multiline: Some(Multiline::Preset(Preset::Java)), ..FramingConfig::default() })
}

const TRACE: &str = "ERROR one\njava.lang.IllegalStateException: boom\n\tat a.B.c(B.java:1)\n\tat a.B.d(B.java:2)\n";

fn trace() -> &'static str {
    TRACE.trim_end()
}

#[test]
fn a_stack_trace_that_grows_line_by_line_is_one_record() {
    let mut rig = java();
    for line in TRACE.split_inclusive('\n') {
        rig.files.append("/logs/a.log", line.as_bytes());
        rig.run(SECOND);
        assert_eq!(rig.deliveries, 0, "its end is not seen yet");
    }
    rig.files.append("/logs/a.log", b"INFO next\n");
    rig.run(SECOND);
    assert_eq!(rig.bodies(), [trace()]);
    rig.run(PARTIAL_FLUSH);
    assert_eq!(rig.bodies(), [trace(), "INFO next"]);
    assert_eq!((rig.flags_of(trace()), rig.flags_of("INFO next")), (Flags::NONE, Flags::NONE));
}

#[test]
fn what_a_flush_parted_is_continued_and_nothing_is_sent_twice() {
    let mut rig = java();
    rig.files.append("/logs/a.log", b"ERROR one\n\tat a.B.c(B.java:1)\n");
    rig.run(2 * PARTIAL_FLUSH);
    assert_eq!(rig.bodies(), ["ERROR one\n\tat a.B.c(B.java:1)"]);
    rig.files.append("/logs/a.log", b"\tat a.B.d(B.java:2)\nINFO next\n");
    rig.run(2 * PARTIAL_FLUSH);
    assert_eq!(rig.bodies(), ["\tat a.B.d(B.java:2)", "ERROR one\n\tat a.B.c(B.java:1)", "INFO next"]);
    assert_eq!(rig.flags_of("\tat a.B.d(B.java:2)"), Flags::FIRST_CONTINUED);
    assert_eq!(rig.deliveries, 3);
}

#[test]
fn a_timeout_of_its_own_is_kept() {
    let timeout = Some(2 * SECOND);
    let mut rig =
        Rig::with_framing(FramingConfig { multiline: Some(Multiline::Indent), timeout, ..FramingConfig::default() });
    rig.files.append("/logs/a.log", b"one\n two\n");
    rig.run(SECOND);
    assert_eq!(rig.deliveries, 0);
    rig.run(2 * SECOND);
    assert_eq!(rig.bodies(), ["one\n two"]);
}

#[test]
fn what_rotation_cuts_off_is_continued_in_its_own_generation() {
    let mut rig = java();
    rig.files.append("/logs/a.log", b"ERROR one\n\tat a.B.c(B.java:1)\n");
    rig.run(SECOND);
    rig.files.rename("/logs/a.log", "/logs/a.1");
    rig.files.append("/logs/a.log", b"\tat a.B.d(B.java:2)\nINFO next\n");
    rig.run(2 * PARTIAL_FLUSH);
    assert_eq!(rig.bodies(), ["\tat a.B.d(B.java:2)", "ERROR one\n\tat a.B.c(B.java:1)", "INFO next"]);
    assert_eq!(rig.flags_of("\tat a.B.d(B.java:2)"), Flags::FIRST_CONTINUED);
    assert_eq!((rig.deliveries, rig.streams()), (3, 2));
}

#[test]
fn a_pending_record_of_a_deleted_file_is_sent_at_once() {
    let mut rig = java();
    rig.files.append("/logs/a.log", TRACE.as_bytes());
    rig.run(SECOND);
    rig.files.delete("/logs/a.log");
    rig.run(SECOND);
    assert_eq!(rig.bodies(), [trace()]);
}

#[test]
fn a_kill_in_the_middle_of_a_record_begins_again_at_its_first_byte() {
    for (at, _) in TRACE.match_indices('\n') {
        let mut rig = java();
        rig.files.append("/logs/a.log", format!("INFO before\n{}", &TRACE[..at]).as_bytes());
        rig.run(SECOND);
        rig.kill();
        rig.start();
        rig.files.append("/logs/a.log", format!("{}INFO next\n", &TRACE[at..]).as_bytes());
        rig.run(SECOND);
        assert_eq!(rig.bodies(), [trace(), "INFO before"], "{at}");
        let partial = rig.kept.values().any(|(_, flags)| *flags != Flags::NONE);
        assert!(!partial && rig.kept.len() == 2, "{at}: {:?}", rig.kept);
    }
}

#[test]
fn a_flushed_record_is_cut_the_same_way_after_a_kill_and_a_late_line_is_continued() {
    let mut rig = java();
    rig.files.append("/logs/a.log", b"ERROR one\n\tat a.B.c(B.java:1)\n");
    rig.run_unanswered(2 * PARTIAL_FLUSH);
    for parcel in std::mem::take(&mut rig.waiting) {
        rig.keep(&parcel);
    }
    rig.kill();
    rig.files.append("/logs/a.log", b"\tat a.B.d(B.java:2)\nINFO next\n");
    rig.start();
    rig.pass(3600 * SECOND);
    rig.run(2 * PARTIAL_FLUSH);
    assert_eq!(rig.bodies(), ["\tat a.B.d(B.java:2)", "ERROR one\n\tat a.B.c(B.java:1)", "INFO next"]);
    assert_eq!((rig.batches.len(), rig.deliveries), (3, 4), "the first one again, with its time: {:?}", rig.batches);
    assert_eq!(rig.flags_of("\tat a.B.d(B.java:2)"), Flags::FIRST_CONTINUED);
}

#[test]
fn a_batch_of_joined_records_that_is_too_large_is_cut_between_records() {
    for gone in [false, true] {
        let mut rig = java();
        let record = |number: usize| format!("ERROR {number}\n\tat a.B.c(B.java:1)\n\tat a.B.d(B.java:2)\n");
        let content: String = (0..12).map(record).collect();
        rig.files.append("/logs/a.log", format!("{content}INFO next\n").as_bytes());
        rig.run_unanswered(SECOND);
        if gone {
            rig.files.truncate("/logs/a.log", 0);
            rig.run_unanswered(SECOND);
        }
        let parcel = rig.waiting.remove(0);
        assert_eq!(parcel.batch.record_count, 12);
        rig.give_back(parcel, Returned::TooLarge { limit: 400 });
        for _ in 0..40 {
            rig.run_unanswered(SECOND);
            for parcel in std::mem::take(&mut rig.waiting) {
                if parcel.encoded > 400 {
                    rig.give_back(parcel, Returned::TooLarge { limit: 400 });
                } else {
                    rig.acknowledge(&parcel);
                }
            }
        }
        let mut expected: Vec<String> = (0..12).map(|number| record(number).trim_end().to_owned()).collect();
        if !gone {
            expected.push("INFO next".into());
        }
        expected.sort();
        assert_eq!(rig.bodies(), expected, "gone: {gone}");
    }
}

#[test]
fn the_group_of_a_file_that_was_renamed_out_of_scope_is_known_after_restarts() {
    let mut rig = java();
    rig.files.append("/logs/a.log", b"INFO before\nERROR one\n\tat a.B.c(B.java:1)\n");
    rig.run(SECOND);
    rig.files.rename("/logs/a.log", "/logs/a.1");
    for _ in 0..3 {
        rig.run(SECOND);
        rig.kill();
        rig.start();
    }
    let source = rig.tailer.as_ref().unwrap().sources.values().next().unwrap();
    assert_eq!(source.scope_path, std::path::Path::new("/logs/a.log"));
    rig.run(2 * PARTIAL_FLUSH);
    assert_eq!(rig.bodies(), ["ERROR one\n\tat a.B.c(B.java:1)", "INFO before"]);
}

#[test]
fn a_long_record_that_grows_is_not_read_again_for_every_line() {
    let mut rig = java();
    rig.limits.record_bytes_max = 400_000;
    rig.kill();
    rig.start();
    rig.files.append("/logs/a.log", b"ERROR long\n");
    let mut reads = 0;
    for _ in 0..900 {
        rig.files.append("/logs/a.log", format!("\tat {}\n", "x".repeat(200)).as_bytes());
        let before = rig.files.bytes_read();
        rig.turn(vec![crate::discovery::Hint::Changed("/logs/a.log".into())]);
        rig.pass(std::time::Duration::from_micros(100));
        reads += rig.files.bytes_read() - before;
    }
    let size = rig.files.content("/logs/a.log").unwrap().len();
    assert!(reads < 40 * size, "{reads} bytes were read of {size}");
    rig.run(2 * PARTIAL_FLUSH);
    assert_eq!(rig.deliveries, 1);
}

#[test]
fn utf_16_is_read_by_its_byte_order_mark_again_after_a_kill() {
    let text = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_be_bytes).collect() };
    let mut rig = Rig::with_framing(FramingConfig { encoding: Encoding::Utf16, ..FramingConfig::default() });
    rig.files.append("/logs/a.log", &text("\u{feff}Grüße\r\nzwei\n"));
    rig.run(SECOND);
    assert_eq!(rig.bodies(), ["Grüße", "zwei"]);
    rig.kill();
    rig.start();
    rig.files.append("/logs/a.log", &text("☺\n"));
    rig.run(SECOND);
    assert_eq!(rig.bodies(), ["Grüße", "zwei", "☺"]);
    let offsets: Vec<u64> = rig.kept.keys().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, [2, 16, 26]);
}

#[test]
fn a_preallocated_file_is_read_as_it_is_written_in_place() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", &[0; 9000]);
    rig.run(2 * PARTIAL_FLUSH);
    assert_eq!(rig.deliveries, 0);
    rig.files.overwrite("/logs/a.log", 0, b"one\ntw");
    rig.run(SECOND);
    assert_eq!(rig.bodies(), ["one"]);
    rig.files.overwrite("/logs/a.log", 6, b"o\nthr");
    rig.run(2 * PARTIAL_FLUSH);
    assert_eq!(rig.bodies(), ["one", "thr", "two"], "what stands before padding is flushed");
    rig.kill();
    rig.start();
    rig.files.overwrite("/logs/a.log", 11, b"ee\nfour\n");
    rig.run(SECOND);
    assert_eq!(rig.bodies(), ["ee", "four", "one", "thr", "two"]);
    assert_eq!((rig.flags_of("ee"), rig.deliveries), (Flags::FIRST_CONTINUED, 5));
}

#[test]
fn a_hole_is_skipped_once_something_stands_behind_it_and_counted() {
    for (hole, killed) in [(500, false), (500, true), (1_000_000, false), (1_000_000, true)] {
        let mut rig = Rig::new();
        rig.files.append("/logs/a.log", b"one\npart");
        rig.run(SECOND);
        rig.files.append("/logs/a.log", &vec![0; hole]);
        rig.files.append("/logs/a.log", b"two\n");
        // The hole is skipped only when what is before it is acknowledged.
        rig.run_unanswered(10 * SECOND);
        if killed {
            for parcel in std::mem::take(&mut rig.waiting) {
                rig.keep(&parcel);
            }
            rig.kill();
            rig.start();
            rig.pass(SECOND);
        }
        rig.run(5 * SECOND);
        let firsts: std::collections::BTreeSet<u64> = rig.batches.iter().map(|batch| batch.1).collect();
        assert_eq!(firsts.len(), rig.batches.len(), "{hole} {killed}: {:?}", rig.batches);
        rig.files.append("/logs/a.log", b"three\n");
        rig.run(3 * SECOND);
        let small = hole == 500;
        let expected = if small { vec!["one", "three"] } else { vec!["one", "part", "three", "two"] };
        let bodies = rig.bodies();
        let others: Vec<_> = bodies.iter().filter(|body| !body.contains('\0')).collect();
        assert_eq!(others, expected, "{hole} {killed}");
        let skipped = rig.tailer.as_ref().unwrap().tally.skipped_bytes;
        assert_eq!(skipped, if small { 0 } else { hole as u64 }, "{hole} {killed}");
    }
}

#[test]
fn half_a_character_and_half_a_line_end_before_a_hole_keep_nothing_behind_it_waiting() {
    for half in [&b"\xc3"[..], b"\r"] {
        let mut rig = Rig::new();
        rig.files.append("/logs/a.log", &[b"one\npart", half].concat());
        rig.run(10 * SECOND);
        assert_eq!(rig.bodies(), ["one", "part"], "a flush leaves {half:?}");
        rig.files.append("/logs/a.log", &vec![0; 1_000_000]);
        rig.files.append("/logs/a.log", b"two\n");
        rig.run(10 * SECOND);
        assert_eq!(rig.kept.keys().last().unwrap().1, 1_000_008 + half.len() as u64, "{half:?}");
        assert_eq!(rig.tailer.as_ref().unwrap().tally.skipped_bytes, 1_000_000, "{half:?}");
    }
}

#[test]
fn a_hole_at_the_beginning_as_a_truncation_under_a_writer_leaves_it_is_skipped() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", &vec![0; 700_000]);
    rig.files.append("/logs/a.log", b"one\n");
    rig.run(3 * SECOND);
    assert_eq!(rig.bodies(), ["one"]);
    assert_eq!(rig.kept.keys().next().unwrap().1, 700_000);
    assert_eq!(rig.tailer.as_ref().unwrap().tally.skipped_bytes, 700_000);
}

#[test]
fn a_rotated_file_is_let_go_though_it_ends_in_padding() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", b"one\n");
    rig.files.append("/logs/a.log", &[0; 5000]);
    rig.run(SECOND);
    rig.files.delete("/logs/a.log");
    rig.run(pace::DELETED_KEPT * 3);
    assert_eq!((rig.bodies().len(), rig.files.open_files(), rig.lost_bytes()), (1, 0, 0));
}

#[test]
fn what_is_cut_behind_a_hole_is_cut_the_same_way_after_a_kill() {
    let mut rig = Rig::new();
    rig.run(3 * SECOND);
    rig.files.append("/logs/a.log", b"zero\n");
    for _ in 0..4 {
        rig.turn(vec![crate::discovery::Hint::Appeared("/logs/a.log".into())]);
        for parcel in std::mem::take(&mut rig.waiting) {
            rig.acknowledge(&parcel);
        }
    }
    rig.files.append("/logs/a.log", &vec![0; 700_000]);
    rig.files.append("/logs/a.log", b"one\ntwo\n");
    // At the same moment, so without a checkpoint, which would know of it too.
    (0..20).for_each(|_| rig.turn(vec![crate::discovery::Hint::Changed("/logs/a.log".into())]));
    for parcel in std::mem::take(&mut rig.waiting) {
        rig.keep(&parcel);
    }
    assert_eq!(rig.deliveries, 3);
    rig.kill();
    rig.start();
    rig.pass(3600 * SECOND);
    rig.run(3 * SECOND);
    assert_eq!((rig.bodies().len(), rig.batches.len()), (3, 2), "{:?}", rig.batches);
}

#[test]
fn a_wide_terminator_between_two_cuts_is_no_gap_after_a_kill() {
    let text = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let mut rig = Rig::with_framing(FramingConfig { encoding: Encoding::Utf16Le, ..FramingConfig::default() });
    rig.files.append("/logs/a.log", &text("one"));
    rig.run_unanswered(2 * PARTIAL_FLUSH);
    rig.files.append("/logs/a.log", &text("\r\ntwo\r\n"));
    rig.run_unanswered(SECOND);
    for parcel in std::mem::take(&mut rig.waiting) {
        rig.keep(&parcel);
    }
    let sent = rig.batches.len();
    assert_eq!(sent, 2);
    rig.kill();
    rig.start();
    rig.pass(3600 * SECOND);
    rig.run(3 * SECOND);
    assert_eq!(
        (rig.bodies(), rig.batches.len()),
        (vec!["one".to_owned(), "two".to_owned()], sent),
        "{:?}",
        rig.batches
    );
}

#[test]
fn long_records_are_counted() {
    let mut rig = java();
    rig.files.append(
        "/logs/a.log",
        format!("ERROR\n{}INFO next\n", "\tat some.where(Else.java:1)\n".repeat(200)).as_bytes(),
    );
    rig.run(2 * PARTIAL_FLUSH);
    let tally = rig.tailer.as_ref().unwrap().tally;
    assert_eq!((tally.split_records, rig.bodies().len()), (2, 4));
    let continued = rig.kept.values().filter(|(_, flags)| flags.contains(Flags::FIRST_CONTINUED)).count();
    assert_eq!(continued, 2);
}

#[test]
fn a_renamed_file_is_let_go_though_it_ends_in_half_a_terminator() {
    let wide: Vec<u8> = "one\n".encode_utf16().flat_map(u16::to_le_bytes).chain([b'x']).collect();
    let utf16 = FramingConfig { encoding: Encoding::Utf16Le, ..FramingConfig::default() };
    for (framing, content, left) in
        [(FramingConfig::default(), b"one\r".to_vec(), vec!["one"]), (utf16, wide, vec!["one", "\u{fffd}"])]
    {
        let mut rig = Rig::with_framing(framing);
        rig.files.append("/logs/a.log", &content);
        rig.run(2 * PARTIAL_FLUSH);
        assert_eq!(rig.bodies(), ["one"]);
        rig.files.rename("/logs/a.log", "/logs/a.1");
        rig.run(2 * PARTIAL_FLUSH);
        assert_eq!((rig.bodies().len(), rig.files.open_files()), (1, 1), "more may come");
        rig.run(pace::RENAMED_KEPT + 30 * SECOND);
        assert_eq!((rig.bodies(), rig.files.open_files()), (left.into_iter().map(str::to_owned).collect(), 0));
    }
}
