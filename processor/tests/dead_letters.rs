//! Dead letters over a real Kafka: refused by the processor, then listed, replayed, discarded by the same desk as over the local
//! bus.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use logmesh_bus::kafka::{KafkaBus, KafkaOptions};
use logmesh_bus::{Bus, Record};
use logmesh_processor::dead_letter::{GROUP, Office, Said, Selection, Summary};
use logmesh_processor::document::Document;
use logmesh_processor::index::{Index, Mode, Outcome};
use logmesh_processor::{Config, Processor};
use logmesh_proto::{BatchMeta, Envelope, Flags, RecordId, RecordsBuilder, Sealer, StreamKey, v1};
use logmesh_rig::Kafka;
use logmesh_runtime::{Context, config::Root};
use prost::Message as _;
use serde_json::Value;
use tokio::sync::mpsc;

/// Five times what joining a group and reading a few records takes.
const WITHIN: Duration = Duration::from_secs(120);

/// Keeps documents as an index does; refuses those that hold a word, unless they are reduced.
#[derive(Default)]
struct Picky {
    refused: Mutex<Option<&'static str>>,
    kept: Mutex<BTreeMap<RecordId, Document>>,
}

impl Picky {
    fn refuse(&self, word: Option<&'static str>) {
        *self.refused.lock().expect("not poisoned") = word;
    }

    fn bodies(&self) -> Vec<Value> {
        let kept = self.kept.lock().expect("not poisoned");
        kept.values().map(|document| serde_json::from_slice(&document.body).expect("json")).collect()
    }

    fn write(&self, document: Document, mode: Mode) -> Outcome {
        let body = String::from_utf8_lossy(&document.body).into_owned();
        let refused = *self.refused.lock().expect("not poisoned");
        if refused.is_some_and(|word| body.contains(word) && !body.contains("dead_lettered")) {
            return Outcome::Rejected { reason: "mapper_parsing_exception".to_owned() };
        }
        let mut kept = self.kept.lock().expect("not poisoned");
        if mode == Mode::Create && kept.contains_key(&document.id) {
            return Outcome::Exists;
        }
        kept.insert(document.id, document);
        Outcome::Created
    }
}

