//! The reading side: sharing, losing and finding again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use logmesh_bus::kafka::{Assignor, KafkaOptions};
use logmesh_bus::{Bus, Consumer, Event, Subscription, TopicPartition};
use logmesh_rig::{Kafka, unique};
use rdkafka::admin::AdminOptions;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::{PATIENCE, admin, aside, next, open, options, patient, put, text, within};

async fn made(kafka: &'static Kafka, prefix: &str, partitions: i32) -> String {
    let topic = unique(prefix);
    aside({
        let topic = topic.clone();
        move || kafka.create_topic(&topic, partitions, &[]).expect("made")
    })
    .await;
    topic
}

/// While one partition is drained without haste, the others are handed out as if nothing happened.
#[tokio::test]
async fn partitions_that_stay_keep_flowing_while_others_are_drained() {
    let kafka = aside(Kafka::shared).await;
    let topic = made(kafka, "flow", 6).await;
    let bus = open(options(kafka.bootstrap()));
    let patient_one = Subscription { revoke_grace: PATIENCE, ..Subscription::new(unique("group"), [topic.as_str()]) };
    let mut first = bus.subscribe(patient_one.clone()).await.expect("joined");
    let mut held = BTreeSet::new();
    while held.len() < 6 {
        if let Event::Assigned(assigned) = next(first.as_mut()).await {
            held.extend(assigned.into_iter().map(|assignment| assignment.partition));
        }
    }
    let mut second = bus.subscribe(patient_one).await.expect("joined");
    let revoked = loop {
        if let Event::Revoking { partitions, .. } = next(first.as_mut()).await {
            break partitions;
        }
    };
    assert!(!revoked.is_empty() && revoked.len() < 6, "only what changes hands is asked for: {revoked:?}");
    // Nothing is released yet: what is written to the others comes all the same.
    let mut expected = BTreeSet::new();
    for number in 0..60 {
        let value = format!("value-{number}");
        let position = put(&bus, &topic, &value).await.expect("durable");
        if !revoked.contains(&TopicPartition::new(topic.as_str(), position.partition)) {
            expected.insert(value);
        }
    }
    while !expected.is_empty() {
        if let Event::Records { partition, records } = next(first.as_mut()).await {
            assert!(!revoked.contains(&partition), "{partition} is being drained");
            records.iter().for_each(|one| assert!(expected.remove(&text(&one.record.value))));
        }
    }
    revoked.iter().for_each(|partition| first.release(partition));
    let assigned = patient("the second's share", async {
        tokio::select! {
            event = next(second.as_mut()) => event,
            () = async { loop { next(first.as_mut()).await; } } => unreachable!(),
        }
    })
    .await;
    let Event::Assigned(assigned) = assigned else { panic!("expected partitions, got {assigned:?}") };
    assert!(assigned.iter().all(|assignment| revoked.contains(&assignment.partition)));
    drop((first, second));
    bus.close(PATIENCE).await;
}

