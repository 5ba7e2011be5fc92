//! Who of a group reads what, and how far the group is: decisions alone, no clock, no I/O.
//!
//! How to use it: tell what happens (`join`, `leave`, `topic`, `release`, and `tick` when `deadline` has passed), then compare `held` with
//! what each member was told. A partition has at most one holder; a new holding has a new generation, so that nobody
//! can mistake an old one for it. A partition that is wanted elsewhere is revoked first and changes hands once it is released, or its
//! deadline has passed, or its holder has left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::{BusError, Subscription, TopicPartition};

/// Tells members of a group apart; never used twice while a bus is open.
pub(super) type MemberId = u64;

/// One consumer group.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Topics and patterns that it reads: what it keeps from being removed.
    pub(super) topics: Vec<String>,
    members: BTreeMap<MemberId, Subscription>,
    partitions: BTreeMap<TopicPartition, Partition>,
    generation: u64,
}

/// One partition, as the group sees it.
#[derive(Debug, Default)]
pub(super) struct Partition {
    holder: Option<Holding>,
    /// What is committed, durably or about to be.
    pub(super) committed: Option<u64>,
    /// What is committed durably.
    pub(super) durable: Option<u64>,
}

/// A member's hold on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) member: MemberId,
    pub(super) generation: u64,
    /// Until when it must be released, if it is wanted elsewhere.
    pub(super) revoking: Option<Instant>,
}

impl Group {
    /// Whether the group reads `topic`.
    pub(super) fn reads(&self, topic: &str) -> bool {
        self.topics.iter().any(|pattern| crate::consumer::matches_pattern(pattern, topic))
    }

    /// A member joins; its topics are the group's from now on, beside those of members that are there.
    pub(super) fn join(&mut self, member: MemberId, subscription: Subscription, now: Instant) {
        let others = self.members.values().flat_map(|other| other.topics.iter().cloned());
        let topics: BTreeSet<String> = others.chain(subscription.topics.iter().cloned()).collect();
        self.topics = topics.into_iter().collect();
        self.members.insert(member, subscription);
        self.balance(now);
    }

    /// A member is gone, with all that it held.
    pub(super) fn leave(&mut self, member: MemberId, now: Instant) {
        self.members.remove(&member);
        for partition in self.partitions.values_mut() {
            partition.holder.take_if(|holder| holder.member == member);
        }
        self.balance(now);
    }

    /// A topic exists, with so many partitions. Only those that the group reads count.
    pub(super) fn topic(&mut self, name: &std::sync::Arc<str>, partitions: u16, now: Instant) {
        let before = self.partitions.len();
        for partition in 0..u32::from(partitions) {
            self.partitions.entry(TopicPartition { topic: name.clone(), partition }).or_default();
        }
        if self.partitions.len() > before {
            self.balance(now);
        }
    }

    /// What was committed before this process began.
    pub(super) fn restore(&mut self, partition: TopicPartition, committed: u64) {
        let partition = self.partitions.entry(partition).or_default();
        partition.committed = Some(committed);
        partition.durable = Some(committed);
    }

