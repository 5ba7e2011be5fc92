//! A spool over a real journal.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use logmesh_journal::Owner as _;
use logmesh_proto::{BatchMeta, Flags, Limits, Opener, RecordsBuilder, Sealer, v1};

use super::{feeds::Feeds, *};
use crate::{
    inputs::intake::{Record, intake},
    lines::CutLimits,
};

/// For an fdatasync or two.
const DURABLE_WITHIN: Duration = Duration::from_secs(30);

struct Rig {
    directory: tempfile::TempDir,
    settings: Settings,
    spool: Option<Spool<u64>>,
    news: mpsc::Receiver<()>,
    now: Now,
    out: Vec<Parcel>,
    sealer: Sealer,
}

fn settings() -> Settings {
    Settings {
        name: "deleted",
        first_stream: 0b01 << 62,
        bytes_max: 64 << 20,
        age_max: Duration::MAX,
        drops_oldest: true,
        window_bytes: 1 << 20,
    }
}

fn open(directory: &Path, settings: Settings) -> (Spool<u64>, mpsc::Receiver<()>, BTreeMap<String, Bytes>) {
    let (sender, news) = mpsc::sync_channel(1024);
    // One that is full rings already.
    let bell: Bell = Arc::new(move || {
        let _ = sender.try_send(());
    });
    let (mut spool, places) = Spool::open(directory, settings, bell).unwrap();
    spool.set_open(true);
    (spool, news, places)
}

impl Rig {
    fn new(settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (spool, news, _) = open(directory.path(), settings);
        let now = Now { mono: Duration::from_secs(1), unix_nano: 1_700_000_000_000_000_000 };
        let sealer = Sealer::new(v1::Codec::Zstd).unwrap();
        Self { directory, settings, spool: Some(spool), news, now, out: Vec::new(), sealer }
    }

    fn spool(&mut self) -> &mut Spool<u64> {
        self.spool.as_mut().unwrap()
    }

    /// An end without notice, and another beginning.
    fn reopen(&mut self) -> BTreeMap<String, Bytes> {
        self.spool = None;
        self.out.clear();
        let (spool, news, places) = open(self.directory.path(), self.settings);
        (self.spool, self.news) = (Some(spool), news);
        places
    }

    fn entry(&mut self, number: u64, cursor: Option<&'static str>) -> Entry {
        let mut records = RecordsBuilder::new();
        for record in 0..10 {
            records.push(format!("record {record} of entry {number}").as_bytes(), 100);
        }
        let meta = BatchMeta {
            stream_id: Bytes::from_static(b"stream"),
            first_offset: number * 1000,
            end_offset: number * 1000 + 1000,
            observed_unix_nano: self.now.unix_nano,
            flags: Flags::FIRST_CONTINUED.union(Flags::LAST_PARTIAL),
        };
        let info = Some(v1::StreamInfo { path: format!("/logs/{number}.log"), ..v1::StreamInfo::default() });
        let batch = v1::Batch { info, ..self.sealer.seal(meta, &mut records).unwrap() };
        let cursor = cursor.map(|cursor| Bytes::from_static(cursor.as_bytes()));
        Entry { spooled_unix_nano: self.now.unix_nano, input: "input".into(), cursor, batch }
    }

    /// Appends and waits until all of it is durable.
    fn append(&mut self, numbers: std::ops::Range<u64>) {
        let mut missing: Vec<u64> = numbers.clone().collect();
        for number in numbers {
            let entry = self.entry(number, Some("place"));
            self.spool().append(&entry, number);
        }
        self.wait_durable(&mut missing);
    }

    /// The same of another stream than usual.
    fn append_of(&mut self, stream: &'static str, numbers: std::ops::Range<u64>) {
        let mut missing: Vec<u64> = numbers.clone().collect();
        for number in numbers {
            let mut entry = self.entry(number, None);
            entry.batch.stream_id = Bytes::from_static(stream.as_bytes());
            self.spool().append(&entry, number);
        }
        self.wait_durable(&mut missing);
    }

