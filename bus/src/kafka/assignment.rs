//! What one member of a group holds, and what its caller knows of that: pure, no clock, no client.
//!
//! Two sides meet here. The member's thread brings what the group decides (`assign`, `revoke`, `lose_all`), what was
//! fetched (`arrived`, `gap`), and how commits went. The caller takes events and gives commits, pauses and releases. Events are the
//! difference between what is held and what was told, so that no queue of notices can grow.
//!
//! Invariants:
//! - A commit is taken exactly while its partition is held *and* the caller was told so and has not been told
//!   otherwise: `Holding::told`. A partition that comes back is a new holding and begins untold.
//! - A revocation ends when every told partition of it was released and its commits are durable, or at its deadline. The
//!   group is answered only then, so nobody else begins before.
//! - Bytes of flowing partitions that wait here stop the fetching of all; a paused partition has a share of its own, so that
//!   it stops no other.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::commits::{CommitFault, Commits, Waiter};
use crate::{Assignment, BusError, Delivered, Event, TopicPartition};

/// Of the bytes that may wait here, how many one event takes at most.
const TURNS: usize = 2;
/// What a record that waits costs beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// All partitions of one member.
#[derive(Debug)]
pub(super) struct Assignments {
    /// Bytes of flowing partitions that may wait here, and once more so many of paused ones.
    waiting_bytes_max: usize,
    held: BTreeMap<TopicPartition, Holding>,
    /// Told as held, gone, and not yet told as lost; and whether the caller was draining it.
    lost: BTreeMap<TopicPartition, bool>,
    revocation: Option<Revocation>,
    commit: Option<CommitUnderWay>,
    /// Whose turn it was last.
    last: Option<TopicPartition>,
}

#[derive(Debug)]
struct Holding {
    committed: Option<u64>,
    told: bool,
    /// The offset to be handed out next; `None` = the earliest kept.
    next: Option<u64>,
    /// The offset that may arrive next; `None` = the earliest kept.
    arriving: Option<u64>,
    waiting: VecDeque<Arrived>,
    waiting_bytes: usize,
    paused: bool,
    /// The fetcher was told to pause.
    fetch_paused: bool,
    revoking: Option<Revoking>,
    commits: Commits,
}

#[derive(Debug)]
enum Arrived {
    Record(Delivered),
    Gap { from: u64, to: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Revoking {
    Untold,
    Told,
    Released,
}

#[derive(Debug)]
struct Revocation {
    partitions: BTreeSet<TopicPartition>,
    deadline: Instant,
}

#[derive(Debug)]
struct CommitUnderWay {
    offsets: BTreeMap<TopicPartition, u64>,
    /// Who waits for partitions that are not held any more.
    orphans: Vec<(TopicPartition, Waiter)>,
}

/// What the fetcher is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steering {
    pub(super) pause: Vec<TopicPartition>,
    pub(super) resume: Vec<TopicPartition>,
}

impl Assignments {
    pub(super) fn new(fetch_bytes: usize) -> Self {
        Self {
            waiting_bytes_max: (fetch_bytes / 4).max(1),
            held: BTreeMap::new(),
            lost: BTreeMap::new(),
            revocation: None,
            commit: None,
            last: None,
        }
    }

    // The group's side.

    /// These are ours, with what the group has committed.
    pub(super) fn assign(&mut self, assigned: impl IntoIterator<Item = (TopicPartition, Option<u64>)>) {
        for (partition, committed) in assigned {
            let holding = Holding {
                committed,
                told: false,
                next: committed,
                arriving: committed,
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                paused: false,
                fetch_paused: false,
                revoking: None,
                commits: Commits::new(committed),
            };
            if let Some(before) = self.held.insert(partition.clone(), holding) {
                self.let_go(partition, before);
            }
        }
    }

    /// These are wanted elsewhere. What was not told yet, or is not held, needs no draining.
    pub(super) fn revoke(&mut self, partitions: impl IntoIterator<Item = TopicPartition>, deadline: Instant) {
        let partitions: BTreeSet<_> = partitions.into_iter().collect();
        for partition in &partitions {
            if let Some(holding) = self.held.get_mut(partition) {
                holding.waiting.clear();
                holding.waiting_bytes = 0;
                holding.revoking = Some(if holding.told { Revoking::Untold } else { Revoking::Released });
            }
        }
        match &mut self.revocation {
            // The group waits for an answer before it asks again; should it not, both are answered together.
            Some(revocation) => revocation.partitions.extend(partitions),
            None => self.revocation = Some(Revocation { partitions, deadline }),
        }
    }

    /// Whether a revocation waits for the caller.
    pub(super) fn is_revoking(&self) -> bool {
        self.revocation.is_some()
    }

    /// When the revocation under way ends at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.revocation.as_ref().map(|revocation| revocation.deadline)
    }

