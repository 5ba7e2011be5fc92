//! The rig's three brokers.

use std::time::{Duration, Instant};

use anyhow::Result;
use logmesh_rig::{KafkaCluster, unique};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

#[test]
fn another_broker_leads_when_the_leader_is_killed_and_nothing_acknowledged_is_lost() -> Result<()> {
    let (cluster, topic) = (KafkaCluster::start(&[])?, unique("led"));
    cluster.create_topic(&topic, 1, &[])?;
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap())
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "120000")
        .create()?;
    let send =
        |value: &str| producer.send(BaseRecord::<(), str>::to(&topic).payload(value)).map_err(|(error, _)| error);
    send("before")?;
    producer.flush(Duration::from_secs(60))?;
    let first = cluster.leader_of(&topic, 0)?;
    cluster.kill(first)?;
    send("after")?;
    producer.flush(Duration::from_secs(120))?;
    let second = cluster.leader_of(&topic, 0)?;
    assert_ne!(first, second);
    cluster.start_again(first)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while cluster.in_sync(&topic, 0)?.len() < 3 {
        assert!(Instant::now() < deadline, "the killed broker is not in sync again");
        std::thread::sleep(Duration::from_millis(100));
    }
    let values: Vec<_> = cluster.read_all(&topic)?.into_iter().map(|record| record.value).collect();
    assert_eq!(values, [b"before".to_vec(), b"after".to_vec()]);
    Ok(())
}
