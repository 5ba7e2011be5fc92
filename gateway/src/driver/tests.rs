//! A session's time limits, on a clock that the test moves.

use bytes::Bytes;
use logmesh_bus::{
    BusError, Consumer, Delivered, DeliverySender, PartitionLag, PartitionRange, Record, Subscription, TopicPartition,
};
use logmesh_certs::Identity;
use logmesh_proto::{BatchMeta, Flags, Limits, RawBatch, RecordsBuilder, Sealer};
use logmesh_runtime::Context as Process;
use prost::Message;
use std::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::credit::Credits;
use crate::lanes::Lanes;
use crate::policy::{Policy, PolicyRule};
use crate::registry::Registry;
use crate::session::Terms;

/// Takes everything, and calls it durable when told to.
#[derive(Default)]
struct Patient(Mutex<Vec<DeliverySender>>);

impl Patient {
    fn release(&self) {
        for sender in self.0.lock().unwrap().drain(..) {
            sender.resolve(Ok(logmesh_bus::Position { partition: 0, offset: 0 }));
        }
    }
}

impl Bus for Patient {
    fn append<'a>(&'a self, _: &'a str, _: Record) -> BoxFuture<'a, Result<Delivery, AppendError>> {
        let (sender, delivery) = Delivery::channel();
        self.0.lock().unwrap().push(sender);
        Box::pin(async move { Ok(delivery) })
    }

    fn subscribe(&self, _: Subscription) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(async { Err(BusError::Closed) })
    }

    fn lag(&self, _: &str) -> BoxFuture<'_, Result<Vec<PartitionLag>, BusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn ranges(&self, _: &[String]) -> BoxFuture<'_, Result<Vec<PartitionRange>, BusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn read(&self, _: &TopicPartition, _: u64, _: usize) -> BoxFuture<'_, Result<Vec<Delivered>, BusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn close(&self, _: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A driver that runs, with both ends in the test's hands.
struct Scene {
    frames: mpsc::Sender<Result<ClientFrame, Status>>,
    answers: mpsc::Receiver<Result<v1::ServerFrame, Status>>,
    bus: Arc<Patient>,
    registry: Arc<Registry>,
    cut_off: CancellationToken,
    running: JoinHandle<()>,
    sealer: Sealer,
    sequence: u64,
}

impl Scene {
    fn new() -> Self {
        Self::aging(None)
    }

    fn aging(age_max: Option<Duration>) -> Self {
        let process = Process::for_tests();
        let (limits, bus) = (Limits::default(), Arc::new(Patient::default()));
        let rule = PolicyRule {
            identity: "**".to_owned(),
            tenant: "default".to_owned(),
            topics: vec!["logs".to_owned()],
            rate_limit: None,
        };
        let identity = Identity::parse("spiffe://mesh/agent/edge-1").unwrap();
        let grant = Policy::new(&[rule], limits.uncompressed_bytes_max).grant(identity.as_str()).unwrap();
        let registry = Arc::new(Registry::new(process.health.condition("cloned")));
        let live = registry.join(identity.clone(), "default".into(), "127.0.0.1:1".parse().unwrap()).unwrap();
        let mut credit = Arc::new(Credits::new(64 << 20, limits.encoded_bytes_max)).join(&grant.tenant);
        let idle_timeout = Duration::from_secs(40);
        let terms =
            Terms { identity, grant, limits, lanes: Arc::new(Lanes::default()), name: "1".to_owned(), idle_timeout };
        let budget = Budget::new("test", 64 << 20);
        let (answers, received) = mpsc::channel(ANSWER_FRAMES_MAX);
        let (frames, sent) = mpsc::channel(64);
        let cut_off = CancellationToken::new();
        let driver = Driver {
            session: Session::new(terms, credit.limit()),
            answers,
            bus: Arc::clone(&bus) as Arc<dyn Bus>,
            metrics: Arc::new(Metrics::new(&process.meter, &budget)),
            budget,
            credit,
            live,
            drain_deadline: Duration::from_secs(6),
            age_max,
            abort: CancellationToken::new(),
            cut_off: cut_off.clone(),
            state: State::new(Instant::now()),
        };
        let running = tokio::spawn(driver.run(ReceiverStream::new(sent)));
        let sealer = Sealer::new(v1::Codec::None).unwrap();
        Self { frames, answers: received, bus, registry, cut_off, running, sealer, sequence: 0 }
    }