    /// Ends the revocation if all is released and committed, or its time is over: what the group is to be told.
    pub(super) fn finish_revocation(&mut self, now: Instant) -> Option<Vec<TopicPartition>> {
        let revocation = self.revocation.as_ref()?;
        let drained =
            |holding: &Holding| holding.revoking == Some(Revoking::Released) && holding.commits.wanted().is_none();
        let done = revocation.partitions.iter().all(|partition| self.held.get(partition).is_none_or(drained));
        if !done && now < revocation.deadline {
            return None;
        }
        let partitions = self.revocation.take()?.partitions;
        for partition in &partitions {
            if let Some(holding) = self.held.remove(partition) {
                self.let_go(partition.clone(), holding);
            }
        }
        Some(partitions.into_iter().collect())
    }

    /// The group has given away everything without asking.
    pub(super) fn lose_all(&mut self) {
        self.revocation = None;
        for (partition, holding) in std::mem::take(&mut self.held) {
            self.let_go(partition, holding);
        }
    }

    fn let_go(&mut self, partition: TopicPartition, holding: Holding) {
        let under_way = self.commit.as_ref().and_then(|commit| commit.offsets.get(&partition).copied());
        let waiters = holding.commits.end(&partition, under_way);
        if let Some(commit) = &mut self.commit {
            commit.orphans.extend(waiters.into_iter().map(|waiter| (partition.clone(), waiter)));
        }
        if holding.told && holding.revoking != Some(Revoking::Released) {
            self.lost.insert(partition, holding.revoking == Some(Revoking::Told));
        }
    }

    // The fetcher's side.

    /// Whether more may be fetched.
    pub(super) fn has_room(&self) -> bool {
        let flowing = self.held.values().filter(|holding| !holding.paused);
        flowing.map(|holding| holding.waiting_bytes).sum::<usize>() < self.waiting_bytes_max
    }

    /// A record was fetched. Whether the caller has something new to take.
    pub(super) fn arrived(&mut self, partition: &TopicPartition, delivered: Delivered) -> bool {
        let Some(holding) = self.held.get_mut(partition) else { return false };
        if holding.revoking.is_some() || holding.arriving.is_some_and(|arriving| delivered.offset < arriving) {
            return false;
        }
        holding.arriving = Some(delivered.offset + 1);
        holding.waiting_bytes += delivered.record.size() + RECORD_OVERHEAD_BYTES;
        holding.waiting.push_back(Arrived::Record(delivered));
        !holding.paused
    }

    /// Where each partition goes on: the offset that may arrive next, `None` = the earliest kept.
    pub(super) fn positions(&self) -> Vec<(TopicPartition, Option<u64>)> {
        let held = self.held.iter().filter(|(_, holding)| holding.revoking.is_none());
        held.map(|(partition, holding)| (partition.clone(), holding.arriving)).collect()
    }

    /// Records below `to` are gone. A `to` below what came last means that the cluster has lost the end of the log: all
    /// that it still has is read again, and commits begin anew.
    pub(super) fn gap(&mut self, partition: &TopicPartition, to: u64) {
        let Some(holding) = self.held.get_mut(partition) else { return };
        let Some(from) = holding.arriving.replace(to) else { return };
        if from < to {
            holding.waiting.push_back(Arrived::Gap { from, to });
        } else {
            holding.commits.rewind();
            holding.committed = None;
            holding.next = Some(to);
            holding.waiting.clear();
            holding.waiting_bytes = 0;
        }
    }

    /// The fetcher begins anew with a partition, and knows of no pause.
    pub(super) fn fetched_anew(&mut self, partition: &TopicPartition) {
        if let Some(holding) = self.held.get_mut(partition) {
            holding.fetch_paused = false;
        }
    }

