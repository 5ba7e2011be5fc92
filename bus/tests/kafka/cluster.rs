//! Three brokers, and fewer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use logmesh_bus::kafka::KafkaOptions;
use logmesh_bus::{Bus, Event, Subscription};
use logmesh_rig::{KafkaCluster, unique};

use super::{PATIENCE, aside, condition, next, open, options, patient, put, text, within};

/// One broker of three fewer: nothing stops. Fewer copies than a topic needs: its records wait, that is told, and they
/// pass once the broker is back. Whatever was said to be durable is read by the group all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_go_and_come_back_cost_time_and_nothing_else() {
    let cluster = aside(|| Arc::new(KafkaCluster::start(&[]).expect("brokers start"))).await;
    let (easy, strict) = (unique("easy"), unique("strict"));
    aside({
        let (cluster, easy, strict) = (cluster.clone(), easy.clone(), strict.clone());
        move || {
            cluster.create_topic(&easy, 3, &[]).expect("made");
            cluster.create_topic(&strict, 3, &[("min.insync.replicas", "3")]).expect("made");
        }
    })
    .await;
    let bus = open(KafkaOptions { message_timeout: 3 * PATIENCE, ..options(cluster.bootstrap()) });
    let subscription = Subscription::new(unique("group"), [easy.as_str(), strict.as_str()]);
    let mut consumer = bus.subscribe(subscription).await.expect("joined");
    let mut written = BTreeSet::new();
    for topic in [&easy, &strict] {
        let value = format!("before {topic}");
        patient("a delivery", put(&bus, topic, &value)).await.expect("durable");
        written.insert(value);
    }
    let leader = aside({
        let (cluster, easy) = (cluster.clone(), easy.clone());
        move || cluster.leader_of(&easy, 0).expect("a leader")
    })
    .await;
    aside({
        let cluster = cluster.clone();
        move || cluster.kill(leader).expect("killed")
    })
    .await;
    for number in 0..30 {
        let value = format!("without {number}");
        within(2 * PATIENCE, "a delivery", put(&bus, &easy, &value)).await.expect("durable");
        written.insert(value);
    }
    let waiting = put(&bus, &strict, "waits");
    tokio::pin!(waiting);
    let told = tokio::select! {
        told = condition(&bus, "the reason", |words| words.is_some_and(|words| words.contains("in step"))) => told,
        early = &mut waiting => panic!("a copy is missing: {early:?}"),
    };
    assert!(told.is_some_and(|words| words.contains(&strict) && words.contains("min.insync.replicas is 3")));
    aside({
        let cluster = cluster.clone();
        move || cluster.start_again(leader).expect("started again")
    })
    .await;
    within(2 * PATIENCE, "the delivery that waited", waiting).await.expect("durable");
    written.insert("waits".to_owned());
    condition(&bus, "all to be well", |words| words.is_none()).await;
    let mut read = BTreeSet::new();
    while read.len() < written.len() {
        if let Event::Records { partition, records } = next(consumer.as_mut()).await {
            let end = records.last().map_or(0, |one| one.offset + 1);
            read.extend(records.iter().map(|one| text(&one.record.value)));
            let _ = patient("a commit", consumer.commit(&partition, end)).await;
        }
    }
    assert_eq!(read, written);
    drop(consumer);
    within(Duration::from_secs(60), "the end", bus.close(Duration::from_secs(30))).await;
}
