//! Letters from their keeping to their replay, over a real local bus.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use logmesh_bus::{
    Bus, Delivered, Record, TopicPartition,
    local::{LocalBus, LocalOptions},
};
use logmesh_proto::{BatchMeta, Envelope, Flags, Header, RecordId, RecordsBuilder, Sealer, StreamKey, v1};
use logmesh_runtime::{Context, config::Root};
use prost::Message as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::{
    Config, Processor,
    document::Document,
    index::{
        Index, Mode, Outcome,
        faulty::{FaultHandle, FaultPlan, Faulty},
    },
};

/// Five times what anything here should take.
const WITHIN: Duration = Duration::from_secs(20);

/// Keeps documents as an index does, and counts how often each was written.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<RecordId, (Document, u32)>>);

impl Kept {
    fn documents(&self) -> BTreeMap<RecordId, Document> {
        let kept = self.0.lock().expect("not poisoned");
        kept.iter().map(|(id, (document, _))| (*id, document.clone())).collect()
    }

    fn find(&self, message: &str) -> Option<(Document, Value)> {
        let documents = self.documents().into_values();
        let mut read =
            documents.map(|document| (serde_json::from_slice::<Value>(&document.body).expect("json"), document));
        read.find(|(value, _)| value["message"] == message).map(|(value, document)| (document, value))
    }
}

impl Index for Kept {
    fn bulk(&self, documents: Vec<Document>, mode: Mode) -> BoxFuture<'_, Vec<Outcome>> {
        let mut kept = self.0.lock().expect("not poisoned");
        let outcome = |document: Document| match kept.get_mut(&document.id) {
            Some(_) if mode == Mode::Create => Outcome::Exists,
            Some((there, writes)) => {
                *there = document;
                *writes += 1;
                Outcome::Created
            }
            None => {
                kept.insert(document.id, (document, 1));
                Outcome::Created
            }
        };
        let outcomes = documents.into_iter().map(outcome).collect();
        Box::pin(async { outcomes })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A bus, an index that can be made to refuse, and a desk over both.
struct Stage {
    bus: Arc<LocalBus>,
    kept: Arc<Kept>,
    index: Arc<dyn Index>,
    faults: FaultHandle,
    office: Office,
    _scratch: TempDir,
}

fn config() -> Config {
    Config { retry: (Duration::from_millis(1), Duration::from_millis(10)), ..Config::read(&Root::empty()) }
}

impl Stage {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("scratch");
        let options = LocalOptions {
            partitions: 3,
            record_bytes_max: 1 << 20,
            set_apart: vec![topics()],
            groups: vec![("logmesh".into(), vec!["logs.*".into()]), (GROUP.into(), vec![topics()])],
            ..LocalOptions::new(scratch.path().join("bus"))
        };
        let bus = Arc::new(LocalBus::open(options).expect("the bus opens"));
        let kept = Arc::new(Kept::default());
        let (index, faults) = Faulty::new(Arc::clone(&kept));
        let index: Arc<dyn Index> = Arc::new(index);
        let office = Office::new(bus.clone(), Arc::clone(&index), config());
        Self { bus, kept, index, faults, office, _scratch: scratch }
    }

    async fn append(&self, topic: &str, record: Record) {
        self.bus.append(topic, record).await.expect("queued").await.expect("durable");
    }

