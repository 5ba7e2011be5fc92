//! How the process is: a set of named conditions, each with its reason.
//!
//! Owns the states and the one log line per change; does not own who sets them or what an answer looks like on the wire
//! (that is [`crate::admin`]). Invariants: a process is ready when no condition is *starting* or *failing*; a condition
//! exists from the moment somebody asked for it, so a part that never came up is seen; a name is one condition, however
//! often it is asked for, so names that have several owners carry the owner in the name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use serde::Serialize;

/// All conditions of one process. Cheap to clone; all clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct Health {
    conditions: Arc<Mutex<BTreeMap<&'static str, Arc<Cell>>>>,
}

/// One named condition: the handle with which its owner says how it is. It begins as *starting*. Dropping the handle
/// leaves the condition as it was last set.
#[derive(Clone, Debug)]
pub struct Condition {
    cell: Arc<Cell>,
}

/// The degrees of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not up yet: not ready.
    Starting,
    /// Nothing to say.
    Ok,
    /// Works, but a person should know: ready.
    Warning,
    /// Does not work: not ready.
    Failing,
}

/// The answer to "are you ready?", with every reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Readiness {
    /// Whether work should be sent here.
    pub ready: bool,
    /// All conditions that are not *ok*, by name.
    pub reasons: Vec<Reason>,
}

/// One condition that is not *ok*.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// The condition's name.
    pub condition: &'static str,
    /// Its degree.
    pub state: State,
    /// Why, in words.
    pub reason: String,
    /// Since when it has been in this degree, in milliseconds since 1970 (UTC).
    pub since_unix_ms: u64,
    /// Whether it stays until a person acknowledges it ([`Health::acknowledge`]).
    pub acknowledge: bool,
}

/// How often new words about an unchanged degree are logged.
const WORDS_INTERVAL: Duration = Duration::from_secs(10);

/// What a log line says.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    before: State,
    reason: String,
}

#[derive(Debug)]
struct Cell {
    name: &'static str,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    state: State,
    reason: String,
    since: SystemTime,
    /// Whether it stays until a person says that they know.
    kept: bool,
    /// When a line was last written about it.
    logged: Option<Instant>,
}

impl Health {
    /// A process without conditions: ready.
    pub fn new() -> Health {
        Health::default()
    }

    /// The condition of that name, made as *starting* if it is new.
    pub fn condition(&self, name: &'static str) -> Condition {
        let starting = || {
            let (reason, since) = ("starting".to_owned(), SystemTime::now());
            let now = Now { state: State::Starting, reason, since, kept: false, logged: None };
            Arc::new(Cell { name, now: Mutex::new(now) })
        };
        Condition { cell: Arc::clone(lock(&self.conditions).entry(name).or_insert_with(starting)) }
    }

    /// Shows every condition as `logmesh_condition_ready` (1, or 0 while it holds the process back), and the process itself
    /// as `logmesh_ready`.
    pub fn observe(&self, meter: &Meter) {
        let conditions = self.clone();
        meter
            .u64_observable_gauge("logmesh_condition_ready")
            .with_description("Whether a condition lets the process be ready")
            .with_callback(move |observer| {
                for (name, cell) in lock(&conditions.conditions).iter() {
                    let ready = matches!(lock(&cell.now).state, State::Ok | State::Warning);
                    observer.observe(u64::from(ready), &[KeyValue::new("condition", *name)]);
                }
            })
            .build();
        let process = self.clone();
        meter
            .u64_observable_gauge("logmesh_ready")
            .with_description("Whether the process is ready")
            .with_callback(move |observer| observer.observe(u64::from(process.readiness().ready), &[]))
            .build();
    }

    /// A person says that they know of a condition that was [kept](Condition::keep): it is *ok* again. Answers whether there
    /// was such a one.
    pub fn acknowledge(&self, name: &str) -> bool {
        let conditions = lock(&self.conditions);
        let Some(cell) = conditions.get(name) else { return false };
        let mut now = lock(&cell.now);
        if !std::mem::take(&mut now.kept) {
            return false;
        }
        tracing::info!(condition = name, reason = now.reason, "acknowledged");
        now.state = State::Ok;
        now.reason.clear();
        true
    }

    /// What stands between this process and being ready, and what merely should be known.
    pub fn readiness(&self) -> Readiness {
        let reasons: Vec<Reason> = lock(&self.conditions).values().filter_map(|cell| cell.reason()).collect();
        let ready = reasons.iter().all(|reason| reason.state == State::Warning);
        Readiness { ready, reasons }
    }
}

impl Condition {
    /// It does not work, for this reason: the process is not ready. Setting the same reason again costs a comparison.
    pub fn set(&self, reason: impl AsRef<str> + Into<String>) {
        if let Some(Change { reason, .. }) = self.enter(State::Failing, reason, Instant::now()) {
            tracing::warn!(condition = self.cell.name, reason, "not ready");
        }
    }

    /// It works, but this should be known: shown, and still ready.
    pub fn warn(&self, reason: impl AsRef<str> + Into<String>) {
        if let Some(Change { reason, .. }) = self.enter(State::Warning, reason, Instant::now()) {
            tracing::warn!(condition = self.cell.name, reason, "degraded");
        }
    }

    /// As [`set`](Self::set), for what cannot be undone: it stays, through [`clear`](Self::clear) too, until a person
    /// acknowledges it.
    pub fn keep(&self, reason: impl AsRef<str> + Into<String>) {
        self.set(reason);
        lock(&self.cell.now).kept = true;
    }

    /// It stops because it was told to: not ready, and nothing to log.
    pub fn stop(&self) {
        self.enter(State::Failing, "stopping", Instant::now());
    }

