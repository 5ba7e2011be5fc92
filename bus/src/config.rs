//! The `[bus]` section, read alike by all who write or read a bus.

#[cfg(feature = "kafka")]
use std::time::Duration;

use logmesh_runtime::config::{Root, Section};

#[cfg(feature = "kafka")]
use crate::kafka::{Assignor, CreateTopics, Credentials, Identity, KafkaOptions, OAuth, Sasl, Tls};

/// The commented defaults of the section.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The least backlog of a local bus: four of its smallest segments.
const BACKLOG_MIN: u64 = 8 * MIB;

/// Keys that only one kind has.
#[cfg(feature = "kafka")]
const LOCAL_KEYS: [&str; 1] = ["backlog_max"];
const KAFKA_KEYS: [&str; 11] = [
    "brokers",
    "client_id",
    "sasl",
    "tls",
    "create_topics",
    "replication",
    "message_timeout",
    "queue",
    "assignor",
    "session_timeout",
    "metadata_refresh",
];

/// Which bus, and how.
#[allow(clippy::large_enum_variant, reason = "there is one in a process, read once")]
#[derive(Clone, Debug)]
pub enum BusConfig {
    /// `kind = "local"`.
    Local(LocalConfig),
    /// `kind = "kafka"`.
    #[cfg(feature = "kafka")]
    Kafka(KafkaOptions),
}

/// What is said of a local bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// Partitions of each topic.
    pub partitions: u32,
    /// Bytes on disk that may wait for the processor.
    pub backlog_bytes_max: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Local,
    Kafka,
}

impl BusConfig {
    /// Reads the section for a process that may have a bus of its own. Faults are noted in `root`.
    pub fn read(root: &Root) -> Self {
        let section = root.section("bus");
        match section.one_of("kind", "local", &[("local", Kind::Local), ("kafka", Kind::Kafka)]) {
            Kind::Local => Self::Local(read_local(&section)),
            #[cfg(feature = "kafka")]
            Kind::Kafka => Self::Kafka(read_kafka(&section)),
            #[cfg(not(feature = "kafka"))]
            Kind::Kafka => {
                section.fault("kind", "Kafka is not built in", "build with the feature `kafka`");
                Self::Local(read_local(&section))
            }
        }
    }
}

/// Reads the section for one process of a cluster, which needs a bus that others reach too.
#[cfg(feature = "kafka")]
pub fn read_shared(root: &Root) -> KafkaOptions {
    let section = root.section("bus");
    if section.one_of("kind", "kafka", &[("local", Kind::Local), ("kafka", Kind::Kafka)]) == Kind::Local {
        section.fault("kind", "a local bus lives inside `logmesh up` only", "set kind = \"kafka\" and brokers");
    }
    read_kafka(&section)
}

fn read_local(section: &Section) -> LocalConfig {
    refuse(section, &KAFKA_KEYS, "belongs to kind = \"kafka\"");
    LocalConfig {
        partitions: read_partitions(section),
        backlog_bytes_max: section.size("backlog_max", 8 * GIB, BACKLOG_MIN..=1024 * GIB),
    }
}

fn read_partitions(section: &Section) -> u32 {
    u32::try_from(section.integer("partitions", 8, 1..=256)).unwrap_or(8)
}

fn refuse(section: &Section, keys: &[&str], what: &str) {
    for key in keys.iter().filter(|key| section.is_set(key)) {
        section.fault(key, what, "take it out, or change `kind`");
    }
}

