//! Both spools of an agent, and their way to the tailer, the inputs and the shipper.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use logmesh_journal::OpenError;
use logmesh_proto::{SealError, v1};
use serde::Serialize;
use thiserror::Error;

use super::{
    Bell, Dropped, Queued, RETRY, Settings, Spool, SpoolConfig,
    entry::Entry,
    feeds::{FeedInfo, Feeds, Room},
};
use crate::{
    clock::Now,
    inputs::intake::Arrival,
    lines::CutLimits,
    parcel::{Answer, Errand, Parcel, StreamNumber},
};

/// What the spools are told once.
#[derive(Clone, Debug)]
pub struct SpoolsConfig {
    /// Where they live.
    pub directory: PathBuf,
    /// Their budgets.
    pub budgets: SpoolConfig,
    /// Inputs that are no files.
    pub inputs: Vec<FeedInfo>,
    /// How batches of inputs are compressed.
    pub codec: v1::Codec,
    /// How batches of inputs are cut.
    pub limits: CutLimits,
    /// Encoded bytes that each spool may have under way.
    pub window_bytes: usize,
}

/// Why the spools cannot be opened.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// A journal cannot be opened.
    #[error("cannot open the agent's spool")]
    Journal(#[from] OpenError),
    /// The compressor found no memory.
    #[error("cannot make a compressor")]
    Compressor(#[from] SealError),
}

/// One spool, for the status.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SpoolStatus {
    /// Bytes on disk that are not under way.
    pub stored_bytes: u64,
    /// Encoded bytes under way to a gateway.
    pub in_flight_bytes: usize,
    /// Batches under way.
    pub in_flight_batches: usize,
    /// Bytes that are not known to be durable.
    pub unwritten_bytes: usize,
    /// Why it cannot be written, read or given back, while it cannot.
    pub failure: Option<String>,
}

/// A cut of a deleted file, as the tailer knows it.
pub(crate) type Cut = (StreamNumber, u64);

/// See the module.
pub struct Spools {
    config: SpoolsConfig,
    bell: Bell,
    /// Opened with the first deleted file that needs it, or where an earlier run left something.
    deleted: Option<Spool<Cut>>,
    /// Batches of deleted files while their spool cannot be opened.
    unspooled: VecDeque<Parcel>,
    /// Why it cannot be opened, and when it is tried again; an earlier run may have left something in it.
    unopened: Option<(String, Duration)>,
    inputs: Option<(Spool<Room>, Feeds)>,
    open: bool,
}

impl std::fmt::Debug for Spools {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Spools").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Spools {
    /// Opens what is needed. Returns where each input goes on, too. What deleted files left and cannot be opened is no
    /// error: it is told, and tried again.
    ///
    /// # Errors
    /// See [`SpoolError`].
    pub fn open(config: SpoolsConfig, bell: Bell) -> Result<(Self, BTreeMap<String, Bytes>), SpoolError> {
        // Where nobody can say whether there is something, opening says why.
        let leftovers = config.directory.join("deleted").try_exists().unwrap_or(true);
        let inputs = !config.inputs.is_empty() || config.directory.join("inputs").exists();
        let mut places = BTreeMap::new();
        let inputs = if inputs {
            let (spool, known) = Spool::open(&config.directory, inputs_settings(&config), Arc::clone(&bell))?;
            places = known;
            Some((spool, Feeds::new(&config.inputs, config.codec, config.limits)?))
        } else {
            None
        };
        let mut spools =
            Self { config, bell, deleted: None, unspooled: VecDeque::new(), unopened: None, inputs, open: false };
        if leftovers {
            spools.try_deleted(Duration::ZERO);
        }
        Ok((spools, places))
    }

    /// Opens the spool of deleted files; where that fails, notes why, and when it is to be tried again.
    fn try_deleted(&mut self, again: Duration) {
        match self.open_deleted() {
            Ok(()) => self.unopened = None,
            Err(error) => {
                let reason = logmesh_runtime::process::chain(&error);
                if self.unopened.is_none() {
                    tracing::error!(reason, "cannot open the spool of deleted files; it is tried again");
                }
                self.unopened = Some((reason, again));
            }
        }
    }

