//! File operations that fail.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::{append, open, options, read_all, reopen};
use crate::storage::{Disk, Storage};
use crate::{AppendError, Journal, Opened, Options, Plain, State};

/// A disk that fails as told.
pub(super) struct Broken {
    pub(super) fail_sync: AtomicBool,
    pub(super) fail_write: AtomicBool,
    pub(super) free: AtomicU64,
}

impl Broken {
    pub(super) fn new() -> Arc<Self> {
        let (fail_sync, fail_write) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { fail_sync, fail_write, free: AtomicU64::new(u64::MAX) })
    }

    fn set_free(&self, bytes: u64) {
        self.free.store(bytes, Ordering::Relaxed);
    }
}

impl Storage for Broken {
    fn allocate(&self, file: &File, length: u64) -> io::Result<()> {
        if length > self.free.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Disk.allocate(file, length)
    }

    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.fail_write.load(Ordering::Relaxed) {
            Disk.write(file, &bytes[..bytes.len() / 2], at)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Disk.write(file, bytes, at)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        Disk.truncate(file, length)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.fail_sync.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk went away"));
        }
        Disk.sync(file)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        Disk.sync_directory(directory)
    }

    fn free(&self, _directory: &Path) -> io::Result<u64> {
        Ok(self.free.load(Ordering::Relaxed))
    }
}

pub(super) fn open_on(options: Options, storage: Arc<Broken>) -> Journal<Plain> {
    Opened::open_on(options, storage).expect("opens").start(Plain).expect("starts")
}

async fn try_append(journal: &Journal<Plain>, payload: &'static [u8]) -> Result<(), AppendError> {
    journal.append_bytes(Bytes::from_static(payload)).await?.await.map(drop)
}

async fn wait_until_ok(journal: &Journal<Plain>) {
    let mut state = journal.state();
    let healed = state.wait_for(|state| *state == State::Ok);
    tokio::time::timeout(Duration::from_secs(30), healed).await.expect("heals").expect("lives");
}

#[tokio::test]
async fn a_failed_sync_poisons_the_journal_and_acknowledges_nobody() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let storage = Broken::new();
    let journal = open_on(options(directory.path()), storage.clone());
    append(&journal, b"before").await;
    storage.fail_sync.store(true, Ordering::Relaxed);
    assert!(matches!(try_append(&journal, b"lost").await, Err(AppendError::Failed { .. })));
    storage.fail_sync.store(false, Ordering::Relaxed);
    let refused = try_append(&journal, b"later").await;
    let Err(AppendError::Failed { reason }) = refused else { panic!("a second try must not pass: {refused:?}") };
    assert!(reason.contains("the disk went away") && reason.contains("segment"), "says what and where: {reason}");
    assert_eq!(read_all(journal.log()).0, [b"before"], "readers never see what is not durable");
    assert!(matches!(*journal.state().borrow(), State::Failed { .. }));
    drop(journal);
    // The bytes may have reached the disk or not; what was acknowledged has.
    assert_eq!(reopen(directory.path()).0[0], b"before");
}

#[tokio::test]
async fn a_full_disk_refuses_and_heals_by_itself() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let storage = Broken::new();
    let options = Options { probe_interval: Duration::from_millis(5), ..options(directory.path()) };
    let journal = open_on(options, storage.clone());
    storage.set_free(10);
    let refused = try_append(&journal, b"no room").await;
    let Err(AppendError::Full { reason }) = refused else { panic!("expected Full, got {refused:?}") };
    assert!(reason.contains("10 bytes free"), "says how much there is: {reason}");
    assert!(matches!(try_append(&journal, b"no room").await, Err(AppendError::Full { .. })));
    storage.set_free(1 << 20);
    wait_until_ok(&journal).await;
    append(&journal, b"room").await;
    assert_eq!(read_all(journal.log()), (vec![b"room".to_vec()], 0));
}

#[tokio::test]
async fn free_space_below_the_reserve_stops_appends_within_a_segment_too() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let storage = Broken::new();
    let options =
        Options { reserve_bytes: 1000, probe_interval: Duration::from_millis(5), ..options(directory.path()) };
    let journal = open_on(options, storage.clone());
    append(&journal, b"first").await;
    storage.set_free(999);
    assert!(matches!(try_append(&journal, b"no room").await, Err(AppendError::Full { .. })));
    storage.set_free(1000);
    wait_until_ok(&journal).await;
    let position = append(&journal, b"second").await;
    assert_eq!(position.segment, 1, "the preallocated segment goes on");
}

#[tokio::test]
async fn a_small_rest_of_the_disk_makes_a_small_segment() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let storage = Broken::new();
    storage.set_free(600);
    let journal = open_on(options(directory.path()), storage);
    append(&journal, &[7; 400]).await;
    let file = std::fs::metadata(crate::log::segment_path(directory.path(), 1)).expect("exists");
    assert_eq!(file.len(), 600);
}

