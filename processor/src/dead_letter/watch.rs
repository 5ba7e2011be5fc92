//! How many letters are open and how old the oldest is, for each tenant: metrics and `/status`.
//!
//! Cheap: every look asks the bus for its ends alone; a partition is read only when something was added or committed since, and
//! only where no more than [`EXACT_MAX`] records wait in it. Beyond that, records are counted as letters.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use logmesh_bus::{Bus, BusError, TopicPartition};
use logmesh_runtime::Context;
use opentelemetry::{KeyValue, metrics::Gauge};
use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::{
    letter::{kept, tenant_of},
    shelf::{Shelf, shelves},
    write::unix_nano,
};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// Most records of one partition that are read for an exact count.
const EXACT_MAX: u64 = 10_000;

/// What one partition holds.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    open: u64,
    oldest_unix_nano: Option<u64>,
    /// Marks and repeats are counted as letters too.
    about: bool,
}

/// What is known of a partition, and of which state of it.
type Known = HashMap<TopicPartition, (Shelf, Count)>;

/// Looks again and again until the process stops. A bus that cannot be asked leaves what was known.
pub async fn watch(bus: Arc<dyn Bus>, context: Context) {
    watch_every(INTERVAL, bus, context).await;
}

pub(super) async fn watch_every(interval: Duration, bus: Arc<dyn Bus>, context: Context) {
    let gauges = Gauges {
        open: context
            .meter
            .u64_gauge("logmesh_dead_letters_open")
            .with_description("Dead letters that wait for an operator")
            .build(),
        age: context
            .meter
            .f64_gauge("logmesh_dead_letters_oldest_age_seconds")
            .with_description("Age of the oldest dead letter that waits for an operator")
            .build(),
    };
    let tenants: Arc<Mutex<BTreeMap<String, Count>>> = Arc::default();
    let shown = Arc::clone(&tenants);
    context.status.register("dead_letters", Arc::new(move || show(&lock(&shown))));
    let mut known = Known::new();
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = context.shutdown.requested() => return,
            _ = tick.tick() => {}
        }
        let looked = tokio::select! {
            () = context.shutdown.requested() => return,
            looked = look(&*bus, &mut known) => looked,
        };
        match looked {
            Ok(counts) => {
                // A tenant without letters is told as such, not forgotten: its gauges must fall.
                let mut tenants = lock(&tenants);
                tenants.values_mut().for_each(|count| *count = Count::default());
                tenants.extend(counts);
                gauges.record(&tenants);
            }
            Err(error) => tracing::debug!(%error, "dead letters cannot be counted"),
        }
    }
}

struct Gauges {
    open: Gauge<u64>,
    age: Gauge<f64>,
}

impl Gauges {
    fn record(&self, tenants: &BTreeMap<String, Count>) {
        for (tenant, count) in tenants {
            let labels = [KeyValue::new("tenant", tenant.clone())];
            self.open.record(count.open, &labels);
            self.age.record(age(count).as_secs_f64(), &labels);
        }
    }
}

/// Counts by tenant; partitions that stand where they stood are not read again.
async fn look(bus: &dyn Bus, known: &mut Known) -> Result<BTreeMap<String, Count>, BusError> {
    let mut tenants = BTreeMap::<String, Count>::new();
    for shelf in shelves(bus, None).await? {
        let partition = shelf.range.partition.clone();
        let count = match known.get(&partition) {
            Some((before, count)) if *before == shelf => *count,
            Some(_) | None => count(bus, &shelf).await?,
        };
        let tenant = tenants.entry(tenant_of(&partition.topic).to_owned()).or_default();
        tenant.open += count.open;
        tenant.about |= count.about;
        tenant.oldest_unix_nano = [tenant.oldest_unix_nano, count.oldest_unix_nano].into_iter().flatten().min();
        known.insert(partition, (shelf, count));
    }
    Ok(tenants)
}

async fn count(bus: &dyn Bus, shelf: &Shelf) -> Result<Count, BusError> {
    let waiting = shelf.waiting();
    if waiting == 0 {
        return Ok(Count::default());
    }
    if waiting <= EXACT_MAX {
        let opened = shelf.opened(bus, false).await?;
        return Ok(Count { open: opened.open(), oldest_unix_nano: opened.oldest_unix_nano(), about: false });
    }
    let from = shelf.range.earliest.max(shelf.committed);
    let first = bus.read(&shelf.range.partition, from, 1).await?;
    let oldest_unix_nano = first.first().and_then(|delivered| kept(&delivered.record.headers));
    Ok(Count { open: waiting, oldest_unix_nano, about: true })
}

fn age(count: &Count) -> Duration {
    count.oldest_unix_nano.map_or(Duration::ZERO, |oldest| Duration::from_nanos(unix_nano().saturating_sub(oldest)))
}

fn show(tenants: &BTreeMap<String, Count>) -> serde_json::Value {
    let tenants = tenants.iter().map(|(tenant, count)| {
        json!({
            "tenant": tenant,
            "open": count.open,
            "exact": !count.about,
            "oldest_age_seconds": age(count).as_secs(),
        })
    });
    json!({ "tenants": tenants.collect::<Vec<_>>() })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
