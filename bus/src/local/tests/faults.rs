//! What a disk that refuses commits does, and the faulty wrapper that others test with.

use std::time::Duration;

use super::Local;
use crate::contract::{Faulty, commit, join, patient, put, read, record, values};
use crate::{AppendError, Bus, BusError, Condition};

#[tokio::test]
async fn a_commit_that_cannot_be_written_is_said_and_made_up_for() {
    let local = Local::new();
    let bus = local.bus();
    put(&bus, "logs", "key", "value").await;
    let mut consumer = join(&bus, "group", "logs").await;
    let seen = read(consumer.as_mut(), 1).await;
    let partition = seen.first_key_value().expect("one partition").0.clone();
    let obstacle = local.directory.path().join("commits.temporary");
    std::fs::create_dir(&obstacle).expect("makes an obstacle");
    let failed = patient("the commit's failure", consumer.commit(&partition, 1)).await;
    let Err(BusError::Unavailable { reason }) = failed else { panic!("expected a failure, got {failed:?}") };
    assert!(reason.contains("commit file"), "{reason}");
    let mut condition = bus.condition();
    assert!(matches!(*condition.borrow_and_update(), Condition::Degraded { .. }));
    std::fs::remove_dir(&obstacle).expect("removes it");
    let healed = condition.wait_for(|condition| *condition == Condition::Ok);
    patient("the next attempt", healed).await.expect("lives");
    patient("a commit", consumer.commit(&partition, 1)).await.expect("durable");
    drop((consumer, bus));
    let bus = local.bus();
    let lag = bus.lag("group").await.expect("lag is known");
    assert_eq!(lag.iter().map(crate::PartitionLag::records).sum::<u64>(), 0);
}

#[tokio::test]
async fn a_faulty_bus_fails_exactly_as_told() {
    let local = Local::new();
    let (bus, faults) = Faulty::new(local.bus());
    let full = AppendError::Full { reason: "by plan".to_owned() };
    faults.fail_appends(1, &full);
    assert_eq!(bus.append("logs", record("key", "refused")).await.map(drop), Err(full.clone()));
    faults.fail_deliveries(1, &full);
    let lost_answer = bus.append("logs", record("key", "written")).await.expect("queued").await;
    assert_eq!(lost_answer, Err(full));
    let delay = Duration::from_millis(20);
    faults.delay(delay);
    let sent = std::time::Instant::now();
    put(&bus, "logs", "key", "passes").await;
    assert!(sent.elapsed() >= delay);
    faults.delay(Duration::ZERO);
    let mut consumer = join(&bus, "group", "logs").await;
    let unavailable = BusError::Unavailable { reason: "by plan".to_owned() };
    faults.fail_fetches(1, &unavailable);
    assert_eq!(consumer.next().await, Err(unavailable.clone()));
    let seen = read(consumer.as_mut(), 2).await;
    assert_eq!(values(&seen), ["passes", "written"], "a lost answer is not a lost record");
    faults.fail_commits(1, &unavailable);
    let partition = seen.first_key_value().expect("one partition").0.clone();
    assert_eq!(consumer.commit(&partition, 1).await, Err(unavailable));
    commit(consumer.as_mut(), &seen).await;
    faults.set_condition(Condition::Failed { reason: "by plan".to_owned() });
    assert!(matches!(*bus.condition().borrow(), Condition::Failed { .. }));
}

#[tokio::test]
async fn a_stalled_bus_goes_on_when_it_is_let_go() {
    let local = Local::new();
    let (bus, faults) = Faulty::new(local.bus());
    let delivery = bus.append("logs", record("key", "value")).await.expect("queued");
    faults.stall(true);
    let mut late = Box::pin(bus.append("logs", record("key", "late")));
    let stalled = futures_util::future::poll_immediate(&mut late).await;
    assert!(stalled.is_none(), "an append waits while the bus is stalled");
    faults.stall(false);
    patient("the delivery", delivery).await.expect("durable");
    patient("the append", late).await.expect("queued").await.expect("durable");
    bus.close(Duration::from_secs(30)).await;
}
