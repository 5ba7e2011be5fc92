//! A broker with every security that the product speaks, a listener for each.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Result;

use super::tokens::{AUDIENCE, CLIENT_ID, CLIENT_SECRET, ISSUER, Signer, TokenEndpoint};
use super::{Kafka, Layout, Listener};
use crate::certificates::{Authority, LOOPBACK};

const PROPERTIES: &str = include_str!("../../files/kafka/secure.properties");
/// The name in the client's certificate.
const CLIENT: &str = "logmesh-certified";
/// In the order of their ports.
const LISTENERS: [(&str, &str); 6] = [
    ("PLAIN", "SASL_SSL"),
    ("SCRAM256", "SASL_SSL"),
    ("SCRAM512", "SASL_SSL"),
    ("OAUTH", "SASL_SSL"),
    ("MTLS", "SSL"),
    ("TLS", "SSL"),
];

/// One broker with a listener for each kind of security, all over TLS, beside the one without any that it derefs to (for
/// topics, reading back, killing). Whoever gets in as [`SecureKafka::USER`], by token or with the client's certificate may
/// do everything, [`SecureKafka::STRANGER`] nothing.
#[derive(Debug)]
pub struct SecureKafka {
    kafka: Kafka,
    ports: Vec<u16>,
    certificates: PathBuf,
    signer: Arc<Signer>,
    tokens: TokenEndpoint,
}

impl SecureKafka {
    /// Of PLAIN and SCRAM.
    pub const USER: &'static str = "logmesh";
    /// Of all users.
    pub const PASSWORD: &'static str = "kafka-password";
    /// Of PLAIN and SCRAM, with the same password: gets in and may do nothing.
    pub const STRANGER: &'static str = "stranger";
    /// What the token endpoint gives tokens to.
    pub const CLIENT_ID: &'static str = CLIENT_ID;
    /// Of [`SecureKafka::CLIENT_ID`]. It has characters that are to be encoded.
    pub const CLIENT_SECRET: &'static str = CLIENT_SECRET;

