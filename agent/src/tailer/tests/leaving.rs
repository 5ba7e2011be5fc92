//! Deleted files that are not delivered: their rest goes to the spool, or is counted.

use super::rig::{Rig, SECOND, bodies, lines};
use crate::{
    losses::LossReason,
    parcel::{Answer, Returned},
};

/// A file that was read in part, deleted with batches on their way and bytes unread, and no gateway.
fn deleted_while_the_gateway_is_away(spools_deleted: bool) -> Rig {
    let mut rig = Rig::new();
    (rig.spools_deleted, rig.window_bytes) = (spools_deleted, 8192);
    rig.kill();
    rig.start();
    rig.files.append("/logs/a.log", lines("a", 0..50).as_bytes());
    rig.run(2 * SECOND);
    rig.files.append("/logs/a.log", lines("a", 50..300).as_bytes());
    rig.run_unanswered(SECOND);
    assert!(!rig.waiting.is_empty());
    rig.answer(Answer::Closed);
    rig.files.append("/logs/a.log", lines("a", 300..900).as_bytes());
    rig.files.delete("/logs/a.log");
    rig
}

#[test]
fn the_rest_of_a_deleted_file_goes_to_the_spool_and_its_descriptor_is_given_back() {
    let mut rig = deleted_while_the_gateway_is_away(true);
    rig.run_unanswered(20 * SECOND);
    assert_eq!((rig.files.open_files(), rig.spooled.len()), (1, 0), "it may still grow");
    rig.run_unanswered(60 * SECOND);
    assert_eq!((rig.files.open_files(), rig.waiting.len()), (0, 0));
    rig.kill();
    rig.start();
    rig.deliver_spooled();
    rig.run(30 * SECOND);
    assert_eq!((rig.bodies(), rig.deliveries), (bodies(&[("a", 0..900)]), 900));
    assert_eq!((rig.streams(), rig.losses()), (1, Vec::new()));
}

#[test]
fn a_deleted_file_that_still_grows_is_read_on() {
    let mut rig = deleted_while_the_gateway_is_away(true);
    let mut next = 900;
    for _ in 0..10 {
        rig.run_unanswered(10 * SECOND);
        rig.files.append_deleted(&lines("a", next..next + 10).into_bytes());
        next += 10;
    }
    assert_eq!((rig.files.open_files(), rig.spooled.len()), (1, 0));
    rig.answer(Answer::Opened { credit: 1 << 20, encoded_bytes_max: 640 * 1024, records_max: 10_000 });
    rig.run(45 * SECOND);
    assert_eq!(rig.bodies(), bodies(&[("a", 0..next)]));
    assert_eq!((rig.spooled.len(), rig.files.open_files()), (0, 0));
}

#[test]
fn without_a_budget_the_rest_of_a_deleted_file_is_given_up_and_counted_to_the_byte() {
    let mut rig = deleted_while_the_gateway_is_away(false);
    rig.run_unanswered(60 * SECOND);
    let written = lines("a", 0..900).len() as u64;
    let sent: u64 = rig.waiting.iter().map(|parcel| parcel.batch.end_offset - parcel.batch.first_offset).sum();
    let lost = written - lines("a", 0..50).len() as u64 - sent;
    assert_eq!(rig.losses(), [("/logs/a.log".to_owned(), Some(lost), LossReason::SpoolFull)]);
    assert_eq!((rig.files.open_files(), rig.spooled.len()), (0, 0));
    // What was on its way is delivered all the same.
    rig.answer(Answer::Opened { credit: 1 << 20, encoded_bytes_max: 640 * 1024, records_max: 10_000 });
    rig.run(SECOND);
    let delivered: usize = rig.bodies().iter().map(|body| body.len() + 1).sum();
    assert_eq!(delivered as u64, written - lost);
}

#[test]
fn at_the_end_of_a_run_what_deleted_files_hold_goes_to_the_spool_at_once() {
    let mut rig = deleted_while_the_gateway_is_away(true);
    rig.stop();
    rig.start();
    rig.deliver_spooled();
    rig.run(30 * SECOND);
    assert_eq!((rig.bodies(), rig.losses()), (bodies(&[("a", 0..900)]), Vec::new()));
}

#[test]
fn a_file_that_was_born_and_deleted_while_the_gateway_is_away_goes_to_the_spool_unread_as_it_was() {
    for stop in [false, true] {
        let mut rig = deleted_while_the_gateway_is_away(true);
        rig.files.append("/logs/b.log", lines("b", 0..200).as_bytes());
        rig.run_unanswered(20 * SECOND);
        rig.files.delete("/logs/b.log");
        if stop {
            rig.run_unanswered(SECOND);
            rig.stop();
        } else {
            rig.run_unanswered(90 * SECOND);
            assert_eq!(rig.files.open_files(), 0);
            rig.kill();
        }
        rig.start();
        rig.deliver_spooled();
        rig.run(30 * SECOND);
        assert_eq!((rig.bodies(), rig.losses()), (bodies(&[("a", 0..900), ("b", 0..200)]), Vec::new()), "{stop}");
    }
}

#[test]
fn a_held_lane_does_not_keep_a_deleted_file_from_the_spool() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..100).as_bytes());
    rig.run_unanswered(SECOND);
    let delay = 300 * SECOND;
    for parcel in std::mem::take(&mut rig.waiting) {
        rig.give_back(parcel, Returned::Held { delay });
    }
    rig.files.delete("/logs/a.log");
    rig.run_unanswered(SECOND);
    rig.stop();
    rig.deliver_spooled();
    assert_eq!(rig.bodies(), bodies(&[("a", 0..100)]));
}

#[test]
fn batches_of_a_truncated_file_that_wait_in_memory_go_to_the_spool_at_the_end_of_a_run() {
    let mut rig = Rig::new();
    rig.files.append("/logs/a.log", lines("a", 0..100).as_bytes());
    rig.run_unanswered(SECOND);
    assert!(!rig.waiting.is_empty());
    rig.files.truncate("/logs/a.log", 0);
    rig.run_unanswered(SECOND);
    rig.stop();
    rig.start();
    rig.deliver_spooled();
    rig.run(30 * SECOND);
    assert_eq!((rig.bodies(), rig.losses()), (bodies(&[("a", 0..100)]), Vec::new()));
}

#[test]
fn what_a_run_has_no_time_to_spool_is_counted() {
    let mut rig = deleted_while_the_gateway_is_away(true);
    rig.run_unanswered(SECOND);
    rig.give_up_at_stop();
    let written = lines("a", 0..900).len() as u64;
    let known: u64 = rig.losses().iter().filter_map(|(_, bytes, _)| *bytes).sum();
    let sent: u64 = rig.waiting.iter().map(|parcel| parcel.batch.end_offset - parcel.batch.first_offset).sum();
    assert_eq!(known, written - lines("a", 0..50).len() as u64 - sent);
}

#[test]
fn an_unterminated_end_of_a_deleted_file_is_spooled_with_the_rest() {
    let mut rig = deleted_while_the_gateway_is_away(true);
    rig.files.append_deleted(b"no end");
    rig.run_unanswered(90 * SECOND);
    rig.deliver_spooled();
    let mut expected = bodies(&[("a", 0..900)]);
    expected.push("no end".to_owned());
    assert_eq!((rig.bodies(), rig.files.open_files()), (expected, 0));
}
