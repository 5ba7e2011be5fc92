//! Random schedules of two groups, their consumers, restarts and kills, against lists.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Local;
use crate::contract::{join, next, patient, record};
use crate::local::LocalBus;
use crate::{Bus, Consumer, Event, TopicPartition};

#[derive(Clone, Debug)]
enum Step {
    /// So many records of this size, keys spread.
    Append { count: usize, size: usize },
    /// The consumer of a group takes so many events, and commits the share (of 4) of what it has read of each partition.
    Read { group: usize, events: usize, commit: usize },
    /// The consumer of a group goes.
    Drop(usize),
    /// Closed and opened.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1_usize..40, 1_usize..6000).prop_map(|(count, size)| Step::Append { count, size }),
        4 => (0_usize..2, 1_usize..12, 0_usize..5)
            .prop_map(|(group, events, commit)| Step::Read { group, events, commit }),
        1 => (0_usize..2).prop_map(Step::Drop),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..12)
}

/// What one group must see: where it is durably, and where its consumer is.
#[derive(Default)]
struct Reader {
    consumer: Option<Box<dyn Consumer>>,
    committed: BTreeMap<TopicPartition, u64>,
    read: BTreeMap<TopicPartition, u64>,
}

struct World {
    local: Local,
    bus: Option<LocalBus>,
    /// Values by partition, in the order of their offsets.
    written: BTreeMap<u32, Vec<String>>,
    readers: [Reader; 2],
    number: usize,
}

impl World {
    fn bus(&self) -> &LocalBus {
        self.bus.as_ref().expect("a bus is open")
    }

    async fn append(&mut self, count: usize, size: usize) {
        let mut deliveries = Vec::new();
        for _ in 0..count {
            self.number += 1;
            let value = format!("{}{}", self.number, "x".repeat(size));
            let record = record(&format!("key-{}", self.number % 23), value.clone());
            deliveries.push((value, self.bus().append("logs", record).await.expect("queued")));
        }
        for (value, delivery) in deliveries {
            let position = patient("a delivery", delivery).await.expect("durable");
            let values = self.written.entry(position.partition).or_default();
            assert_eq!(position.offset, values.len() as u64, "offsets are contiguous");
            values.push(value);
        }
    }

    /// Whether the group's consumer has something to come.
    fn is_behind(&self, group: usize) -> bool {
        let reader = &self.readers[group];
        self.written.iter().any(|(partition, values)| {
            let name = TopicPartition::new("logs", *partition);
            let next = reader.read.get(&name).or(reader.committed.get(&name)).copied().unwrap_or(0);
            next < values.len() as u64
        })
    }

    async fn read(&mut self, group: usize, events: usize, share: usize) {
        if self.readers[group].consumer.is_none() {
            self.readers[group].consumer = Some(join(self.bus(), ["one", "two"][group], "logs").await);
            self.readers[group].read.clear();
        }
        for _ in 0..events {
            if !self.is_behind(group) {
                break;
            }
            let reader = &mut self.readers[group];
            let consumer = reader.consumer.as_mut().expect("joined").as_mut();
            match next(consumer).await {
                Event::Assigned(assigned) => {
                    for assignment in assigned {
                        assert_eq!(assignment.committed, reader.committed.get(&assignment.partition).copied());
                    }
                }
                Event::Records { partition, records } => {
                    let committed = reader.committed.get(&partition).copied().unwrap_or(0);
                    let expected = reader.read.entry(partition.clone()).or_insert(committed);
                    for one in records {
                        assert_eq!(one.offset, *expected, "nothing is skipped or doubled");
                        let value = &self.written[&partition.partition][one.offset as usize];
                        assert_eq!(one.record.value, value.as_bytes());
                        *expected += 1;
                    }
                }
                other @ (Event::Revoking { .. } | Event::Lost(_) | Event::Gap { .. }) => {
                    panic!("a lone consumer of an undamaged bus hears of no {other:?}")
                }
            }
        }
        self.commit(group, share).await;
    }

    async fn commit(&mut self, group: usize, share: usize) {
        let reader = &mut self.readers[group];
        let Some(consumer) = &mut reader.consumer else { return };
        for (partition, read) in &reader.read {
            let committed = reader.committed.get(partition).copied().unwrap_or(0);
            let target = committed + (read - committed) * share.min(4) as u64 / 4;
            if target > committed {
                patient("a commit", consumer.commit(partition, target)).await.expect("durable");
                reader.committed.insert(partition.clone(), target);
            }
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { count, size } => self.append(count, size).await,
            Step::Read { group, events, commit } => self.read(group, events, commit).await,
            Step::Drop(group) => self.readers[group].consumer = None,
            Step::Reopen => {
                self.readers.iter_mut().for_each(|reader| reader.consumer = None);
                let bus = self.bus.take().expect("a bus is open");
                bus.close(crate::contract::PATIENCE).await;
                drop(bus);
                self.bus = Some(self.local.bus());
            }
        }
    }
}

async fn run(steps: Vec<Step>) {
    let local = Local::new();
    let groups = ["one", "two"].map(|group| (group.to_owned(), vec!["logs".to_owned()])).to_vec();
    let bus = LocalBus::open(crate::local::LocalOptions { groups, ..local.options() }).expect("opens");
    let mut world = World { local, bus: Some(bus), written: BTreeMap::new(), readers: Default::default(), number: 0 };
    for step in steps {
        world.step(step).await;
    }
    for group in 0..2 {
        while world.is_behind(group) {
            world.read(group, 1, 4).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn every_group_sees_every_record_in_order_from_its_commit_on(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(steps));
    }
}
