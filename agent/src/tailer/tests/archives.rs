//! Rotation that compresses.

use super::rig::{Rig, SECOND, bodies, lines};
use crate::{
    inflate::tests::{gzip, zstd},
    tailer::{Tailer, past::KEPT_SECONDS},
};

const ARCHIVE: &str = "/logs/copies/a.1.gz";

/// What makes an archive of content.
type Compressor = fn(&[u8]) -> Vec<u8>;

const COMPRESSORS: [Compressor; 2] = [gzip, zstd];

impl Rig {
    /// Compresses a file as `gzip` does: the archive first, then the file goes.
    fn compress(&mut self, path: &str, archive: &str, compressor: Compressor) {
        let content = self.files.content(path).unwrap();
        self.files.append(archive, &compressor(&content));
        self.files.delete(path);
    }

    fn tailer(&self) -> &Tailer<crate::filesystem::fake::FakeFilesystem> {
        self.tailer.as_ref().unwrap()
    }

    /// A kill and a new start.
    fn restart(&mut self) {
        self.kill();
        self.start();
    }

    fn assert_exact(&self, parts: &[(&str, std::ops::Range<usize>)], streams: usize, what: &str) {
        let expected = bodies(parts);
        assert_eq!(self.bodies(), expected, "{what}");
        assert_eq!((self.deliveries, self.streams()), (expected.len(), streams), "{what}");
        assert_eq!(self.losses(), [], "{what}");
    }
}

#[test]
fn archives_are_left_alone_unless_they_are_asked_for() {
    let mut rig = Rig::new();
    rig.files.append(ARCHIVE, &gzip(lines("a", 0..50).as_bytes()));
    rig.files.append("/logs/copies/a.2.zst", &zstd(lines("a", 0..50).as_bytes()));
    rig.files.append("/logs/copies/a.3.xz", b"\xfd7zXZ\0 and so on\n");
    rig.files.append("/logs/copies/text.gz", lines("text", 0..5).as_bytes());
    rig.run(30 * SECOND);
    rig.assert_exact(&[("text", 0..5)], 1, "a name makes no archive");
    assert_eq!((rig.files.open_files(), rig.tailer().unreadable().len()), (1, 0));
}

#[test]
fn an_archive_that_nothing_is_known_of_is_read_whole_and_once() {
    for compressor in COMPRESSORS {
        let mut rig = Rig::with_archives();
        let parts = [lines("a", 0..50), lines("a", 50..500)];
        rig.files.append("/logs/copies/under-any-name", &parts.map(|part| compressor(part.as_bytes())).concat());
        rig.run(10 * SECOND);
        rig.assert_exact(&[("a", 0..500)], 1, "all members");
        assert_eq!(rig.files.open_files(), 0, "it never grows");
        rig.files.rename("/logs/copies/under-any-name", "/logs/copies/under-another.gz");
        rig.run(10 * SECOND);
        rig.restart();
        let read = rig.files.bytes_read();
        rig.run(30 * SECOND);
        rig.assert_exact(&[("a", 0..500)], 1, "and not again");
        assert!(rig.files.bytes_read() - read < 2000, "it is recognised without being inflated");
    }
}

#[test]
fn of_a_file_that_was_read_before_it_was_compressed_nothing_is_read_again() {
    for compressor in COMPRESSORS {
        let mut rig = Rig::with_archives();
        rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
        rig.run(2 * SECOND);
        rig.files.rename("/logs/a.log", "/logs/a.1");
        rig.compress("/logs/a.1", ARCHIVE, compressor);
        rig.files.append("/logs/a.log", lines("b", 0..10).as_bytes());
        rig.run(60 * SECOND);
        rig.assert_exact(&[("a", 0..50), ("b", 0..10)], 2, "compressed");
        assert_eq!(rig.files.open_files(), 1);
        rig.restart();
        rig.files.rename(ARCHIVE, "/logs/copies/a.2.gz");
        rig.run(30 * SECOND);
        rig.assert_exact(&[("a", 0..50), ("b", 0..10)], 2, "renamed");
        // Compressed anew, as when the way of compressing changes.
        rig.files.append("/logs/copies/a.2.zst", &zstd(lines("a", 0..50).as_bytes()));
        rig.files.delete("/logs/copies/a.2.gz");
        rig.run(60 * SECOND);
        rig.assert_exact(&[("a", 0..50), ("b", 0..10)], 2, "compressed anew");
    }
}

#[test]
fn only_the_tail_is_read_of_what_was_compressed_while_the_agent_was_down() {
    for compressor in COMPRESSORS {
        let mut rig = Rig::with_archives();
        rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
        rig.run(2 * SECOND);
        rig.kill();
        rig.files.append("/logs/a.log", lines("a", 50..60).as_bytes());
        rig.compress("/logs/a.log", ARCHIVE, compressor);
        // The new file has the inode of the one that was compressed.
        rig.files.append("/logs/a.log", lines("b", 0..5).as_bytes());
        rig.start();
        rig.run(30 * SECOND);
        rig.assert_exact(&[("a", 0..60), ("b", 0..5)], 2, "while down");
    }
}

