//! What all clients of the brokers share: their settings, and the ear for what they say.
//!
//! librdkafka tells of refused credentials, failing TLS and unreachable brokers in its error callback alone: a delivery
//! that suffers from it just times out. So every client has a [`Watch`], which puts that into words as a condition.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::conditions::{Conditions, Source};
use super::options::KafkaOptions;
use super::security::Security;
use super::token::Tokens;
use crate::BusError;

/// A broker that does not answer for so long is taken for dead.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(10);
/// Troubles of one broker among several are logged no more often.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// How often a client is polled in one round, at most.
pub(super) const POLLS: usize = 64;

/// Numbers the clients of this process, so that no two have the same id (K8: equal ids confuse assignors).
static CLIENTS: AtomicU64 = AtomicU64::new(1);

/// Everything that a client is made from.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) options: KafkaOptions,
    pub(super) conditions: Arc<Conditions>,
    security: Mutex<Arc<Security>>,
    /// Told apart from other processes of the same client id.
    process: String,
}

impl Cluster {
    pub(super) fn new(options: KafkaOptions) -> Result<Self, BusError> {
        let security = Mutex::new(Arc::new(Security::new(&options, 0)?));
        let process = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
        Ok(Self { options, conditions: Arc::new(Conditions::new()), security, process })
    }

    /// An error in the words of the trouble behind it, where one is known.
    pub(super) fn reason_of(&self, error: &KafkaError) -> String {
        self.conditions.trouble(&Source::Brokers).unwrap_or_else(|| error.to_string())
    }

    /// The way to the brokers now.
    pub(super) fn security(&self) -> Arc<Security> {
        Arc::clone(&self.security.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes another way, if it is one. Whether it is.
    pub(super) fn reload(&self, options: &KafkaOptions) -> Result<bool, BusError> {
        let mut security = self.security.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Security::new(options, security.number + 1)?;
        Ok(security.differs(&new) && self.take(&mut security, new))
    }

    /// Looks whether certificates or secrets were renewed where they lie.
    pub(super) fn renew(&self) {
        let mut security = self.security.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(new) = security.renewed() {
            self.take(&mut security, new);
        }
    }

    /// A client is made on trial, so that files that do not fit together (yet) change nothing.
    fn take(&self, security: &mut Arc<Security>, new: Security) -> bool {
        let mut config = ClientConfig::new();
        new.apply(&mut config);
        match config.create::<BaseConsumer>() {
            Ok(_) => {
                tracing::info!(number = new.number, "taking another way to the brokers");
                *security = Arc::new(new);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "what was changed of the way to the brokers cannot work; keeping the old one");
                false
            }
        }
    }

    /// Whether clients have to be given a token before they are answered.
    pub(super) fn needs_token(&self) -> bool {
        self.security().tokens.is_some()
    }

    /// The settings that all clients share; `role` says what it is for.
    pub(super) fn config(&self, role: &str) -> ClientConfig {
        let options = &self.options;
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let mut config = ClientConfig::new();
        config
            .set("client.id", format!("{}-{role}-{}-{number}", options.client_id, self.process))
            .set("allow.auto.create.topics", "false")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .set("socket.timeout.ms", millis(SOCKET_TIMEOUT))
            .set("socket.connection.setup.timeout.ms", millis(SOCKET_TIMEOUT))
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set("topic.metadata.refresh.interval.ms", millis(options.metadata_refresh))
            .set("metadata.max.age.ms", millis(options.metadata_refresh * 3))
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        self.security().apply(&mut config);
        config
    }

    /// The ear of one client.
    pub(super) fn watch(&self, role: &'static str) -> Watch {
        let security = self.security();
        Watch {
            role,
            brokers: security.brokers.join(", "),
            conditions: Arc::clone(&self.conditions),
            tokens: security.tokens.clone(),
            served: AtomicU64::new(0),
            heard: Mutex::default(),
        }
    }
}

/// A duration as librdkafka wants it.
pub(super) fn millis(duration: Duration) -> String {
    duration.as_millis().max(1).to_string()
}

/// Hears what librdkafka says beside its answers.
#[derive(Debug)]
pub(super) struct Watch {
    role: &'static str,
    brokers: String,
    conditions: Arc<Conditions>,
    tokens: Option<Arc<Tokens>>,
    /// How many things were heard: who polls without a wait sees by it whether there may be more.
    served: AtomicU64,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// What a single connection suffered from last: the cause, when all brokers are reported down.
    last: Option<String>,
    logged: Option<Instant>,
}

impl Watch {
    /// Counts up with each thing that was heard.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn serve(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// The brokers answered: whatever kept us from them is over.
    pub(super) fn alive(&self) {
        if self.conditions.clear(&Source::Brokers) {
            tracing::info!(client = self.role, "the brokers answer again");
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "librdkafka's codes are many and grow; what is not listed concerns one connection"
    )]
    fn hear(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        self.serve();
        let reason = &plain(reason);
        let Some(code) = code else { return };
        let words = match code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                format!(
                    "the brokers refuse our credentials ({reason}): check `sasl` (mechanism, user, secret) and that the user exists there"
                )
            }
            RDKafkaErrorCode::SSL => tls_fails(reason),
            RDKafkaErrorCode::AllBrokersDown => {
                let last = self.heard.lock().unwrap_or_else(PoisonError::into_inner).last.clone();
                // Refused credentials say more than that nobody is left to talk to.
                if self.conditions.trouble(&Source::Brokers).is_some() {
                    return;
                }
                unreachable_brokers(&self.brokers, last.as_deref())
            }
            _ => return self.note(code, reason),
        };
        if self.conditions.set(Source::Brokers, &words) {
            tracing::warn!(client = self.role, reason = %words, "trouble with the brokers");
        }
    }

    /// One connection's trouble, which others may make good.
    fn note(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(code, RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve) {
            heard.last = Some(reason.to_owned());
        }
        let now = Instant::now();
        if heard.logged.is_none_or(|logged| now - logged >= LOG_INTERVAL) {
            heard.logged = Some(now);
            tracing::warn!(client = self.role, reason, "a broker is in trouble");
        }
    }
}