/// What one member of a changing group does: reads slowly, commits, drains when it is asked to.
async fn member(mut consumer: Box<dyn Consumer>, seen: mpsc::Sender<(TopicPartition, u64, String)>) {
    loop {
        match next(consumer.as_mut()).await {
            Event::Records { partition, records } => {
                let mut end = 0;
                for one in records {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    end = one.offset + 1;
                    let _ = seen.send((partition.clone(), one.offset, text(&one.record.value))).await;
                }
                // Lost in the meantime: whoever has it now reads it again.
                let _ = consumer.commit(&partition, end).await;
            }
            Event::Revoking { partitions, .. } => partitions.iter().for_each(|partition| consumer.release(partition)),
            Event::Assigned(_) | Event::Lost(_) => {}
            Event::Gap { partition, from, to } => panic!("{partition} has a gap from {from} to {to}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_grows_and_shrinks_reads_everything() {
    grow_and_shrink(Assignor::CooperativeSticky).await;
}

/// With an assignor that takes everything from everybody each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_shared_out_anew_each_time_reads_everything() {
    grow_and_shrink(Assignor::Range).await;
}

/// One member, three, two: everything is read, in the order of each partition but for what is read again, and commits never go back.
async fn grow_and_shrink(assignor: Assignor) {
    let kafka = aside(Kafka::shared).await;
    let topic = made(kafka, "group", 6).await;
    let group = unique("group");
    let open = || open(KafkaOptions { assignor, ..options(kafka.bootstrap()) });
    let (bus, other) = (open(), open());
    let (sender, mut seen) = mpsc::channel(64);
    let mut members = Vec::new();
    let mut values = BTreeSet::new();
    let mut places = BTreeMap::<TopicPartition, u64>::new();
    let mut committed = BTreeMap::new();
    for (round, (bus, joins)) in [(&bus, 1), (&other, 2), (&bus, 0)].into_iter().enumerate() {
        for _ in 0..joins {
            let consumer = bus.subscribe(Subscription::new(group.as_str(), [topic.as_str()])).await.expect("joined");
            members.push(tokio::spawn(member(consumer, sender.clone())));
        }
        if joins == 0 {
            members[0].abort();
        }
        for number in 0..300 {
            put(bus, &topic, &format!("{round}-{number:03}")).await.expect("durable");
        }
        patient("all of a round", async {
            while values.len() < 300 * (round + 1) {
                let (partition, offset, value) = seen.recv().await.expect("members live");
                values.insert(value);
                let place = places.entry(partition).or_default();
                *place = (*place).max(offset + 1);
            }
        })
        .await;
        let now: BTreeMap<_, _> = aside({
            let (group, topic) = (group.clone(), topic.clone());
            move || kafka.committed(&group, &topic).expect("commits")
        })
        .await
        .into_iter()
        .collect();
        assert!(
            committed.iter().all(|(partition, before)| now.get(partition) >= Some(before)),
            "{committed:?}, then {now:?}"
        );
        committed = now;
    }
    members.iter().for_each(tokio::task::JoinHandle::abort);
    bus.close(PATIENCE).await;
    other.close(PATIENCE).await;
    let end: u64 = places.values().sum();
    assert_eq!(end, 900, "every offset was seen");
}

/// Retention that overtakes a group is told, partition by partition, and reading goes on where the log begins.
#[tokio::test]
async fn records_removed_before_they_were_read_are_told_as_a_gap() {
    let kafka = aside(Kafka::shared).await;
    let topic = made(kafka, "gap", 1).await;
    let group = unique("group");
    let bus = open(options(kafka.bootstrap()));
    for number in 0..10 {
        put(&bus, &topic, &format!("value-{number}")).await.expect("durable");
    }
    let partition = TopicPartition::new(topic.as_str(), 0);
    let join = async || bus.subscribe(Subscription::new(group.as_str(), [topic.as_str()])).await.expect("joined");
    let mut consumer = join().await;
    let mut read = 0;
    while read < 3 {
        if let Event::Records { records, .. } = next(consumer.as_mut()).await {
            read += records.len();
        }
    }
    patient("a commit", consumer.commit(&partition, 3)).await.expect("durable");
    drop(consumer);
    remove_below(kafka, &topic, 7).await;
    let mut consumer = join().await;
    let mut events = Vec::new();
    while !matches!(events.last(), Some(Event::Records { .. })) {
        events.push(next(consumer.as_mut()).await);
    }
    assert!(matches!(&events[0], Event::Assigned(assigned) if assigned[0].committed == Some(3)), "{events:?}");
    assert_eq!(events[1], Event::Gap { partition: partition.clone(), from: 3, to: 7 });
    assert!(matches!(&events[2], Event::Records { records, .. } if records[0].offset == 7), "{events:?}");
    patient("a commit", consumer.commit(&partition, 8)).await.expect("durable");
    drop(consumer);
    bus.close(PATIENCE).await;
}

async fn remove_below(kafka: &Kafka, topic: &str, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).expect("an offset");
    admin(&kafka.bootstrap()).delete_records(&list, &AdminOptions::new()).await.expect("removed");
}

/// A member that the group has expelled is told that it lost everything, and is back by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expelled_member_is_told_so_and_joins_again() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    mock.create_topic("logs.a", 1, 1).expect("made");
    let bus = open(options(mock.bootstrap_servers()));
    put(&bus, "logs.a", "before").await.expect("durable");
    let mut consumer = bus.subscribe(Subscription::new("group", ["logs.a"])).await.expect("joined");
    while !matches!(next(consumer.as_mut()).await, Event::Records { .. }) {}
    let partition = TopicPartition::new("logs.a", 0);
    mock.request_errors(RDKafkaApiKey::Heartbeat, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID]);
    assert_eq!(next(consumer.as_mut()).await, Event::Lost(vec![partition.clone()]));
    assert!(consumer.commit(&partition, 1).await.is_err(), "it is not held any more");
    assert!(matches!(next(consumer.as_mut()).await, Event::Assigned(_)));
    let Event::Records { records, .. } = next(consumer.as_mut()).await else { panic!("expected records") };
    assert_eq!(text(&records[0].record.value), "before", "what was not committed comes again");
    patient("a commit", consumer.commit(&partition, 1)).await.expect("durable");
    drop(consumer);
    bus.close(PATIENCE).await;
}

