//! Configuration of a processor: `[processor]`, `[[processor.pipelines]]`, and what `[index]` says of documents.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use logmesh_bus::{Subscription, is_topic_name};
use logmesh_runtime::{
    admin::check_exposure,
    config::{Root, Secret, Section},
};

use crate::{
    document::{BuilderConfig, KeepOriginal},
    parse::Format,
};

/// The commented defaults of the sections that this crate reads.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

const MIB: u64 = 1 << 20;

/// A processor's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the admin endpoint listens, in a process of its own.
    pub admin: SocketAddr,
    /// What the admin endpoint asks for, beyond loopback.
    pub admin_token: Option<Secret>,
    /// The group whose commits count.
    pub group: String,
    /// From the request to stop until everything is closed, in a process of its own.
    pub shutdown_grace: Duration,
    /// Bytes of batches and documents under way to the index, at most.
    pub memory_bytes: usize,
    /// At least one.
    pub pipelines: Vec<Pipeline>,
    /// How documents are built.
    pub documents: BuilderConfig,
    /// Pause after a failed bulk: least and greatest.
    pub retry: (Duration, Duration),
}

/// How the records of some topics are parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// Topics without their tenants.
    pub topics: Vec<String>,
    /// What their records look like, unless a stream says so itself.
    pub parse: Format,
}

impl Config {
    /// Reads the sections; faults are noted in `root`.
    pub fn read(root: &Root) -> Self {
        let section = root.section("processor");
        let mut pipelines: Vec<_> = section.tables("pipelines").iter().map(pipeline).collect();
        if pipelines.is_empty() {
            pipelines.push(Pipeline { topics: vec!["logs".into()], parse: Format::Auto });
        }
        let admin = section.address("admin", SocketAddr::from((Ipv4Addr::LOCALHOST, 4420)));
        let admin_token = section.secret("admin_token");
        check_exposure(&section, "admin", admin, admin_token.as_ref());
        let (second, ten_minutes) = (Duration::from_secs(1), Duration::from_secs(600));
        Self {
            admin,
            admin_token,
            group: section.text("group", "logmesh"),
            shutdown_grace: section.duration("shutdown_grace", Duration::from_secs(10), second..=ten_minutes),
            memory_bytes: usize::try_from(section.size("memory", 512 * MIB, 4 * MIB..=64 * 1024 * MIB))
                .unwrap_or(usize::MAX),
            pipelines,
            documents: documents(&root.section("index")),
            retry: (Duration::from_millis(200), Duration::from_secs(10)),
        }
    }

    /// What to read from the bus: the topics of all tenants.
    pub fn subscription(&self) -> Subscription {
        let topics = self.pipelines.iter().flat_map(|pipeline| &pipeline.topics).map(|topic| format!("{topic}.*"));
        // A sixteenth of the memory may wait unread; the rest is for batches and documents under way.
        let fetch_bytes = (self.memory_bytes / 16).clamp(64 << 10, 4 << 20);
        Subscription { fetch_bytes, ..Subscription::new(self.group.as_str(), topics) }
    }

    /// How records of `topic` (without its tenant) are parsed.
    pub fn format(&self, topic: &str) -> Format {
        let pipeline = self.pipelines.iter().find(|pipeline| pipeline.topics.iter().any(|name| name == topic));
        pipeline.map_or(Format::Auto, |pipeline| pipeline.parse)
    }
}

fn pipeline(section: &Section) -> Pipeline {
    let topics = section.texts("topics", &["logs"]);
    for topic in topics.iter().filter(|topic| !is_topic_name(topic)) {
        section.fault("topics", format!("`{topic}` cannot be a topic's name"), "use 1 to 249 of a-z A-Z 0-9 . _ -");
    }
    Pipeline { topics, parse: section.one_of("parse", "auto", &Format::NAMES) }
}

fn documents(section: &Section) -> BuilderConfig {
    let choices =
        [("when_parsed", KeepOriginal::WhenParsed), ("always", KeepOriginal::Always), ("never", KeepOriginal::Never)];
    BuilderConfig { keep_original: section.one_of("keep_original", "when_parsed", &choices) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        let root = Root::parse(text, "logmesh.toml").expect("toml");
        let config = Config::read(&root);
        root.finish().expect("no fault");
        config
    }

    #[test]
    fn the_printed_defaults_are_the_defaults() {
        assert_eq!(format!("{:?}", read(DEFAULT_TOML)), format!("{:?}", read("")));
    }

    #[test]
    fn a_topic_of_every_tenant_is_read_as_its_pipeline_says() {
        let config = read("[[processor.pipelines]]\ntopics = ['web']\nparse = 'combined'");
        assert!(config.subscription().matches("web.acme"));
        assert!(!config.subscription().matches("logs.acme"));
        assert_eq!(config.format("web"), Format::Combined);
    }
}