    /// Gives back whatever is out.
    fn give_back(&mut self, why: Returned) {
        let now = self.now;
        for parcel in std::mem::take(&mut self.out) {
            self.spool().returned(parcel, why, now);
        }
    }

    /// Appends bytes that this agent did not write, and waits until they are durable.
    fn append_raw(&mut self, payload: &[u8], number: u64) {
        self.spool().waiting.push_back(Queued::raw(payload.to_vec(), number));
        self.spool().write();
        self.wait_durable(&mut vec![number]);
    }

    /// The file of a segment.
    fn segment(&self, number: u64) -> PathBuf {
        self.directory.path().join("deleted").join(format!("{number:020}.segment"))
    }

    fn reasons(&mut self) -> Vec<LossReason> {
        self.spool().dropped.iter().map(|dropped| dropped.reason).collect()
    }

    fn wait_durable(&mut self, missing: &mut Vec<u64>) {
        let deadline = Instant::now() + DURABLE_WITHIN;
        while !missing.is_empty() {
            let durable = self.spool().take_durable();
            missing.retain(|number| !durable.contains(number));
            self.spool().write();
            if !missing.is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                assert!(self.news.recv_timeout(left).is_ok(), "{missing:?} never became durable");
            }
        }
    }

    fn turn(&mut self) {
        let (now, mut errands) = (self.now, Vec::new());
        self.spool().turn(now, &mut errands);
        for errand in errands {
            match errand {
                Errand::Ship(parcel) => self.out.push(parcel),
                Errand::Recall { stream, .. } => {
                    let back: Vec<_> = self.out.extract_if(.., |parcel| parcel.stream == stream).collect();
                    back.into_iter().for_each(|parcel| self.spool().returned(parcel, Returned::Recalled, now));
                }
            }
        }
    }

    fn offsets(&self) -> Vec<u64> {
        self.out.iter().map(|parcel| parcel.batch.first_offset).collect()
    }

    fn acknowledge(&mut self, first: u64) {
        let at = self.out.iter().position(|parcel| parcel.batch.first_offset == first).unwrap();
        let parcel = self.out.remove(at);
        self.spool().acknowledged(parcel.stream, first);
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.unix_nano += u64::try_from(time.as_nanos()).unwrap();
    }
}

#[test]
fn what_is_durable_is_sent_in_order_and_again_after_a_kill_until_it_is_acknowledged() {
    let mut rig = Rig::new(settings());
    rig.append(0..4);
    rig.turn();
    assert_eq!(rig.offsets(), [0, 1000, 2000, 3000]);
    rig.acknowledge(0);
    rig.acknowledge(2000);
    rig.pass(Duration::from_secs(2));
    rig.turn();
    let sent_before = rig.out.clone();
    rig.reopen();
    rig.turn();
    assert_eq!(rig.offsets(), [1000, 2000, 3000], "from the first that is not acknowledged");
    assert_eq!(rig.out[0].batch, sent_before[0].batch, "the same batch, byte for byte");
    assert_eq!(rig.out[0].info.path, "/logs/1.log");
    [1000, 2000, 3000].into_iter().for_each(|first| rig.acknowledge(first));
    rig.pass(Duration::from_secs(2));
    rig.turn();
    assert!(rig.spool().is_empty());
    rig.reopen();
    rig.turn();
    assert!(rig.out.is_empty());
}

#[test]
fn without_a_session_nothing_is_under_way_so_that_all_may_be_dropped_and_with_the_next_one_all_goes() {
    let mut rig = Rig::new(settings());
    rig.append(0..4);
    rig.turn();
    rig.acknowledge(1000);
    rig.spool().set_open(false);
    rig.turn();
    assert_eq!((rig.offsets(), rig.spool().transit.parts()), (vec![], 0));
    assert!(!rig.spool().transit.begins_under_way() && !rig.spool().is_empty());
    rig.spool().set_open(true);
    rig.turn();
    assert_eq!(rig.offsets(), [0, 2000, 3000]);
}

