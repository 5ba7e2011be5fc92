//! Journals written by `systemd-journal-remote`, read by `journalctl`.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use logmesh_runtime::health::State;
use serde_json::{Value, json};

use crate::inputs::{
    config::{JournaldConfig, Kind},
    tests::Rig,
};

const WRITERS: [&str; 2] = ["/lib/systemd/systemd-journal-remote", "/usr/lib/systemd/systemd-journal-remote"];

/// A directory of journals.
struct Journal {
    directory: tempfile::TempDir,
}

impl Journal {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Adds entries to one of the journal's files.
    fn write(&self, file: &str, entries: &[u8]) {
        let writer = WRITERS.iter().find(|path| Path::new(path).exists());
        let writer = writer.expect("systemd-journal-remote is there: `make setup` installs it");
        let mut process = Command::new(writer)
            .arg(format!("--output={}", self.path().join(file).display()))
            .arg("-")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        process.stdin.take().unwrap().write_all(entries).unwrap();
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn kind(&self) -> Kind {
        Kind::Journald(JournaldConfig {
            journalctl: "journalctl".into(),
            directory: Some(self.path().into()),
            file: None,
            units: vec![],
            matches: vec![],
            since_boot: false,
        })
    }
}

/// Entries `numbers`, a microsecond apart.
fn entries(numbers: std::ops::Range<u64>) -> Vec<u8> {
    let mut text = String::new();
    for number in numbers {
        let time = 1_700_000_000_000_000 + number;
        text.push_str(&format!(
            "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=0123456789abcdef0123456789abcdef\n\
             MESSAGE=entry {number}\nPRIORITY=6\n_HOSTNAME=edge-1\n_TRANSPORT={}\n\n",
            if number % 2 == 0 { "stdout" } else { "kernel" },
        ));
    }
    text.into_bytes()
}

fn messages(bodies: &[String]) -> Vec<String> {
    let message = |body: &String| {
        let object: Value = serde_json::from_str(body).unwrap();
        object["message"].as_str().unwrap().to_owned()
    };
    bodies.iter().map(message).collect()
}

fn expected(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| format!("entry {number}")).collect()
}

#[tokio::test]
async fn every_entry_comes_once_and_a_restart_goes_on_behind_the_last() {
    let journal = Journal::new();
    journal.write("a.journal", &entries(1..1001));
    let mut rig = Rig::with(journal.kind(), 64 * 1024, &None);
    rig.take(1000).await;
    journal.write("a.journal", &entries(1001..1051));
    rig.take(1050).await;
    let (bodies, cursor) = rig.stop().await;
    assert_eq!(messages(&bodies), expected(1..1051));
    let first: Value = serde_json::from_str(&bodies[0]).unwrap();
    let known = ["timestamp", "level", "host"].map(|key| first[key].clone());
    assert_eq!(known, [json!(1_700_000_000_000_001_u64), json!(6), json!("edge-1")]);

    journal.write("a.journal", &entries(1051..1101));
    let mut rig = Rig::with(journal.kind(), 1 << 20, &cursor);
    rig.take(50).await;
    let (bodies, cursor) = rig.stop().await;
    assert_eq!(messages(&bodies), expected(1051..1101));

    let mut rig = Rig::with(journal.kind(), 1 << 20, &cursor);
    rig.until(|state, _| state == State::Ok).await;
    journal.write("a.journal", &entries(1101..1102));
    rig.take(1).await;
    assert_eq!(messages(&rig.stop().await.0), expected(1101..1102), "nothing new is nothing twice");
}

#[tokio::test]
async fn a_stop_in_the_middle_loses_nothing_behind_the_last_arrival_that_was_taken() {
    let journal = Journal::new();
    journal.write("a.journal", &entries(1..2001));
    // The intake holds a few entries at a time.
    let mut rig = Rig::with(journal.kind(), 4 * 1024, &None);
    rig.take(1).await;
    let (first, cursor) = rig.stop().await;
    assert!(first.len() < 2000, "stopped in the middle");
    let mut rig = Rig::with(journal.kind(), 1 << 20, &cursor);
    rig.take(2000 - first.len()).await;
    let (second, _) = rig.stop().await;
    assert_eq!(messages(&[first, second].concat()), expected(1..2001));
}

