//! A lane at work: the driver for one partition of one topic and tenant.
//!
//! Owns the partition's batches from their delivery to their last outcome. Each is opened and turned into documents in
//! order; bulks then overlap, as far as the lane's share of memory goes, and finish in any order. A lane whose index is
//! held or fails waits with its own batches alone. It never commits: it reports what is finished.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use logmesh_bus::{Delivered, TopicPartition};
use logmesh_proto::{Envelope, Limits, OpenBatch, Opener, v1};
use logmesh_runtime::{
    backoff::Backoff,
    budget::{Budget, Permit},
    config::Live,
    shutdown::Shutdown,
};
use prost::Message as _;
use tokio::sync::{mpsc, watch};

use crate::{
    attempt::{Trouble, Verdict},
    config::Config,
    dead_letter::{self, DeadLetters, Origin, Refused},
    document::{Builder, Document},
    index::{Index, Mode},
    instruments::Instruments,
    parse::Format,
    trouble::Troubles,
};

/// Batches of one lane that are under way at once, whatever room the budget leaves.
const UNDER_WAY_MAX: usize = 64;

/// What a batch takes beside its payload: the block of inflated bodies, and documents of about twice that size.
const MEMORY_PER_INFLATED_BYTE: usize = 4;

/// What all lanes share.
pub(crate) struct Shared {
    /// In force now; a reload swaps it whole, and each batch goes by what it finds.
    pub(crate) config: Live<Config>,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) instruments: Instruments,
    pub(crate) troubles: Troubles,
    pub(crate) shutdown: Shutdown,
}

impl Shared {
    fn backoff(&self) -> Backoff {
        let (least, greatest) = self.config.load().retry;
        Backoff::new(least, greatest)
    }
}

/// Said by a lane of one batch: its documents have their outcomes, or are dead letters.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) partition: TopicPartition,
    /// The assignment that the batch came with.
    pub(crate) epoch: u64,
    /// The batch's offset on the bus.
    pub(crate) offset: u64,
}

/// A lane: one partition, as long as it is assigned.
pub(crate) struct Lane {
    pub(crate) partition: TopicPartition,
    pub(crate) epoch: u64,
    pub(crate) deliveries: mpsc::Receiver<Vec<Delivered>>,
    pub(crate) finished: mpsc::Sender<Finished>,
    /// Bytes of memory for this lane; it changes with the number of lanes.
    pub(crate) share: watch::Receiver<usize>,
    pub(crate) shared: Arc<Shared>,
}

/// A batch on its way into the index.
struct Batch {
    origin: Origin,
    envelope: Envelope,
    documents: Vec<Document>,
    format: Format,
    /// The batch as it came: a refused record is taken out of it, byte for byte.
    encoded: v1::Batch,
}

/// What a bus record turned out to be.
enum Opened {
    Batch(Box<Batch>),
    /// Nothing that can be read: the reason.
    Undecodable(String),
}

impl Lane {
    /// Works until the deliveries end and all of them are finished; when the process stops, until the bulks under way
    /// are finished.
    pub(crate) async fn run(mut self) {
        let mut documents = self.shared.config.load().documents;
        let mut builder = Builder::new(documents);
        let mut opener = Opener::new(Limits { encoded_bytes_max: u32::MAX, ..Limits::default() });
        let mut budget = Budget::new("processor lane", *self.share.borrow_and_update());
        let mut waiting = VecDeque::new();
        let mut under_way = FuturesUnordered::new();
        let mut open = true;
        let shutdown = self.shared.shutdown.clone();
        while open || !waiting.is_empty() || !under_way.is_empty() {
            if self.share.has_changed().unwrap_or(false) {
                budget = Budget::new("processor lane", *self.share.borrow_and_update());
            }
            let configured = self.shared.config.load().documents;
            if configured != documents {
                documents = configured;
                builder = Builder::new(documents);
            }
            let room = under_way.len() < UNDER_WAY_MAX;
            let next = waiting.front().map_or(0, |delivered: &Delivered| memory_of(delivered));
            tokio::select! {
                biased;
                () = shutdown.requested(), if open => {
                    open = false;
                    waiting.clear();
                }
                Some(offset) = under_way.next(), if !under_way.is_empty() => {
                    let finished = Finished { partition: self.partition.clone(), epoch: self.epoch, offset };
                    if self.finished.send(finished).await.is_err() {
                        break;
                    }
                }
                permit = budget.reserve(next), if room && !waiting.is_empty() => {
                    if let Some(delivered) = waiting.pop_front() {
                        under_way.push(self.start(delivered, permit, &mut opener, &mut builder));
                    }
                }
                delivered = self.deliveries.recv(), if open && waiting.is_empty() => match delivered {
                    Some(delivered) => waiting.extend(delivered),
                    None => open = false,
                },
            }
        }
    }

