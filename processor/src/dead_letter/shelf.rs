//! Finding letters on the bus: partitions, what is open in them, and the letters themselves, a page at a time.

use std::collections::VecDeque;

use logmesh_bus::{Bus, BusError, Delivered, PartitionRange, TopicPartition};

use super::{
    GROUP, TOPIC,
    letter::{Fate, Letter},
    opened::Opened,
    topics,
};

/// Bytes of letters that are read at once; one letter that is larger comes alone.
const PAGE_BYTES: usize = 1 << 20;

/// One partition of a letters' topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shelf {
    pub(super) range: PartitionRange,
    /// What is below is dealt with.
    pub(super) committed: u64,
}

/// The shelves of one tenant, or of all, in order.
pub(super) async fn shelves(bus: &dyn Bus, tenant: Option<&str>) -> Result<Vec<Shelf>, BusError> {
    let wanted = tenant.map_or_else(topics, |tenant| format!("{TOPIC}.{tenant}"));
    let ranges = bus.ranges(&[wanted]).await?;
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    let lags = bus.lag(GROUP).await?;
    let committed = |partition: &TopicPartition| lags.iter().find(|lag| lag.partition == *partition);
    let shelf = |range: PartitionRange| Shelf {
        committed: committed(&range.partition).map_or(range.earliest, |lag| lag.committed),
        range,
    };
    Ok(ranges.into_iter().map(shelf).collect())
}

impl Shelf {
    /// Number of records that stand at or above the group's commit, marks included.
    pub(super) fn waiting(&self) -> u64 {
        self.range.end.saturating_sub(self.from(false))
    }

    /// What is open: or, with `all`, everything that is kept.
    pub(super) async fn opened(&self, bus: &dyn Bus, all: bool) -> Result<Opened, BusError> {
        let mut next = self.from(all);
        let mut opened = Opened::new(next, self.committed);
        while next < self.range.end {
            let page = bus.read(&self.range.partition, next, PAGE_BYTES).await?;
            let Some(last) = page.last() else { break };
            next = last.offset + 1;
            page.iter().for_each(|delivered| opened.see(delivered));
        }
        Ok(opened)
    }

    fn from(&self, all: bool) -> u64 {
        if all { self.range.earliest } else { self.range.earliest.max(self.committed) }
    }
}

/// Reads the letters at some offsets of one partition, in order.
pub(super) struct Letters<'a> {
    bus: &'a dyn Bus,
    partition: &'a TopicPartition,
    wanted: VecDeque<(u64, Fate)>,
    page: VecDeque<Delivered>,
}

impl<'a> Letters<'a> {
    /// The letters at `wanted`, ascending.
    pub(super) fn new(bus: &'a dyn Bus, partition: &'a TopicPartition, wanted: Vec<(u64, Fate)>) -> Self {
        Self { bus, partition, wanted: wanted.into(), page: VecDeque::new() }
    }

    /// The next one. What the bus has removed meanwhile is left out.
    pub(super) async fn next(&mut self) -> Result<Option<(Letter, Fate)>, BusError> {
        while let Some(&(offset, fate)) = self.wanted.front() {
            while self.page.front().is_some_and(|delivered| delivered.offset < offset) {
                self.page.pop_front();
            }
            if self.page.is_empty() {
                self.page = self.bus.read(self.partition, offset, PAGE_BYTES).await?.into();
            }
            self.wanted.pop_front();
            match self.page.front() {
                Some(delivered) if delivered.offset == offset => {
                    return Ok(Some((Letter::read(self.partition, delivered), fate)));
                }
                Some(_) | None => {}
            }
        }
        Ok(None)
    }

    /// How many have not been looked at.
    pub(super) fn left(&self) -> u64 {
        self.wanted.len() as u64
    }
}