    /// The broker that all tests of this process share, started at first use.
    ///
    /// # Panics
    ///
    /// When it cannot be started, with its last words.
    #[must_use]
    pub fn shared() -> &'static SecureKafka {
        static SHARED: OnceLock<Result<SecureKafka, String>> = OnceLock::new();
        match SHARED.get_or_init(|| SecureKafka::start(&[]).map_err(|error| format!("{error:#}"))) {
            Ok(kafka) => kafka,
            Err(error) => panic!("the shared secure Kafka did not start: {error}"),
        }
    }

    /// Starts one, with properties beside or instead of the usual ones.
    ///
    /// # Errors
    ///
    /// When it cannot be fetched or started, with its last words.
    pub fn start(settings: &[(&str, &str)]) -> Result<SecureKafka> {
        let signer = Signer::new()?;
        let tokens = TokenEndpoint::start(&signer)?;
        let (kafka, ports) = Kafka::launch(LISTENERS.len(), settings, |scratch, ports| {
            let certificates = scratch.join("certificates");
            write_certificates(&certificates)?;
            let listeners = LISTENERS.iter().zip(ports);
            Ok(Layout {
                listeners: listeners.map(|(&(name, protocol), &port)| Listener { name, protocol, port }).collect(),
                properties: properties(&certificates, &tokens),
                users: users(),
                jvm: vec![format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={}", tokens.jwks_url())],
            })
        })?;
        let certificates = kafka.scratch().join("certificates");
        Ok(SecureKafka { kafka, ports, certificates, signer, tokens })
    }

    /// SASL with the mechanism PLAIN.
    #[must_use]
    pub fn plain(&self) -> String {
        self.listener("PLAIN")
    }

    /// SASL with the mechanism SCRAM-SHA-256.
    #[must_use]
    pub fn scram256(&self) -> String {
        self.listener("SCRAM256")
    }

    /// SASL with the mechanism SCRAM-SHA-512.
    #[must_use]
    pub fn scram512(&self) -> String {
        self.listener("SCRAM512")
    }

    /// SASL with the mechanism OAUTHBEARER, tokens as [`SecureKafka::tokens`] gives them.
    #[must_use]
    pub fn oauth(&self) -> String {
        self.listener("OAUTH")
    }

    /// TLS that asks for a certificate of the authority.
    #[must_use]
    pub fn mtls(&self) -> String {
        self.listener("MTLS")
    }

    /// TLS that asks for nothing.
    #[must_use]
    pub fn tls(&self) -> String {
        self.listener("TLS")
    }

    /// The certificate of the authority that signed the broker's and the client's, PEM, like all of these.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.certificates.join("ca.pem")
    }

    /// The client's certificate.
    #[must_use]
    pub fn client_cert(&self) -> PathBuf {
        self.certificates.join("client.pem")
    }

    /// The client's key.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.certificates.join("client.key")
    }

    /// The certificate of an authority that nobody trusts.
    #[must_use]
    pub fn other_ca(&self) -> PathBuf {
        self.certificates.join("other-ca.pem")
    }

    /// A certificate of that other authority.
    #[must_use]
    pub fn other_client_cert(&self) -> PathBuf {
        self.certificates.join("other-client.pem")
    }

    /// Its key.
    #[must_use]
    pub fn other_client_key(&self) -> PathBuf {
        self.certificates.join("other-client.key")
    }

    /// The endpoint that gives tokens to [`SecureKafka::CLIENT_ID`].
    #[must_use]
    pub fn tokens(&self) -> &TokenEndpoint {
        &self.tokens
    }

    /// One more, whose tokens are as good, for a test that counts, shortens or refuses them.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn another_token_endpoint(&self) -> Result<TokenEndpoint> {
        TokenEndpoint::start(&self.signer)
    }

    fn listener(&self, name: &str) -> String {
        let mut found = LISTENERS.iter().zip(&self.ports).filter(|((listener, _), _)| *listener == name);
        let port = found.next().map_or(0, |(_, port)| *port);
        format!("127.0.0.1:{port}")
    }
}

impl Deref for SecureKafka {
    type Target = Kafka;

    fn deref(&self) -> &Kafka {
        &self.kafka
    }
}

fn properties(certificates: &Path, tokens: &TokenEndpoint) -> String {
    PROPERTIES
        .replace("@CERTIFICATES@", &certificates.to_string_lossy())
        .replace("@USER@", SecureKafka::USER)
        .replace("@STRANGER@", SecureKafka::STRANGER)
        .replace("@PASSWORD@", SecureKafka::PASSWORD)
        .replace("@CLIENT_ID@", CLIENT_ID)
        .replace("@CLIENT@", CLIENT)
        .replace("@JWKS@", &tokens.jwks_url())
        .replace("@ISSUER@", ISSUER)
        .replace("@AUDIENCE@", AUDIENCE)
}

/// As Kafka's storage tool takes them.
fn users() -> Vec<String> {
    let mut users = Vec::new();
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        for user in [SecureKafka::USER, SecureKafka::STRANGER] {
            users.push(format!("{mechanism}=[name={user},password={}]", SecureKafka::PASSWORD));
        }
    }
    users
}

fn write_certificates(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text);
    let (authority, other) = (Authority::new("rig-ca")?, Authority::new("other-ca")?);
    let broker = authority.issue("localhost", &LOOPBACK)?;
    // Kafka takes key and chain from one file.
    write("broker.pem", &format!("{}{}{}", broker.key, broker.certificate, authority.pem()))?;
    for (signer, ca, client) in [(&authority, "ca", "client"), (&other, "other-ca", "other-client")] {
        let issued = signer.issue(CLIENT, &[])?;
        write(&format!("{ca}.pem"), signer.pem())?;
        write(&format!("{client}.pem"), &issued.certificate)?;
        write(&format!("{client}.key"), &issued.key)?;
    }
    Ok(())
}
