//! What every service is handed when it starts.

use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use crate::health::Health;
use crate::shutdown::Shutdown;
use crate::status::Status;

/// The process as a service sees it. Cheap to clone; all clones are the same process.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where the service says how it is.
    pub health: Health,
    /// Where the service makes its instruments.
    pub meter: Meter,
    /// Where the service offers its part of `/status`.
    pub status: Status,
    /// When to stop.
    pub shutdown: Shutdown,
}

impl Context {
    /// A process of its own for one test: nothing is exported and no signal is caught.
    pub fn for_tests() -> Context {
        Context {
            health: Health::new(),
            meter: SdkMeterProvider::default().meter("tests"),
            status: Status::new(),
            shutdown: Shutdown::new(),
        }
    }
}