#[cfg(feature = "kafka")]
fn read_kafka(section: &Section) -> KafkaOptions {
    refuse(section, &LOCAL_KEYS, "belongs to kind = \"local\"");
    let brokers = section.texts("brokers", &[]);
    if brokers.is_empty() {
        section.fault("brokers", "missing", "name some brokers: brokers = [\"k1:9092\"]");
    }
    for broker in brokers.iter().filter(|broker| !is_broker(broker)) {
        section.fault("brokers", format!("`{broker}` is no broker's address"), "write host:port, such as k1:9092");
    }
    let tls = section.table("tls").map(|tls| read_tls(&tls));
    let sasl = section.table("sasl").and_then(|sasl| read_sasl(&sasl));
    if let (Some(Sasl::Plain(_)), None) = (&sasl, &tls) {
        let cure = "add tls = {} (with ca = \"…\" where the authority is your own), or use SCRAM-SHA-512";
        section.fault("sasl", "PLAIN sends the password as it is, and there is no TLS", cure);
    }
    let seconds = Duration::from_secs;
    let options = KafkaOptions::new(brokers);
    let (partitions, copies) = (read_partitions(section), section.is_set("replication"));
    let replication = copies.then(|| section.integer("replication", 3, 1..=15)).and_then(|n| u16::try_from(n).ok());
    let create = section.flag("create_topics", false);
    if let (true, Some(Sasl::OAuthBearer(_))) = (create, &sasl) {
        let cure = "make them beforehand (kafka-topics --create), and leave create_topics out";
        section.fault("create_topics", "topics cannot be made with OAUTHBEARER", cure);
    }
    KafkaOptions {
        client_id: section.text("client_id", &options.client_id),
        sasl,
        tls,
        message_timeout: section.duration("message_timeout", options.message_timeout, seconds(1)..=seconds(900)),
        queue_bytes: usize::try_from(section.size("queue", options.queue_bytes as u64, MIB..=4 * GIB))
            .unwrap_or(options.queue_bytes),
        create_topics: create.then_some(CreateTopics { partitions, replication }),
        assignor: section.one_of("assignor", Assignor::default().name(), &Assignor::NAMES),
        session_timeout: section.duration("session_timeout", options.session_timeout, seconds(1)..=seconds(1800)),
        metadata_refresh: section.duration("metadata_refresh", options.metadata_refresh, seconds(1)..=seconds(900)),
        ..options
    }
}

#[cfg(feature = "kafka")]
fn is_broker(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains([' ', '/', ',']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(feature = "kafka")]
fn read_tls(section: &Section) -> Tls {
    let (cert, key) = (section.path_opt("cert"), section.path_opt("key"));
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some(Identity { cert, key }),
        (None, None) => None,
        (Some(_), None) => section.require("key", None),
        (None, Some(_)) => section.require("cert", None),
    };
    Tls { ca: section.path_opt("ca"), identity }
}