/// Brokers that change places answer fetches with all kinds of errors for a while, one of them that a place is not in the
/// log, though it is. Whatever they say, reading goes on where it was once they are well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_after_any_error_of_a_fetch() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    mock.create_topic("logs.a", 3, 1).expect("made");
    let bus = open(options(mock.bootstrap_servers()));
    let mut consumer = bus.subscribe(Subscription::new("group", ["logs.a"])).await.expect("joined");
    let mut ends = BTreeMap::new();
    let errors = [
        // The first round is for each partition to have a place.
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN,
    ];
    for (round, error) in errors.into_iter().enumerate() {
        mock.request_errors(RDKafkaApiKey::Fetch, &[error]);
        let mut expected = BTreeSet::new();
        for number in 0..12 {
            let value = format!("value-{round}-{number}");
            put(&bus, "logs.a", &value).await.expect("durable");
            expected.insert(value);
        }
        while !expected.is_empty() {
            let event =
                within(PATIENCE / 2, &format!("what was written during {error:?}"), next(consumer.as_mut())).await;
            let Event::Records { partition, records } = event else { continue };
            for one in records {
                assert_eq!(
                    ends.insert(partition.clone(), one.offset + 1).unwrap_or(0),
                    one.offset,
                    "each once, in order"
                );
                assert!(expected.remove(&text(&one.record.value)));
            }
        }
    }
    drop(consumer);
    bus.close(PATIENCE).await;
}

/// The thread keeps the membership alive, not the caller: one that is busy with something else loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_ask_for_long_keeps_its_partitions() {
    let kafka = aside(Kafka::shared).await;
    let topic = made(kafka, "busy", 1).await;
    let session_timeout = Duration::from_millis(1500);
    let bus = open(KafkaOptions { session_timeout, ..options(kafka.bootstrap()) });
    for number in 0..200 {
        put(&bus, &topic, &format!("value-{number:03}")).await.expect("durable");
    }
    // So little may wait that all queues are full.
    let small = Subscription { fetch_bytes: 1, ..Subscription::new(unique("group"), [topic.as_str()]) };
    let mut consumer = bus.subscribe(small).await.expect("joined");
    while !matches!(next(consumer.as_mut()).await, Event::Records { .. }) {}
    // Time is what this is about.
    tokio::time::sleep(4 * session_timeout).await;
    let mut end = 1;
    while end < 200 {
        match next(consumer.as_mut()).await {
            Event::Records { records, .. } => {
                assert_eq!(records[0].offset, end, "it goes on where it was");
                end += records.len() as u64;
            }
            other @ (Event::Assigned(_) | Event::Revoking { .. } | Event::Lost(_) | Event::Gap { .. }) => {
                panic!("expected records, got {other:?}")
            }
        }
    }
    patient("a commit", consumer.commit(&TopicPartition::new(topic.as_str(), 0), 200)).await.expect("still a member");
    drop(consumer);
    bus.close(PATIENCE).await;
}