    /// All that is held.
    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        self.held.keys().cloned().collect()
    }

    /// Pauses what has more than its share while the caller does not want it, and resumes what the caller wants.
    pub(super) fn steer(&mut self) -> Steering {
        let share = (self.waiting_bytes_max / self.held.len().max(1)).max(1);
        let mut steering = Steering::default();
        for (partition, holding) in &mut self.held {
            if holding.revoking.is_some() {
                continue;
            }
            if holding.paused && !holding.fetch_paused && holding.waiting_bytes >= share {
                holding.fetch_paused = true;
                steering.pause.push(partition.clone());
            } else if !holding.paused && holding.fetch_paused {
                holding.fetch_paused = false;
                steering.resume.push(partition.clone());
            }
        }
        steering
    }

    // Commits.

    /// What is to be committed now; nothing while a commit is under way.
    pub(super) fn take_commits(&mut self) -> Option<Vec<(TopicPartition, u64)>> {
        if self.commit.is_some() {
            return None;
        }
        let wanted = |(partition, holding): (&TopicPartition, &Holding)| {
            holding.commits.wanted().map(|offset| (partition.clone(), offset))
        };
        let offsets: BTreeMap<_, _> = self.held.iter().filter_map(wanted).collect();
        if offsets.is_empty() {
            return None;
        }
        let list = offsets.iter().map(|(partition, offset)| (partition.clone(), *offset)).collect();
        self.commit = Some(CommitUnderWay { offsets, orphans: Vec::new() });
        Some(list)
    }

    /// The commit under way came to an end, for each partition as `outcome` says. Whether one of them is to be tried again.
    pub(super) fn committed(&mut self, outcome: impl Fn(&TopicPartition) -> Result<(), CommitFault>) -> bool {
        let Some(commit) = self.commit.take() else { return false };
        let mut again = false;
        for (partition, offset) in &commit.offsets {
            let Some(holding) = self.held.get_mut(partition) else { continue };
            match outcome(partition) {
                Ok(()) => holding.commits.done(*offset),
                Err(CommitFault::Again) => again = true,
                Err(CommitFault::Refused(error)) => holding.commits.refused(*offset, &error),
            }
        }
        for (partition, waiter) in commit.orphans {
            let result = outcome(&partition).map_err(|_| BusError::Fenced { partition });
            waiter.resolve(result);
        }
        again
    }

    /// Whether anything is to be committed, or being committed.
    pub(super) fn has_commits(&self) -> bool {
        self.commit.is_some() || self.held.values().any(|holding| holding.commits.wanted().is_some())
    }

    // The caller's side.

    /// What the caller is to be told next.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.take_lost().or_else(|| self.take_revoking()).or_else(|| self.take_assigned()).or_else(|| self.take_turn())
    }

    fn take_lost(&mut self) -> Option<Event> {
        let lost: Vec<_> = std::mem::take(&mut self.lost).into_keys().collect();
        (!lost.is_empty()).then_some(Event::Lost(lost))
    }

    fn take_revoking(&mut self) -> Option<Event> {
        let deadline = self.deadline()?;
        let mut partitions = Vec::new();
        for (partition, holding) in &mut self.held {
            if holding.revoking == Some(Revoking::Untold) {
                holding.revoking = Some(Revoking::Told);
                partitions.push(partition.clone());
            }
        }
        (!partitions.is_empty()).then_some(Event::Revoking { partitions, deadline })
    }

    fn take_assigned(&mut self) -> Option<Event> {
        let mut assigned = Vec::new();
        for (partition, holding) in &mut self.held {
            if !holding.told && holding.revoking.is_none() {
                holding.told = true;
                assigned.push(Assignment { partition: partition.clone(), committed: holding.committed });
            }
        }
        (!assigned.is_empty()).then_some(Event::Assigned(assigned))
    }

    /// The next records or gap of the partition whose turn it is.
    fn take_turn(&mut self) -> Option<Event> {
        let ready = |(_, holding): &(&TopicPartition, &Holding)| {
            !holding.paused && holding.revoking.is_none() && !holding.waiting.is_empty()
        };
        let turn_bytes = (self.waiting_bytes_max / TURNS).max(1);
        let last = self.last.as_ref();
        let later = last.and_then(|last| self.held.range((Bound::Excluded(last), Bound::Unbounded)).find(ready));
        let partition = later.or_else(|| self.held.iter().find(ready))?.0.clone();
        let event = self.held.get_mut(&partition)?.hand_out(&partition, turn_bytes);
        self.last = Some(partition);
        event
    }

    /// Notes a commit. The receiver hears how it went.
    pub(super) fn request_commit(
        &mut self,
        partition: &TopicPartition,
        offset: u64,
    ) -> Result<oneshot::Receiver<Result<(), BusError>>, BusError> {
        let holding = self.held.get_mut(partition);
        let holding = holding.filter(|holding| holding.told && holding.revoking != Some(Revoking::Released));
        let holding = holding.ok_or_else(|| BusError::Fenced { partition: partition.clone() })?;
        let delivered = holding.next.unwrap_or(0);
        Ok(holding.commits.request(partition, offset, delivered))
    }

    pub(super) fn pause(&mut self, partition: &TopicPartition, paused: bool) {
        if let Some(holding) = self.held.get_mut(partition).filter(|holding| holding.told) {
            holding.paused = paused;
        }
    }

    pub(super) fn release(&mut self, partition: &TopicPartition) {
        if let Some(holding) = self.held.get_mut(partition)
            && holding.revoking == Some(Revoking::Told)
        {
            holding.revoking = Some(Revoking::Released);
        }
        // Too late, and the caller is done with it all the same.
        if self.lost.get(partition) == Some(&true) {
            self.lost.remove(partition);
        }
    }
}

impl Holding {
    /// Records up to `bytes`, at least one; or one gap.
    fn hand_out(&mut self, partition: &TopicPartition, bytes: usize) -> Option<Event> {
        let mut records = Vec::new();
        let mut taken = 0;
        while let Some(arrived) = self.waiting.pop_front() {
            match arrived {
                Arrived::Gap { from, to } if records.is_empty() => {
                    self.next = Some(to);
                    return Some(Event::Gap { partition: partition.clone(), from, to });
                }
                gap @ Arrived::Gap { .. } => {
                    self.waiting.push_front(gap);
                    break;
                }
                Arrived::Record(delivered) => {
                    let size = delivered.record.size() + RECORD_OVERHEAD_BYTES;
                    if !records.is_empty() && taken + size > bytes {
                        self.waiting.push_front(Arrived::Record(delivered));
                        break;
                    }
                    taken += size;
                    self.waiting_bytes -= size;
                    self.next = Some(delivered.offset + 1);
                    records.push(delivered);
                }
            }
        }
        (!records.is_empty()).then(|| Event::Records { partition: partition.clone(), records })
    }
}