#[test]
fn what_the_journal_has_taken_is_not_written_before_it_says_that_it_is_durable() {
    let mut rig = Rig::new(settings());
    let entry = rig.entry(0, None);
    rig.spool().append(&entry, 0);
    // The queue is empty as soon as the writer has taken what is in it, before anything is on disk.
    let deadline = Instant::now() + DURABLE_WITHIN;
    while rig.spool().journal.queued_bytes() > 0 {
        assert!(Instant::now() < deadline, "the writer takes nothing");
        std::thread::yield_now();
    }
    assert!(!rig.spool().is_written() && !rig.spool().is_empty());
    assert!(rig.spool().unwritten_bytes() > 0);
    rig.wait_durable(&mut vec![0]);
    assert!(rig.spool().is_written());
    assert_eq!(rig.spool().unwritten_bytes(), 0);
}

#[test]
fn without_a_session_nothing_is_read_and_memory_is_bounded_by_the_window() {
    let mut rig = Rig::new(Settings { window_bytes: 600, ..settings() });
    rig.spool().set_open(false);
    rig.append(0..50);
    rig.turn();
    assert!(rig.out.is_empty());
    rig.spool().set_open(true);
    rig.turn();
    let first = rig.out.len();
    assert!((1..10).contains(&first), "{first} batches");
    for number in 0..50 {
        rig.acknowledge(number * 1000);
        rig.turn();
        assert!(rig.out.len() <= first + 1);
    }
    assert!(rig.spool().is_empty());
}

#[test]
fn over_the_budget_the_oldest_goes_and_is_counted_to_the_byte() {
    let mut rig = Rig::new(Settings { bytes_max: 2000, ..settings() });
    rig.spool().set_open(false);
    rig.append(0..40);
    rig.turn();
    let dropped = std::mem::take(&mut rig.spool().dropped);
    assert!(!dropped.is_empty());
    for (number, dropped) in dropped.iter().enumerate() {
        let path = format!("/logs/{number}.log");
        assert_eq!(*dropped, Dropped { path, bytes: 1000, reason: LossReason::SpoolFull });
    }
    assert!(rig.spool().stored_bytes() <= 2000);
    rig.spool().set_open(true);
    rig.turn();
    let kept: Vec<u64> = (dropped.len() as u64..40).map(|number| number * 1000).collect();
    assert_eq!(rig.offsets(), kept, "what was not dropped is sent");
}

#[test]
fn what_is_kept_for_too_long_goes_and_is_counted() {
    let mut rig = Rig::new(Settings { age_max: Duration::from_secs(3600), ..settings() });
    rig.spool().set_open(false);
    rig.append(0..2);
    rig.pass(Duration::from_secs(1800));
    rig.append(2..3);
    rig.pass(Duration::from_secs(1801));
    rig.turn();
    let reasons: Vec<_> = rig.spool().dropped.iter().map(|dropped| (dropped.bytes, dropped.reason)).collect();
    assert_eq!(reasons, [(1000, LossReason::SpoolAged); 2]);
    rig.spool().set_open(true);
    rig.turn();
    assert_eq!(rig.offsets(), [2000]);
}

#[test]
fn a_batch_that_comes_back_waits_and_one_that_is_too_large_is_halved() {
    let mut rig = Rig::new(settings());
    rig.append(0..1);
    rig.turn();
    let (parcel, now) = (rig.out.remove(0), rig.now);
    rig.spool().returned(parcel, Returned::Held { delay: Duration::from_secs(5) }, now);
    rig.turn();
    assert!(rig.out.is_empty());
    rig.pass(Duration::from_secs(5));
    rig.turn();
    let (parcel, now) = (rig.out.remove(0), rig.now);
    let whole = Opener::new(Limits::default()).open(&parcel.batch).unwrap();
    rig.spool().returned(parcel, Returned::TooLarge { limit: 100 }, now);
    rig.turn();
    assert_eq!(rig.offsets(), [0, 500]);
    let halves: Vec<_> =
        rig.out.iter().map(|parcel| Opener::new(Limits::default()).open(&parcel.batch).unwrap()).collect();
    let parts: Vec<_> = halves.iter().flat_map(logmesh_proto::OpenBatch::records).collect();
    assert_eq!(parts, whole.records().collect::<Vec<_>>(), "the same records, with their marks");
    rig.acknowledge(500);
    rig.acknowledge(0);
    assert!(rig.spool().is_empty());
}

