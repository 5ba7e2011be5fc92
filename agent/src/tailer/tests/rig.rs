//! A tailer, a fake file system, a real state directory, and a gateway that keeps what it gets.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use logmesh_proto::{Flags, Limits, Opener, v1};

use crate::{
    clock::Now,
    discovery::{Group, Hint, Patterns},
    filesystem::fake::FakeFilesystem,
    lines::{CutLimits, Framing, FramingConfig},
    losses::LossReason,
    parcel::{Answer, Errand, Parcel, Returned},
    sift::{Sift, SiftConfig},
    state::Store,
    tailer::{GroupRules, Settings, Tailer},
};

pub(super) const PARTIAL_FLUSH: Duration = Duration::from_secs(5);

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A record by its identity.
pub(super) type Identity = (Vec<u8>, u64);

pub(super) struct Rig {
    pub(super) files: FakeFilesystem,
    pub(super) directory: tempfile::TempDir,
    pub(super) tailer: Option<Tailer<FakeFilesystem>>,
    pub(super) now: Now,
    pub(super) waiting: Vec<Parcel>,
    /// What the gateway has: body and marks by identity.
    pub(super) kept: BTreeMap<Identity, (Vec<u8>, Flags)>,
    /// Byte ranges by stream that were delivered, as an index that trusts intervals would see them.
    pub(super) batches: BTreeSet<(Vec<u8>, u64, u64, u64, u32)>,
    pub(super) deliveries: usize,
    pub(super) limits: CutLimits,
    pub(super) framing: FramingConfig,
    pub(super) compressed: bool,
    pub(super) sift: SiftConfig,
    pub(super) rate_limit: Option<u64>,
    pub(super) info: v1::StreamInfo,
    opener: Opener,
    pub(super) fresh: bool,
    pub(super) spools_deleted: bool,
    pub(super) window_bytes: usize,
    /// Batches in the spool, durable and not delivered.
    pub(super) spooled: Vec<Parcel>,
    pub(super) include: Vec<String>,
    pub(super) files_open_max: usize,
    /// Whether no hints come.
    pub(super) polling: bool,
    /// Whether the state counts as a large one.
    pub(super) changes_alone: bool,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with_framing(FramingConfig::default())
    }

    pub(super) fn with_framing(framing: FramingConfig) -> Self {
        let limits = CutLimits { batch_bytes_max: 4096, batch_records_max: 20, record_bytes_max: 2000 };
        let now = Now { mono: Duration::from_secs(1), unix_nano: 1_700_000_000_000_000_000 };
        let mut rig = Self {
            files: FakeFilesystem::new(),
            directory: tempfile::tempdir().unwrap(),
            tailer: None,
            now,
            waiting: Vec::new(),
            kept: BTreeMap::new(),
            batches: BTreeSet::new(),
            deliveries: 0,
            limits,
            framing,
            compressed: false,
            sift: SiftConfig::default(),
            rate_limit: None,
            info: v1::StreamInfo::default(),
            opener: Opener::new(Limits::default()),
            fresh: true,
            spools_deleted: true,
            window_bytes: 1 << 20,
            spooled: Vec::new(),
            include: ["/logs/*.log", "/logs/copies/*", "/var/log/**/*.log"].map(str::to_owned).to_vec(),
            files_open_max: 1000,
            polling: true,
            changes_alone: false,
        };
        rig.start();
        rig
    }

    /// One whose group has its archives read.
    pub(super) fn with_archives() -> Self {
        let mut rig = Self::new();
        rig.compressed = true;
        rig.kill();
        rig.start();
        rig
    }

    pub(super) fn start(&mut self) {
        let group = Group::new(&self.include, &["**/not.log".to_owned()], "/".as_ref()).unwrap();
        let settings = Settings {
            patterns: Patterns::new(vec![group]).leaving(["/logs/own", "/logs/own.log"].map(Into::into).to_vec()),
            infos: vec![self.info.clone()],
            framings: vec![Framing::new(&self.framing).unwrap()],
            compressed: vec![self.compressed],
            groups: vec![GroupRules {
                sift: Sift::new(&self.sift).unwrap(),
                rate_limit: self.rate_limit,
                ..GroupRules::default()
            }],
            limits: self.limits,
            partial_flush: PARTIAL_FLUSH,
            window_bytes: self.window_bytes,
            codec: v1::Codec::None,
            spools_deleted: self.spools_deleted,
            files_open_max: self.files_open_max,
            fresh: self.fresh,
        };
        let (store, recovered) = Store::open(self.directory.path()).unwrap();
        let mut tailer = Tailer::new(self.files.clone(), settings, store, recovered).unwrap();
        tailer.set_polling(self.polling);
        tailer.checkpoint.changes_alone = self.changes_alone;
        self.tailer = Some(tailer);
        self.answer(Answer::Opened { credit: 1 << 20, encoded_bytes_max: 640 * 1024, records_max: 10_000 });
    }

    /// Has everything that is written to the state directory fail, or no more.
    pub(super) fn set_disk_full(&mut self, full: bool) {
        self.tailer.as_mut().unwrap().store.set_full(full);
    }

    /// SIGKILL: what is in memory is gone, what was written stays.
    pub(super) fn kill(&mut self) {
        self.tailer = None;
        self.waiting.clear();
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        let now = self.now;
        self.tailer.as_mut().unwrap().handle(answer, now);
    }

    pub(super) fn turn(&mut self, hints: Vec<Hint>) {
        let now = self.now;
        let mut out = Vec::new();
        self.tailer.as_mut().unwrap().turn(now, hints, &mut out);
        self.run_errands(out);
        self.spool();
    }

    /// What the shipper does: a batch that was called back is not on its way any more.
    fn run_errands(&mut self, errands: Vec<Errand>) {
        for errand in errands {
            match errand {
                Errand::Ship(parcel) => self.waiting.push(parcel),
                Errand::Recall { stream, in_flight: _ } => {
                    let (back, on): (Vec<_>, Vec<_>) =
                        std::mem::take(&mut self.waiting).into_iter().partition(|parcel| parcel.stream == stream);
                    self.waiting = on;
                    back.into_iter().for_each(|parcel| self.give_back(parcel, Returned::Recalled));
                }
            }
        }
    }

    /// What is handed over to the spool is durable there at once; a kill does not take it.
    fn spool(&mut self) {
        let (now, tailer) = (self.now, self.tailer.as_mut().unwrap());
        let leaving = tailer.take_leaving();
        let cuts: Vec<_> = leaving.iter().map(|parcel| (parcel.stream, parcel.batch.first_offset)).collect();
        assert!(leaving.iter().all(|parcel| self.waiting.iter().all(|other| other.stream != parcel.stream)));
        tailer.kept(&cuts, now);
        self.spooled.extend(leaving);
    }

    /// The agent is told to stop, and given the time for it.
    pub(super) fn stop(&mut self) {
        let now = self.now;
        self.tailer.as_mut().unwrap().begin_stop(now);
        loop {
            let mut errands = Vec::new();
            let leaves_on = self.tailer.as_mut().unwrap().turn_stopping(now, &mut errands);
            let is_over = !leaves_on && errands.is_empty();
            self.run_errands(errands);
            self.spool();
            if is_over {
                break;
            }
        }
        self.tailer.as_mut().unwrap().stop();
        self.kill();
    }

    /// The agent is told to stop, and given no time.
    pub(super) fn give_up_at_stop(&mut self) {
        let (now, tailer) = (self.now, self.tailer.as_mut().unwrap());
        tailer.begin_stop(now);
        assert!(tailer.turn_stopping(now, &mut Vec::new()));
        tailer.give_up_leaving(now);
    }

    /// The spool's batches reach the gateway.
    pub(super) fn deliver_spooled(&mut self) {
        for parcel in std::mem::take(&mut self.spooled) {
            self.keep(&parcel);
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.unix_nano += u64::try_from(time.as_nanos()).unwrap();
    }

    /// The gateway keeps a batch; what it says to it is another matter.
    pub(super) fn keep(&mut self, parcel: &Parcel) {
        logmesh_proto::check(&parcel.batch, &Limits::default()).unwrap();
        let batch = &parcel.batch;
        let opened = self.opener.open(batch).unwrap();
        let stream = batch.stream_id.to_vec();
        for (at, record) in opened.records().enumerate() {
            self.deliveries += 1;
            let last = at + 1 == opened.len();
            let mut flags = Flags::from_bits(batch.flags & Flags::RESEND.bits());
            if at == 0 {
                flags = flags.union(Flags::from_bits(batch.flags & Flags::FIRST_CONTINUED.bits()));
            }
            if last {
                let marks = Flags::LAST_PARTIAL.union(Flags::LAST_SPLIT).bits();
                flags = flags.union(Flags::from_bits(batch.flags & marks));
            }
            let resend = flags.contains(Flags::RESEND);
            let before = self.kept.insert((stream.clone(), record.offset), (record.body.to_vec(), flags));
            if let Some((before, _)) = before {
                assert!(resend || before == record.body, "stream {stream:?} offset {}", record.offset);
            }
        }
        let facts = (stream, batch.first_offset, batch.end_offset, batch.observed_time_unix_nano, batch.flags);
        self.batches.insert(facts);
    }

    pub(super) fn acknowledge(&mut self, parcel: &Parcel) {
        self.keep(parcel);
        self.answer(Answer::Acked { stream: parcel.stream, first: parcel.batch.first_offset });
    }

    /// Turns, with every batch acknowledged, until `time` has passed in small steps.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now.mono + time;
        while self.now.mono < until {
            for _ in 0..4 {
                self.turn(Vec::new());
                for parcel in std::mem::take(&mut self.waiting) {
                    self.acknowledge(&parcel);
                }
            }
            self.pass(Duration::from_millis(250));
        }
    }

    /// Turns without answering until `time` has passed.
    pub(super) fn run_unanswered(&mut self, time: Duration) {
        let until = self.now.mono + time;
        while self.now.mono < until {
            self.turn(Vec::new());
            self.pass(Duration::from_millis(250));
        }
    }

    pub(super) fn give_back(&mut self, parcel: Parcel, why: Returned) {
        self.answer(Answer::Returned(Box::new(parcel), why));
    }

    /// All bodies, sorted.
    pub(super) fn bodies(&self) -> Vec<String> {
        let mut bodies: Vec<String> =
            self.kept.values().map(|(body, _)| String::from_utf8_lossy(body).into_owned()).collect();
        bodies.sort();
        bodies
    }

    pub(super) fn streams(&self) -> usize {
        self.kept.keys().map(|(stream, _)| stream).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn flags_of(&self, body: &str) -> Flags {
        self.kept.values().find(|(kept, _)| kept == body.as_bytes()).map(|(_, flags)| *flags).unwrap()
    }

    /// Path, bytes and reason of every loss.
    pub(super) fn losses(&self) -> Vec<(String, Option<u64>, LossReason)> {
        let last = self.tailer.as_ref().unwrap().losses.last();
        last.into_iter().map(|loss| (loss.path, loss.bytes, loss.reason)).collect()
    }

    pub(super) fn lost_bytes(&self) -> u64 {
        self.tailer.as_ref().unwrap().tally.lost_bytes
    }
}

/// Lines of one generation, long enough together for heads and anchors to tell it from others.
pub(super) fn lines(name: &str, range: std::ops::Range<usize>) -> String {
    range.map(|number| format!("{name} {number:06} some words to make the line longer\n")).collect()
}

pub(super) fn bodies(parts: &[(&str, std::ops::Range<usize>)]) -> Vec<String> {
    let mut all: Vec<String> = parts
        .iter()
        .flat_map(|(name, range)| lines(name, range.clone()).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    all.sort();
    all
}
