//! Changes of hands that a consumer was not looking at.

use std::time::Duration;

use super::Local;
use crate::contract::{join, next, numbered, patient, put, read};
use crate::{Bus, BusError, Event, Subscription};

#[tokio::test]
async fn a_partition_that_went_and_came_back_unseen_is_lost_first() {
    let local = Local::new();
    let bus = local.bus();
    for value in numbered(0..64) {
        put(&bus, "logs", &value, &value).await;
    }
    let hasty = Subscription { revoke_grace: Duration::ZERO, ..Subscription::new("group", ["logs"]) };
    let mut first = bus.subscribe(hasty).await.expect("joined");
    let seen = read(first.as_mut(), 64).await;
    // The other one takes its share at the deadline, and is gone before the first one looks.
    let mut second = join(&bus, "group", "logs").await;
    let Event::Assigned(taken) = next(second.as_mut()).await else { panic!("expected partitions") };
    drop(second);
    let partition = taken[0].partition.clone();
    let end = seen[&partition].last().expect("records").offset + 1;
    let late = patient("a refusal", first.commit(&partition, end)).await;
    assert_eq!(late, Err(BusError::Fenced { partition: partition.clone() }));
    let Event::Lost(lost) = next(first.as_mut()).await else { panic!("expected the loss first") };
    assert_eq!(lost, taken.iter().map(|assignment| assignment.partition.clone()).collect::<Vec<_>>());
    let Event::Assigned(again) = next(first.as_mut()).await else { panic!("expected the return") };
    assert!(again.iter().all(|assignment| assignment.committed.is_none()));
    let Event::Records { partition, records } = next(first.as_mut()).await else { panic!("expected records") };
    assert_eq!(records, seen[&partition], "what was not committed comes again");
}
