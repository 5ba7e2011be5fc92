//! All sessions of a gateway: what is shown of them, and how they are told to leave.
//!
//! Owns the list and the health condition about identities that live twice; a session is in the list exactly as long as
//! its [`Live`] handle.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use logmesh_certs::Identity;
use logmesh_runtime::health::Condition;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The list.
#[derive(Debug)]
pub(crate) struct Registry {
    sessions: Mutex<BTreeMap<u64, Arc<Entry>>>,
    next: AtomicU64,
    draining: AtomicBool,
    /// Batches that sessions left unanswered when the gateway ended them.
    abandoned: AtomicUsize,
    cloned: Condition,
}

/// What is known of one session.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) identity: Identity,
    pub(crate) tenant: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) bytes_in_flight: AtomicU64,
    pub(crate) batches_in_flight: AtomicUsize,
    pub(crate) batches_acknowledged: AtomicU64,
    pub(crate) streams: AtomicUsize,
    /// Asks the session to drain; today with all others at shutdown, later by age and load.
    pub(crate) drain: CancellationToken,
    introduction: OnceLock<Introduction>,
    since_unix_seconds: u64,
}

/// What a client said of itself.
#[derive(Debug)]
struct Introduction {
    software: String,
    host: String,
    instance: Vec<u8>,
}

/// A session's place in the list.
#[derive(Debug)]
pub(crate) struct Live {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
}

impl Registry {
    /// An empty list. `cloned` warns of identities that live twice.
    pub(crate) fn new(cloned: Condition) -> Self {
        cloned.clear();
        Self {
            sessions: Mutex::default(),
            next: AtomicU64::new(1),
            draining: AtomicBool::new(false),
            abandoned: AtomicUsize::new(0),
            cloned,
        }
    }

    /// Puts a session into the list; `None` when the gateway is draining.
    pub(crate) fn join(self: &Arc<Self>, identity: Identity, tenant: Arc<str>, address: SocketAddr) -> Option<Live> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = Arc::new(Entry {
            id,
            identity,
            tenant,
            address,
            bytes_in_flight: AtomicU64::new(0),
            batches_in_flight: AtomicUsize::new(0),
            batches_acknowledged: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
            drain: CancellationToken::new(),
            introduction: OnceLock::new(),
            since_unix_seconds: since.as_secs(),
        });
        let mut sessions = self.lock();
        // Looked at under the lock, so that no session slips in behind `drain_all`.
        if self.draining.load(Ordering::Relaxed) {
            return None;
        }
        sessions.insert(id, Arc::clone(&entry));
        Some(Live { registry: Arc::clone(self), entry })
    }

    /// Refuses new sessions from now on, and asks all to drain.
    pub(crate) fn drain_all(&self) {
        let sessions = self.lock();
        self.draining.store(true, Ordering::Relaxed);
        sessions.values().for_each(|entry| entry.drain.cancel());
    }

    /// Batches that were received and will not be answered, or have not been yet.
    pub(crate) fn unanswered(&self) -> usize {
        let open: usize = self.lock().values().map(|entry| entry.batches_in_flight.load(Ordering::Relaxed)).sum();
        open + self.abandoned.load(Ordering::Relaxed)
    }

    /// For `/status`.
    pub(crate) fn snapshot(&self) -> Vec<Value> {
        let sessions: Vec<Arc<Entry>> = self.lock().values().cloned().collect();
        sessions.iter().map(|entry| entry.snapshot()).collect()
    }

    /// Compares the instances of each identity; two at a time are a cloned machine.
    fn review(&self) {
        let mut instances: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for entry in self.lock().values() {
            if let Some(introduction) =
                entry.introduction.get().filter(|introduction| !introduction.instance.is_empty())
            {
                instances.entry(entry.identity.to_string()).or_default().insert(introduction.instance.clone());
            }
        }
        let twice: Vec<&str> =
            instances.iter().filter(|(_, live)| live.len() > 1).map(|(identity, _)| identity.as_str()).collect();
        if twice.is_empty() {
            self.cloned.clear();
        } else {
            self.cloned.warn(format!(
                "used by two clients at a time: {}; was a machine cloned? issue each its own certificate",
                twice.join(", ")
            ));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Entry>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Notes that the gateway, shutting down, ends the session with its batches unanswered.
    pub(crate) fn abandon(&self) {
        if self.registry.draining.load(Ordering::Relaxed) {
            let left = self.entry.batches_in_flight.swap(0, Ordering::Relaxed);
            self.registry.abandoned.fetch_add(left, Ordering::Relaxed);
        }
    }

    /// Notes what the client said of itself.
    pub(crate) fn introduce(&self, software: String, host: String, instance: &[u8]) {
        let introduction = Introduction { software, host, instance: instance.to_vec() };
        // A session has one Hello.
        let _ = self.entry.introduction.set(introduction);
        self.registry.review();
    }
}

impl std::ops::Deref for Live {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.entry.id);
        self.registry.review();
    }
}