#[test]
fn a_file_that_is_compressed_a_rotation_later_is_remembered_as_long() {
    for restarted in [false, true] {
        let mut rig = Rig::with_archives();
        rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
        rig.run(2 * SECOND);
        rig.files.rename("/logs/a.log", "/logs/a.1");
        rig.files.append("/logs/a.log", lines("b", 0..10).as_bytes());
        rig.run(400 * SECOND);
        assert_eq!(rig.files.open_files(), 1, "long closed");
        if restarted {
            rig.restart();
        }
        rig.pass(30 * 24 * 3600 * SECOND);
        rig.run(3 * SECOND);
        rig.compress("/logs/a.1", ARCHIVE, gzip);
        rig.run(30 * SECOND);
        rig.assert_exact(&[("a", 0..50), ("b", 0..10)], 2, "delaycompress");
    }
}

#[test]
fn what_is_too_long_over_is_read_again_under_other_ids() {
    let mut rig = Rig::with_archives();
    rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
    rig.run(2 * SECOND);
    let content = rig.files.content("/logs/a.log").unwrap();
    rig.files.delete("/logs/a.log");
    rig.run(60 * SECOND);
    rig.pass(std::time::Duration::from_secs(KEPT_SECONDS) + SECOND);
    rig.run(10 * SECOND);
    rig.files.append(ARCHIVE, &gzip(&content));
    rig.run(10 * SECOND);
    assert_eq!((rig.deliveries, rig.streams()), (100, 2));
}

#[test]
fn copytruncate_and_compress_gives_back_what_the_truncation_took() {
    for while_down in [false, true] {
        let mut rig = Rig::with_archives();
        rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
        rig.run(2 * SECOND);
        if while_down {
            rig.kill();
        }
        rig.files.append("/logs/a.log", lines("a", 50..60).as_bytes());
        let copy = rig.files.content("/logs/a.log").unwrap();
        rig.files.truncate("/logs/a.log", 0);
        rig.files.append("/logs/a.log", lines("b", 0..5).as_bytes());
        if while_down {
            rig.start();
        }
        // The compressor takes its time.
        rig.run(60 * SECOND);
        rig.files.append(ARCHIVE, &gzip(&copy));
        rig.run(30 * SECOND);
        rig.assert_exact(&[("a", 0..60), ("b", 0..5)], 2, if while_down { "while down" } else { "live" });
    }
}

#[test]
fn what_is_still_written_to_a_file_that_was_compressed_is_read_from_its_descriptor() {
    let mut rig = Rig::with_archives();
    rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
    rig.run(2 * SECOND);
    let archive = gzip(&rig.files.content("/logs/a.log").unwrap());
    rig.files.append("/logs/a.log", lines("late", 0..10).as_bytes());
    rig.run(SECOND);
    rig.files.append(ARCHIVE, &archive);
    rig.files.delete("/logs/a.log");
    rig.run(60 * SECOND);
    rig.assert_exact(&[("a", 0..50), ("late", 0..10)], 1, "the archive ends before what was read");
    assert_eq!(rig.files.open_files(), 0);
}

#[test]
fn a_file_that_is_compressed_before_it_was_read_is_read_once() {
    let mut rig = Rig::with_archives();
    rig.answer(crate::parcel::Answer::Closed);
    // The window is taken by another file.
    rig.files.append("/logs/busy.log", lines("busy", 0..30_000).as_bytes());
    rig.run_unanswered(2 * SECOND);
    rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
    rig.run_unanswered(2 * SECOND);
    rig.compress("/logs/a.log", ARCHIVE, gzip);
    rig.run_unanswered(5 * SECOND);
    rig.answer(crate::parcel::Answer::Opened { credit: 1 << 20, encoded_bytes_max: 640 * 1024, records_max: 10_000 });
    rig.run(90 * SECOND);
    rig.assert_exact(&[("a", 0..50), ("busy", 0..30_000)], 2, "from its descriptor");
}

#[test]
fn an_archive_beside_its_file_is_a_file_of_its_own() {
    let mut rig = Rig::with_archives();
    rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
    rig.run(2 * SECOND);
    rig.files.append(ARCHIVE, &gzip(lines("a", 0..50).as_bytes()));
    rig.run(3 * SECOND);
    assert_eq!(rig.deliveries, 50, "held back");
    rig.run(20 * SECOND);
    assert_eq!((rig.deliveries, rig.streams()), (100, 2), "equal content never merges two live files");
}

#[test]
fn two_archives_with_equal_heads_are_two_files() {
    let mut rig = Rig::with_archives();
    let head = lines("head", 0..40);
    for (archive, rest) in [(ARCHIVE, "a"), ("/logs/copies/b.1.gz", "b")] {
        rig.files.append(archive, &gzip(format!("{head}{}", lines(rest, 0..20)).as_bytes()));
        rig.run(10 * SECOND);
    }
    assert_eq!((rig.deliveries, rig.streams(), rig.losses()), (120, 2, vec![]));
}