    /// All is well.
    pub fn clear(&self) {
        if let Some(Change { before: State::Warning | State::Failing, .. }) = self.enter(State::Ok, "", Instant::now())
        {
            tracing::info!(condition = self.cell.name, "recovered");
        }
    }

    /// The degree it is in.
    pub fn state(&self) -> State {
        lock(&self.cell.now).state
    }

    /// Takes a state; answers what is to be logged. `since` moves only with the degree: a failure that changes its words is
    /// one failure, and its new words are logged only after a while, as they may hold a count.
    fn enter(&self, state: State, reason: impl AsRef<str> + Into<String>, at: Instant) -> Option<Change> {
        let mut now = lock(&self.cell.now);
        if (now.state == state && now.reason == reason.as_ref()) || (now.kept && state != State::Failing) {
            return None;
        }
        let before = now.state;
        now.reason = reason.into();
        if before != state {
            now.state = state;
            now.since = SystemTime::now();
        } else if now.logged.is_some_and(|logged| at.saturating_duration_since(logged) < WORDS_INTERVAL) {
            return None;
        }
        now.logged = Some(at);
        Some(Change { before, reason: now.reason.clone() })
    }
}

impl Cell {
    fn reason(&self) -> Option<Reason> {
        let now = lock(&self.now);
        if now.state == State::Ok {
            return None;
        }
        let since = now.since.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Some(Reason {
            condition: self.name,
            state: now.state,
            reason: now.reason.clone(),
            since_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            acknowledge: now.kept,
        })
    }
}

/// A panic elsewhere cannot leave a half-written state behind these locks, so a poisoned one is as good as a sound one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Telemetry, TelemetryConfig};

    #[test]
    fn a_condition_holds_readiness_back_until_it_was_cleared_once() {
        let health = Health::new();
        assert!(health.readiness().ready);
        let bus = health.condition("bus");
        let readiness = health.readiness();
        assert!(!readiness.ready);
        assert_eq!((readiness.reasons[0].condition, readiness.reasons[0].state), ("bus", State::Starting));
        bus.clear();
        assert_eq!(health.readiness(), Readiness { ready: true, reasons: vec![] });
    }

    #[test]
    fn every_reason_is_listed_and_a_warning_alone_does_not_hold_back() {
        let health = Health::new();
        let (disk, watch, index) = (health.condition("disk"), health.condition("watch"), health.condition("index"));
        disk.set("no space on /data");
        watch.warn("inotify exhausted; polling");
        index.clear();
        let readiness = health.readiness();
        assert!(!readiness.ready);
        let named: Vec<_> = readiness.reasons.iter().map(|reason| (reason.condition, reason.reason.as_str())).collect();
        assert_eq!(named, [("disk", "no space on /data"), ("watch", "inotify exhausted; polling")]);
        disk.clear();
        assert!(health.readiness().ready);
        assert_eq!(health.readiness().reasons.len(), 1);
    }

    #[test]
    fn a_change_of_degree_is_logged_at_once_and_new_words_only_after_a_while() {
        let condition = Health::new().condition("disk");
        let start = Instant::now();
        let change = |before, reason: &str| Some(Change { before, reason: reason.to_owned() });
        assert_eq!(condition.enter(State::Failing, "3 MiB short", start), change(State::Starting, "3 MiB short"));
        let since = lock(&condition.cell.now).since;
        assert_eq!(condition.enter(State::Failing, "3 MiB short", start), None);
        assert_eq!(condition.enter(State::Failing, "4 MiB short", start), None);
        let later = start + WORDS_INTERVAL;
        assert_eq!(condition.enter(State::Failing, "5 MiB short", later), change(State::Failing, "5 MiB short"));
        assert_eq!(lock(&condition.cell.now).since, since, "it is the same failure");
        assert_eq!(condition.enter(State::Ok, "", later), change(State::Failing, ""));
    }

    #[test]
    fn new_words_are_shown_even_when_they_are_not_logged() {
        let health = Health::new();
        let disk = health.condition("disk");
        disk.set("3 MiB short");
        disk.set("4 MiB short");
        assert_eq!(health.readiness().reasons[0].reason, "4 MiB short");
    }

    #[test]
    fn conditions_are_metrics_too() {
        let telemetry = Telemetry::start(&TelemetryConfig::default(), "tests").expect("starts");
        let health = Health::new();
        health.observe(&telemetry.meter());
        health.condition("bus").set("refused");
        health.condition("watch").warn("polling");
        let text = telemetry.prometheus_text();
        for line in [
            "logmesh_condition_ready{condition=\"bus\"} 0",
            "logmesh_condition_ready{condition=\"watch\"} 1",
            "logmesh_ready 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in:\n{text}");
        }
    }

    #[test]
    fn what_cannot_be_undone_stays_until_it_is_acknowledged() {
        let health = Health::new();
        let lost = health.condition("bus_retention");
        lost.clear();
        assert!(!health.acknowledge("bus_retention"), "there is nothing to acknowledge yet");
        lost.keep("3 batches were removed unread");
        lost.clear();
        assert!(!health.readiness().ready);
        assert!(health.readiness().reasons[0].acknowledge);
        lost.keep("5 batches were removed unread");
        assert_eq!(health.readiness().reasons[0].reason, "5 batches were removed unread");
        assert!(health.acknowledge("bus_retention"));
        assert!(health.readiness().ready);
        assert!(!health.acknowledge("unknown"));
    }

    #[test]
    fn one_name_is_one_condition() {
        let health = Health::new();
        health.condition("tls").set("expired");
        health.condition("tls").clear();
        assert!(health.readiness().ready);
    }
}
