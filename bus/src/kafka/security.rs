//! The way to the brokers: where they are, how they are trusted, and how we prove who we are. It may change while the
//! process runs: by a reloaded configuration, or when certificates and secrets are renewed where they lie.
//!
//! librdkafka reads all of it when a client is made, so that a change means new clients. Each change has a number; who
//! has a client made under another number makes a new one. What cannot work is refused, and the old way stays.

use std::hash::Hasher;
use std::path::PathBuf;
use std::sync::Arc;

use rdkafka::ClientConfig;
use xxhash_rust::xxh3::Xxh3;

use super::options::{KafkaOptions, Sasl, Tls};
use super::token::Tokens;
use crate::BusError;

/// One way, whole.
#[derive(Debug)]
pub(super) struct Security {
    pub(super) brokers: Vec<String>,
    pub(super) tokens: Option<Arc<Tokens>>,
    sasl: Option<Sasl>,
    tls: Option<Tls>,
    /// Of everything, the contents of files included.
    fingerprint: u64,
    /// Counts the ways of this process.
    pub(super) number: u64,
}

impl Security {
    pub(super) fn new(options: &KafkaOptions, number: u64) -> Result<Self, BusError> {
        let brokers: Vec<_> = options.brokers.iter().map(|broker| broker.trim().to_owned()).collect();
        if brokers.iter().all(String::is_empty) {
            let reason = "no brokers: name at least one as host:port in `brokers`".to_owned();
            return Err(BusError::Invalid { reason });
        }
        let tokens = match &options.sasl {
            Some(Sasl::OAuthBearer(oauth)) => Some(Arc::new(Tokens::new(oauth.clone(), options.tls.as_ref())?)),
            Some(Sasl::Plain(_) | Sasl::ScramSha256(_) | Sasl::ScramSha512(_)) | None => None,
        };
        let (sasl, tls) = (options.sasl.clone(), options.tls.clone());
        let mut security = Self { brokers, tokens, sasl, tls, fingerprint: 0, number };
        security.fingerprint = security.look();
        Ok(security)
    }

    /// What it is made of, now: differs from before when a file has changed.
    fn look(&self) -> u64 {
        let mut hasher = Xxh3::new();
        let mut add = |bytes: &[u8]| {
            hasher.write_usize(bytes.len());
            hasher.update(bytes);
        };
        self.brokers.iter().for_each(|broker| add(broker.as_bytes()));
        match &self.sasl {
            None => {}
            Some(sasl @ (Sasl::Plain(user) | Sasl::ScramSha256(user) | Sasl::ScramSha512(user))) => {
                [sasl.mechanism(), &user.username, user.password.expose()].iter().for_each(|text| add(text.as_bytes()));
            }
            Some(sasl @ Sasl::OAuthBearer(oauth)) => {
                let scope = oauth.scope.as_deref().unwrap_or_default();
                let texts = [sasl.mechanism(), &oauth.token_url, &oauth.client_id, oauth.client_secret.expose(), scope];
                texts.iter().for_each(|text| add(text.as_bytes()));
            }
        }
        add(&[u8::from(self.tls.is_some())]);
        for path in self.tls.iter().flat_map(files) {
            // One that cannot be read now counts as empty; it is not taken over as long as it is.
            add(path.as_os_str().as_encoded_bytes());
            add(&std::fs::read(path).unwrap_or_default());
        }
        hasher.digest()
    }

    /// Whether `other` leads elsewhere, or otherwise.
    pub(super) fn differs(&self, other: &Self) -> bool {
        self.fingerprint != other.fingerprint
    }

    /// The same with what its files hold now, if that has changed.
    pub(super) fn renewed(&self) -> Option<Self> {
        let sasl = self.sasl.as_ref().and_then(Sasl::renewed).or_else(|| self.sasl.clone());
        let (brokers, tokens, tls) = (self.brokers.clone(), self.tokens.clone(), self.tls.clone());
        let mut renewed = Self { brokers, tokens, sasl, tls, fingerprint: 0, number: self.number + 1 };
        renewed.fingerprint = renewed.look();
        if !renewed.differs(self) {
            return None;
        }
        if let Some(Sasl::OAuthBearer(oauth)) = &renewed.sasl {
            // Where none can be made (the CA is just being replaced), the old source serves on.
            let tokens = Tokens::new(oauth.clone(), renewed.tls.as_ref()).ok().map(Arc::new);
            renewed.tokens = tokens.or(renewed.tokens);
        }
        Some(renewed)
    }

