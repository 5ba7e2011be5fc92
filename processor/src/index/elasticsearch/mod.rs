//! The index on servers: Elasticsearch 8 and 9, OpenSearch 2 and 3.
//!
//! Owns what is between [`Index`] and their bulk interface: the requests' bytes, how large and how many, which node gets
//! them, and what each item of the answer means for its document. It does not own back-off: a document that is answered
//! [`Outcome::Retry`] or [`Outcome::Held`] comes again when its lane brings it.
//!
//! What an outcome stands on:
//!
//! - A document goes with `create` and its record's id, so that it is there once however often it is sent: after a cut
//!   connection, a time-out or an odd answer everything without an outcome is simply sent again. A conflict is "there
//!   already".
//! - The servers answer an item once it is in the translog of all copies that are in sync (`index.translog.durability:
//!   request`, their default): durable. From then on a real-time get of its id finds it; a search, after the index's next
//!   refresh (1 s by default).
//! - A daily index is named by the document, never by the clock, so that a replay meets its conflict. A data stream rolls
//!   over: there a replay that crosses a rollover writes a second copy, and a document cannot be replaced, so that a dead
//!   letter's replay finds its reduced document [there already](Outcome::Exists). Who asks for `data_streams` takes that.
//! - A conflict is answered from the primary shard's memory: in the moment between a write and its sync, a power cut on
//!   every copy at once could still take the document that a repeat of it was told of.

mod access;
mod answer;
mod body;
mod check;
mod counters;
mod fit;
mod lifecycle;
mod nodes;
mod options;
mod pace;
mod request;
mod sender;
mod server;
mod setup;
mod state;
mod templates;
mod transport;
mod waiting;

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use logmesh_runtime::health::Condition;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub use access::OpenError;
pub use check::{check, minimal_role};
pub use counters::Counts;
pub use options::{Authentication, ElasticsearchOptions};
pub use server::{Product, Server};

use self::{
    body::Target,
    counters::Counters,
    pace::{Bounds, Pace},
    request::Form,
    sender::{Piece, Sender, Shared},
    state::State,
    transport::Cluster,
};
use super::{Index, Mode, Outcome};
use crate::document::Document;

/// An index on Elasticsearch or OpenSearch.
pub struct Elasticsearch {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Piece>,
    closing: CancellationToken,
    driver: Mutex<Option<JoinHandle<()>>>,
    bytes_max: usize,
}

impl Elasticsearch {
    /// Begins to work; the servers need not be up. `condition` says what is wrong with them, for readiness. To be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// The options cannot be used: an address is none, or the CA cannot be read.
    pub fn open(options: &ElasticsearchOptions, condition: Condition) -> Result<Self, OpenError> {
        let target = if options.data_streams { Target::DataStream } else { Target::Daily };
        let shared = Arc::new(Shared {
            options: options.clone(),
            cluster: Cluster::new(options)?,
            counters: Counters::default(),
            state: State::new(condition),
        });
        let (queue, pieces) = mpsc::channel(sender::QUEUE);
        let pace = Pace::new(Bounds {
            bytes_max: options.bulk_bytes_max,
            concurrency_max: options.concurrency_max,
            slow: sender::slow(options.request_timeout),
        });
        let closing = CancellationToken::new();
        let form = Form {
            gzip: options.gzip,
            target,
            bytes: options.bulk_bytes_max,
            fit: false,
            shard_timeout: options.request_timeout / 3,
        };
        let driver = tokio::spawn(Sender::new(Arc::clone(&shared), form, pieces, pace, closing.clone()).run());
        Ok(Self { shared, queue, closing, driver: Mutex::new(Some(driver)), bytes_max: options.bulk_bytes_max })
    }

    /// What was sent and what became of it, since the start.
    pub fn counts(&self) -> Counts {
        self.shared.counters.counts()
    }

