//! The contract over the local form, and what is its own.

mod assignment;
mod crashes;
mod faults;
mod model;
mod room;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tempfile::TempDir;

use super::{LocalBus, LocalOptions};
use crate::Bus;
use crate::contract::Rig;

/// A directory, and how a bus is opened in it.
struct Local {
    directory: TempDir,
}

impl Local {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("makes a directory") }
    }

    /// Small enough that segments, queues and commits turn over within a test.
    fn options(&self) -> LocalOptions {
        LocalOptions {
            record_bytes_max: 16 << 10,
            segment_bytes: Some(64 << 10),
            queue_bytes: 32 << 10,
            commit_linger: Duration::ZERO,
            reserve_bytes: Some(0),
            probe_interval: Duration::from_millis(5),
            ..LocalOptions::new(self.directory.path())
        }
    }

    fn bus(&self) -> LocalBus {
        LocalBus::open(self.options()).expect("opens")
    }
}

impl Rig for Local {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Bus>> {
        async { Arc::new(self.bus()) as Arc<dyn Bus> }.boxed()
    }

    fn record_bytes_max(&self) -> usize {
        16 << 10
    }
}

mod contract {
    crate::contract_tests!(super::Local::new());
}