#[test]
fn a_stream_that_is_held_is_in_nobodys_way_and_goes_on_in_order() {
    let mut rig = Rig::new(Settings { window_bytes: 600, ..settings() });
    rig.append_of("held", 0..40);
    rig.append_of("free", 40..44);
    let held = Returned::Held { delay: Duration::from_secs(30) };
    rig.turn();
    assert!((2..10).contains(&rig.out.len()), "as much as the window lets");
    rig.give_back(held);
    rig.turn();
    assert_eq!(rig.offsets(), [40_000, 41_000, 42_000, 43_000]);
    [40_000, 41_000, 42_000, 43_000].into_iter().for_each(|first| rig.acknowledge(first));
    assert_eq!(rig.spool().transit.parts(), 0);
    assert!(rig.spool().stored_bytes() > 0 && !rig.spool().is_empty());
    for _ in 0..3 {
        rig.turn();
        assert!(rig.out.is_empty(), "before its time");
        rig.pass(Duration::from_secs(30));
        rig.turn();
        assert_eq!(rig.offsets(), [0, 1000], "a few, to see whether it is still held");
        rig.give_back(held);
    }
    rig.pass(Duration::from_secs(30));
    let mut arrived = Vec::new();
    while !rig.spool().is_empty() {
        rig.turn();
        let first = rig.offsets()[0];
        rig.acknowledge(first);
        arrived.push(first);
    }
    assert_eq!(arrived, (0..40).map(|number| number * 1000).collect::<Vec<u64>>());
}

#[test]
fn what_is_held_is_sent_again_after_a_kill() {
    let mut rig = Rig::new(settings());
    rig.append_of("held", 0..2);
    rig.append_of("free", 2..3);
    rig.turn();
    rig.acknowledge(2000);
    rig.give_back(Returned::Held { delay: Duration::from_secs(30) });
    rig.pass(Duration::from_secs(2));
    rig.turn();
    rig.reopen();
    rig.turn();
    assert_eq!(rig.offsets(), [0, 1000, 2000]);
}

#[test]
fn of_a_batch_with_one_record_that_is_too_large_only_that_is_tried_again() {
    let mut rig = Rig::new(settings());
    rig.append(0..1);
    rig.turn();
    // Halved until the first record is alone.
    let too_large = Returned::TooLarge { limit: 100 };
    let mut sizes = Vec::new();
    while rig.spool().oversized == 0 {
        let (parcel, now) = (rig.out.remove(0), rig.now);
        sizes.push(parcel.batch.record_count);
        rig.spool().returned(parcel, too_large, now);
        rig.turn();
        for first in rig.offsets().into_iter().filter(|first| *first > 0) {
            rig.acknowledge(first);
        }
    }
    assert_eq!(sizes, [10, 5, 2, 1]);
    assert!(rig.out.is_empty() && rig.spool().transit.parts() == 0);
    for _ in 0..2 {
        rig.pass(Duration::from_secs(30));
        rig.turn();
        let [parcel] = rig.out.as_slice() else { panic!("{:?}", rig.offsets()) };
        let opened = Opener::new(Limits::default()).open(&parcel.batch).unwrap();
        let records: Vec<_> = opened.records().collect();
        assert_eq!((records.len(), records[0].body), (1, &b"record 0 of entry 0"[..]));
        assert!(records[0].marks.continued && !records[0].marks.partial);
        assert_eq!((parcel.batch.first_offset, parcel.batch.end_offset), (0, 100));
        rig.give_back(too_large);
    }
    rig.pass(Duration::from_secs(30));
    rig.turn();
    rig.acknowledge(0);
    rig.turn();
    assert!(rig.spool().is_empty());
    assert_eq!(rig.spool().oversized, 0);
}