    /// Shows the counts in a meter, as long as this index lives.
    pub fn observe(&self, meter: &Meter) {
        let observe = |name: &'static str, what: &'static str, read: fn(&Counts) -> u64| {
            let shared = Arc::downgrade(&self.shared);
            let callback = move |observer: &dyn AsyncInstrument<u64>| {
                if let Some(shared) = shared.upgrade() {
                    observer.observe(read(&shared.counters.counts()), &[]);
                }
            };
            meter.u64_observable_counter(name).with_description(what).with_callback(callback).build();
        };
        observe("logmesh_index_requests", "Bulk requests sent", |counts| counts.requests);
        observe("logmesh_index_documents_sent", "Documents in bulk requests, repeats counted", |counts| {
            counts.documents_sent
        });
        observe("logmesh_index_bytes", "Bytes of bulk requests before packing", |counts| counts.bytes);
        observe("logmesh_index_bytes_sent", "Bytes of bulk requests on the wire", |counts| counts.bytes_sent);
        observe("logmesh_index_requests_halved", "Bulk requests halved for their size", |counts| counts.halved);
        observe("logmesh_index_documents_held", "Documents answered that a person must cure something", |counts| {
            counts.held
        });
    }

    /// What is wrong with the servers as a whole, in plain words; `None` while nothing is.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.shared.state.watch()
    }

    async fn write(&self, documents: Vec<Document>, mode: Mode) -> Vec<Outcome> {
        if self.closing.is_cancelled() {
            return sender::closed(documents.len());
        }
        let count = documents.len();
        let (refused, documents) = sift(documents);
        let mut answers = Vec::new();
        for documents in cut(documents, self.bytes_max) {
            let count = documents.len();
            let (reply, answer) = oneshot::channel();
            let taken = self.queue.send(Piece { documents, mode, reply }).await.is_ok();
            answers.push(async move {
                match answer.await {
                    Ok(outcomes) if taken => outcomes,
                    Ok(_) | Err(_) => sender::closed(count),
                }
            });
        }
        let outcomes = join_all(answers).await.into_iter().flatten();
        merge(count, refused, outcomes)
    }
}

/// Takes out what cannot stand in a bulk body, with its place and its outcome.
fn sift(documents: Vec<Document>) -> (Vec<(usize, Outcome)>, Vec<Document>) {
    if documents.iter().all(|document| body::fault_of(document).is_none()) {
        return (Vec::new(), documents);
    }
    let (mut refused, mut kept) = (Vec::new(), Vec::with_capacity(documents.len()));
    for (place, document) in documents.into_iter().enumerate() {
        match body::fault_of(&document) {
            Some(fault) => refused.push((place, Outcome::Rejected { reason: fault.to_owned() })),
            None => kept.push(document),
        }
    }
    (refused, kept)
}

/// Puts the outcomes of those taken out back in their places.
fn merge(count: usize, refused: Vec<(usize, Outcome)>, outcomes: impl Iterator<Item = Outcome>) -> Vec<Outcome> {
    if refused.is_empty() {
        return outcomes.collect();
    }
    let mut merged = Vec::with_capacity(count);
    let (mut refused, mut outcomes) = (refused.into_iter().peekable(), outcomes);
    for place in 0..count {
        let here = refused.next_if(|(at, _)| *at == place).map(|(_, outcome)| outcome);
        merged.extend(here.or_else(|| outcomes.next()));
    }
    merged
}

/// Cuts documents into runs of at most `bytes_max`, or of one that is larger.
fn cut(documents: Vec<Document>, bytes_max: usize) -> Vec<Vec<Document>> {
    if documents.iter().map(body::size_of).sum::<usize>() <= bytes_max {
        return if documents.is_empty() { Vec::new() } else { vec![documents] };
    }
    let mut runs: Vec<Vec<Document>> = Vec::new();
    let mut bytes = usize::MAX;
    for document in documents {
        let size = body::size_of(&document);
        if bytes.saturating_add(size) > bytes_max {
            runs.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(run) = runs.last_mut() {
            run.push(document);
        }
    }
    runs
}

impl Drop for Elasticsearch {
    /// The driver ends by itself; who wants to know when, closes.
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl Index for Elasticsearch {
    fn bulk(&self, documents: Vec<Document>, mode: Mode) -> BoxFuture<'_, Vec<Outcome>> {
        self.write(documents, mode).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.closing.cancel();
            let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(driver) = driver {
                // A driver that panicked has nothing left to close.
                let _ = driver.await;
            }
        }
        .boxed()
    }
}
