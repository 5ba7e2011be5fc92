//! Every way to prove who we are, with what is right and what is wrong.

use std::time::Duration;

use logmesh_bus::kafka::{Credentials, Identity, KafkaOptions, OAuth, Sasl, Tls};
use logmesh_bus::{AppendError, Bus, Event, Subscription};
use logmesh_rig::{SecureKafka, TokenEndpoint, unique};
use logmesh_runtime::config::Secret;

use super::{PATIENCE, aside, condition, next, open, options, patient, put, text};

/// How a client comes to a listener.
struct Way {
    address: String,
    sasl: Option<Sasl>,
    tls: Tls,
}

impl Way {
    fn options(self) -> KafkaOptions {
        KafkaOptions {
            sasl: self.sasl,
            tls: Some(self.tls),
            message_timeout: Duration::from_secs(20),
            ..options(self.address)
        }
    }
}

fn user(password: &str) -> Credentials {
    Credentials { username: SecureKafka::USER.to_owned(), password: Secret::new(password) }
}

fn ca(kafka: &SecureKafka) -> Tls {
    Tls { ca: Some(kafka.ca()), identity: None }
}

fn oauth(endpoint: &TokenEndpoint, secret: &str) -> Sasl {
    Sasl::OAuthBearer(OAuth {
        token_url: endpoint.url(),
        client_id: SecureKafka::CLIENT_ID.to_owned(),
        client_secret: Secret::new(secret),
        scope: None,
    })
}

async fn topic(kafka: &'static SecureKafka) -> String {
    let topic = unique("secure");
    aside({
        let topic = topic.clone();
        move || kafka.create_topic(&topic, 2, &[]).expect("made")
    })
    .await;
    topic
}

/// Writes and reads one record.
async fn passes(kafka: &'static SecureKafka, way: Way) {
    let topic = topic(kafka).await;
    let bus = open(way.options());
    patient("a delivery", put(&bus, &topic, "value")).await.expect("durable");
    let mut consumer = bus.subscribe(Subscription::new(unique("group"), [topic.as_str()])).await.expect("joined");
    let partition = loop {
        if let Event::Records { partition, records } = next(consumer.as_mut()).await {
            assert_eq!(text(&records[0].record.value), "value");
            break partition;
        }
    };
    patient("a commit", consumer.commit(&partition, 1)).await.expect("durable");
    condition(&bus, "all to be well", |words| words.is_none()).await;
    drop(consumer);
    bus.close(PATIENCE).await;
}

/// Is refused, in words that hold each of `expected`, and a record is not said to be durable.
async fn refused(kafka: &'static SecureKafka, way: Way, expected: &[&str]) {
    let topic = topic(kafka).await;
    let bus = open(KafkaOptions { message_timeout: Duration::from_secs(3), ..way.options() });
    let all = |words: Option<&str>| words.is_some_and(|words| expected.iter().all(|part| words.contains(part)));
    let told = condition(&bus, "a reason", |words| words.is_some_and(|words| words.contains("check"))).await;
    assert!(all(told.as_deref()), "{expected:?} is not in {told:?}");
    let refused = patient("a refusal", put(&bus, &topic, "value")).await;
    let Err(AppendError::Unavailable { reason }) = refused else { panic!("expected Unavailable, got {refused:?}") };
    assert!(all(Some(&reason)), "{expected:?} is not in {reason:?}");
    bus.close(Duration::from_secs(5)).await;
}