#[test]
fn a_deferred_entry_that_is_damaged_meanwhile_is_counted_and_its_neighbours_go_on() {
    let mut rig = Rig::new(settings());
    rig.append(0..3);
    rig.turn();
    rig.give_back(Returned::Held { delay: Duration::from_secs(30) });
    let mut bytes = std::fs::read(rig.segment(1)).unwrap();
    let at = bytes.windows(11).position(|window| window == b"/logs/0.log").unwrap();
    bytes[at] ^= 0xff;
    std::fs::write(rig.segment(1), bytes).unwrap();
    rig.pass(Duration::from_secs(30));
    rig.turn();
    assert_eq!(rig.offsets(), [1000, 2000]);
    assert_eq!(rig.reasons(), [LossReason::SpoolDamaged]);
}

#[test]
fn what_is_deferred_goes_first_once_the_budget_is_used_up() {
    let mut rig = Rig::new(settings());
    rig.append_of("held", 0..4);
    rig.append_of("free", 4..8);
    rig.turn();
    let free: Vec<Parcel> = rig.out.split_off(4);
    rig.give_back(Returned::Held { delay: Duration::from_secs(30) });
    rig.out = free;
    rig.spool().settings.bytes_max = 0;
    rig.turn();
    let paths: Vec<_> = rig.spool().dropped.iter().map(|dropped| (dropped.path.clone(), dropped.bytes)).collect();
    assert_eq!(paths, [0, 1, 2, 3].map(|number| (format!("/logs/{number}.log"), 1000)));
    assert_eq!(rig.spool().transit.parts(), 4, "what is under way is not dropped");
}

#[test]
fn what_is_delivered_behind_a_held_entry_counts_in_the_budget_until_that_one_goes() {
    let mut rig = Rig::new(Settings { bytes_max: 2000, ..settings() });
    rig.append_of("held", 0..1);
    rig.turn();
    rig.give_back(Returned::Held { delay: Duration::from_secs(300) });
    for number in 1..40 {
        rig.append_of("free", number..number + 1);
        rig.turn();
        rig.acknowledge(number * 1000);
    }
    let dropped = std::mem::take(&mut rig.spool().dropped);
    assert_eq!(dropped, [Dropped { path: "/logs/0.log".into(), bytes: 1000, reason: LossReason::SpoolFull }]);
    assert!(rig.spool().is_empty());
}

#[test]
fn behind_an_entry_that_is_under_way_only_what_is_not_delivered_counts() {
    let mut rig = Rig::new(Settings { bytes_max: 2000, ..settings() });
    rig.append_of("slow", 0..1);
    rig.turn();
    for number in 1..40 {
        rig.append_of("free", number..number + 1);
        rig.turn();
        rig.acknowledge(number * 1000);
    }
    rig.turn();
    assert!(rig.spool().dropped.is_empty());
    assert_eq!(rig.offsets(), [0]);
}

#[test]
fn the_place_of_an_input_outlives_the_entries_that_said_it() {
    let mut rig = Rig::new(Settings { bytes_max: 8 << 20, ..settings() });
    let entry = rig.entry(0, Some("behind entry 0"));
    rig.spool().append(&entry, 0);
    rig.wait_durable(&mut vec![0]);
    rig.turn();
    rig.acknowledge(0);
    rig.pass(Duration::from_secs(2));
    rig.turn();
    for _ in 0..3 {
        let places = rig.reopen();
        assert_eq!(places.get("input"), Some(&Bytes::from_static(b"behind entry 0")));
        // A segment of its own each time, without a word of that input.
        let entry = Entry { cursor: None, ..rig.entry(1, None) };
        rig.spool().append(&entry, 1);
        rig.wait_durable(&mut vec![1]);
        rig.turn();
        rig.acknowledge(1000);
        rig.pass(Duration::from_secs(2));
        rig.turn();
    }
}

#[test]
fn a_damaged_entry_is_skipped_and_counted_and_the_others_are_sent() {
    let mut rig = Rig::new(settings());
    rig.append(0..3);
    rig.spool = None;
    let directory = rig.directory.path().join("deleted");
    let segment = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|end| end == "segment")).min().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(12).position(|window| &window[..11] == b"/logs/1.log").unwrap();
    bytes[at] ^= 0xff;
    std::fs::write(&segment, bytes).unwrap();
    rig.reopen();
    rig.turn();
    assert_eq!(rig.offsets(), [0, 2000]);
    let reasons: Vec<_> = rig.spool().dropped.iter().map(|dropped| dropped.reason).collect();
    assert_eq!(reasons, [LossReason::SpoolDamaged]);
}