    /// Notes it in a client's settings.
    pub(super) fn apply(&self, config: &mut ClientConfig) {
        config.set("bootstrap.servers", self.brokers.join(",")).set("security.protocol", self.protocol());
        if let Some(tls) = &self.tls {
            // A vendored OpenSSL does not know where the system keeps its authorities.
            let ca = tls.ca.as_ref().map_or_else(|| "probe".to_owned(), |path| path.to_string_lossy().into_owned());
            config.set("ssl.ca.location", ca).set("ssl.endpoint.identification.algorithm", "https");
            if let Some(identity) = &tls.identity {
                config
                    .set("ssl.certificate.location", identity.cert.to_string_lossy())
                    .set("ssl.key.location", identity.key.to_string_lossy());
            }
        }
        let Some(sasl) = &self.sasl else { return };
        config.set("sasl.mechanism", sasl.mechanism());
        match sasl {
            Sasl::Plain(user) | Sasl::ScramSha256(user) | Sasl::ScramSha512(user) => {
                config.set("sasl.username", &user.username).set("sasl.password", user.password.expose());
            }
            // The token comes through the context.
            Sasl::OAuthBearer(_) => {}
        }
    }

    fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }
}

fn files(tls: &Tls) -> impl Iterator<Item = &PathBuf> {
    tls.ca.iter().chain(tls.identity.iter().flat_map(|identity| [&identity.cert, &identity.key]))
}

#[cfg(test)]
mod tests {
    use logmesh_runtime::config::Secret;

    use super::*;
    use crate::kafka::Credentials;

    fn options(password: &str) -> KafkaOptions {
        let user = Credentials { username: "me".to_owned(), password: Secret::new(password) };
        KafkaOptions { sasl: Some(Sasl::ScramSha512(user)), ..KafkaOptions::new(["k1:9092"]) }
    }

    #[test]
    fn another_password_is_another_way_and_the_same_is_not() {
        let way = |password| Security::new(&options(password), 0).expect("possible");
        assert!(way("one").differs(&way("other")));
        assert!(!way("one").differs(&way("one")));
    }

    #[test]
    fn a_file_that_changes_where_it_lies_renews_the_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, "one").expect("written");
        let tls = Some(Tls { ca: Some(ca.clone()), identity: None });
        let way = Security::new(&KafkaOptions { tls, ..KafkaOptions::new(["k1:9092"]) }, 7).expect("possible");
        assert!(way.renewed().is_none());
        std::fs::write(&ca, "other").expect("written");
        let renewed = way.renewed().expect("another one");
        assert_eq!(renewed.number, 8);
        assert!(renewed.renewed().is_none());
    }

    #[test]
    fn a_secret_that_changes_where_it_lies_renews_the_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("password");
        std::fs::write(&file, "one").expect("written");
        let text = format!("[sasl]\npassword = {{ file = {:?} }}", file.display().to_string());
        let root = logmesh_runtime::config::Root::parse(&text, "logmesh.toml").expect("toml");
        let password = root.section("sasl").secret("password").expect("a secret");
        let sasl = Some(Sasl::ScramSha512(Credentials { username: "me".to_owned(), password }));
        let way = Security::new(&KafkaOptions { sasl, ..options("") }, 7).expect("possible");
        assert!(way.renewed().is_none());
        std::fs::write(&file, "other").expect("written");
        let renewed = way.renewed().expect("another one");
        assert!(!renewed.differs(&Security::new(&options("other"), 0).expect("possible")));
        assert!(renewed.renewed().is_none());
    }

    #[test]
    fn brokers_are_needed() {
        assert!(matches!(Security::new(&KafkaOptions::new([" "]), 0), Err(BusError::Invalid { .. })));
    }
}