#[tokio::test]
async fn a_write_that_finds_no_room_leaves_no_trace() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let storage = Broken::new();
    let options = Options { probe_interval: Duration::from_millis(5), ..options(directory.path()) };
    let journal = open_on(options, storage.clone());
    append(&journal, b"before").await;
    storage.fail_write.store(true, Ordering::Relaxed);
    assert!(matches!(try_append(&journal, b"half written").await, Err(AppendError::Full { .. })));
    storage.fail_write.store(false, Ordering::Relaxed);
    wait_until_ok(&journal).await;
    append(&journal, b"after").await;
    drop(journal);
    let (found, damaged, recovery) = reopen(directory.path());
    assert_eq!((found, damaged), (vec![b"before".to_vec(), b"after".to_vec()], 0));
    assert_eq!(recovery, crate::Recovery::default());
}

#[tokio::test]
async fn a_limit_on_what_is_stored_holds_until_segments_are_removed() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let options = Options { segment_bytes: 300, stored_bytes_max: 1000, ..options(directory.path()) };
    let journal = open(options);
    while try_append(&journal, &[1; 100]).await.is_ok() {}
    assert!((1000..1300).contains(&journal.log().bytes()), "stored {}", journal.log().bytes());
    let (_, last) = journal.log().bounds().expect("has segments");
    journal.remove_below(last).expect("removes");
    wait_until_ok(&journal).await;
    append(&journal, &[1; 100]).await;
}

#[tokio::test]
async fn a_second_journal_is_refused_and_told_who_has_it() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let journal = open(options(directory.path()));
    let refused = Opened::open(options(directory.path())).err().expect("is locked").to_string();
    assert!(refused.contains(&format!("process {}", std::process::id())), "names the process: {refused}");
    assert!(refused.contains(&directory.path().display().to_string()), "names the directory: {refused}");
    drop(journal);
    open(options(directory.path()));
}

#[tokio::test]
async fn a_closed_journal_answers_what_it_took_and_refuses_the_rest() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let journal = open(options(directory.path()));
    let mut tickets = Vec::new();
    for _ in 0..50 {
        tickets.push(journal.append_bytes(Bytes::from_static(b"queued")).await.expect("queues"));
    }
    assert!(journal.close(Duration::from_secs(30)).await);
    for ticket in tickets {
        ticket.await.expect("is durable");
    }
    assert_eq!(try_append(&journal, b"late").await, Err(AppendError::Closed));
    assert_eq!(journal.state().borrow().clone(), State::Closed);
    assert_eq!(read_all(journal.log()).0.len(), 50, "a closed journal can still be read");
    Opened::open(options(directory.path())).expect("the lock is given up");
}

#[tokio::test]
async fn entries_that_cannot_be_are_refused() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let journal = open(options(directory.path()));
    let large = journal.append_bytes(Bytes::from(vec![1; 4097])).await.map(drop);
    assert_eq!(large, Err(AppendError::TooLarge { size: 4097, limit: 4096 }));
    assert_eq!(journal.append_bytes(Bytes::new()).await.map(drop), Err(AppendError::Empty));
    append(&journal, &[1; 4096]).await;
}

#[tokio::test]
async fn what_is_not_taken_without_waiting_comes_back_with_the_reason() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let storage = Broken::new();
    let options =
        Options { reserve_bytes: 1000, probe_interval: Duration::from_millis(5), ..options(directory.path()) };
    let journal = open_on(options, storage.clone());
    let offer = |payload: &'static [u8]| {
        let (entry, ticket) = crate::plain::entry(Bytes::from_static(payload));
        journal.try_append(entry, payload.len()).map(|()| ticket).map_err(|refused| refused.error)
    };
    offer(b"taken").expect("there is room").await.expect("is durable");
    assert_eq!(offer(b"").map(drop), Err(Some(AppendError::Empty)));
    storage.set_free(10);
    assert!(matches!(try_append(&journal, b"no room").await, Err(AppendError::Full { .. })));
    assert!(matches!(offer(b"no room").map(drop), Err(Some(AppendError::Full { .. }))));
    storage.set_free(1 << 20);
    wait_until_ok(&journal).await;
    offer(b"taken again").expect("there is room").await.expect("is durable");
    journal.close(Duration::from_secs(10)).await;
    assert!(matches!(offer(b"closed").map(drop), Err(Some(_))));
}

#[tokio::test]
async fn without_room_in_the_queue_an_entry_comes_back_for_no_error() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let options = Options { queue_bytes: 10, ..options(directory.path()) };
    let journal = open(options);
    let room = journal.reserve_for_tests(10).await;
    let (entry, _ticket) = crate::plain::entry(Bytes::from_static(b"waits"));
    let refused = journal.try_append(entry, 5).expect_err("the queue is full");
    assert_eq!(refused.error, None);
    drop(room);
    journal.try_append(refused.entry, 5).expect("there is room again");
}
