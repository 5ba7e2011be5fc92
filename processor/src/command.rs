//! The processor as a process, the same for `logmesh-processor` and `logmesh processor`.

use std::{net::SocketAddr, sync::Arc};

use logmesh_bus::{
    Bus,
    config::read_shared,
    kafka::{KafkaBus, KafkaOptions},
};
use logmesh_runtime::{
    Context,
    config::{Root, Secret},
    finding::Finding,
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

impl Service for ProcessorService {
    const NAME: &'static str = "logmesh-processor";
    const SECTIONS: &'static [&'static str] = &["processor", "bus", "index"];

    fn read(root: &Root) -> Self {
        let index = match IndexOptions::read(root, &[IndexKind::Elasticsearch]) {
            IndexOptions::Elasticsearch(options) => *options,
            // Not among the kinds asked for.
            IndexOptions::Embedded { .. } => ElasticsearchOptions::new([]),
        };
        Self { config: Config::read(root), bus: read_shared(root), index }
    }

    fn verify(&self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn look(&self) -> Vec<Finding> {
        elasticsearch::check(&self.index).await
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