    /// Runs a processor until it has committed everything.
    async fn process(&self) {
        let context = Context::for_tests();
        let bus: Arc<dyn Bus> = self.bus.clone();
        let processor = Processor::new(config(), Arc::clone(&bus), Arc::clone(&self.index), bus, context.clone());
        let running = tokio::spawn(processor.run());
        let all = async {
            while self.bus.lag("logmesh").await.expect("lag").iter().any(|lag| lag.records() > 0) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(WITHIN, all).await.expect("everything is committed in time");
        context.shutdown.begin();
        running.await.expect("no panic").expect("no failure");
    }

    async fn open(&self) -> Vec<Value> {
        self.office.list(&Selection::default(), 1000).await.expect("lists").letters
    }

    async fn replay(&self, selection: &Selection) -> (Summary, Vec<Said>) {
        let (said, mut heard) = mpsc::channel(1000);
        let replayed = self.office.replay(selection, false, &said);
        let summary = tokio::time::timeout(WITHIN * 5, replayed).await.expect("in time").expect("replays");
        drop(said);
        let mut all = Vec::new();
        while let Some(said) = heard.recv().await {
            all.push(said);
        }
        (summary, all)
    }

    async fn discard(&self, selection: &Selection) -> Summary {
        let (said, _heard) = mpsc::channel(1000);
        self.office.discard(selection, &said).await.expect("discards")
    }

    /// Records of letters' topics that the group has not committed.
    async fn uncommitted(&self) -> u64 {
        self.bus.lag(GROUP).await.expect("lag").iter().map(logmesh_bus::PartitionLag::records).sum()
    }
}

fn batch(tenant: &str, offset: u64, lines: &[&[u8]], flags: Flags) -> Record {
    let mut records = RecordsBuilder::new();
    for line in lines {
        records.push(line, u32::try_from(line.len()).expect("short") + 1);
    }
    let meta = BatchMeta {
        stream_id: Bytes::from_static(b"a stream of some"),
        first_offset: offset,
        end_offset: offset + records.source_bytes(),
        observed_unix_nano: 1_795_392_000_123_456_789,
        flags,
    };
    let sealed = Sealer::new(v1::Codec::Zstd).expect("memory").seal(meta, &mut records).expect("seals");
    let identity = format!("spiffe://mesh/agent/{tenant}");
    let envelope = Envelope {
        tenant: tenant.into(),
        stream_key: StreamKey::derive(&identity, &sealed.stream_id),
        identity,
        first_offset: sealed.first_offset,
        end_offset: sealed.end_offset,
        record_count: sealed.record_count,
        codec: v1::Codec::Zstd,
        flags,
        received_unix_nano: 1_795_392_055_000_000_000,
        topic: "logs".into(),
        info: v1::StreamInfo { path: "/var/log/app.log".into(), host: "edge".into(), ..Default::default() },
    };
    let key = Bytes::copy_from_slice(envelope.stream_key.as_bytes());
    Record { key, headers: envelope.to_headers(), value: sealed.encode_to_vec().into() }
}

fn ids(letters: &[Value]) -> Vec<String> {
    letters.iter().map(|letter| letter["id"].as_str().expect("an id").to_owned()).collect()
}

/// What the index would hold had nothing been refused.
async fn undisturbed(records: &[(&str, Record)]) -> BTreeMap<RecordId, Document> {
    let stage = Stage::new();
    for (topic, record) in records {
        stage.append(topic, record.clone()).await;
    }
    stage.process().await;
    stage.kept.documents()
}

fn assert_same(kept: &BTreeMap<RecordId, Document>, expected: &BTreeMap<RecordId, Document>) {
    assert_eq!(kept.len(), expected.len());
    for (id, document) in kept {
        let whole = &expected[id];
        assert_eq!(String::from_utf8_lossy(&document.body), String::from_utf8_lossy(&whole.body));
        assert_eq!(
            (&document.index, document.offset, document.end_offset),
            (&whole.index, whole.offset, whole.end_offset)
        );
        assert_eq!(document.timestamp_unix_nano, whole.timestamp_unix_nano);
    }
}

#[tokio::test]
async fn a_replay_puts_exactly_the_document_there_that_an_index_without_faults_would_have() {
    let json = br#"{"time":"2026-11-23T01:02:03Z","level":"warn","message":"bad json","deep":{"a":[1,2]}}"#;
    let marks = Flags::FIRST_CONTINUED.union(Flags::LAST_PARTIAL);
    let batches = [
        ("logs.a", batch("a", 0, &[b"good", b"bad plain", json], Flags::NONE)),
        ("logs.a", batch("a", 500, &[b"bad alone"], marks.union(Flags::RESEND))),
        ("logs.b", batch("b", 0, &[b"bad bytes \xff\xfe", b"bad split"], Flags::LAST_SPLIT)),
    ];
    let expected = undisturbed(&batches).await;
    let stage = Stage::new();
    stage.faults.set(FaultPlan::Reject("bad".into()));
    for (topic, record) in &batches {
        stage.append(topic, record.clone()).await;
    }
    stage.process().await;
    assert_eq!(stage.kept.documents().len(), 6, "reduced ones stand in");
    let (_, reduced) = stage.kept.find("bad plain").expect("a reduced document");
    assert_eq!(reduced["tags"][0], "dead_lettered");
    assert_eq!(stage.open().await.len(), 5);
    stage.faults.set(FaultPlan::None);
    let (summary, said) = stage.replay(&Selection::default()).await;
    assert_eq!(
        (summary.replayed, summary.refused, summary.waiting, summary.not_committed),
        (5, 0, 0, None),
        "{said:?}"
    );
    assert_same(&stage.kept.documents(), &expected);
    assert_eq!(stage.open().await.len(), 0);
    assert_eq!(stage.uncommitted().await, 0, "the bus may let them go");
}

#[tokio::test]
async fn what_is_refused_again_stays_with_its_new_reason_and_a_repeat_is_harmless() {
    let stage = Stage::new();
    stage.faults.set(FaultPlan::Reject("bad".into()));
    stage.append("logs.a", batch("a", 0, &[b"bad one", b"bad two", b"bad three"], Flags::NONE)).await;
    stage.process().await;
    stage.faults.set(FaultPlan::Reject("two".into()));
    let (summary, said) = stage.replay(&Selection::default()).await;
    assert_eq!((summary.replayed, summary.refused), (2, 1));
    let refused = said.iter().find(|said| matches!(&said.tried, Tried::Refused { .. })).expect("one is refused");
    assert_eq!(refused.tried, Tried::Refused { reason: "made to refuse `two` by a test".into() });
    let open = stage.open().await;
    assert_eq!((open.len(), open[0]["preview"].as_str()), (1, Some("bad two")));
    let (summary, _) = stage.replay(&Selection::default()).await;
    assert_eq!((summary.replayed, summary.refused), (0, 1), "what is done is not done again");
    stage.faults.set(FaultPlan::None);
    let (summary, _) = stage.replay(&Selection::default()).await;
    assert_eq!((summary.replayed, summary.refused), (1, 0));
    assert_eq!((stage.open().await.len(), stage.uncommitted().await), (0, 0));
    assert_eq!(stage.kept.documents().len(), 3);
}

#[tokio::test]
async fn one_letter_in_the_midst_is_dealt_with_by_its_id_and_the_others_stay() {
    let stage = Stage::new();
    stage.faults.set(FaultPlan::Reject("bad".into()));
    let lines: Vec<String> = (0..30).map(|n| format!("bad {n:02}")).collect();
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    stage.append("logs.a", batch("a", 0, &lines, Flags::NONE)).await;
    stage.process().await;
    stage.faults.set(FaultPlan::None);
    let open = stage.open().await;
    let (chosen, thrown) = (ids(&open[10..13]), ids(&open[20..22]));
    let unknown = RecordId::from_bytes([9; 16]).to_string();
    let selection = Selection { ids: [chosen.clone(), vec![unknown]].concat(), ..Selection::default() };
    let (summary, _) = stage.replay(&selection).await;
    assert_eq!((summary.replayed, summary.unknown), (3, 1));
    let discarded = stage.discard(&Selection { ids: thrown.clone(), ..Selection::default() }).await;
    assert_eq!(discarded.discarded, 2);
    let left = ids(&stage.open().await);
    assert_eq!(left.len(), 25);
    assert!(chosen.iter().chain(&thrown).all(|id| !left.contains(id)));
    let all = stage.office.list(&Selection { all: true, ..Selection::default() }, 1000).await.expect("lists");
    let states = |word: &str| all.letters.iter().filter(|letter| letter["state"] == word).count();
    assert_eq!((all.total, states("open"), states("replayed"), states("discarded")), (30, 25, 3, 2));
    let (shown, fate) = stage.office.show(&thrown[0]).await.expect("shows").expect("is there");
    assert_eq!((fate, shown.original.starts_with(b"bad ")), (Fate::Discarded, true));
    let reduced = stage
        .kept
        .documents()
        .into_values()
        .filter(|document| memchr::memmem::find(&document.body, b"dead_lettered").is_some());
    assert_eq!(reduced.count(), 27, "only the chosen three are whole");
}

#[tokio::test]
async fn letters_are_chosen_by_tenant_and_reason_and_a_dry_run_writes_nothing() {
    let stage = Stage::new();
    stage.faults.set(FaultPlan::Reject("bad".into()));
    stage.append("logs.a", batch("a", 0, &[b"bad one"], Flags::NONE)).await;
    stage.append("logs.b", batch("b", 0, &[b"bad two", b"bad three"], Flags::NONE)).await;
    stage.process().await;
    stage.faults.set(FaultPlan::None);
    let tenant = Selection { tenant: Some("b".into()), ..Selection::default() };
    let (said, _heard) = mpsc::channel(100);
    let dry = stage.office.replay(&tenant, true, &said).await.expect("tries");
    assert_eq!((dry.replayed, stage.open().await.len()), (2, 3));
    assert!(stage.kept.find("bad two").is_some_and(|(_, value)| value["tags"][0] == "dead_lettered"));
    let other = Selection { reason: Some("another reason".into()), ..Selection::default() };
    assert_eq!(stage.office.list(&other, 10).await.expect("lists").total, 0);
    let this = Selection { reason: Some("REFUSE `bad`".into()), ..Selection::default() };
    assert_eq!(stage.office.list(&this, 1).await.expect("lists").total, 3);
    assert_eq!(stage.replay(&tenant).await.0.replayed, 2);
    assert_eq!(ids(&stage.open().await).len(), 1);
}

#[tokio::test]
async fn an_index_that_takes_nothing_leaves_letters_open_and_is_not_waited_for_twice() {
    let stage = Stage::new();
    stage.faults.set(FaultPlan::Reject("bad".into()));
    let lines: Vec<String> = (0..1200).map(|n| format!("bad {n:04}")).collect();
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    stage.append("logs.a", batch("a", 0, &lines, Flags::NONE)).await;
    stage.process().await;
    stage.faults.set(FaultPlan::Fail);
    let office = stage.office.clone().with_patience(Duration::from_secs(2));
    let began = tokio::time::Instant::now();
    let (said, mut heard) = mpsc::channel(2000);
    let summary = office.replay(&Selection::default(), false, &said).await.expect("tries");
    assert_eq!((summary.waiting, summary.replayed), (1200, 0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let Some(Said { tried: Tried::Waiting { reason }, .. }) = heard.recv().await else { panic!("expected a reason") };
    assert_eq!(reason, "made to fail by a test");
    assert_eq!(stage.uncommitted().await, 1200);
}

#[tokio::test]
async fn a_whole_batch_is_opened_again_and_its_refused_records_become_letters() {
    let stage = Stage::new();
    let good = batch("a", 0, &[b"one", b"bad two", b"three"], Flags::NONE);
    let mut damaged = good.value.to_vec();
    *damaged.last_mut().expect("not empty") ^= 1;
    let record = Record { value: damaged.into(), ..good.clone() };
    stage.append("logs.a", record.clone()).await;
    stage.process().await;
    let (summary, said) = stage.replay(&Selection::default()).await;
    assert_eq!(summary.refused, 1, "it is as damaged as it was: {said:?}");
    // As a version that can read what this one cannot would find it.
    let letters = DeadLetters::new(stage.bus.clone());
    let origin = Origin { topic: "logs.a".into(), partition: 0, offset: 99 };
    letters.keep_batch(&origin, &good, "from a later version").await.expect("kept");
    stage.faults.set(FaultPlan::Reject("bad".into()));
    let (summary, said) = stage.replay(&Selection { reason: Some("later".into()), ..Selection::default() }).await;
    assert_eq!(summary.replayed, 1, "{said:?}");
    assert_eq!(said[0].tried, Tried::Replayed { documents: 2, refused: 1 });
    let open = stage.open().await;
    assert_eq!(open.len(), 2, "the damaged one, and the refused record: {open:?}");
    stage.faults.set(FaultPlan::None);
    let records = Selection { reason: Some("made to refuse".into()), ..Selection::default() };
    assert_eq!(stage.replay(&records).await.0.replayed, 1);
    assert_same(&stage.kept.documents(), &undisturbed(&[("logs.a", good)]).await);
}

#[tokio::test]
async fn what_is_no_letter_is_shown_refused_and_can_be_discarded() {
    let stage = Stage::new();
    let header = |name: &'static str, value: &'static [u8]| Header { name: name.into(), value: value.into() };
    let strange = [
        Record { key: Bytes::new(), headers: Vec::new(), value: Bytes::new() },
        Record { key: Bytes::from_static(&[1; 16]), headers: Vec::new(), value: Bytes::from_static(b"\xff") },
        Record {
            key: Bytes::from_static(b"k"),
            headers: vec![header(names::KIND, b"record"), header(names::REASON, b"\xff\xfe")],
            value: Bytes::from_static(b"x"),
        },
        Record {
            key: Bytes::from_static(b"b"),
            headers: vec![header(names::KIND, b"batch")],
            value: Bytes::from_static(b"x"),
        },
    ];
    for record in strange {
        stage.append("dead-letters.a", record).await;
    }
    let open = stage.open().await;
    let kinds: Vec<_> = open.iter().map(|letter| letter["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "unreadable").count(), 3, "{open:?}");
    for letter in &open {
        let (letter, _) =
            stage.office.show(letter["id"].as_str().expect("an id")).await.expect("shows").expect("is there");
        assert!(view::whole(&letter, Fate::Open).is_object());
    }
    let (summary, said) = stage.replay(&Selection::default()).await;
    assert_eq!((summary.refused, summary.replayed), (4, 0), "{said:?}");
    let discarded = stage.discard(&Selection { ids: ids(&open), ..Selection::default() }).await;
    assert_eq!((discarded.discarded, discarded.unknown), (4, 0));
    assert_eq!((stage.open().await.len(), stage.uncommitted().await), (0, 0));
}

#[tokio::test]
async fn a_letter_that_had_to_be_cut_is_kept_shown_and_never_written_in_part() {
    let stage = Stage::new();
    let letters = DeadLetters::new(stage.bus.clone());
    let origin = Origin { topic: "logs.a".into(), partition: 0, offset: 7 };
    let large = Record { value: Bytes::from(vec![b'x'; 2 << 20]), ..batch("a", 0, &[b"x"], Flags::NONE) };
    letters.keep_batch(&origin, &large, "too large to be read").await.expect("kept");
    let (summary, said) = stage.replay(&Selection::default()).await;
    assert_eq!(summary.refused, 1);
    let Tried::Refused { reason } = &said[0].tried else { panic!("{said:?}") };
    assert!(reason.contains("2097152"), "{reason}");
    assert!(stage.kept.documents().is_empty());
}

#[test]
fn a_letter_of_an_earlier_version_is_read_as_far_as_it_says() {
    let mut record = batch("a", 40, &[b"line"], Flags::NONE);
    let id = RecordId::derive(Envelope::from_headers(&record.headers).expect("reads").stream_key, 40, b"line");
    record.key = Bytes::copy_from_slice(id.as_bytes());
    record.value = Bytes::from_static(b"line");
    record.headers.push(Header { name: names::REASON.into(), value: "why".into() });
    record.headers.push(Header { name: names::RECORD_OFFSET.into(), value: "40".into() });
    let letter = Letter::read(&TopicPartition::new("dead-letters.a", 1), &Delivered { offset: 3, record });
    let Content::Record(content) = &letter.content else { panic!("{letter:?}") };
    assert_eq!((content.offset, content.end_offset, content.observed_unix_nano), (40, 45, 1_795_392_055_000_000_000));
    assert_eq!((letter.id, letter.tenant.as_str(), letter.reason.as_str()), (id.to_string(), "a", "why"));
}

#[tokio::test]
async fn open_letters_are_counted_for_each_tenant_in_status() {
    let stage = Stage::new();
    stage.faults.set(FaultPlan::Reject("bad".into()));
    stage.append("logs.a", batch("a", 0, &[b"bad one", b"bad two"], Flags::NONE)).await;
    stage.process().await;
    let context = Context::for_tests();
    let watching = tokio::spawn(watch::watch_every(Duration::from_millis(20), stage.bus.clone(), context.clone()));
    let shown = async |open: u64| {
        let look = async {
            while context.status.snapshot()["dead_letters"]["tenants"][0]["open"] != open {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(WITHIN * 3, look).await.expect("the count is shown in time");
    };
    shown(2).await;
    let first = ids(&stage.open().await).remove(0);
    stage.discard(&Selection { ids: vec![first], ..Selection::default() }).await;
    shown(1).await;
    context.shutdown.begin();
    watching.await.expect("ends");
}
