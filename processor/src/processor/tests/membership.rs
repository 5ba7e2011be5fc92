//! The processor as one member of a group: partitions come, are wanted back, are lost; the bus forgets what was not read.

use logmesh_bus::{AppendError, Assignment, Delivery, PartitionRange, Position};

use super::*;

/// A bus whose consumer is told what happens, and that remembers commits and releases.
struct Scripted {
    events: Mutex<Option<mpsc::Receiver<Event>>>,
    seen: watch::Sender<Seen>,
    condition: watch::Sender<BusCondition>,
}

/// What the processor did.
#[derive(Clone, Debug, Default)]
struct Seen {
    commits: Vec<(TopicPartition, u64)>,
    released: Vec<TopicPartition>,
    /// Partitions whose commits are refused.
    fenced: Vec<TopicPartition>,
}

struct Member {
    events: mpsc::Receiver<Event>,
    seen: watch::Sender<Seen>,
}

impl Scripted {
    fn new() -> (Arc<Self>, mpsc::Sender<Event>) {
        let (sender, events) = mpsc::channel(16);
        let (seen, condition) = (watch::channel(Seen::default()).0, watch::channel(BusCondition::Ok).0);
        (Arc::new(Self { events: Mutex::new(Some(events)), seen, condition }), sender)
    }

    fn run(self: &Arc<Self>, index: &Arc<Told>) -> Running {
        let context = Context::for_tests();
        let bus: Arc<dyn Bus> = self.clone();
        let config = Config::read(&Root::empty());
        let processor = Processor::new(config, Arc::clone(&bus), index.clone(), bus, context.clone());
        Running { context, task: tokio::spawn(processor.run()) }
    }

    async fn wait_for(&self, holds: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.subscribe();
        let found = tokio::time::timeout(WITHIN, seen.wait_for(holds)).await;
        found.expect("it happens in time").expect("the bus lives").clone()
    }
}

impl Bus for Scripted {
    fn append<'a>(&'a self, _topic: &'a str, _record: Record) -> BoxFuture<'a, Result<Delivery, AppendError>> {
        Box::pin(async { Ok(Delivery::ready(Ok(Position { partition: 0, offset: 0 }))) })
    }

    fn subscribe(&self, _subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusError>> {
        let events = self.events.lock().expect("not poisoned").take().expect("one consumer");
        let member: Box<dyn Consumer> = Box::new(Member { events, seen: self.seen.clone() });
        Box::pin(async { Ok(member) })
    }

    /// Never answers, as brokers may that are away.
    fn lag(&self, _group: &str) -> BoxFuture<'_, Result<Vec<PartitionLag>, BusError>> {
        Box::pin(std::future::pending())
    }

    fn ranges(&self, _topics: &[String]) -> BoxFuture<'_, Result<Vec<PartitionRange>, BusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn read(
        &self,
        _partition: &TopicPartition,
        _from: u64,
        _bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivered>, BusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn condition(&self) -> watch::Receiver<BusCondition> {
        self.condition.subscribe()
    }

    fn close(&self, _grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

impl Consumer for Member {
    fn next(&mut self) -> BoxFuture<'_, Result<Event, BusError>> {
        Box::pin(async {
            match self.events.recv().await {
                Some(event) => Ok(event),
                None => std::future::pending().await,
            }
        })
    }

    fn commit(&mut self, partition: &TopicPartition, next_offset: u64) -> BoxFuture<'static, Result<(), BusError>> {
        let fenced = self.seen.borrow().fenced.contains(partition);
        if !fenced {
            self.seen.send_modify(|seen| seen.commits.push((partition.clone(), next_offset)));
        }
        let refused = BusError::Fenced { partition: partition.clone() };
        Box::pin(async move { if fenced { Err(refused) } else { Ok(()) } })
    }

    fn pause(&mut self, _partition: &TopicPartition) {}

    fn resume(&mut self, _partition: &TopicPartition) {}

    fn release(&mut self, partition: &TopicPartition) {
        self.seen.send_modify(|seen| seen.released.push(partition.clone()));
    }
}

fn partition(number: u32) -> TopicPartition {
    TopicPartition::new("logs.a", number)
}

fn assigned(numbers: &[u32]) -> Event {
    let assignment = |number: &u32| Assignment { partition: partition(*number), committed: None };
    Event::Assigned(numbers.iter().map(assignment).collect())
}

/// One batch of one line.
fn records(number: u32, offset: u64, line: &str) -> Event {
    let (envelope, value) = batch("a", offset * 1000 + u64::from(number), &[line]);
    let key = Bytes::copy_from_slice(envelope.stream_key.as_bytes());
    let record = Record { key, headers: envelope.to_headers(), value };
    Event::Records { partition: partition(number), records: vec![Delivered { offset, record }] }
}

fn send(events: &mpsc::Sender<Event>, script: impl IntoIterator<Item = Event>) {
    script.into_iter().for_each(|event| events.try_send(event).expect("room for a script"));
}

