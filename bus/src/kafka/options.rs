//! What a Kafka bus is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use logmesh_runtime::config::Secret;

/// Settings of a [`KafkaBus`](super::KafkaBus).
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port` of some brokers; the others are learnt from them. At least one.
    pub brokers: Vec<String>,
    /// What the brokers' logs call this process; each of its clients adds what it is for and a number of its own.
    pub client_id: String,
    /// How this process proves who it is; `None` = not at all, or by its certificate.
    pub sasl: Option<Sasl>,
    /// TLS; `None` = in the clear.
    pub tls: Option<Tls>,
    /// How long a record may wait for its brokers before its delivery says
    /// [`Unavailable`](crate::AppendError::Unavailable), and an append for room.
    pub message_timeout: Duration,
    /// Bytes of records that wait for the brokers, at most; then appends wait. One larger record passes alone.
    pub queue_bytes: usize,
    /// How long a record waits for others that travel with it.
    pub linger: Duration,
    /// Topics that are missing are made so when they are first written; `None` = never: their lanes are held.
    pub create_topics: Option<CreateTopics>,
    /// Names and patterns, as in [`Subscription::topics`](crate::Subscription::topics), of topics whose records nothing but their
    /// group's progress may remove: they are made without retention by time or size.
    pub keep: Vec<String>,
    /// Topics that are known at the start: they are looked at before anyone writes to them.
    pub topics: Vec<String>,
    /// Who of a group gets what.
    pub assignor: Assignor,
    /// After so long without a sign of life a member is taken for dead, and others get its partitions.
    pub session_timeout: Duration,
    /// How often new topics and partitions are looked for.
    pub metadata_refresh: Duration,
}

/// How a missing topic is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateTopics {
    /// Partitions; records of a key stay in one.
    pub partitions: u32,
    /// Copies; `None` = what the brokers have as their default.
    pub replication: Option<u16>,
}

/// A SASL mechanism with its credentials.
#[derive(Clone, Debug)]
pub enum Sasl {
    /// Name and password; only over TLS, since the password is sent as it is.
    Plain(Credentials),
    /// Name and password, neither of which is sent in the clear.
    ScramSha256(Credentials),
    /// The same with a longer hash.
    ScramSha512(Credentials),
    /// A token from an OAuth 2 server, fetched with the client credentials grant and renewed in time.
    OAuthBearer(OAuth),
}

/// A user.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// Where a token comes from.
#[derive(Clone, Debug)]
pub struct OAuth {
    /// The token endpoint, `http` or `https`.
    pub token_url: String,
    /// Who asks.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// What is asked for; `None` = the server's default.
    pub scope: Option<String>,
}

/// TLS to the brokers. Their certificates and host names are always verified.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Whose signatures count, PEM; `None` = the system's.
    pub ca: Option<PathBuf>,
    /// This process's certificate and key, PEM, where the brokers ask for one.
    pub identity: Option<Identity>,
}

/// A client certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate with its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// How a group shares its partitions. All members of a group need the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignor {
    /// Only what changes hands stops.
    #[default]
    CooperativeSticky,
    /// Neighbouring partitions, topic by topic; everything stops while it is shared out again.
    Range,
    /// One by one, over all topics; everything stops while it is shared out again.
    RoundRobin,
}

impl Assignor {
    /// The names as they are written in a configuration, which are Kafka's.
    pub const NAMES: [(&str, Assignor); 3] = [
        ("cooperative-sticky", Assignor::CooperativeSticky),
        ("range", Assignor::Range),
        ("roundrobin", Assignor::RoundRobin),
    ];

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CooperativeSticky => "cooperative-sticky",
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
        }
    }
}

impl Sasl {
    /// Kafka's name for the mechanism.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::ScramSha256(_) => "SCRAM-SHA-256",
            Self::ScramSha512(_) => "SCRAM-SHA-512",
            Self::OAuthBearer(_) => "OAUTHBEARER",
        }
    }

    /// The same with what the secret's file holds now, if that is another one.
    pub(super) fn renewed(&self) -> Option<Self> {
        let user = |user: &Credentials| Some(Credentials { password: user.password.renewed()?, ..user.clone() });
        match self {
            Self::Plain(known) => user(known).map(Self::Plain),
            Self::ScramSha256(known) => user(known).map(Self::ScramSha256),
            Self::ScramSha512(known) => user(known).map(Self::ScramSha512),
            Self::OAuthBearer(known) => {
                let client_secret = known.client_secret.renewed()?;
                Some(Self::OAuthBearer(OAuth { client_secret, ..known.clone() }))
            }
        }
    }
}

impl KafkaOptions {
    /// The defaults for a cluster at `brokers`: 30 s for a record, a queue of 32 MiB, topics are never made.
    pub fn new<Broker: Into<String>>(brokers: impl IntoIterator<Item = Broker>) -> Self {
        Self {
            brokers: brokers.into_iter().map(Into::into).collect(),
            client_id: "logmesh".to_owned(),
            sasl: None,
            tls: None,
            message_timeout: Duration::from_secs(30),
            queue_bytes: 32 << 20,
            linger: Duration::from_millis(2),
            create_topics: None,
            keep: Vec::new(),
            topics: Vec::new(),
            assignor: Assignor::default(),
            session_timeout: Duration::from_secs(10),
            metadata_refresh: Duration::from_secs(10),
        }
    }
}
