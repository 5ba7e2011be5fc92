//! What is said of a cluster when it is tried out.

use logmesh_bus::kafka::{CreateTopics, Credentials, KafkaOptions, Sasl, Tls, check};
use logmesh_rig::{Kafka, SecureKafka, unique};
use logmesh_runtime::config::Secret;
use logmesh_runtime::finding::Verdict;

use super::{aside, options, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_topic_and_the_group_get_a_verdict_with_a_cure() {
    let kafka = aside(Kafka::shared).await;
    let (fine, small, missing) = (unique("fine"), unique("small"), unique("missing"));
    aside({
        let (fine, small) = (fine.clone(), small.clone());
        move || {
            kafka.create_topic(&fine, 3, &[]).expect("made");
            kafka.create_topic(&small, 1, &[("max.message.bytes", "1000")]).expect("made");
        }
    })
    .await;
    let topics = [fine, small, missing];
    let asked = options(kafka.bootstrap());
    let found = patient("findings", check(asked.clone(), &topics, Some("group"))).await.expect("possible");
    let verdicts: Vec<_> = found.iter().map(|finding| finding.verdict).collect();
    assert_eq!(verdicts, [Verdict::Good, Verdict::Doubtful, Verdict::Bad, Verdict::Bad, Verdict::Good], "{found:#?}");
    assert!(found[0].words.contains(&kafka.bootstrap()), "{found:#?}");
    assert!(found[1].words.contains("3 partitions") && found[1].words.contains("1 copies (1 in step)"), "{found:#?}");
    assert!(found[2].cure.as_ref().is_some_and(|cure| cure.contains("max.message.bytes")), "{found:#?}");
    assert!(found[3].cure.as_ref().is_some_and(|cure| cure.contains("--create")), "{found:#?}");
    let create_topics = Some(CreateTopics { partitions: 3, replication: None });
    let made = KafkaOptions { create_topics, ..asked };
    let found = patient("findings", check(made, &topics[2..], None)).await.expect("possible");
    assert_eq!(found[1].verdict, Verdict::Good, "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_all_there_is_to_say() {
    let kafka = aside(SecureKafka::shared).await;
    let sasl =
        Sasl::ScramSha512(Credentials { username: SecureKafka::USER.to_owned(), password: Secret::new("wrong") });
    let tls = Tls { ca: Some(kafka.ca()), identity: None };
    let options = KafkaOptions { sasl: Some(sasl), tls: Some(tls), ..options(kafka.scram512()) };
    let found = patient("findings", check(options, &["logs.a".to_owned()], Some("group"))).await.expect("possible");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].verdict, Verdict::Bad);
    assert!(found[0].words.contains("refuse our credentials"), "{found:#?}");
}