fn tls_fails(reason: &str) -> String {
    format!(
        "TLS with the brokers fails ({reason}): check `tls` (ca, cert, key) and the names in the brokers' certificates"
    )
}

/// What to say when no broker is left, by what a connection said last: that a certificate is not good is said of the
/// connection before it is said of TLS, or after.
fn unreachable_brokers(brokers: &str, last: Option<&str>) -> String {
    if let Some(last) = last.filter(|last| last.contains(UNVERIFIED)) {
        return tls_fails(last);
    }
    let last = last.map_or_else(String::new, |last| format!(" ({last})"));
    format!(
        "no broker of {brokers} can be reached{last}: check `brokers`, the network, and whether the listener wants TLS or SASL"
    )
}

/// How librdkafka begins to say that it does not take a broker's certificate.
const UNVERIFIED: &str = "certificate verify failed";

/// Their words without what changes from try to try, so that a lasting trouble keeps its own, and without what only their
/// programmers know: OpenSSL's codes, and advice on settings that are ours to make.
fn plain(reason: &str) -> String {
    let steady = reason.split(" (after ").next().unwrap_or(reason).trim();
    let mut words = match steady.split_once(UNVERIFIED) {
        Some((before, _)) => format!(
            "{before}{UNVERIFIED}: the broker's is not signed by an authority in `tls.ca`, has expired, or is for another name"
        ),
        None => steady.to_owned(),
    };
    // error:0A000086:SSL routines::
    if let Some(start) = words.find("error:")
        && let Some(end) = words[start..].find("::")
    {
        words.replace_range(start..start + end + 2, "");
    }
    words
}

impl ClientContext for Watch {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.serve();
        // What matters comes as an error too, and is told there.
        tracing::debug!(client = self.role, ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.hear(error.rdkafka_error_code(), reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.serve();
        match &self.tokens {
            Some(tokens) => Ok(tokens.token()?),
            None => Err("no OAuth server is configured".into()),
        }
    }
}

impl ConsumerContext for Watch {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_good_is_a_matter_of_tls_whatever_is_said_first() {
        let words = unreachable_brokers("b:1", Some("ssl://b:1/bootstrap: certificate verify failed: it has expired"));
        assert!(words.contains("TLS") && words.contains("it has expired") && words.contains("check `tls`"), "{words}");
        let words = unreachable_brokers("b:1", Some("b:1/bootstrap: Connection refused"));
        assert!(words.contains("no broker of b:1") && words.contains("refused") && words.contains("check `brokers`"));
    }

    #[test]
    fn a_lasting_trouble_keeps_its_words() {
        let reason = "sasl_ssl://k1:9093/1: SASL authentication error: no (after 5032ms in state AUTH_REQ, 3 identical error(s) suppressed)";
        assert_eq!(plain(reason), "sasl_ssl://k1:9093/1: SASL authentication error: no");
    }

    #[test]
    fn codes_of_openssl_and_advice_for_others_are_left_out() {
        let reason = "ssl://k1:9093/1: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify that ssl.ca.location is correctly configured (after 5ms in state SSL_HANDSHAKE)";
        assert_eq!(
            plain(reason),
            "ssl://k1:9093/1: SSL handshake failed: certificate verify failed: the broker's is not signed by an authority in `tls.ca`, has expired, or is for another name"
        );
        let reason = "ssl://k1:9093/1: SSL handshake failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42";
        assert_eq!(
            plain(reason),
            "ssl://k1:9093/1: SSL handshake failed: sslv3 alert bad certificate: SSL alert number 42"
        );
    }

    #[test]
    fn no_two_clients_share_an_id() {
        let cluster = Cluster::new(KafkaOptions::new(["localhost:9092"])).expect("a cluster");
        let id = || cluster.config("member").get("client.id").map(str::to_owned);
        assert_ne!(id(), id());
    }
}
