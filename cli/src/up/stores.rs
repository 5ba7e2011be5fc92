//! What keeps data for `logmesh up`: the bus and the index, each in this process or on servers.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use axum::{Json, Router, routing::get};
use http::StatusCode;
use logmesh_bus::{
    Bus,
    config::{BusConfig, LocalConfig},
    kafka::{KafkaBus, KafkaOptions},
    local::{LocalBus, LocalOptions},
};
use logmesh_processor::{
    dead_letter,
    index::{
        Index, IndexOptions,
        elasticsearch::Elasticsearch,
        embedded::{Embedded, EmbeddedConfig, State},
    },
    search,
};
use logmesh_runtime::{
    Context,
    health::{Condition, Health},
    shutdown::Exit,
};
use opentelemetry::metrics::Meter;
use serde_json::json;

use super::{data::DataDirectory, shares::Shares};
use crate::settings::Settings;

/// How often retention is looked after.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The bus and the index.
pub(super) struct Stores {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) index: Arc<dyn Index>,
    /// The index, where it is in this process.
    pub(super) embedded: Option<Arc<Embedded>>,
    /// Whether nothing was ever taken in.
    pub(super) fresh: bool,
}

impl Stores {
    /// Opens both, as the configuration says.
    pub(super) async fn open(
        settings: &Settings,
        data: &DataDirectory,
        health: &Health,
        meter: &Meter,
    ) -> anyhow::Result<Self> {
        let shares = Shares::of(settings.up.memory);
        let (bus, index) = (data.path().join("bus"), data.path().join("index"));
        let fresh = match &settings.bus {
            BusConfig::Local(_) => !bus.exists(),
            BusConfig::Kafka(_) => !index.exists() && !data.path().join("agent").exists(),
        };
        let bus: Arc<dyn Bus> = match &settings.bus {
            BusConfig::Local(local) => Arc::new(open_local(bus, *local, settings, &shares).await?),
            BusConfig::Kafka(options) => {
                let keep = vec![dead_letter::topics()];
                Arc::new(KafkaBus::open(KafkaOptions { keep, ..options.clone() })?)
            }
        };
        let (index, embedded): (Arc<dyn Index>, _) = match &settings.index {
            IndexOptions::Embedded { retention_days } => {
                let embedded = Arc::new(open_embedded(&index, *retention_days, &shares).await?);
                (embedded.clone(), Some(embedded))
            }
            IndexOptions::Elasticsearch(options) => {
                let servers = Elasticsearch::open(options, health.condition("index"))?;
                servers.observe(meter);
                (Arc::new(servers), None)
            }
        };
        Ok(Self { bus, index, embedded, fresh })
    }

    /// Search over HTTP: in the index of this process, or the word where else to search.
    pub(super) fn search(&self) -> Router {
        match &self.embedded {
            Some(embedded) => search::router(Arc::clone(embedded)),
            None => ["/api/search", "/api/count", "/api/export"]
                .into_iter()
                .fold(Router::new(), |router, path| router.route(path, get(elsewhere))),
        }
    }

    /// Makes everything durable and lets go of it, within the grace.
    pub(super) async fn close(self, grace: Duration) {
        if tokio::time::timeout(grace, self.index.close()).await.is_err() {
            tracing::warn!("the index did not close in time; what it did not commit is indexed again");
        }
        self.bus.close(grace).await;
    }
}

async fn elsewhere() -> (StatusCode, Json<serde_json::Value>) {
    let message = "this process writes to Elasticsearch or OpenSearch: search there, in logmesh-*";
    (StatusCode::NOT_FOUND, Json(json!({ "error": { "message": message } })))
}

async fn open_local(
    directory: std::path::PathBuf,
    local: LocalConfig,
    settings: &Settings,
    shares: &Shares,
) -> anyhow::Result<LocalBus> {
    let dead_letters = dead_letter::topics();
    let options = LocalOptions {
        partitions: local.partitions,
        backlog_bytes_max: local.backlog_bytes_max,
        // A dead letter bears its record, its origin and its reason.
        record_bytes_max: 4 << 20,
        queue_bytes: usize::try_from(shares.gateway / 4).unwrap_or(usize::MAX).min(16 << 20),
        groups: vec![
            (settings.processor.group.clone(), settings.processor.subscription().topics),
            // Keeps dead letters until an operator has dealt with them.
            (dead_letter::GROUP.to_owned(), vec![dead_letters.clone()]),
        ],
        set_apart: vec![dead_letters],
        ..LocalOptions::new(directory)
    };
    Ok(tokio::task::spawn_blocking(move || LocalBus::open(options)).await??)
}

async fn open_embedded(directory: &Path, retention_days: Option<u32>, shares: &Shares) -> anyhow::Result<Embedded> {
    let share = usize::try_from(shares.index).unwrap_or(usize::MAX);
    let config = EmbeddedConfig {
        memory_bytes: (share / 10 * 4).clamp(30_000_000, 256_000_000),
        commit_bytes_max: (share / 10).clamp(1 << 20, 32 << 20),
        retention_days,
        ..EmbeddedConfig::new(directory)
    };
    Ok(tokio::task::spawn_blocking(move || Embedded::open(config)).await??)
}

/// What is done now and then for the index in this process: it is shown how it is, and old days are dropped.
pub(super) async fn upkeep(index: Arc<Embedded>, context: Context) -> anyhow::Result<Exit> {
    let condition = context.health.condition("index");
    let mut state = index.state();
    let shown = state.clone();
    context.status.register("index", Arc::new(move || serde_json::to_value(&*shown.borrow()).unwrap_or_default()));
    let mut tick = tokio::time::interval(RETENTION_INTERVAL);
    loop {
        show(&condition, &state.borrow_and_update());
        tokio::select! {
            () = context.shutdown.requested() => return Ok(Exit::Clean),
            changed = state.changed() => changed.context("its writing thread has ended; the log says why")?,
            _ = tick.tick() => index.enforce_retention(SystemTime::now()).await,
        }
    }
}

fn show(condition: &Condition, state: &State) {
    match (&state.failing, state.damaged.as_slice()) {
        (Some(reason), _) => condition.set(reason.as_str()),
        (None, []) => condition.clear(),
        (None, damaged) => condition.warn(format!("damaged days were set aside: {}", damaged.join(", "))),
    }
}