const WRONG: &[&str] = &["refuse our credentials", "check `sasl`"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_passes_with_the_right_password_only() {
    let kafka = aside(SecureKafka::shared).await;
    let way = |password| Way { address: kafka.plain(), sasl: Some(Sasl::Plain(user(password))), tls: ca(kafka) };
    passes(kafka, way(SecureKafka::PASSWORD)).await;
    refused(kafka, way("wrong"), WRONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scram_sha_256_passes_with_the_right_password_only() {
    let kafka = aside(SecureKafka::shared).await;
    let way =
        |password| Way { address: kafka.scram256(), sasl: Some(Sasl::ScramSha256(user(password))), tls: ca(kafka) };
    passes(kafka, way(SecureKafka::PASSWORD)).await;
    refused(kafka, way("wrong"), WRONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scram_sha_512_passes_with_the_right_password_only() {
    let kafka = aside(SecureKafka::shared).await;
    let way =
        |password| Way { address: kafka.scram512(), sasl: Some(Sasl::ScramSha512(user(password))), tls: ca(kafka) };
    passes(kafka, way(SecureKafka::PASSWORD)).await;
    refused(kafka, way("wrong"), WRONG).await;
}

/// The mechanism must be one that the listener has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mechanism_that_the_listener_does_not_have_is_told() {
    let kafka = aside(SecureKafka::shared).await;
    let way = Way { address: kafka.scram512(), sasl: Some(Sasl::Plain(user(SecureKafka::PASSWORD))), tls: ca(kafka) };
    refused(kafka, way, &["check `sasl`", "SCRAM-SHA-512"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oauthbearer_passes_with_the_right_secret_only() {
    let kafka = aside(SecureKafka::shared).await;
    let way = |secret| Way { address: kafka.oauth(), sasl: Some(oauth(kafka.tokens(), secret)), tls: ca(kafka) };
    passes(kafka, way(SecureKafka::CLIENT_SECRET)).await;
    refused(kafka, way("wrong"), &["token endpoint", "401", "client_secret"]).await;
}

/// Tokens are renewed before they end, and an endpoint that fails for a while does no harm that lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_and_an_endpoint_that_failed_is_asked_again() {
    let kafka = aside(SecureKafka::shared).await;
    let endpoint = kafka.another_token_endpoint().expect("an endpoint");
    endpoint.set_failing(true);
    let way = Way { address: kafka.oauth(), sasl: Some(oauth(&endpoint, SecureKafka::CLIENT_SECRET)), tls: ca(kafka) };
    let topic = topic(kafka).await;
    let bus = open(way.options());
    let told = condition(&bus, "a reason", |words| words.is_some_and(|words| words.contains("503"))).await;
    assert!(told.is_some_and(|words| words.contains(&endpoint.url())));
    endpoint.set_lifetime(Duration::from_secs(4));
    endpoint.set_failing(false);
    condition(&bus, "all to be well", |words| words.is_none()).await;
    patient("a renewal", async {
        let first = endpoint.issued();
        while endpoint.issued() < first + 2 {
            put(&bus, &topic, "value").await.expect("durable");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    bus.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_passes_with_the_right_authority_only() {
    let kafka = aside(SecureKafka::shared).await;
    let way = |ca| Way { address: kafka.mtls(), sasl: None, tls: Tls { ca: Some(ca), identity: identity(kafka) } };
    passes(kafka, way(kafka.ca())).await;
    refused(kafka, way(kafka.other_ca()), &["TLS", "certificate verify failed", "check `tls`"]).await;
}

fn identity(kafka: &SecureKafka) -> Option<Identity> {
    Some(Identity { cert: kafka.client_cert(), key: kafka.client_key() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mtls_passes_with_a_certificate_of_the_right_authority_only() {
    let kafka = aside(SecureKafka::shared).await;
    let way = |identity| Way { address: kafka.mtls(), sasl: None, tls: Tls { ca: Some(kafka.ca()), identity } };
    passes(kafka, way(identity(kafka))).await;
    refused(kafka, way(None), &["check", "certificate"]).await;
    let other = Identity { cert: kafka.other_client_cert(), key: kafka.other_client_key() };
    refused(kafka, way(Some(other)), &["check", "certificate"]).await;
}

/// Let in, and allowed nothing: the lane says so, and so does the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_rights_is_told_what_is_missing() {
    let kafka = aside(SecureKafka::shared).await;
    let stranger = Credentials { username: SecureKafka::STRANGER.to_owned(), ..user(SecureKafka::PASSWORD) };
    let way = Way { address: kafka.plain(), sasl: Some(Sasl::Plain(stranger)), tls: ca(kafka) };
    let topic = topic(kafka).await;
    let bus = open(way.options());
    let refused = patient("a refusal", put(&bus, &topic, "value")).await;
    assert!(matches!(&refused, Err(AppendError::Denied { reason, .. }) if reason.contains("Write")), "{refused:?}");
    let mut consumer = bus.subscribe(Subscription::new("group", [topic.as_str()])).await.expect("joined");
    let denied = patient("a refusal", consumer.next()).await.expect_err("denied");
    assert!(denied.is_retryable() && denied.to_string().contains("Read"), "{denied}");
    drop(consumer);
    bus.close(PATIENCE).await;
}

/// A wrong password is cured without a restart: what was appended in the meantime arrives, and the consumer reads it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_cured_by_a_reload() {
    let kafka = aside(SecureKafka::shared).await;
    let way =
        |password| Way { address: kafka.scram512(), sasl: Some(Sasl::ScramSha512(user(password))), tls: ca(kafka) };
    let topic = topic(kafka).await;
    let bus = open(way("wrong").options());
    let mut consumer = bus.subscribe(Subscription::new(unique("group"), [topic.as_str()])).await.expect("joined");
    condition(&bus, "a reason", |words| words.is_some_and(|words| words.contains("refuse"))).await;
    let waiting = put(&bus, &topic, "value");
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err(), "nobody takes it");
    assert_eq!(bus.reload(&way("wrong").options()), Ok(false), "nothing has changed");
    assert_eq!(bus.reload(&way(SecureKafka::PASSWORD).options()), Ok(true));
    patient("a delivery", waiting).await.expect("durable");
    condition(&bus, "all to be well", |words| words.is_none()).await;
    while !matches!(next(consumer.as_mut()).await, Event::Records { .. }) {}
    drop(consumer);
    bus.close(PATIENCE).await;
}

/// A CA that is replaced where it lies counts for the next connection, without a word to anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_taken_over_where_they_lie() {
    let kafka = aside(SecureKafka::shared).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ca.pem");
    std::fs::copy(kafka.other_ca(), &path).expect("copied");
    let topic = topic(kafka).await;
    let tls = Tls { ca: Some(path.clone()), identity: identity(kafka) };
    let bus = open(Way { address: kafka.mtls(), sasl: None, tls }.options());
    condition(&bus, "a reason", |words| words.is_some_and(|words| words.contains("certificate verify failed"))).await;
    let renewed = directory.path().join("renewed.pem");
    std::fs::copy(kafka.ca(), &renewed).expect("copied");
    std::fs::rename(&renewed, &path).expect("renamed");
    condition(&bus, "all to be well", |words| words.is_none()).await;
    patient("a delivery", put(&bus, &topic, "value")).await.expect("durable");
    bus.close(PATIENCE).await;
}
