//! The desk at which an operator deals with letters: the same over every bus and every index.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use logmesh_bus::{AppendError, Bus, BusError, TopicPartition};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

use super::{
    letter::{Fate, Letter, id_of},
    opened::Opened,
    replay::{Said, Summary, Tried, Trier, mark},
    shelf::{Letters, Shelf, shelves},
    tidy, view,
    write::DeadLetters,
};
use crate::{config::Config, index::Index};

/// Letters that are tried together, at most.
const CHUNK_LETTERS: usize = 500;

/// Bytes of originals that are tried together, at most; one letter that is larger goes alone.
const CHUNK_BYTES: usize = 1 << 20;

/// How long letters wait for an index that is busy, before they are left for later.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lists, shows, replays and discards dead letters. Cheap to clone; what changes letters is done one at a time.
#[derive(Clone)]
pub struct Office {
    bus: Arc<dyn Bus>,
    index: Arc<dyn Index>,
    letters: DeadLetters,
    config: Arc<Config>,
    turn: Arc<Mutex<()>>,
    patience: Duration,
}

/// Which letters. Every condition that is given must hold; nothing given means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Letters of these ids.
    pub ids: Vec<String>,
    /// Letters of this tenant.
    pub tenant: Option<String>,
    /// Letters whose reason contains this, in upper or lower case.
    pub reason: Option<String>,
    /// Those too that are dealt with, as long as the bus keeps them.
    pub all: bool,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Letters that meet the selection.
    pub total: u64,
    /// Whether `total` counts all of them; some are seen only once others are dealt with.
    pub complete: bool,
    /// The first of them, in order of their keeping, as JSON objects.
    pub letters: Vec<Value>,
}