    fn open_deleted(&mut self) -> Result<(), OpenError> {
        let settings = Settings {
            name: "deleted",
            first_stream: 0b01 << 62,
            bytes_max: self.config.budgets.deleted_bytes_max,
            age_max: self.config.budgets.deleted_age_max,
            drops_oldest: true,
            window_bytes: self.config.window_bytes,
        };
        let (mut spool, _) = Spool::open(&self.config.directory, settings, Arc::clone(&self.bell))?;
        spool.set_open(self.open);
        self.deleted = Some(spool);
        Ok(())
    }

    /// Takes an answer of the shipper; gives it back where it is, too, the tailer's.
    pub(crate) fn handle(&mut self, answer: Answer, now: Now) -> Option<Answer> {
        match answer {
            Answer::Acked { stream, first } => {
                if let Some(deleted) = self.deleted.as_mut().filter(|spool| spool.owns(stream)) {
                    deleted.acknowledged(stream, first);
                } else if let Some((inputs, _)) = self.inputs.as_mut().filter(|(spool, _)| spool.owns(stream)) {
                    inputs.acknowledged(stream, first);
                } else {
                    return Some(answer);
                }
                None
            }
            Answer::Returned(parcel, why) => {
                let stream = parcel.stream;
                if let Some(deleted) = self.deleted.as_mut().filter(|spool| spool.owns(stream)) {
                    deleted.returned(*parcel, why, now);
                } else if let Some((inputs, _)) = self.inputs.as_mut().filter(|(spool, _)| spool.owns(stream)) {
                    inputs.returned(*parcel, why, now);
                } else {
                    return Some(Answer::Returned(parcel, why));
                }
                None
            }
            Answer::Opened { .. } | Answer::Closed => {
                self.set_open(matches!(answer, Answer::Opened { .. }));
                Some(answer)
            }
            Answer::Credit(_) => Some(answer),
        }
    }

    fn set_open(&mut self, open: bool) {
        self.open = open;
        if let Some(deleted) = &mut self.deleted {
            deleted.set_open(open);
        }
        if let Some((inputs, _)) = &mut self.inputs {
            inputs.set_open(open);
        }
    }

    /// Begins to send nothing more: the run ends.
    pub(crate) fn hold(&mut self) {
        self.set_open(false);
    }

    /// Takes a batch of a deleted file. Once it is durable [`Self::take_kept`] says so.
    pub(crate) fn keep(&mut self, parcel: Parcel) {
        self.unspooled.push_back(parcel);
    }

    /// Cuts of deleted files that became durable since the last call.
    pub(crate) fn take_kept(&mut self) -> Vec<Cut> {
        self.deleted.as_mut().map(Spool::take_durable).unwrap_or_default()
    }

    /// What was dropped for a budget since the last call.
    pub(crate) fn take_dropped(&mut self) -> Vec<Dropped> {
        let deleted = self.deleted.as_mut().map(|spool| std::mem::take(&mut spool.dropped));
        let inputs = self.inputs.as_mut().map(|(spool, _)| std::mem::take(&mut spool.dropped));
        [deleted, inputs].into_iter().flatten().flatten().collect()
    }

    /// Takes what inputs have.
    pub(crate) fn take_arrivals(&mut self, arrivals: Vec<Arrival>, now: Now) {
        let Some((spool, feeds)) = &mut self.inputs else { return };
        let mut batches = Vec::new();
        arrivals.into_iter().for_each(|arrival| feeds.take(arrival, now, &mut batches));
        spool.waiting.extend(batches);
    }

    /// Does what is due; what the shipper is to do is pushed to `out`. Returns when to come again at the latest.
    pub(crate) fn turn(&mut self, now: Now, out: &mut Vec<Errand>) -> Duration {
        let mut wake = self.spool_deleted(now);
        if let Some(deleted) = &mut self.deleted {
            wake = wake.min(deleted.turn(now, out));
        }
        if let Some((spool, feeds)) = &mut self.inputs {
            // Their room in the intake is given back.
            drop(spool.take_durable());
            let mut batches = Vec::new();
            wake = wake.min(feeds.flush(spool.is_written(), now, &mut batches));
            spool.waiting.extend(batches);
            wake = wake.min(spool.turn(now, out));
        }
        wake
    }