#[test]
fn an_entry_that_says_nothing_is_skipped_and_counted() {
    let mut rig = Rig::new(settings());
    rig.append(0..1);
    rig.append_raw(b"\x01 is all there is", 1);
    rig.append(2..3);
    rig.turn();
    assert_eq!(rig.offsets(), [0, 2000]);
    assert_eq!(rig.reasons(), [LossReason::SpoolDamaged]);
}

#[test]
fn an_entry_of_a_later_layout_stays_where_it_is_for_whoever_wrote_it() {
    let mut rig = Rig::new(settings());
    rig.append(0..1);
    rig.append_raw(b"\x09 and whatever", 1);
    rig.append(2..3);
    rig.turn();
    rig.acknowledge(0);
    for _ in 0..3 {
        rig.pass(Duration::from_secs(2));
        rig.turn();
        assert!(rig.out.is_empty() && rig.reasons().is_empty());
        let (reason, _) = rig.spool().unreadable.clone().unwrap();
        assert!(reason.contains("layout 9"), "{reason}");
        rig.reopen();
    }
    rig.turn();
    assert!(rig.spool().stored_bytes() > 0 && !rig.spool().is_empty());
}

/// A spool whose first of two segments holds entries 0 to 9, and the second 10 to 13. Neither file is open for reading the
/// first.
fn with_two_segments() -> Rig {
    let mut rig = Rig::new(settings());
    rig.append(0..10);
    rig.reopen();
    rig.append(10..14);
    rig.reopen();
    rig
}

#[test]
fn a_segment_that_is_gone_is_counted_and_the_next_one_is_sent() {
    let mut rig = with_two_segments();
    std::fs::remove_file(rig.segment(1)).unwrap();
    rig.turn();
    assert_eq!(rig.offsets(), [10_000, 11_000, 12_000, 13_000]);
    assert_eq!(rig.reasons(), [LossReason::SpoolDamaged]);
}

#[test]
fn a_segment_that_cannot_be_read_is_waited_for_until_the_budget_is_used_up() {
    let mut rig = with_two_segments();
    std::fs::remove_file(rig.segment(1)).unwrap();
    std::fs::create_dir(rig.segment(1)).unwrap();
    for _ in 0..3 {
        rig.turn();
        rig.pass(Duration::from_secs(2));
        assert!(rig.out.is_empty() && rig.reasons().is_empty());
        assert!(rig.spool().unreadable.is_some());
    }
    let second = rig.spool().journal.log().segment(2).unwrap();
    rig.spool().settings.bytes_max = second.end;
    rig.turn();
    assert_eq!(rig.offsets(), [10_000, 11_000, 12_000, 13_000]);
    assert_eq!(rig.reasons(), [LossReason::SpoolDamaged]);
    assert_eq!(rig.spool().unreadable, None);
}

#[test]
fn a_turn_drops_no_more_than_it_may_and_counts_what_goes_of_a_file_as_one_loss() {
    let mut rig = Rig::new(Settings { bytes_max: 2000, ..settings() });
    rig.spool().set_open(false);
    let mut missing: Vec<u64> = (0..200).collect();
    for number in 0..200 {
        let mut entry = rig.entry(number, None);
        entry.batch.info = Some(v1::StreamInfo { path: "/logs/a.log".into(), ..v1::StreamInfo::default() });
        rig.spool().append(&entry, number);
    }
    rig.wait_durable(&mut missing);
    let (mut lost, mut turns) = (0, 0);
    loop {
        let now = rig.now;
        let wake = rig.spool().turn(now, &mut Vec::new());
        let dropped = std::mem::take(&mut rig.spool().dropped);
        let [Dropped { path, bytes, reason }] = dropped.as_slice() else { panic!("{dropped:?}") };
        assert_eq!((path.as_str(), *reason), ("/logs/a.log", LossReason::SpoolFull));
        assert!(*bytes <= READS_MAX as u64 * 1000);
        (lost, turns) = (lost + *bytes, turns + 1);
        if rig.spool().stored_bytes() <= 2000 {
            break;
        }
        assert_eq!(wake, now.mono, "there is more to do");
    }
    assert!(turns > 1);
    rig.spool().set_open(true);
    rig.turn();
    assert_eq!(rig.offsets().len() as u64 * 1000 + lost, 200_000);
}