    async fn greeted() -> Self {
        Self::new().greet().await
    }

    async fn greet(mut self) -> Self {
        let hello = v1::Hello { protocol_version: 1, ..Default::default() };
        self.frames.send(Ok(ClientFrame::Hello(hello))).await.unwrap();
        self.answers.recv().await.unwrap().unwrap();
        self
    }

    async fn batch(&mut self) {
        let mut records = RecordsBuilder::new();
        records.push(b"ninebytes", 10);
        let (first_offset, end_offset) = (self.sequence * 10, self.sequence * 10 + 10);
        let meta = BatchMeta {
            stream_id: Bytes::from_static(b"s"),
            first_offset,
            end_offset,
            observed_unix_nano: 1,
            flags: Flags::NONE,
        };
        self.sequence += 1;
        let sealed = self.sealer.seal(meta, &mut records).unwrap();
        let batch = v1::Batch { sequence: self.sequence, info: Some(v1::StreamInfo::default()), ..sealed };
        let encoded = batch.encode_to_vec().into();
        self.frames.send(Ok(ClientFrame::Batch(RawBatch { batch, encoded }))).await.unwrap();
        // Lets the driver take it before anything else happens.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    async fn status(&mut self) -> Status {
        loop {
            match self.answers.recv().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return status,
                None => return Status::ok(""),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_says_hello_is_sent_away() {
    let (begun, mut scene) = (Instant::now(), Scene::new());
    assert_eq!(scene.status().await.code(), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed().as_secs(), 10);
    scene.running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let mut scene = Scene::greeted().await;
    // As many answers as the channel takes, one by one, and one more: only that one waits.
    for _ in 0..=ANSWER_FRAMES_MAX {
        assert!(!scene.cut_off.is_cancelled());
        scene.batch().await;
        scene.bus.release();
    }
    let begun = Instant::now();
    timeout(ANSWER_DEADLINE * 2, scene.cut_off.cancelled()).await.expect("cut off");
    assert!(begun.elapsed() >= ANSWER_DEADLINE, "{:?}", begun.elapsed());
    scene.running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_left_alone() {
    let mut scene = Scene::greeted().await;
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    scene.batch().await;
    scene.bus.release();
    assert!(scene.answers.recv().await.unwrap().is_ok());
    assert!(!scene.running.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_drained_session_ends_soon_when_nothing_is_in_flight_and_at_the_deadline_otherwise() {
    let (begun, mut scene) = (Instant::now(), Scene::greeted().await);
    scene.registry.drain_all();
    assert_eq!(scene.status().await.code(), Code::Ok);
    assert_eq!(begun.elapsed(), DRAIN_SILENCE);

    let mut scene = Scene::greeted().await;
    scene.batch().await;
    let begun = Instant::now();
    scene.registry.drain_all();
    assert_eq!(scene.status().await.code(), Code::Unavailable);
    assert_eq!(begun.elapsed().as_secs(), 6);
    assert_eq!(scene.registry.unanswered(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_of_age_is_asked_to_move_and_its_batches_are_answered() {
    let begun = Instant::now();
    let mut scene = Scene::aging(Some(Duration::from_secs(60))).greet().await;
    let frame = scene.answers.recv().await.unwrap().unwrap().frame.unwrap();
    let v1::server_frame::Frame::Drain(drain) = frame else { panic!("expected Drain, got {frame:?}") };
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert!(drain.avoid_millis == 0 && drain.deadline_millis > 0, "it may come back: {drain:?}");
    // It goes on while the client looks for another gateway, and ends when that has moved.
    scene.batch().await;
    scene.bus.release();
    let frame = scene.answers.recv().await.unwrap().unwrap().frame.unwrap();
    assert!(matches!(frame, v1::server_frame::Frame::Ack(_)), "{frame:?}");
    assert_eq!(scene.status().await.code(), Code::Ok);
    assert!(begun.elapsed().as_secs() < 62, "it is asked once: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_move_is_ended_with_words_of_its_own() {
    let mut scene = Scene::aging(Some(Duration::from_secs(60))).greet().await;
    scene.batch().await;
    let status = scene.status().await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, AGED));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_frees_its_session() {
    let mut scene = Scene::greeted().await;
    scene.batch().await;
    drop(scene.answers);
    scene.running.await.unwrap();
    assert_eq!(scene.registry.unanswered(), 0);
}
