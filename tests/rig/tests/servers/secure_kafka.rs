//! The rig's Kafka with security: a good credential gets in, a bad one does not, at each listener.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine;
use logmesh_rig::{SecureKafka, TokenEndpoint, unique};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

const WITHIN: Duration = Duration::from_secs(60);

/// Fetches tokens, and keeps what the client is told of failures.
struct Heard {
    token_url: Option<String>,
    secret: &'static str,
    said: Mutex<Vec<String>>,
    delivered: Mutex<Option<Result<(), RDKafkaErrorCode>>>,
}

impl ClientContext for Heard {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        self.said.lock().expect("a lock that no panic held").push(format!("{error:?} {reason}"));
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let url = self.token_url.as_deref().ok_or("no tokens here")?;
        Ok(token(url, self.secret)?)
    }
}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        *self.delivered.lock().expect("a lock that no panic held") = Some(outcome);
    }
}

fn token(url: &str, secret: &str) -> Result<OAuthToken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let secret = secret.replace('%', "%25");
    let credentials = format!("{}:{secret}", SecureKafka::CLIENT_ID);
    let basic = base64::engine::general_purpose::STANDARD.encode(credentials);
    let request = reqwest::Client::new()
        .post(url)
        .header("authorization", format!("Basic {basic}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials");
    let text = runtime.block_on(async { request.send().await?.error_for_status()?.text().await })?;
    let answer: serde_json::Value = serde_json::from_str(&text)?;
    let lifetime = answer["expires_in"].as_i64().context("no lifetime")?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    Ok(OAuthToken {
        token: answer["access_token"].as_str().context("no token")?.to_owned(),
        principal_name: SecureKafka::CLIENT_ID.to_owned(),
        lifetime_ms: i64::try_from(now)? + lifetime * 1000,
    })
}

struct Attempt {
    producer: BaseProducer<Heard>,
    topic: String,
}