#[test]
fn a_place_that_was_noted_of_another_journal_is_not_believed() {
    let mut rig = Rig::new(settings());
    rig.append(0..3);
    rig.turn();
    [0, 1000, 2000].into_iter().for_each(|first| rig.acknowledge(first));
    rig.pass(Duration::from_secs(2));
    rig.turn();
    rig.spool = None;
    std::fs::remove_dir_all(rig.directory.path().join("deleted")).unwrap();
    rig.reopen();
    rig.append(3..4);
    // Nor later, when there is as much as was noted again.
    rig.append(4..9);
    rig.reopen();
    rig.turn();
    assert_eq!(rig.offsets(), [3000, 4000, 5000, 6000, 7000, 8000]);
}

#[test]
fn what_is_delivered_gives_its_room_back_where_there_is_none_to_note_it() {
    let mut rig = Rig::new(settings());
    rig.append(0..1);
    rig.reopen();
    rig.append(1..2);
    let in_the_way = rig.directory.path().join("deleted.acked.new");
    std::os::unix::fs::symlink("/dev/full", &in_the_way).unwrap();
    rig.turn();
    [0, 1000].into_iter().for_each(|first| rig.acknowledge(first));
    rig.pass(Duration::from_secs(2));
    rig.turn();
    assert_eq!(rig.spool().journal.log().bounds(), Some((2, 2)));
    assert!(rig.spool().unnoted.is_some());
    std::fs::remove_file(in_the_way).unwrap();
    rig.pass(Duration::from_secs(2));
    rig.turn();
    assert_eq!(rig.spool().unnoted, None);
    rig.reopen();
    rig.turn();
    assert!(rig.out.is_empty() && rig.spool().dropped.is_empty());
}

#[test]
fn what_deleted_files_left_and_cannot_be_opened_is_told_and_tried_again_and_stops_nobody() {
    use crate::lines::CutLimits;
    let directory = tempfile::tempdir().unwrap();
    let in_the_way = directory.path().join("deleted");
    std::fs::write(&in_the_way, b"no directory").unwrap();
    let config = SpoolsConfig {
        directory: directory.path().into(),
        budgets: SpoolConfig::default(),
        inputs: Vec::new(),
        codec: v1::Codec::Zstd,
        limits: CutLimits { batch_bytes_max: 1 << 18, batch_records_max: 10_000, record_bytes_max: 1 << 19 },
        window_bytes: 1 << 20,
    };
    let (mut spools, _) = Spools::open(config, Arc::new(|| {})).unwrap();
    let failure = |spools: &Spools| spools.status().get("deleted").and_then(|status| status.failure.clone());
    let mut now = Now { mono: Duration::from_secs(1), unix_nano: 1 };
    let mut out = Vec::new();
    assert_eq!(spools.turn(now, &mut out), now.mono + RETRY);
    assert!(failure(&spools).is_some() && !spools.is_empty());
    std::fs::remove_file(in_the_way).unwrap();
    now.mono += RETRY;
    spools.turn(now, &mut out);
    assert_eq!(failure(&spools), None);
    assert!(spools.is_empty() && spools.is_written());
}