    /// `member` gives up a partition that is being revoked.
    pub(super) fn release(&mut self, member: MemberId, partition: &TopicPartition, now: Instant) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.holder.take_if(|holder| holder.member == member && holder.revoking.is_some());
            self.balance(now);
        }
    }

    /// Takes away what was not released in time.
    pub(super) fn tick(&mut self, now: Instant) {
        let mut taken = false;
        for partition in self.partitions.values_mut() {
            let late = |holder: &mut Holding| holder.revoking.is_some_and(|deadline| deadline <= now);
            taken |= partition.holder.take_if(late).is_some();
        }
        if taken {
            self.balance(now);
        }
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.partitions.values().filter_map(|partition| partition.holder?.revoking).min()
    }

    /// Commits `next` on behalf of a holding; `delivered` is the next offset that the holder would be handed.
    pub(super) fn commit(
        &mut self,
        partition: &TopicPartition,
        (member, generation): (MemberId, u64),
        next: u64,
        delivered: u64,
    ) -> Result<(), BusError> {
        let fenced = || BusError::Fenced { partition: partition.clone() };
        let slot = self.partitions.get_mut(partition).ok_or_else(fenced)?;
        slot.holder.filter(|holder| (holder.member, holder.generation) == (member, generation)).ok_or_else(fenced)?;
        match slot.committed {
            Some(committed) if next < committed => {
                Err(BusError::Backwards { partition: partition.clone(), committed, requested: next })
            }
            Some(_) | None if next > delivered => {
                Err(BusError::Beyond { partition: partition.clone(), delivered, requested: next })
            }
            Some(_) | None => {
                slot.committed = Some(next);
                Ok(())
            }
        }
    }

    /// What `member` holds.
    pub(super) fn held(&self, member: MemberId) -> impl Iterator<Item = (&TopicPartition, Holding, Option<u64>)> {
        self.partitions.iter().filter_map(move |(name, partition)| {
            let holder = partition.holder.filter(|holder| holder.member == member)?;
            Some((name, holder, partition.committed))
        })
    }

    /// The hold on a partition, if there is one.
    pub(super) fn holding(&self, partition: &TopicPartition) -> Option<Holding> {
        self.partitions.get(partition)?.holder
    }

    /// All partitions known to the group.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (&TopicPartition, &Partition)> {
        self.partitions.iter()
    }

    /// One partition.
    pub(super) fn partition(&self, partition: &TopicPartition) -> Option<&Partition> {
        self.partitions.get(partition)
    }

    /// What was written of this partition's commits.
    pub(super) fn set_durable(&mut self, partition: &TopicPartition, committed: u64) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.durable = Some(committed);
        }
    }

    /// Whether anyone is there.
    pub(super) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Gives free partitions away and revokes what is held by more than its share.
    fn balance(&mut self, now: Instant) {
        let wanted = self.wanted();
        for (name, partition) in &mut self.partitions {
            let member = wanted.get(name).copied();
            match &mut partition.holder {
                None => {
                    if let Some(member) = member {
                        self.generation += 1;
                        let generation = self.generation;
                        partition.holder = Some(Holding { member, generation, revoking: None });
                    }
                }
                Some(holder) if Some(holder.member) != member && holder.revoking.is_none() => {
                    let grace = self.members.get(&holder.member).map_or(Duration::ZERO, |member| member.revoke_grace);
                    holder.revoking = Some(now + grace);
                }
                Some(_) => {}
            }
        }
    }

    /// The even distribution that moves the least: everyone keeps what it holds up to its share, the rest goes to who has least.
    fn wanted(&self) -> BTreeMap<TopicPartition, MemberId> {
        let mut wanted = BTreeMap::new();
        if self.members.is_empty() {
            return wanted;
        }
        let mut loads: BTreeMap<MemberId, usize> = self.members.keys().map(|member| (*member, 0)).collect();
        let shares = self.shares();
        for (name, partition) in &self.partitions {
            let Some(holder) = partition.holder else { continue };
            let Some(subscription) = self.members.get(&holder.member) else { continue };
            let Some(load) = loads.get_mut(&holder.member) else { continue };
            if subscription.matches(&name.topic) && *load < shares.get(&holder.member).copied().unwrap_or(0) {
                *load += 1;
                wanted.insert(name.clone(), holder.member);
            }
        }
        for name in self.partitions.keys() {
            if wanted.contains_key(name) {
                continue;
            }
            let able = self.members.iter().filter(|(_, subscription)| subscription.matches(&name.topic));
            let least = able.map(|(member, _)| *member).min_by_key(|member| loads.get(member).copied());
            if let Some(member) = least {
                loads.entry(member).and_modify(|load| *load += 1);
                wanted.insert(name.clone(), member);
            }
        }
        wanted
    }

    /// How many partitions each member may keep: who holds most now gets the odd ones.
    fn shares(&self) -> BTreeMap<MemberId, usize> {
        let read =
            self.partitions.keys().filter(|name| self.members.values().any(|member| member.matches(&name.topic)));
        let count = read.count();
        let mut members: Vec<(MemberId, usize)> =
            self.members.keys().map(|member| (*member, self.held(*member).count())).collect();
        members.sort_by_key(|(member, held)| (std::cmp::Reverse(*held), *member));
        let (share, odd) = (count / members.len().max(1), count % members.len().max(1));
        members.iter().enumerate().map(|(place, (member, _))| (*member, share + usize::from(place < odd))).collect()
    }
}

#[cfg(test)]
mod tests;