impl Index for Picky {
    fn bulk(&self, documents: Vec<Document>, mode: Mode) -> BoxFuture<'_, Vec<Outcome>> {
        let outcomes = documents.into_iter().map(|document| self.write(document, mode)).collect();
        Box::pin(async { outcomes })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

fn batch(lines: &[String]) -> Record {
    let mut records = RecordsBuilder::new();
    for line in lines {
        records.push(line.as_bytes(), u32::try_from(line.len()).expect("short") + 1);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos();
    let now = u64::try_from(now).expect("before 2554");
    let meta = BatchMeta {
        stream_id: Bytes::from_static(b"a stream of some"),
        first_offset: 0,
        end_offset: records.source_bytes(),
        observed_unix_nano: now,
        flags: Flags::NONE,
    };
    let sealed = Sealer::new(v1::Codec::Zstd).expect("memory").seal(meta, &mut records).expect("seals");
    let identity = "spiffe://mesh/agent/edge-1".to_owned();
    let envelope = Envelope {
        tenant: "default".into(),
        stream_key: StreamKey::derive(&identity, &sealed.stream_id),
        identity,
        first_offset: sealed.first_offset,
        end_offset: sealed.end_offset,
        record_count: sealed.record_count,
        codec: v1::Codec::Zstd,
        flags: Flags::NONE,
        received_unix_nano: now,
        topic: "logs".into(),
        info: v1::StreamInfo { path: "/var/log/app.log".into(), ..Default::default() },
    };
    let key = Bytes::copy_from_slice(envelope.stream_key.as_bytes());
    Record { key, headers: envelope.to_headers(), value: sealed.encode_to_vec().into() }
}

/// Runs a processor until its group has committed everything.
async fn process(bus: &Arc<dyn Bus>, index: &Arc<Picky>) {
    let context = Context::for_tests();
    let config = Config::read(&Root::empty());
    let group = config.group.clone();
    let index: Arc<dyn Index> = index.clone();
    let processor = Processor::new(config, Arc::clone(bus), index, Arc::clone(bus), context.clone());
    let running = tokio::spawn(processor.run());
    let all = async {
        loop {
            let lag = bus.lag(&group).await.unwrap_or_default();
            if !lag.is_empty() && lag.iter().all(|lag| lag.records() == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(WITHIN, all).await.expect("everything is committed in time");
    context.shutdown.begin();
    running.await.expect("no panic").expect("no failure");
}

async fn open(office: &Office) -> Vec<Value> {
    office.list(&Selection::default(), 1000).await.expect("lists").letters
}

async fn replay(office: &Office, selection: &Selection) -> (Summary, Vec<Said>) {
    let (said, mut heard) = mpsc::channel(1000);
    let replayed = tokio::time::timeout(WITHIN, office.replay(selection, false, &said)).await;
    let summary = replayed.expect("in time").expect("replays");
    drop(said);
    let mut all = Vec::new();
    while let Some(said) = heard.recv().await {
        all.push(said);
    }
    (summary, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_on_kafka_are_replayed_whole_and_what_is_dealt_with_is_committed() {
    let kafka = tokio::task::spawn_blocking(|| {
        let kafka = Kafka::shared();
        kafka.create_topic("logs.default", 2, &[]).expect("made");
        kafka.create_topic("dead-letters.default", 3, &[]).expect("made");
        kafka
    });
    let kafka = kafka.await.expect("Kafka runs");
    let options = KafkaOptions { metadata_refresh: Duration::from_secs(1), ..KafkaOptions::new([kafka.bootstrap()]) };
    let bus: Arc<dyn Bus> = Arc::new(KafkaBus::open(options).expect("opens"));
    let index = Arc::new(Picky::default());
    index.refuse(Some("bad"));
    let lines: Vec<String> = (0..60).map(|n| format!("{} {n:02}", if n % 3 == 0 { "bad" } else { "good" })).collect();
    bus.append("logs.default", batch(&lines)).await.expect("queued").await.expect("durable");
    process(&bus, &index).await;
    assert_eq!(index.bodies().len(), 60, "reduced documents stand in");

    let office = Office::new(Arc::clone(&bus), index.clone(), Config::read(&Root::empty()));
    let letters = open(&office).await;
    assert_eq!(letters.len(), 20);
    index.refuse(Some("bad 30"));
    let ids: Vec<String> = letters[5..8].iter().map(|letter| letter["id"].as_str().expect("id").to_owned()).collect();
    let some = Selection { ids: ids.clone(), ..Selection::default() };
    let (said, _heard) = mpsc::channel(100);
    let discarded = office.discard(&some, &said).await.expect("discards");
    assert_eq!((discarded.discarded, discarded.not_committed), (3, None));
    assert_eq!(open(&office).await.len(), 17);

    let (summary, said) = replay(&office, &Selection::default()).await;
    let is_discarded = ids.contains(&said_id(&letters, "bad 30"));
    let refused = u64::from(!is_discarded);
    assert_eq!((summary.replayed, summary.refused, summary.not_committed), (17 - refused, refused, None), "{said:?}");
    index.refuse(None);
    assert_eq!(replay(&office, &Selection::default()).await.0.replayed, refused);
    assert!(open(&office).await.is_empty());
    let lag = bus.lag(GROUP).await.expect("lag");
    assert_eq!(lag.iter().map(logmesh_bus::PartitionLag::records).sum::<u64>(), 0, "all is committed: {lag:?}");

    let bodies = index.bodies();
    assert_eq!(bodies.len(), 60, "none twice, none missing");
    let reduced = bodies.iter().filter(|body| body["tags"][0] == "dead_lettered").count();
    assert_eq!(reduced, 3, "only what was discarded stays reduced");
    bus.close(Duration::from_secs(10)).await;
}

fn said_id(letters: &[Value], preview: &str) -> String {
    let letter = letters.iter().find(|letter| letter["preview"] == preview).expect("its letter");
    letter["id"].as_str().expect("id").to_owned()
}