#[test]
fn with_no_room_for_inputs_their_batches_wait_and_go_on_once_there_is() {
    let bytes_max = 3 << 20;
    let mut rig = Rig::new(Settings { drops_oldest: false, bytes_max, window_bytes: 64 << 20, ..settings() });
    rig.spool().set_open(false);
    let mut missing = Vec::new();
    let body: Vec<u8> =
        (0..400_000u32).map(|place| u8::try_from(place.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    let mut plain = Sealer::new(v1::Codec::None).unwrap();
    // More than the limit and the largest group that can be written across it.
    for number in 0..20 {
        let mut records = RecordsBuilder::new();
        records.push(&body, 400_001);
        let meta = BatchMeta {
            stream_id: Bytes::from_static(b"stream"),
            first_offset: number * 400_001,
            end_offset: (number + 1) * 400_001,
            observed_unix_nano: 1,
            flags: Flags::NONE,
        };
        let batch = plain.seal(meta, &mut records).unwrap();
        let entry = Entry { batch, ..rig.entry(0, None) };
        rig.spool().append(&entry, number);
        missing.push(number);
    }
    // Until the journal says that it is full.
    let deadline = Instant::now() + DURABLE_WITHIN;
    while rig.spool().failure.is_none() {
        let durable = rig.spool().take_durable();
        missing.retain(|number| !durable.contains(number));
        rig.spool().write();
        assert!(Instant::now() < deadline, "it is never full");
        let _ = rig.news.recv_timeout(Duration::from_millis(50));
    }
    assert!(!missing.is_empty());
    rig.spool().set_open(true);
    while !missing.is_empty() {
        rig.turn();
        for first in rig.offsets() {
            rig.acknowledge(first);
        }
        rig.pass(Duration::from_secs(2));
        rig.turn();
        let durable = rig.spool().take_durable();
        missing.retain(|number| !durable.contains(number));
        assert!(Instant::now() < deadline, "{missing:?} never became durable");
        let _ = rig.news.recv_timeout(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn the_pieces_of_a_record_are_marked_though_others_come_between_and_the_last_batch_has_the_cursor() {
    let sent = [
        ("one", false, false),
        ("two", false, true),
        ("its middle", true, true),
        ("another's", false, false),
        ("its end", true, false),
        ("three", false, false),
    ];
    let record = |(text, continued, split): (&'static str, bool, bool)| {
        let body = Bytes::from_static(text.as_bytes());
        Record { body, observed_unix_nano: 1, continued, split }
    };
    let (intake, mut arrivals) = intake(1 << 20, || {});
    let cursor = Bytes::from_static(b"behind three");
    intake.for_input(0).send(sent.map(record).into(), Some(cursor.clone())).await.unwrap();

    let limits = CutLimits { batch_bytes_max: 1 << 20, batch_records_max: 1000, record_bytes_max: 1024 };
    let input = FeedInfo { name: "input".into(), info: v1::StreamInfo::default() };
    let mut feeds = Feeds::new(&[input], v1::Codec::None, limits).unwrap();
    let now = Now { mono: Duration::from_secs(1), unix_nano: 1_700_000_000_000_000_000 };
    let mut sealed = Vec::new();
    arrivals.take().into_iter().for_each(|arrival| feeds.take(arrival, now, &mut sealed));
    feeds.flush(true, now, &mut sealed);

    let mut scribe = Scribe::new(Board::new(Arc::new(|| {})), BTreeMap::new());
    let (mut opener, mut batches, mut cursors) = (Opener::new(Limits::default()), Vec::new(), Vec::new());
    for mut queued in sealed {
        let mut payload = Vec::new();
        scribe.encode(&mut queued, &mut payload);
        let entry = Entry::decode(payload.into()).unwrap();
        let opened = opener.open(&entry.batch).unwrap();
        let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
        let records = opened.records().map(|one| (text(one.body), one.marks.continued, one.marks.split));
        batches.push(records.collect::<Vec<_>>());
        cursors.push(entry.cursor);
    }
    let expected = [&sent[..2], &sent[2..3], &sent[3..4], &sent[4..]];
    let expected = expected.map(|batch| batch.iter().map(|one| (one.0.to_owned(), one.1, one.2)).collect::<Vec<_>>());
    assert_eq!(batches, expected);
    assert_eq!(cursors, [None, None, None, Some(cursor)]);
    assert!(feeds.is_empty() && intake.free_bytes() == 1 << 20, "all the room is given back");
}