#[tokio::test]
async fn a_partition_that_is_wanted_back_is_finished_committed_and_only_then_released() {
    let (bus, events) = Scripted::new();
    let (open, opened) = watch::channel(false);
    let index = Told::new(
        move |document, _| {
            if says(document, "slow") && !*opened.borrow() { retry() } else { Outcome::Created }
        },
    );
    let running = bus.run(&index);
    let revoking = Event::Revoking { partitions: vec![partition(0)], deadline: Instant::now() + WITHIN };
    send(&events, [assigned(&[0, 1]), records(0, 0, "slow"), revoking, records(1, 0, "other")]);
    let before = bus.wait_for(|seen| seen.commits.contains(&(partition(1), 1))).await;
    assert!(before.released.is_empty(), "{before:?}");
    open.send_replace(true);
    let after = bus.wait_for(|seen| !seen.released.is_empty()).await;
    assert!(after.commits.contains(&(partition(0), 1)), "{after:?}");
    assert_eq!(after.released[0], partition(0));
    running.stop().await;
}

#[tokio::test]
async fn a_lost_partition_commits_nothing_more_and_others_flow_on() {
    let (bus, events) = Scripted::new();
    let (open, opened) = watch::channel(false);
    let index = Told::new(
        move |document, _| {
            if says(document, "slow") && !*opened.borrow() { retry() } else { Outcome::Created }
        },
    );
    let running = bus.run(&index);
    send(&events, [assigned(&[0, 1]), records(0, 0, "slow"), Event::Lost(vec![partition(0)])]);
    send(&events, [records(1, 0, "one"), records(1, 1, "two")]);
    bus.wait_for(|seen| seen.commits.contains(&(partition(1), 2))).await;
    open.send_replace(true);
    send(&events, [records(1, 2, "three")]);
    let seen = bus.wait_for(|seen| seen.commits.contains(&(partition(1), 3))).await;
    assert!(seen.commits.iter().all(|(of, _)| *of == partition(1)), "{seen:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_refused_commit_ends_its_partition_alone() {
    let (bus, events) = Scripted::new();
    bus.seen.send_modify(|seen| seen.fenced.push(partition(0)));
    let index = Told::new(|_, _| Outcome::Created);
    let running = bus.run(&index);
    send(&events, [assigned(&[0, 1]), records(0, 0, "late"), records(1, 0, "one")]);
    let seen = bus.wait_for(|seen| !seen.commits.is_empty()).await;
    assert_eq!(seen.commits, [(partition(1), 1)]);
    running.stop().await;
}

#[tokio::test]
async fn a_partition_that_comes_back_starts_anew_where_the_group_stands() {
    let (bus, events) = Scripted::new();
    let index = Told::new(|_, _| Outcome::Created);
    let running = bus.run(&index);
    send(&events, [assigned(&[0]), records(0, 0, "one")]);
    bus.wait_for(|seen| seen.commits == [(partition(0), 1)]).await;
    let again = Event::Assigned(vec![Assignment { partition: partition(0), committed: Some(1) }]);
    send(&events, [Event::Lost(vec![partition(0)]), again, records(0, 1, "two")]);
    let seen = bus.wait_for(|seen| seen.commits.len() == 2).await;
    assert_eq!(seen.commits[1], (partition(0), 2));
    running.stop().await;
}

#[tokio::test]
async fn what_the_bus_removed_unread_holds_readiness_back_until_somebody_knows() {
    let (bus, events) = Scripted::new();
    let index = Told::new(|_, _| Outcome::Created);
    let running = bus.run(&index);
    let gap = Event::Gap { partition: partition(0), from: 3, to: 10 };
    send(&events, [assigned(&[0]), gap, records(0, 10, "next")]);
    bus.wait_for(|seen| seen.commits == [(partition(0), 11)]).await;
    let readiness = running.context.health.readiness();
    let reason = readiness.reasons.iter().find(|reason| reason.condition == "processor.bus_retention");
    assert!(reason.is_some_and(|reason| reason.reason.contains("7 batches")), "{readiness:?}");
    assert!(running.context.health.acknowledge("processor.bus_retention"));
    assert!(running.context.health.readiness().ready);
    running.stop().await;
}

#[tokio::test]
async fn a_bus_in_trouble_is_a_readiness_reason_until_it_is_not() {
    let (bus, events) = Scripted::new();
    let index = Told::new(|_, _| Outcome::Created);
    let running = bus.run(&index);
    bus.condition.send_replace(BusCondition::Degraded { reason: "no broker answers".into() });
    send(&events, [assigned(&[0]), records(0, 0, "one")]);
    bus.wait_for(|seen| seen.commits == [(partition(0), 1)]).await;
    let readiness = running.context.health.readiness();
    assert!(readiness.reasons.iter().any(|reason| reason.reason == "no broker answers"), "{readiness:?}");
    bus.condition.send_replace(BusCondition::Ok);
    send(&events, [records(0, 1, "two")]);
    bus.wait_for(|seen| seen.commits.len() == 2).await;
    assert!(running.context.health.readiness().ready);
    running.stop().await;
}
