//! Committing what is dealt with, so that the bus may remove it.
//!
//! Only a member of the group may commit, and only what it was handed: so the group is joined, read up to there, and
//! left again.

use std::{collections::BTreeMap, time::Duration};

use logmesh_bus::{Bus, BusError, Consumer, Event, Subscription, TopicPartition};

use super::{GROUP, topics};

/// How long it may take. A group of many members gives its partitions only after its own time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Commits every partition of `targets` at its offset.
///
/// # Errors
/// The bus refused, or did not give a partition in time: those letters stay dealt with by their marks, and the next
/// attempt commits them as well.
pub(super) async fn commit(bus: &dyn Bus, mut targets: BTreeMap<TopicPartition, u64>) -> Result<(), BusError> {
    if targets.is_empty() {
        return Ok(());
    }
    let late = BusError::Unavailable { reason: format!("the group `{GROUP}` gave no partition in {PATIENCE:?}") };
    let work = async {
        let mut consumer = bus.subscribe(Subscription::new(GROUP, [topics()])).await?;
        while !targets.is_empty() {
            match consumer.next().await {
                Ok(event) => handle(consumer.as_mut(), event, &mut targets).await?,
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(late))
}

async fn handle(
    consumer: &mut dyn Consumer,
    event: Event,
    targets: &mut BTreeMap<TopicPartition, u64>,
) -> Result<(), BusError> {
    match event {
        Event::Assigned(assignments) => {
            for assignment in assignments {
                let done =
                    targets.get(&assignment.partition).is_none_or(|target| assignment.committed >= Some(*target));
                if done {
                    targets.remove(&assignment.partition);
                    consumer.pause(&assignment.partition);
                }
            }
        }
        Event::Records { partition, records } => {
            let next = records.last().map_or(0, |last| last.offset + 1);
            if let Some(target) = targets.get(&partition).copied().filter(|target| next >= *target) {
                consumer.pause(&partition);
                consumer.commit(&partition, target).await?;
                targets.remove(&partition);
            }
        }
        Event::Revoking { partitions, .. } => partitions.iter().for_each(|partition| consumer.release(partition)),
        // Somebody else deals with letters too: it leaves the group soon, and the partition comes back.
        Event::Lost(_) => {}
        Event::Gap { partition, from, to } => {
            tracing::error!(%partition, from, to, "the bus removed dead letters before anybody dealt with them");
        }
    }
    Ok(())
}