#[cfg(feature = "kafka")]
fn read_sasl(section: &Section) -> Option<Sasl> {
    type Make = fn(Credentials) -> Sasl;
    let makes: [(&str, Option<Make>); 4] = [
        ("PLAIN", Some(Sasl::Plain)),
        ("SCRAM-SHA-256", Some(Sasl::ScramSha256)),
        ("SCRAM-SHA-512", Some(Sasl::ScramSha512)),
        ("OAUTHBEARER", None),
    ];
    if !section.is_set("mechanism") {
        return section.require("mechanism", None);
    }
    match section.one_of("mechanism", "SCRAM-SHA-512", &makes) {
        Some(make) => {
            let username = section.require("username", section.text_opt("username"));
            let password = section.require("password", section.secret("password"));
            Some(make(Credentials { username: username?, password: password? }))
        }
        None => {
            let token_url = section.require("token_url", section.text_opt("token_url"));
            let client_id = section.require("client_id", section.text_opt("client_id"));
            let client_secret = section.require("client_secret", section.secret("client_secret"));
            let scope = section.text_opt("scope");
            Some(Sasl::OAuthBearer(OAuth {
                token_url: token_url?,
                client_id: client_id?,
                client_secret: client_secret?,
                scope,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_defaults_are_the_defaults() {
        let root = Root::parse(DEFAULT_TOML, "default.toml").expect("toml");
        let printed = BusConfig::read(&root);
        root.finish().expect("no fault");
        assert_eq!(format!("{printed:?}"), format!("{:?}", BusConfig::read(&Root::empty())));
    }

    #[cfg(feature = "kafka")]
    mod kafka {
        use super::*;

        fn read(text: &str) -> Result<KafkaOptions, String> {
            let secret = [("BROKER_PASSWORD".to_owned(), "secret".to_owned())];
            let root = Root::parse(text, "logmesh.toml").expect("toml").env(secret);
            let options = read_shared(&root);
            root.finish().map(|_| options).map_err(|faults| faults.to_string())
        }

        #[test]
        fn the_defaults_in_comments_are_what_is_read_when_nothing_is_said() {
            let commented = DEFAULT_TOML.lines().map(|line| match line.strip_prefix("# ") {
                Some(setting) if setting.contains(" = ") && !setting.starts_with("mechanism") => setting,
                _ => line,
            });
            let kept = |line: &&str| {
                !["kind", "backlog", "sasl", "tls", "repli", "client_id, "].iter().any(|key| line.starts_with(key))
            };
            let text: Vec<&str> = commented.filter(kept).collect();
            let printed = read(&text.join("\n")).expect("no fault");
            let unset = read("[bus]\nbrokers = ['k1:9092', 'k2:9092']").expect("no fault");
            assert_eq!(format!("{printed:?}"), format!("{unset:?}"));
        }

        #[test]
        fn a_whole_section_is_read() {
            let options = read(
                "[bus]\nkind = 'kafka'\nbrokers = ['k1:9092']\ncreate_topics = true\npartitions = 6\nreplication = 3\n\
                 sasl = { mechanism = 'SCRAM-SHA-256', username = 'me', password = { env = 'BROKER_PASSWORD' } }\n\
                 tls = { ca = 'ca.pem', cert = 'c.pem', key = 'k.pem' }\nassignor = 'range'",
            )
            .expect("no fault");
            assert_eq!(options.create_topics, Some(CreateTopics { partitions: 6, replication: Some(3) }));
            assert!(matches!(options.sasl, Some(Sasl::ScramSha256(_))));
            assert!(options.tls.is_some_and(|tls| tls.identity.is_some()));
            assert_eq!(options.assignor, Assignor::Range);
        }

        #[test]
        fn what_cannot_work_is_said_with_its_cure() {
            for (text, words) in [
                ("", &["bus.brokers", "missing"][..]),
                ("brokers = ['k1']", &["`k1`", "host:port"]),
                ("kind = 'local'\nbrokers = ['k:1']", &["inside `logmesh up` only"]),
                ("brokers = ['k:1']\nbacklog_max = '1 GiB'", &["backlog_max", "belongs to kind = \"local\""]),
                ("brokers = ['k:1']\nsasl = { username = 'me' }", &["bus.sasl.mechanism"]),
                ("brokers = ['k:1']\nsasl = { mechanism = 'GSSAPI' }", &["mechanism", "GSSAPI", "SCRAM-SHA-512"]),
                (
                    "brokers = ['k:1']\nsasl = { mechanism = 'PLAIN', username = 'me', password = { env = 'BROKER_PASSWORD' } }",
                    &["no TLS"],
                ),
                ("brokers = ['k:1']\ntls = { cert = 'c.pem' }", &["bus.tls.key"]),
                (
                    "brokers = ['k:1']\ncreate_topics = true\nsasl = { mechanism = 'OAUTHBEARER', token_url = 'https://t',\
                     client_id = 'me', client_secret = { env = 'BROKER_PASSWORD' } }",
                    &["bus.create_topics", "cannot be made with OAUTHBEARER"],
                ),
                (
                    "brokers = ['k:1']\nsasl = { mechanism = 'OAUTHBEARER' }",
                    &["token_url", "client_id", "client_secret"],
                ),
            ] {
                let faults = read(&format!("[bus]\n{text}")).expect_err(text);
                for word in words {
                    assert!(faults.contains(word), "{word:?} is not in\n{faults}");
                }
            }
        }
    }
}