    /// Opens a batch and sets it on its way. The future resolves with the batch's offset, once it is finished.
    fn start(
        &self,
        delivered: Delivered,
        mut permit: Permit,
        opener: &mut Opener,
        builder: &mut Builder,
    ) -> BoxFuture<'static, u64> {
        let offset = delivered.offset;
        let shared = Arc::clone(&self.shared);
        let origin = Origin { topic: Arc::clone(&self.partition.topic), partition: self.partition.partition, offset };
        match open(&shared, &delivered, origin.clone(), opener, builder) {
            Opened::Batch(batch) => {
                let documents = batch.documents.iter().map(|document| document.body.len() + 256);
                permit.shrink_to(batch.encoded.payload.len() + documents.sum::<usize>());
                async move {
                    settle(&shared, *batch).await;
                    drop(permit);
                    offset
                }
                .boxed()
            }
            Opened::Undecodable(reason) => async move {
                tracing::error!(%reason, topic = %origin.topic, partition = origin.partition, offset, "kept an unreadable batch as a dead letter");
                shared.instruments.undecodable();
                let keep = || shared.dead_letters.keep_batch(&origin, &delivered.record, &reason);
                until_kept(&shared, &origin, keep).await;
                drop(permit);
                offset
            }
            .boxed(),
        }
    }
}

/// Memory in bytes that a batch will take, from what it claims; the claim is checked before any is taken.
fn memory_of(delivered: &Delivered) -> usize {
    let claimed = v1::Batch::decode(delivered.record.value.clone()).map_or(0, |batch| batch.uncompressed_size as usize);
    delivered.record.value.len()
        + claimed.min(Limits::default().uncompressed_bytes_max as usize) * MEMORY_PER_INFLATED_BYTE
}

fn open(shared: &Shared, delivered: &Delivered, origin: Origin, opener: &mut Opener, builder: &mut Builder) -> Opened {
    let envelope = match Envelope::from_headers(&delivered.record.headers) {
        Ok(envelope) => envelope,
        Err(error) => return Opened::Undecodable(error.to_string()),
    };
    let batch = match v1::Batch::decode(delivered.record.value.clone()) {
        Ok(batch) => batch,
        Err(error) => return Opened::Undecodable(format!("the value is no logmesh.v1.Batch: {error}")),
    };
    let records = match opener.open(&batch) {
        Ok(records) => records,
        Err(fault) => return Opened::Undecodable(fault.to_string()),
    };
    let mut documents = Vec::with_capacity(records.len());
    // A stream that says what it looks like knows better than its topic.
    let format =
        Format::from_name(&envelope.info.input_format).unwrap_or_else(|| shared.config.load().format(&envelope.topic));
    let tally = builder.build(&envelope, &records, format, &mut documents);
    shared.instruments.built(&tally);
    Opened::Batch(Box::new(Batch { origin, envelope, documents, format, encoded: batch }))
}

/// Brings every document of a batch to its end. Returns only when each is in the index or a durable dead letter.
async fn settle(shared: &Shared, batch: Batch) {
    let lane = Arc::clone(&batch.origin.topic);
    let mut backoff = shared.backoff();
    let mut documents = batch.documents;
    let mut reduced = HashSet::new();
    let mut opened = None;
    loop {
        let outcomes = shared.index.bulk(documents.clone(), Mode::Create).await;
        let verdict = Verdict::sort(documents, outcomes);
        shared.instruments.answered(&verdict);
        documents = verdict.retry;
        for (document, reason) in verdict.rejected {
            // A reduced document that is refused too ends here: its letter has all of it.
            if !reduced.insert(document.id) {
                let what = "not even a reduced document was taken";
                shared.dead_letters.say(what, &batch.origin, &document, &reason);
                continue;
            }
            let records = opened.get_or_insert_with(|| open_again(&batch.encoded));
            let refused = Refused {
                envelope: &batch.envelope,
                origin: &batch.origin,
                document: &document,
                record: records
                    .as_ref()
                    .and_then(|records| records.records().find(|record| record.offset == document.offset)),
                format: batch.format,
                reason: &reason,
            };
            until_kept(shared, &batch.origin, || shared.dead_letters.keep_record(&refused)).await;
            documents.push(dead_letter::reduced(&document, &reason));
        }
        if let Some(trouble) = &verdict.trouble {
            shared.troubles.set(&lane, &trouble.reason);
            tokio::time::sleep(pause(trouble, &mut backoff)).await;
        } else {
            shared.troubles.clear(&lane);
        }
        if documents.is_empty() {
            break;
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let observed = Duration::from_nanos(batch.encoded.observed_time_unix_nano);
    shared.instruments.finished(now.saturating_sub(observed));
}

/// Opens a batch that was opened before, for the rare record that is refused.
fn open_again(batch: &v1::Batch) -> Option<OpenBatch> {
    Opener::new(Limits { encoded_bytes_max: u32::MAX, ..Limits::default() }).open(batch).ok()
}

/// A held lane waits as long as a failing one does at most: only a person cures it.
fn pause(trouble: &Trouble, backoff: &mut Backoff) -> Duration {
    let drawn = backoff.next(rand::random());
    let least = if trouble.held { backoff.ceiling() / 2 } else { Duration::ZERO };
    drawn.max(least).max(trouble.after.unwrap_or_default())
}

/// Tries until a dead letter is durable: nothing behind it may be committed before.
async fn until_kept<Kept>(shared: &Shared, origin: &Origin, mut keep: impl FnMut() -> Kept)
where
    Kept: Future<Output = Result<(), logmesh_bus::AppendError>>,
{
    let mut backoff = shared.backoff();
    while let Err(error) = keep().await {
        shared.troubles.set(&origin.topic, &format!("a dead letter cannot be kept: {error}"));
        tokio::time::sleep(backoff.next(rand::random())).await;
    }
}