/// Why letters cannot be dealt with.
#[derive(Debug, thiserror::Error)]
pub enum OfficeError {
    /// The letters cannot be read.
    #[error("dead letters cannot be read: {0}")]
    Read(#[from] BusError),
    /// What was done cannot be noted, so that it counts as not done; nothing is lost or doubled by doing it again.
    #[error("what was done with dead letters cannot be noted on the bus: {0}")]
    Note(#[from] AppendError),
    /// Whoever asked has gone.
    #[error("nobody waits for the answer any more")]
    Gone,
}

/// What is done with the letters of a selection.
enum Deed<'a> {
    Replay(Box<Trier<'a>>),
    Discard,
}

impl Listing {
    /// `{"total", "complete", "letters"}`
    #[must_use]
    pub fn into_json(self) -> Value {
        json!({ "total": self.total, "complete": self.complete, "letters": self.letters })
    }
}

impl Selection {
    fn matches(&self, letter: &Letter) -> bool {
        self.reason.as_ref().is_none_or(|reason| letter.reason.to_lowercase().contains(&reason.to_lowercase()))
    }

    /// The letters of a shelf that may be meant, ascending; the ids that are found are noted.
    fn wanted(&self, partition: &TopicPartition, opened: &Opened, found: &mut Vec<String>) -> Vec<(u64, Fate)> {
        let open = opened.offsets(self.all);
        if self.ids.is_empty() {
            return open;
        }
        let mut wanted = Vec::new();
        for id in &self.ids {
            let by_key = id.parse::<logmesh_proto::RecordId>().ok().and_then(|key| opened.find(key.as_bytes()));
            let by_place = || open.iter().copied().find(|(offset, _)| id_of(partition, *offset, b"") == *id);
            let place = by_key.or_else(by_place).filter(|(_, fate)| self.all || *fate == Fate::Open);
            if let Some(place) = place {
                found.push(id.clone());
                wanted.push(place);
            }
        }
        wanted.sort_unstable_by_key(|(offset, _)| *offset);
        wanted.dedup_by_key(|(offset, _)| *offset);
        wanted
    }
}

impl Office {
    /// A desk over the bus that keeps the letters and the index that documents go to. `config` says how documents are
    /// built, as for the processor.
    pub fn new(bus: Arc<dyn Bus>, index: Arc<dyn Index>, config: Config) -> Self {
        let letters = DeadLetters::new(Arc::clone(&bus));
        Self { bus, index, letters, config: Arc::new(config), turn: Arc::default(), patience: PATIENCE }
    }

    #[cfg(test)]
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The first `limit` letters of a selection.
    ///
    /// # Errors
    /// The bus cannot be read.
    pub async fn list(&self, selection: &Selection, limit: usize) -> Result<Listing, OfficeError> {
        let mut listing = Listing { complete: true, ..Listing::default() };
        let mut found = Vec::new();
        for shelf in shelves(&*self.bus, selection.tenant.as_deref()).await? {
            let opened = shelf.opened(&*self.bus, selection.all).await?;
            listing.complete &= opened.is_complete();
            let wanted = selection.wanted(&shelf.range.partition, &opened, &mut found);
            let mut letters = Letters::new(&*self.bus, &shelf.range.partition, wanted);
            // Without a condition on its content a letter that is not shown need not be read.
            while listing.letters.len() < limit || selection.reason.is_some() {
                let Some((letter, fate)) = letters.next().await? else { break };
                if !selection.matches(&letter) {
                    continue;
                }
                listing.total += 1;
                if listing.letters.len() < limit {
                    listing.letters.push(view::summary(&letter, fate));
                }
            }
            listing.total += letters.left();
        }
        listing.letters.sort_by(|one, other| one["kept"].as_str().cmp(&other["kept"].as_str()));
        Ok(listing)
    }

    /// One letter with all that it holds: dealt with or not.
    ///
    /// # Errors
    /// The bus cannot be read.
    pub async fn show(&self, id: &str) -> Result<Option<(Letter, Fate)>, OfficeError> {
        let selection = Selection { ids: vec![id.to_owned()], all: true, ..Selection::default() };
        for shelf in shelves(&*self.bus, None).await? {
            let opened = shelf.opened(&*self.bus, true).await?;
            let wanted = selection.wanted(&shelf.range.partition, &opened, &mut Vec::new());
            if let Some(letter) = Letters::new(&*self.bus, &shelf.range.partition, wanted).next().await? {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// Tries the open letters of a selection again, and says of each what became of it. With `dry_run` nothing is written.
    ///
    /// Dropping it in the midst does no harm: what is marked is done, and doing the rest again is harmless.
    ///
    /// # Errors
    /// The bus cannot be read or written.
    pub async fn replay(
        &self,
        selection: &Selection,
        dry_run: bool,
        said: &mpsc::Sender<Said>,
    ) -> Result<Summary, OfficeError> {
        let trier = Trier::new(&*self.index, &self.letters, &self.config, (self.patience, dry_run));
        self.deal(selection, Deed::Replay(Box::new(trier)), !dry_run, said).await
    }

    /// Gives the open letters of a selection up, and says so of each.
    ///
    /// # Errors
    /// The bus cannot be read or written.
    pub async fn discard(&self, selection: &Selection, said: &mpsc::Sender<Said>) -> Result<Summary, OfficeError> {
        self.deal(selection, Deed::Discard, true, said).await
    }

    async fn deal(
        &self,
        selection: &Selection,
        mut deed: Deed<'_>,
        writes: bool,
        said: &mpsc::Sender<Said>,
    ) -> Result<Summary, OfficeError> {
        let selection = &Selection { all: false, ..selection.clone() };
        let _turn = self.turn.lock().await;
        let mut summary = Summary::default();
        let mut commits = BTreeMap::new();
        let mut found = Vec::new();
        let mut held: Option<(Arc<str>, String)> = None;
        for shelf in shelves(&*self.bus, selection.tenant.as_deref()).await? {
            let mut opened = shelf.opened(&*self.bus, false).await?;
            let wanted = selection.wanted(&shelf.range.partition, &opened, &mut found);
            let mut letters = Letters::new(&*self.bus, &shelf.range.partition, wanted);
            // A lane that takes nothing is not waited for again and again; others are tried all the same.
            if held.as_ref().is_some_and(|(topic, _)| *topic != shelf.range.partition.topic) {
                held = None;
            }
            loop {
                let chunk = next_chunk(&mut letters, selection).await?;
                if chunk.is_empty() {
                    break;
                }
                let tried = match (&mut deed, &held) {
                    (Deed::Discard, _) => vec![Tried::Discarded; chunk.len()],
                    (Deed::Replay(_), Some((_, reason))) => {
                        vec![Tried::Waiting { reason: reason.clone() }; chunk.len()]
                    }
                    (Deed::Replay(trier), None) => trier.chunk(&chunk).await,
                };
                if let Some(Tried::Waiting { reason }) =
                    tried.iter().find(|tried| matches!(tried, Tried::Waiting { .. }))
                {
                    held = Some((Arc::clone(&shelf.range.partition.topic), reason.clone()));
                }
                if writes {
                    self.settle(&shelf, &mut opened, &chunk, &tried).await?;
                }
                for (letter, tried) in chunk.into_iter().zip(tried) {
                    say(said, &mut summary, letter.id, letter.tenant, tried).await?;
                }
            }
            if let Some(offset) = opened.committable().filter(|_| writes) {
                commits.insert(shelf.range.partition, offset);
            }
        }
        for id in selection.ids.iter().filter(|id| !found.contains(id)) {
            say(said, &mut summary, id.clone(), String::new(), Tried::Unknown).await?;
        }
        if let Err(error) = tidy::commit(&*self.bus, commits).await {
            summary.not_committed = Some(error.to_string());
        }
        Ok(summary)
    }

    /// Marks what is dealt with; returns once the marks are durable.
    async fn settle(
        &self,
        shelf: &Shelf,
        opened: &mut Opened,
        chunk: &[Letter],
        tried: &[Tried],
    ) -> Result<(), AppendError> {
        let mut deliveries = Vec::new();
        for (letter, tried) in chunk.iter().zip(tried) {
            let fate = match tried {
                Tried::Replayed { .. } => Fate::Replayed,
                Tried::Discarded => Fate::Discarded,
                Tried::Possible { .. } | Tried::Refused { .. } | Tried::Waiting { .. } | Tried::Unknown => continue,
            };
            let appended = self.bus.append(&shelf.range.partition.topic, mark(letter, fate.word())).await?;
            deliveries.push((letter, fate, appended));
        }
        for (letter, fate, delivery) in deliveries {
            let position = delivery.await?;
            opened.settle(&letter.key, fate);
            if position.partition == shelf.range.partition.partition {
                opened.see_mark(position.offset);
            }
        }
        Ok(())
    }
}

/// The next letters of a selection, as many as are tried together.
async fn next_chunk(letters: &mut Letters<'_>, selection: &Selection) -> Result<Vec<Letter>, BusError> {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    while chunk.len() < CHUNK_LETTERS && bytes < CHUNK_BYTES {
        let Some((letter, _)) = letters.next().await? else { break };
        if selection.matches(&letter) {
            bytes += letter.original.len();
            chunk.push(letter);
        }
    }
    Ok(chunk)
}

async fn say(
    said: &mpsc::Sender<Said>,
    summary: &mut Summary,
    id: String,
    tenant: String,
    tried: Tried,
) -> Result<(), OfficeError> {
    summary.count(&tried);
    said.send(Said { id, tenant, tried }).await.map_err(|_| OfficeError::Gone)
}
