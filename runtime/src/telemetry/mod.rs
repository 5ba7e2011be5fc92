//! Being seen: metrics, scraped and pushed, and the log.
//!
//! Owns the process's meter provider with its two readers, the instruments of the process itself, and the log's
//! format. Does not own any service's instruments. Invariants: recording never waits for anybody; the push lives on a
//! thread and a runtime of its own, and nobody waits for it longer than the bound given to [`Telemetry::shutdown`], so
//! that a collector that hangs or is absent changes nothing (LESSONS O4).
//!
//! # Naming
//! `logmesh_<hop>_<what>_<unit>`, the unit in the name (`_bytes`, `_seconds`) and never set on the instrument as well.
//! A counter ends in `_total` exactly once in what is scraped, whether or not its name was given with it. A histogram
//! of seconds takes [`SECONDS`] as its boundaries. Labels: few, closed sets (`reason`, `level`, `tenant`, `topic`),
//! never a value from a file name or a payload. Make instruments once and keep them; build the attribute slices once
//! where they are constant; record per batch, not per record (139 ns each).

mod config;
mod logging;
mod own;
mod push;
#[cfg(test)]
mod tests;
mod throttle;

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Instrument, InstrumentKind, SdkMeterProvider, Stream};
use prometheus::{Registry, TextEncoder};

pub use config::{DEFAULT_TOML, Level, LogFormat, TelemetryConfig};
pub use logging::{Log, LoggingError, logging};
pub use throttle::Throttle;

/// Boundaries for histograms in seconds: half a millisecond to a minute, each about twice the one before.
pub const SECONDS: [f64; 17] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0];

/// How long a process that forgot [`Telemetry::shutdown`] waits for the collector.
const DROP_BOUND: Duration = Duration::from_secs(1);

/// Shows how long a certificate is still good, as `logmesh_certificate_days_left{owner}`; negative when it is over.
pub fn observe_certificate(
    meter: &Meter,
    owner: &'static str,
    expires_at: impl Fn() -> SystemTime + Send + Sync + 'static,
) {
    meter
        .f64_observable_gauge("logmesh_certificate_days_left")
        .with_description("Days until a certificate of this process ends")
        .with_callback(move |observer| {
            let (end, now) = (expires_at(), SystemTime::now());
            let seconds =
                end.duration_since(now).map_or_else(|over| -over.duration().as_secs_f64(), |left| left.as_secs_f64());
            observer.observe(seconds / 86_400.0, &[KeyValue::new("owner", owner)]);
        })
        .build();
}

/// The process's metrics. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    provider: SdkMeterProvider,
    registry: Registry,
    /// Where the push lives; none without one, and none after the shutdown.
    push: Mutex<Option<push::Push>>,
}

/// Why metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The registry for scraping refused.
    #[error("the metrics registry cannot be set up: {0}")]
    Registry(String),
    /// The exporter for pushing refused its settings.
    #[error("`telemetry.otlp` = \"{endpoint}\" cannot be used: {reason}")]
    Push {
        /// The collector's address as configured.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The thread for pushing could not be started.
    #[error("the thread for pushing metrics cannot be started")]
    Thread(#[source] std::io::Error),
}

impl Telemetry {
    /// Sets metrics up for a process called `service`, and begins to push them where that is configured.
    ///
    /// # Errors
    /// Settings that the exporter refuses, or no thread to push from. An absent collector is none.
    pub fn start(config: &TelemetryConfig, service: &'static str) -> Result<Telemetry, TelemetryError> {
        let registry = Registry::new();
        let scrape = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_units()
            .build()
            .map_err(|error| TelemetryError::Registry(error.to_string()))?;
        let resource = Resource::builder().with_service_name(service).build();
        let mut builder = SdkMeterProvider::builder().with_resource(resource).with_reader(scrape).with_view(total_once);
        let mut push = None;
        if let Some(endpoint) = &config.otlp {
            let (started, reader) = push::start(endpoint, config.otlp_interval)?;
            builder = builder.with_reader(reader);
            push = Some(started);
        }
        let provider = builder.build();
        own::observe(&provider.meter("logmesh"));
        Ok(Telemetry { inner: Arc::new(Inner { provider, registry, push: Mutex::new(push) }) })
    }

    /// Where instruments are made.
    pub fn meter(&self) -> Meter {
        self.inner.provider.meter("logmesh")
    }

    /// All metrics in the Prometheus text format.
    pub fn prometheus_text(&self) -> String {
        let families = self.inner.registry.gather();
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::warn!(%error, "metrics cannot be written as text");
            String::new()
        })
    }

    /// Pushes once more and ends the push, waiting at most `bound` for it. Blocks; call it off the runtime's workers or at
    /// the very end. Returns whether the collector took everything within the bound. Later calls do nothing.
    pub fn shutdown(&self, bound: Duration) -> bool {
        self.inner.stop(bound)
    }
}

impl Inner {
    fn stop(&self, bound: Duration) -> bool {
        let push = self.push.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(push) = push else { return true };
        let (done, is_done) = mpsc::sync_channel(1);
        let provider = self.provider.clone();
        // The SDK's shutdown has no bound of its own, so it runs where it can be left behind: this one thread is not
        // joined when the bound passes, and ends with the process.
        let waiter = std::thread::Builder::new().name("telemetry-stop".to_owned()).spawn(move || {
            let _ = done.send(provider.shutdown().is_ok());
        });
        let delivered = waiter.is_ok() && is_done.recv_timeout(bound).unwrap_or(false);
        push.abandon();
        delivered
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The provider's own drop would wait for the collector.
        self.stop(DROP_BOUND);
    }
}

/// The scraper adds `_total` to every counter; a name that was given with it must not end up with two.
fn total_once(instrument: &Instrument) -> Option<Stream> {
    let counts = matches!(instrument.kind(), InstrumentKind::Counter | InstrumentKind::ObservableCounter);
    let name = instrument.name().strip_suffix("_total").filter(|_| counts)?;
    Stream::builder().with_name(name.to_owned()).build().ok()
}