#[tokio::test]
async fn bytes_that_are_no_text_survive_the_journal() {
    let value: Vec<u8> = (0..=255).collect();
    let mut entry = b"__REALTIME_TIMESTAMP=1700000000000001\n__MONOTONIC_TIMESTAMP=1\n\
        _BOOT_ID=0123456789abcdef0123456789abcdef\nMESSAGE\n"
        .to_vec();
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(&value);
    entry.extend_from_slice(b"\nPRIORITY=3\n\n");
    let journal = Journal::new();
    journal.write("a.journal", &entry);
    let mut rig = Rig::start(journal.kind());
    rig.take(1).await;
    let (bodies, _) = rig.stop().await;
    let object: Value = serde_json::from_str(&bodies[0]).unwrap();
    assert_eq!(STANDARD.decode(object["message_base64"].as_str().unwrap()).unwrap(), value);
    assert_eq!(object["message"], String::from_utf8_lossy(&value).as_ref());
}

#[tokio::test]
async fn from_a_place_that_the_journal_does_not_know_it_is_read_from_its_oldest_entry() {
    let old = Journal::new();
    old.write("a.journal", &entries(1..11));
    let mut rig = Rig::start(old.kind());
    rig.take(10).await;
    let (_, cursor) = rig.stop().await;
    let new = Journal::new();
    new.write("a.journal", &entries(5..21));
    for cursor in [cursor, Some(Bytes::from_static(b"garbage"))] {
        let mut rig = Rig::with(new.kind(), 1 << 20, &cursor);
        rig.take(16).await;
        assert_eq!(messages(&rig.stop().await.0), expected(5..21));
    }
}

#[tokio::test]
async fn entries_of_earlier_boots_come_too_unless_they_are_not_wanted() {
    let journal = Journal::new();
    journal.write("a.journal", &entries(1..11));
    let later = String::from_utf8(entries(11..21)).unwrap().replace("BOOT_ID=0123", "BOOT_ID=4567");
    journal.write("a.journal", later.as_bytes());
    let mut rig = Rig::start(journal.kind());
    rig.take(20).await;
    assert_eq!(messages(&rig.stop().await.0), expected(1..21));
    let Kind::Journald(config) = journal.kind() else { panic!("a journal") };
    let mut rig = Rig::start(Kind::Journald(JournaldConfig { since_boot: true, ..config }));
    rig.take(10).await;
    assert_eq!(messages(&rig.stop().await.0), expected(11..21));
}

#[tokio::test]
async fn other_matches_go_on_from_the_same_place() {
    let journal = Journal::new();
    journal.write("a.journal", &entries(1..101));
    let Kind::Journald(config) = journal.kind() else { panic!("a journal") };
    let matching = |transport: &str| {
        Kind::Journald(JournaldConfig { matches: vec![format!("_TRANSPORT={transport}")], ..config.clone() })
    };
    let mut rig = Rig::start(matching("kernel"));
    rig.take(50).await;
    let (bodies, cursor) = rig.stop().await;
    assert_eq!(messages(&bodies), expected((1..101).filter(|number| number % 2 == 1)));
    journal.write("a.journal", &entries(101..201));
    let mut rig = Rig::with(matching("stdout"), 1 << 20, &cursor);
    // The entry at the cursor, 99, is none of these, and the first behind it is 100.
    rig.take(51).await;
    assert_eq!(messages(&rig.stop().await.0), expected((100..201).filter(|number| number % 2 == 0)));
}

#[tokio::test]
async fn without_journalctl_or_a_journal_it_is_told_what_to_do() {
    let journal = Journal::new();
    let Kind::Journald(config) = journal.kind() else { panic!("a journal") };
    let missing = JournaldConfig { journalctl: "/nowhere/journalctl".into(), ..config.clone() };
    let rig = Rig::start(Kind::Journald(missing));
    rig.until(|state, reason| state == State::Failing && reason.contains("install systemd")).await;
    rig.stop().await;
    let nowhere = JournaldConfig { directory: Some(PathBuf::from("/nowhere/journal")), ..config };
    let rig = Rig::start(Kind::Journald(nowhere));
    rig.until(|state, reason| state == State::Failing && reason.contains("/nowhere/journal")).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_journal_that_is_away_for_a_time_is_not_read_twice() {
    let journal = Journal::new();
    journal.write("a.journal", &entries(1..11));
    let mut rig = Rig::start(journal.kind());
    rig.take(10).await;
    let (_, cursor) = rig.stop().await;
    let (there, away) = (journal.path().join("a.journal"), journal.path().join("a.away"));
    std::fs::rename(&there, &away).unwrap();
    let mut rig = Rig::with(journal.kind(), 1 << 20, &cursor);
    rig.until(|state, _| state == State::Failing).await;
    std::fs::rename(&away, &there).unwrap();
    journal.write("a.journal", &entries(11..21));
    rig.take(10).await;
    assert_eq!(messages(&rig.stop().await.0), expected(11..21));
}