impl Entry {
    fn snapshot(&self) -> Value {
        let introduction = self.introduction.get();
        json!({
            "session": self.id,
            "identity": self.identity.as_str(),
            "tenant": &*self.tenant,
            "address": self.address.to_string(),
            "software": introduction.map(|introduction| introduction.software.as_str()),
            "host": introduction.map(|introduction| introduction.host.as_str()),
            "bytes_in_flight": self.bytes_in_flight.load(Ordering::Relaxed),
            "batches_in_flight": self.batches_in_flight.load(Ordering::Relaxed),
            "batches_acknowledged": self.batches_acknowledged.load(Ordering::Relaxed),
            "streams": self.streams.load(Ordering::Relaxed),
            "since_unix_seconds": self.since_unix_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use logmesh_runtime::health::{Health, State};

    use super::*;

    fn join(registry: &Arc<Registry>, name: &str) -> Option<Live> {
        let identity = Identity::parse(&format!("spiffe://mesh/agent/{name}")).unwrap();
        registry.join(identity, "default".into(), "127.0.0.1:1".parse().unwrap())
    }

    #[test]
    fn one_identity_with_two_instances_is_a_warning_while_both_live() {
        let health = Health::new();
        let cloned = health.condition("cloned");
        let registry = Arc::new(Registry::new(cloned.clone()));
        let (one, two, other) =
            (join(&registry, "a").unwrap(), join(&registry, "a").unwrap(), join(&registry, "b").unwrap());
        one.introduce("x/1".to_owned(), "h".to_owned(), b"1");
        other.introduce("x/1".to_owned(), "h".to_owned(), b"2");
        assert_eq!(cloned.state(), State::Ok);
        two.introduce("x/1".to_owned(), "h".to_owned(), b"3");
        assert_eq!(cloned.state(), State::Warning);
        assert!(health.readiness().ready && health.readiness().reasons[0].reason.contains("spiffe://mesh/agent/a"));
        drop(two);
        assert_eq!(cloned.state(), State::Ok);
    }

    #[test]
    fn two_sessions_of_one_run_are_no_warning() {
        let cloned = Health::new().condition("cloned");
        let registry = Arc::new(Registry::new(cloned.clone()));
        let sessions = [join(&registry, "a").unwrap(), join(&registry, "a").unwrap()];
        sessions.iter().for_each(|session| session.introduce("x/1".to_owned(), "h".to_owned(), b"1"));
        assert_eq!(cloned.state(), State::Ok);
    }

    #[test]
    fn a_draining_gateway_takes_no_sessions_and_tells_the_ones_it_has() {
        let registry = Arc::new(Registry::new(Health::new().condition("cloned")));
        let session = join(&registry, "a").unwrap();
        assert!(!session.drain.is_cancelled());
        registry.drain_all();
        assert!(session.drain.is_cancelled());
        assert!(join(&registry, "b").is_none());
    }
}
