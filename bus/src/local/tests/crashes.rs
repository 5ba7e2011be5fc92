//! What a crash or damage leaves.

use std::path::Path;

use super::Local;
use crate::contract::{commit, join, next, numbered, put, read, values};
use crate::local::{LocalBus, LocalOptions};
use crate::{Bus, BusError, Event};

/// A copy of a bus's directory, taken while it is open: what SIGKILL leaves.
fn image(local: &Local) -> Local {
    let copy = Local::new();
    copy_directory(local.directory.path(), copy.directory.path());
    copy
}

fn copy_directory(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("lists");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("has a type").is_dir() {
            std::fs::create_dir_all(&target).expect("makes");
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// Flips a bit in the middle of where `text` stands in the segments of `local`.
fn damage(local: &Local, text: &str) {
    for entry in std::fs::read_dir(local.directory.path().join("flow")).expect("lists") {
        let path = entry.expect("lists").path();
        let mut bytes = std::fs::read(&path).expect("reads");
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).expect("writes");
            return;
        }
    }
    panic!("`{text}` is nowhere");
}

#[tokio::test]
async fn a_kill_keeps_what_was_delivered_and_what_was_committed() {
    let local = Local::new();
    let bus = local.bus();
    for value in numbered(0..20) {
        put(&bus, "logs", "one key", &value).await;
    }
    let mut consumer = join(&bus, "group", "logs").await;
    let mut seen = read(consumer.as_mut(), 20).await;
    seen.values_mut().for_each(|records| records.truncate(7));
    commit(consumer.as_mut(), &seen).await;
    put(&bus, "logs", "one key", "last").await;
    let killed = image(&local);
    let bus = killed.bus();
    let mut consumer = join(&bus, "group", "logs").await;
    let mut expected = vec!["last".to_owned()];
    expected.extend(numbered(7..20));
    assert_eq!(values(&read(consumer.as_mut(), 14).await), expected);
    let again = put(&bus, "logs", "one key", "after").await;
    assert_eq!(again.offset, 21, "offsets go on");
}

#[tokio::test]
async fn a_damaged_record_is_told_as_a_gap_and_its_neighbours_come() {
    let local = Local::new();
    let bus = local.bus();
    for value in numbered(0..9) {
        put(&bus, "logs", "one key", &value).await;
    }
    drop(bus);
    damage(&local, "value-00003");
    damage(&local, "value-00004");
    let bus = local.bus();
    let mut consumer = join(&bus, "group", "logs").await;
    let (mut seen, mut gaps) = (Vec::new(), Vec::new());
    while seen.len() < 7 {
        match next(consumer.as_mut()).await {
            Event::Records { records, .. } => seen.extend(records.into_iter().map(|one| one.offset)),
            Event::Gap { from, to, .. } => gaps.push((from, to)),
            Event::Assigned(_) | Event::Revoking { .. } | Event::Lost(_) => {}
        }
    }
    assert_eq!(seen, [0, 1, 2, 5, 6, 7, 8]);
    assert_eq!(gaps, [(3, 5)], "what is missing is said once, exactly");
}

#[tokio::test]
async fn damage_while_the_bus_is_open_is_a_gap_too() {
    let local = Local::new();
    let bus = local.bus();
    for value in numbered(0..4) {
        put(&bus, "logs", "one key", &value).await;
    }
    damage(&local, "value-00001");
    let mut consumer = join(&bus, "group", "logs").await;
    let mut events = Vec::new();
    while events.len() < 4 {
        match next(consumer.as_mut()).await {
            Event::Records { records, .. } => events.extend(records.into_iter().map(|one| one.offset.to_string())),
            Event::Gap { from, to, .. } => events.push(format!("gap {from}..{to}")),
            Event::Assigned(_) | Event::Revoking { .. } | Event::Lost(_) => {}
        }
    }
    assert_eq!(events, ["0", "gap 1..2", "2", "3"]);
}

#[tokio::test]
async fn without_commit_files_everything_kept_comes_again() {
    let local = Local::new();
    let bus = local.bus();
    for value in numbered(0..10) {
        put(&bus, "logs", &value, &value).await;
    }
    let mut consumer = join(&bus, "group", "logs").await;
    let seen = read(consumer.as_mut(), 10).await;
    commit(consumer.as_mut(), &seen).await;
    drop((consumer, bus));
    for name in ["commits", "commits.previous"] {
        std::fs::write(local.directory.path().join(name), "garbage").expect("damages");
    }
    let bus = local.bus();
    let mut consumer = join(&bus, "group", "logs").await;
    assert_eq!(values(&read(consumer.as_mut(), 10).await), numbered(0..10));
}

#[tokio::test]
async fn offsets_below_a_commit_are_never_given_again() {
    let local = Local::new();
    let bus = local.bus();
    for value in numbered(0..10) {
        put(&bus, "logs", "one key", &value).await;
    }
    let mut consumer = join(&bus, "group", "logs").await;
    let seen = read(consumer.as_mut(), 10).await;
    commit(consumer.as_mut(), &seen).await;
    drop((consumer, bus));
    // Somebody removed the journal, and left the commits.
    std::fs::remove_dir_all(local.directory.path().join("flow")).expect("removes");
    let bus = local.bus();
    let position = put(&bus, "logs", "one key", "new").await;
    assert_eq!(position.offset, 10, "else the group would skip it");
    let mut consumer = join(&bus, "group", "logs").await;
    assert_eq!(values(&read(consumer.as_mut(), 1).await), ["new"]);
}

#[tokio::test]
async fn a_second_process_is_told_who_has_the_bus() {
    let local = Local::new();
    let _bus = local.bus();
    let refused = LocalBus::open(LocalOptions::new(local.directory.path())).err();
    let Some(BusError::Fatal { reason }) = refused else { panic!("expected a refusal, got {refused:?}") };
    assert!(reason.contains(&format!("process {}", std::process::id())), "{reason}");
}

#[tokio::test]
async fn options_and_subscriptions_that_cannot_be_are_refused() {
    let local = Local::new();
    let invalid = |result: Result<LocalBus, BusError>| matches!(result, Err(BusError::Invalid { .. }));
    assert!(invalid(LocalBus::open(LocalOptions { partitions: 0, ..local.options() })));
    assert!(invalid(LocalBus::open(LocalOptions { topics: vec!["a b".to_owned()], ..local.options() })));
    let bus = local.bus();
    for (group, topic) in [("", "logs"), ("group", "lo gs"), ("group", "")] {
        let refused = bus.subscribe(crate::Subscription::new(group, [topic])).await.map(drop);
        assert!(matches!(refused, Err(BusError::Invalid { .. })), "{group} {topic}: {refused:?}");
    }
    let unknown = bus.append("no topic", crate::contract::record("key", "value")).await.map(drop);
    assert!(matches!(unknown, Err(crate::AppendError::UnknownTopic { .. })), "{unknown:?}");
}