#[test]
fn a_damaged_archive_is_told_once_and_harms_no_other_file() {
    let mut rig = Rig::with_archives();
    let mut damaged = gzip(lines("a", 0..500).as_bytes());
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    rig.files.append(ARCHIVE, &damaged);
    rig.files.append("/logs/copies/b.1.gz", &gzip(lines("b", 0..50).as_bytes()));
    rig.files.append("/logs/c.log", lines("c", 0..50).as_bytes());
    rig.run(5 * SECOND);
    let read = rig.files.bytes_read();
    rig.run(60 * SECOND);
    rig.assert_exact(&[("b", 0..50), ("c", 0..50)], 2, "no line of it");
    let unreadable = rig.tailer().unreadable();
    assert_eq!((unreadable.len(), unreadable[0].0.to_str()), (1, Some(ARCHIVE)), "{unreadable:?}");
    assert_eq!((rig.tailer().tally.unreadable, rig.files.open_files()), (1, 1));
    assert_eq!(rig.files.bytes_read(), read, "it is not read over and over");
    // Taken from a backup.
    rig.files.truncate(ARCHIVE, 0);
    rig.files.append(ARCHIVE, &gzip(lines("a", 0..500).as_bytes()));
    rig.run(20 * SECOND);
    rig.assert_exact(&[("a", 0..500), ("b", 0..50), ("c", 0..50)], 3, "mended");
    assert!(rig.tailer().unreadable().is_empty());
}

#[test]
fn an_archive_that_is_still_written_waits_and_is_told_when_it_stays_incomplete() {
    for compressor in COMPRESSORS {
        let mut rig = Rig::with_archives();
        let archive = compressor(lines("a", 0..500).as_bytes());
        // Adopted when it was empty.
        rig.files.append("/logs/copies/no-such-ending", b"");
        rig.run(3 * SECOND);
        rig.files.append("/logs/copies/no-such-ending", &archive[..archive.len() / 2]);
        rig.run(20 * SECOND);
        assert_eq!((rig.deliveries, rig.tailer().unreadable().len()), (0, 0), "it may go on");
        rig.run(60 * SECOND);
        assert_eq!((rig.deliveries, rig.tailer().unreadable().len()), (0, 1), "it does not");
        rig.files.append("/logs/copies/no-such-ending", &archive[archive.len() / 2..]);
        rig.run(20 * SECOND);
        rig.assert_exact(&[("a", 0..500)], 1, "whole at last");
        assert!(rig.tailer().unreadable().is_empty());
    }
}

#[test]
fn a_kill_while_an_archive_is_read_changes_no_record() {
    let mut rig = Rig::with_archives();
    rig.files.append(ARCHIVE, &gzip(lines("a", 0..3000).as_bytes()));
    for round in 0..6 {
        for _ in 0..20 {
            rig.turn(Vec::new());
            rig.pass(SECOND / 4);
        }
        // The last ones are kept, and their answers lost.
        let waiting = std::mem::take(&mut rig.waiting);
        for (at, parcel) in waiting.iter().take(40).enumerate() {
            if at < 10 + round { rig.acknowledge(parcel) } else { rig.keep(parcel) }
        }
        rig.turn(Vec::new());
        rig.restart();
    }
    rig.run(20 * SECOND);
    assert_eq!((rig.bodies(), rig.streams(), rig.losses()), (bodies(&[("a", 0..3000)]), 1, vec![]));
}

#[test]
fn the_tail_of_a_large_archive_is_come_to_in_steps_while_others_are_read() {
    let mut rig = Rig::with_archives();
    rig.limits.batch_bytes_max = 256 * 1024;
    rig.limits.batch_records_max = 10_000;
    rig.restart();
    rig.files.append("/logs/a.log", lines("a", 0..200_000).as_bytes());
    rig.run(30 * SECOND);
    rig.kill();
    rig.files.append("/logs/a.log", lines("a", 200_000..200_010).as_bytes());
    rig.compress("/logs/a.log", ARCHIVE, gzip);
    rig.files.append("/logs/c.log", lines("c", 0..50).as_bytes());
    rig.start();
    rig.run(20 * SECOND);
    assert_eq!((rig.deliveries, rig.streams(), rig.losses()), (200_060, 2, vec![]));
}

#[test]
fn many_archives_are_read_a_few_at_a_time() {
    let mut rig = Rig::with_archives();
    for file in 0..40 {
        let archive = format!("/logs/copies/{file}.gz");
        rig.files.append(&archive, &gzip(lines(&format!("file-{file}"), 0..50).as_bytes()));
    }
    let mut open = 0;
    for _ in 0..200 {
        rig.run(SECOND / 4);
        open = open.max(rig.files.open_files());
    }
    assert_eq!((rig.deliveries, rig.streams(), rig.losses()), (2000, 40, vec![]));
    assert!(open <= 3, "{open} open");
}
