//! Faults behind the seams, for the end-to-end tests: an index that fails or crawls, an agent whose clock is off.
//!
//! Only in binaries built with the feature `faults`. The file that `LOGMESH_FAULTS` names is read again and again:
//! `{"index": "ok" | "fail" | {"delay_ms": N} | {"reject": TEXT}, "agent_clock_offset_ms": N}`. What cannot be read changes nothing.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use logmesh_agent::{Clock, Now, SystemClock};
use logmesh_processor::index::{
    Index,
    faulty::{FaultHandle, FaultPlan, Faulty},
};
use serde::Deserialize;

const VARIABLE: &str = "LOGMESH_FAULTS";
const LOOK: Duration = Duration::from_millis(50);

/// What the file says.
#[derive(Deserialize)]
struct Said {
    index: SaidOfIndex,
    #[serde(default)]
    agent_clock_offset_ms: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SaidOfIndex {
    Word(Word),
    Delay { delay_ms: u64 },
    Reject { reject: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Ok,
    Fail,
}

/// The agent's clock, off by what the file says.
pub(super) struct FaultyClock {
    clock: SystemClock,
    offset_millis: Arc<AtomicI64>,
}

impl Clock for FaultyClock {
    fn now(&self) -> Now {
        let now = self.clock.now();
        let offset = self.offset_millis.load(Ordering::Relaxed).saturating_mul(1_000_000);
        Now { unix_nano: now.unix_nano.saturating_add_signed(offset), ..now }
    }
}

/// The seams with faults behind them.
pub(super) struct Seams {
    pub(super) index: Arc<dyn Index>,
    pub(super) clock: FaultyClock,
}

/// Puts the seams up and begins to read the file, if there is one.
pub(super) fn seams(index: Arc<dyn Index>) -> Seams {
    let (index, handle) = Faulty::new(index);
    let offset_millis = Arc::new(AtomicI64::new(0));
    let clock = FaultyClock { clock: SystemClock::default(), offset_millis: Arc::clone(&offset_millis) };
    if let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        tracing::warn!(path = %path.display(), "faults are injected as this file says");
        apply(&path, &handle, &offset_millis);
        tokio::spawn(async move {
            let mut look = tokio::time::interval(LOOK);
            loop {
                look.tick().await;
                apply(&path, &handle, &offset_millis);
            }
        });
    }
    Seams { index: Arc::new(index), clock }
}

fn apply(path: &std::path::Path, handle: &FaultHandle, offset_millis: &AtomicI64) {
    let Some(said) = std::fs::read(path).ok().and_then(|text| serde_json::from_slice::<Said>(&text).ok()) else {
        return;
    };
    offset_millis.store(said.agent_clock_offset_ms, Ordering::Relaxed);
    handle.set(match said.index {
        SaidOfIndex::Word(Word::Ok) => FaultPlan::None,
        SaidOfIndex::Word(Word::Fail) => FaultPlan::Fail,
        SaidOfIndex::Delay { delay_ms } => FaultPlan::Delay(Duration::from_millis(delay_ms)),
        SaidOfIndex::Reject { reject } => FaultPlan::Reject(reject),
    });
}