    /// Appends batches of deleted files; opens their spool where it is not. Until it is, the files are held open.
    fn spool_deleted(&mut self, now: Now) -> Duration {
        if self.unspooled.is_empty() && self.unopened.is_none() {
            return Duration::MAX;
        }
        if self.deleted.is_none() {
            if self.unopened.as_ref().is_none_or(|(_, again)| *again <= now.mono) {
                self.try_deleted(now.mono + RETRY);
            }
            if let Some((_, again)) = &self.unopened {
                return *again;
            }
        }
        if let Some(deleted) = &mut self.deleted {
            for parcel in self.unspooled.drain(..) {
                let token = (parcel.stream, parcel.batch.first_offset);
                let batch = v1::Batch { info: Some((*parcel.info).clone()), ..parcel.batch };
                let entry = Entry { spooled_unix_nano: now.unix_nano, input: String::new(), cursor: None, batch };
                deleted.waiting.push_back(Queued::new(&entry, token));
            }
        }
        Duration::MAX
    }

    /// Whether everything that was taken is on disk.
    pub(crate) fn is_written(&self) -> bool {
        let deleted = self.deleted.as_ref().is_none_or(Spool::is_written);
        let inputs = self.inputs.as_ref().is_none_or(|(spool, feeds)| spool.is_written() && feeds.is_empty());
        self.unspooled.is_empty() && deleted && inputs
    }

    /// Whether everything that was taken is delivered, by this run and by those before.
    pub(crate) fn is_empty(&self) -> bool {
        let deleted = self.deleted.as_ref().is_none_or(Spool::is_empty);
        let inputs = self.inputs.as_ref().is_none_or(|(spool, feeds)| spool.is_empty() && feeds.is_empty());
        self.unspooled.is_empty() && self.unopened.is_none() && deleted && inputs
    }

    /// Whether nothing is under way to a gateway.
    pub(crate) fn is_settled(&self) -> bool {
        let deleted = self.deleted.as_ref().is_none_or(|spool| spool.transit.parts() == 0);
        deleted && self.inputs.as_ref().is_none_or(|(spool, _)| spool.transit.parts() == 0)
    }

    /// Notes a last time how far everything is delivered.
    pub(crate) fn stop(&mut self) {
        if let Some(deleted) = &mut self.deleted {
            deleted.note();
        }
        if let Some((inputs, _)) = &mut self.inputs {
            inputs.note();
        }
    }

    /// Each spool that is open.
    pub(crate) fn status(&self) -> BTreeMap<&'static str, SpoolStatus> {
        let deleted = self.deleted.as_ref().map(|spool| ("deleted", spool.status()));
        let unopened = self
            .unopened
            .as_ref()
            .map(|(reason, _)| ("deleted", SpoolStatus { failure: Some(reason.clone()), ..SpoolStatus::default() }));
        let inputs = self.inputs.as_ref().map(|(spool, _)| ("inputs", spool.status()));
        [deleted, unopened, inputs].into_iter().flatten().collect()
    }

    /// Records taken of inputs since the start, and bytes of their bodies.
    pub(crate) fn taken(&self) -> (u64, u64) {
        self.inputs.as_ref().map_or((0, 0), |(_, feeds)| (feeds.records, feeds.bytes))
    }
}

impl<T: Send + 'static> Spool<T> {
    fn status(&self) -> SpoolStatus {
        let oversized = (self.oversized > 0).then(|| {
            format!(
                "a record is larger than its topic takes ({} bytes at most): raise the topic's limit",
                self.oversized
            )
        });
        let unreadable = self.unreadable.as_ref().map(|(reason, _)| reason);
        let failure = self.failure.as_ref().or(unreadable).or(self.unresumed.as_ref()).or(self.unnoted.as_ref());
        SpoolStatus {
            stored_bytes: self.stored_bytes(),
            in_flight_bytes: self.transit.bytes(),
            in_flight_batches: self.transit.parts(),
            unwritten_bytes: self.unwritten_bytes(),
            failure: failure.cloned().or(oversized),
        }
    }
}

fn inputs_settings(config: &SpoolsConfig) -> Settings {
    Settings {
        name: "inputs",
        first_stream: 0b10 << 62,
        bytes_max: config.budgets.inputs_bytes_max,
        age_max: Duration::MAX,
        drops_oldest: false,
        window_bytes: config.window_bytes,
    }
}