impl Attempt {
    fn new(bootstrap: &str, settings: &[(&str, &str)], tokens: Option<(String, &'static str)>) -> Result<Attempt> {
        let kafka = SecureKafka::shared();
        let topic = unique("secure");
        kafka.create_topic(&topic, 1, &[])?;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("message.timeout.ms", "60000");
        config.set("ssl.ca.location", path(&kafka.ca())).set("security.protocol", "sasl_ssl");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let (token_url, secret) = tokens.map_or((None, ""), |(url, secret)| (Some(url), secret));
        let context = Heard { token_url, secret, said: Mutex::default(), delivered: Mutex::default() };
        Ok(Attempt { producer: config.create_with_context(context)?, topic })
    }

    fn sasl(bootstrap: &str, mechanism: &str, user: &str, password: &str) -> Result<Attempt> {
        let settings = [("sasl.mechanism", mechanism), ("sasl.username", user), ("sasl.password", password)];
        Attempt::new(bootstrap, &settings, None)
    }

    /// The outcome of sending one record, or what the client was told before there was any.
    fn send(&self) -> Result<(), String> {
        let context = self.producer.context();
        *context.delivered.lock().expect("a lock that no panic held") = None;
        self.producer
            .send(BaseRecord::to(&self.topic).key("").payload("a line"))
            .map_err(|(error, _)| error.to_string())?;
        let deadline = Instant::now() + WITHIN;
        while Instant::now() < deadline {
            self.producer.poll(Duration::from_millis(50));
            if let Some(outcome) = context.delivered.lock().expect("a lock that no panic held").take() {
                return outcome.map_err(|code| format!("{code:?}"));
            }
            let said = context.said.lock().expect("a lock that no panic held");
            if let Some(told) = said.iter().find(|told| !told.contains("AllBrokersDown")) {
                return Err(told.clone());
            }
        }
        Err("nothing happened".to_owned())
    }

    fn refused_for(&self, reason: &str) {
        let told = self.send().expect_err("it got in");
        assert!(told.contains(reason), "{told}");
    }

    fn accepted(&self) -> Result<()> {
        assert_eq!(self.send(), Ok(()));
        assert!(!SecureKafka::shared().read_all(&self.topic)?.is_empty());
        Ok(())
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn passwords_are_checked_at_every_sasl_listener() -> Result<()> {
    let kafka = SecureKafka::shared();
    for (bootstrap, mechanism) in
        [(kafka.plain(), "PLAIN"), (kafka.scram256(), "SCRAM-SHA-256"), (kafka.scram512(), "SCRAM-SHA-512")]
    {
        Attempt::sasl(&bootstrap, mechanism, SecureKafka::USER, SecureKafka::PASSWORD)?.accepted()?;
        Attempt::sasl(&bootstrap, mechanism, SecureKafka::USER, "wrong")?.refused_for("Authentication");
    }
    let other = Attempt::sasl(&kafka.plain(), "SCRAM-SHA-512", SecureKafka::USER, SecureKafka::PASSWORD)?;
    other.refused_for("PLAIN");
    Ok(())
}

#[test]
fn a_stranger_gets_in_and_may_write_nothing() -> Result<()> {
    let kafka = SecureKafka::shared();
    let stranger = Attempt::sasl(&kafka.scram512(), "SCRAM-SHA-512", SecureKafka::STRANGER, SecureKafka::PASSWORD)?;
    stranger.refused_for("TopicAuthorizationFailed");
    Ok(())
}

#[test]
fn certificates_are_checked_by_both_sides() -> Result<()> {
    let kafka = SecureKafka::shared();
    let (cert, key) = (path(&kafka.client_cert()), path(&kafka.client_key()));
    let (other_cert, other_key) = (path(&kafka.other_client_cert()), path(&kafka.other_client_key()));
    let tls = ("security.protocol", "ssl");
    Attempt::new(&kafka.tls(), &[tls], None)?.accepted()?;
    let mine = [tls, ("ssl.certificate.location", &cert), ("ssl.key.location", &key)];
    Attempt::new(&kafka.mtls(), &mine, None)?.accepted()?;
    let others = [tls, ("ssl.certificate.location", &other_cert), ("ssl.key.location", &other_key)];
    Attempt::new(&kafka.mtls(), &others, None)?.refused_for("SSL");
    Attempt::new(&kafka.mtls(), &[tls], None)?.refused_for("certificate");
    let other_ca = path(&kafka.other_ca());
    Attempt::new(&kafka.tls(), &[tls, ("ssl.ca.location", &other_ca)], None)?.refused_for("certificate verify failed");
    Ok(())
}

#[test]
fn tokens_are_given_for_the_right_secret_and_taken_until_they_expire() -> Result<()> {
    let kafka = SecureKafka::shared();
    let endpoint: TokenEndpoint = kafka.another_token_endpoint()?;
    let lifetime = Duration::from_secs(15);
    endpoint.set_lifetime(lifetime);
    let bearer = ("sasl.mechanism", "OAUTHBEARER");
    let tokens = Some((endpoint.url(), SecureKafka::CLIENT_SECRET));
    let attempt = Attempt::new(&kafka.oauth(), &[bearer], tokens)?;
    let started = Instant::now();
    attempt.accepted()?;
    // Until the first token is long expired, with a broker that lets no connection outlive its token.
    while started.elapsed() < lifetime + Duration::from_secs(3) {
        assert_eq!(attempt.send(), Ok(()));
    }
    assert!(endpoint.issued() > 1, "the token was not renewed");
    endpoint.set_failing(true);
    assert!(token(&endpoint.url(), SecureKafka::CLIENT_SECRET).is_err());
    endpoint.set_failing(false);
    assert!(token(&endpoint.url(), "wrong").is_err());
    token(&kafka.tokens().url(), SecureKafka::CLIENT_SECRET)?;
    Ok(())
}

#[test]
fn a_token_that_nobody_signed_is_refused() -> Result<()> {
    let kafka = SecureKafka::shared();
    let stranger = SecureKafka::start(&[])?;
    let tokens = Some((stranger.tokens().url(), SecureKafka::CLIENT_SECRET));
    let attempt = Attempt::new(&kafka.oauth(), &[("sasl.mechanism", "OAUTHBEARER")], tokens)?;
    attempt.refused_for("invalid_token");
    Ok(())
}
