//! The processor as a process, the same for `logmesh-processor` and `logmesh processor`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use logmesh_bus::{
    Bus, BusError,
    config::read_shared,
    kafka::{KafkaBus, KafkaOptions, check},
};
use logmesh_runtime::{
    Context,
    config::{Root, Secret},
    finding::{Finding, Verdict},
    health::Health,
    service::Service,
    shutdown::Exit,
};

use crate::{
    Config, Processor, dead_letter,
    index::{
        Index, IndexKind, IndexOptions,
        elasticsearch::{self, Elasticsearch, ElasticsearchOptions},
    },
};

/// How long the brokers may take to let go of a look.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A processor that is a process of its own.
#[derive(Debug)]
pub struct ProcessorService {
    config: Config,
    bus: KafkaOptions,
    index: ElasticsearchOptions,
}

impl ProcessorService {
    /// How documents are built, and which topics are read.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bus and the index that it names. That they can be reached is not waited for. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// They cannot be as configured: a file that cannot be read, an address that is none.
    pub fn stores(&self, health: &Health) -> anyhow::Result<(Arc<dyn Bus>, Arc<Elasticsearch>)> {
        let bus = KafkaBus::open(self.bus.clone())?;
        let index = Elasticsearch::open(&self.index, health.condition("index"))?;
        Ok((Arc::new(bus), Arc::new(index)))
    }
}

impl ProcessorService {
    /// The topics that it would read now, those of their dead letters, and its group.
    async fn look_at_bus(&self) -> Vec<Finding> {
        let patterns = self.config.subscription().topics;
        // What is wrong with the brokers is found below, in more words.
        let topics = topics(&self.bus, &patterns).await.unwrap_or_default();
        let mut findings = check(self.bus.clone(), &topics, Some(&self.config.group))
            .await
            .unwrap_or_else(|error| vec![Finding::new("bus", Verdict::Bad, error.to_string())]);
        if topics.is_empty() && findings.iter().all(|finding| finding.verdict != Verdict::Bad) {
            let words = format!("no topic matches {} yet", patterns.join(", "));
            findings
                .push(Finding::new("topics", Verdict::Doubtful, words).cured_by("check the gateways' configuration"));
        }
        findings
    }
}

/// Topics that match, each followed by that of its tenant's dead letters.
async fn topics(options: &KafkaOptions, patterns: &[String]) -> Result<Vec<String>, BusError> {
    let bus = KafkaBus::open(options.clone())?;
    let ranges = bus.ranges(patterns).await;
    bus.close(CLOSE_WITHIN).await;
    let mut topics: Vec<String> = ranges?.into_iter().map(|range| range.partition.topic.to_string()).collect();
    let letters = |topic: &String| Some(format!("{}.{}", dead_letter::TOPIC, topic.split_once('.')?.1));
    let letters: Vec<String> = topics.iter().filter_map(letters).collect();
    topics.extend(letters);
    topics.sort();
    topics.dedup();
    Ok(topics)
}

impl Service for ProcessorService {
    const NAME: &'static str = "logmesh-processor";
    const SECTIONS: &'static [&'static str] = &["processor", "bus", "index"];

    fn read(root: &Root) -> Self {
        let index = match IndexOptions::read(root, &[IndexKind::Elasticsearch]) {
            IndexOptions::Elasticsearch(options) => *options,
            // Not among the kinds asked for.
            IndexOptions::Embedded { .. } => ElasticsearchOptions::new([]),
        };
        let bus = KafkaOptions { keep: vec![dead_letter::topics()], ..read_shared(root) };
        Self { config: Config::read(root), bus, index }
    }

    fn verify(&self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn look(&self) -> Vec<Finding> {
        let mut findings = self.look_at_bus().await;
        findings.extend(elasticsearch::check(&self.index).await);
        findings
    }

    fn admin(&self) -> (SocketAddr, Option<Secret>) {
        (self.config.admin, self.config.admin_token.clone())
    }

    async fn serve(self, context: Context) -> anyhow::Result<Exit> {
        let grace = self.config.shutdown_grace;
        let (bus, index) = self.stores(&context.health)?;
        index.observe(&context.meter);
        let letters = tokio::spawn(dead_letter::watch(Arc::clone(&bus), context.clone()));
        let processor = Processor::new(self.config, Arc::clone(&bus), index.clone(), Arc::clone(&bus), context);
        let ended = processor.run().await;
        letters.abort();
        // What is not committed is read again by whoever comes next.
        if tokio::time::timeout(grace / 5, index.close()).await.is_err() {
            tracing::warn!("the index did not close in time");
        }
        bus.close(grace / 5).await;
        ended?;
        Ok(Exit::Clean)
    }
}
