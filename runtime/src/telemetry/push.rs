//! Metrics pushed to a collector, from a thread and a runtime that nothing else uses.
//!
//! The SDK's reader collects on a thread of its own and waits there for the export. The export runs on the runtime here,
//! whose one worker drives the connection, under a deadline of its own: the SDK has none that covers a collector which
//! accepts and never answers. A failing collector is logged when it begins to fail and when it works again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::{MetricExporter, WithExportConfig as _};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, Temporality};
use tokio::runtime::{Builder, Handle, Runtime};

use super::TelemetryError;
use crate::config::mask_password;

/// One export, connecting included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The runtime that the push lives on.
#[derive(Debug)]
pub(super) struct Push {
    runtime: Option<Runtime>,
}

/// The SDK's exporter, held to a deadline.
pub(super) struct Bounded {
    exporter: MetricExporter,
    runtime: Handle,
    failing: AtomicBool,
}

/// Begins to push to `endpoint`; returns what keeps it alive and what the provider reads through.
pub(super) fn start(endpoint: &str, interval: Duration) -> Result<(Push, PeriodicReader<Bounded>), TelemetryError> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .thread_name("telemetry")
        .enable_all()
        .build()
        .map_err(TelemetryError::Thread)?;
    let entered = runtime.enter();
    let exporter =
        MetricExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT).build().map_err(
            |error| TelemetryError::Push {
                endpoint: mask_password(endpoint),
                reason: error.to_string().replace(endpoint, &mask_password(endpoint)),
            },
        )?;
    drop(entered);
    let bounded = Bounded { exporter, runtime: runtime.handle().clone(), failing: AtomicBool::new(false) };
    let reader = PeriodicReader::builder(bounded).with_interval(interval).build();
    Ok((Push { runtime: Some(runtime) }, reader))
}

impl Push {
    /// Ends it without waiting.
    pub(super) fn abandon(self) {
        drop(self);
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        // A plain drop would wait, and panics on a runtime's worker.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl PushMetricExporter for Bounded {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        // Called on the reader's thread, which belongs to no runtime: blocking it is what it is there for.
        let result = self.runtime.block_on(async {
            match tokio::time::timeout(EXPORT_TIMEOUT, self.exporter.export(metrics)).await {
                Ok(result) => result,
                Err(_) => Err(OTelSdkError::Timeout(EXPORT_TIMEOUT)),
            }
        });
        let failed = result.is_err();
        if self.failing.swap(failed, Ordering::Relaxed) != failed {
            match &result {
                Ok(()) => tracing::info!("metrics are pushed again"),
                Err(error) => tracing::warn!(%error, "metrics cannot be pushed; /metrics is not touched by this"),
            }
        }
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
