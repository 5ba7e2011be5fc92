//! Tests of the embedded index as a whole.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use logmesh_proto::RecordId;
use tantivy::{
    DocAddress, DocSet, TERMINATED, TantivyDocument,
    schema::{IndexRecordOption, Value},
};
use tempfile::TempDir;

use super::*;
use crate::index::{
    Outcome,
    contract::{Subject, document, stream_of},
};

/// Bodies of the documents with an id, in a view.
fn bodies(view: &View, id: RecordId) -> Vec<Bytes> {
    let term = schema::key_term(view.fields, &id);
    let mut found = Vec::new();
    for day in view.days.iter() {
        for (ord, segment) in day.searcher.segment_readers().iter().enumerate() {
            let inverted = segment.inverted_index(view.fields.key).unwrap();
            let Some(mut postings) = inverted.read_postings(&term, IndexRecordOption::Basic).unwrap() else { continue };
            while postings.doc() != TERMINATED {
                if !segment.is_deleted(postings.doc()) {
                    let address = DocAddress::new(ord as u32, postings.doc());
                    let stored: TantivyDocument = day.searcher.doc(address).unwrap();
                    let body = stored.get_first(view.fields.body).and_then(|body| body.as_str()).unwrap();
                    found.push(Bytes::copy_from_slice(body.as_bytes()));
                }
                postings.advance();
            }
        }
    }
    found
}

fn config(directory: &Path) -> EmbeddedConfig {
    EmbeddedConfig { memory_bytes: 30_000_000, ..EmbeddedConfig::new(directory) }
}

struct Fresh {
    directory: TempDir,
    index: Embedded,
}

impl Fresh {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let index = Embedded::open(config(directory.path())).unwrap();
        Self { directory, index }
    }

    fn meta(&self) -> PathBuf {
        self.directory.path().join("days/2026-11-23/meta.json")
    }
}

impl Subject for Fresh {
    fn index(&self) -> &dyn Index {
        &self.index
    }

    fn find(&self, id: RecordId) -> BoxFuture<'_, Vec<Bytes>> {
        Box::pin(async move { bodies(&self.index.view(), id) })
    }

    /// A directory in the place of `meta.json` makes every commit fail at its last step, and every reopening too.
    fn break_writes(&self) {
        fs::rename(self.meta(), self.meta().with_extension("kept")).unwrap();
        fs::create_dir(self.meta()).unwrap();
    }

    fn heal_writes(&self) {
        fs::remove_dir(self.meta()).unwrap();
        fs::rename(self.meta().with_extension("kept"), self.meta()).unwrap();
    }
}

mod contract {
    crate::index_contract!(super::Fresh::new());
}

async fn create(index: &Embedded, documents: &[Document]) -> Vec<Outcome> {
    index.bulk(documents.to_vec(), Mode::Create).await
}

fn on_day(mut document: Document, days_later: u64) -> Document {
    document.received_unix_nano += days_later * 86_400_000_000_000;
    document
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart_and_not_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let documents = stream_of(1, &["one", "two", "three"]);
    let index = Embedded::open(config(directory.path())).unwrap();
    create(&index, &documents[..2]).await;
    index.close().await;
    let index = Embedded::open(config(directory.path())).unwrap();
    assert_eq!(create(&index, &documents).await, [Outcome::Exists, Outcome::Exists, Outcome::Created]);
    assert_eq!(index.view().documents(), 3);
}

#[tokio::test]
async fn a_second_process_is_refused_with_a_clear_message() {
    let fresh = Fresh::new();
    let second = Embedded::open(config(fresh.directory.path())).err().unwrap();
    assert!(matches!(second, OpenError::Locked(_)));
    assert!(second.to_string().contains("in use by another process"), "{second}");
}

#[tokio::test]
async fn a_document_goes_to_its_arrival_day_and_is_known_on_every_other() {
    let fresh = Fresh::new();
    let documents = stream_of(1, &["one", "two", "three", "four"]);
    let spread: Vec<Document> =
        documents.iter().cloned().zip(0..).map(|(document, day)| on_day(document, day)).collect();
    assert_eq!(create(&fresh.index, &spread).await, vec![Outcome::Created; 4]);
    for day in ["2026-11-23", "2026-11-24", "2026-11-25", "2026-11-26"] {
        assert!(fresh.directory.path().join("days").join(day).join("meta.json").is_file());
    }
    // The same batch, received once more after midnight.
    let late: Vec<Document> = documents.into_iter().map(|document| on_day(document, 1)).collect();
    assert_eq!(create(&fresh.index, &late).await, vec![Outcome::Exists; 4]);
    assert_eq!(fresh.index.view().documents(), 4);
}

#[tokio::test]
async fn one_call_over_more_days_than_can_be_open_is_answered_whole() {
    let fresh = Fresh::new();
    let texts = ["a"; 30];
    let documents: Vec<Document> =
        stream_of(1, &texts).into_iter().zip(0..).map(|(document, n)| on_day(document, n % 5)).collect();
    assert_eq!(create(&fresh.index, &documents).await, vec![Outcome::Created; 30]);
    assert_eq!(create(&fresh.index, &documents).await, vec![Outcome::Exists; 30]);
    assert_eq!(fresh.index.view().documents(), 30);
}

#[tokio::test]
async fn a_failing_day_leaves_another_alone_and_says_so_until_it_is_healed() {
    let fresh = Fresh::new();
    let documents = stream_of(1, &["one", "two", "three"]);
    create(&fresh.index, &documents[..1]).await;
    fresh.break_writes();
    let both = [documents[1].clone(), on_day(document(2, 0, "other"), 1)];
    let outcomes = create(&fresh.index, &both).await;
    assert!(matches!(outcomes[0], Outcome::Retry { after: Some(_), .. }), "{outcomes:?}");
    assert_eq!(outcomes[1], Outcome::Created);
    assert!(fresh.index.state().borrow().failing.as_ref().is_some_and(|reason| reason.contains("cannot be written")));
    fresh.heal_writes();
    assert_eq!(create(&fresh.index, &documents[1..]).await, vec![Outcome::Created; 2]);
    assert_eq!(fresh.index.state().borrow().failing, None);
    assert_eq!(fresh.index.view().documents(), 4);
}

#[tokio::test]
async fn a_damaged_day_is_set_aside_and_named_and_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let index = Embedded::open(config(directory.path())).unwrap();
    let documents = [document(1, 0, "first"), on_day(document(2, 0, "second"), 1), on_day(document(3, 0, "third"), 2)];
    create(&index, &documents).await;
    index.close().await;
    let days = directory.path().join("days");
    fs::write(days.join("2026-11-23/meta.json"), b"{ not json").unwrap();
    fs::remove_file(days.join("2026-11-24/meta.json")).unwrap();
    let index = Embedded::open(config(directory.path())).unwrap();
    assert_eq!(index.state().borrow().damaged.len(), 2, "{:?}", index.state().borrow());
    assert_eq!(fs::read_dir(directory.path().join("damaged")).unwrap().count(), 2);
    assert_eq!(index.view().documents(), 1);
    let outcomes = create(&index, &documents).await;
    assert_eq!(outcomes, [Outcome::Created, Outcome::Created, Outcome::Exists], "twice beats lost");
}

#[tokio::test]
async fn a_day_of_another_version_is_refused_and_stays_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let index = Embedded::open(config(directory.path())).unwrap();
    create(&index, &[document(1, 0, "first")]).await;
    index.close().await;
    let meta = directory.path().join("days/2026-11-23/meta.json");
    let mut content: serde_json::Value = serde_json::from_slice(&fs::read(&meta).unwrap()).unwrap();
    let mut payload = STANDARD.decode(content["payload"].as_str().unwrap()).unwrap();
    let length = payload.len() - 4;
    payload[1] = schema::VERSION - 1;
    let crc = crc32c::crc32c(&payload[..length]);
    payload[length..].copy_from_slice(&crc.to_le_bytes());
    content["payload"] = serde_json::Value::from(STANDARD.encode(payload));
    content["schema"][0]["name"] = serde_json::Value::from("_another");
    fs::write(&meta, content.to_string()).unwrap();
    let error = Embedded::open(config(directory.path())).err().unwrap();
    assert!(matches!(error, OpenError::Day { .. }));
    assert!(error.to_string().contains("another version of logmesh"), "{error}");
    assert!(meta.is_file());
}

#[tokio::test]
async fn a_truncated_segment_is_noticed_at_open() {
    let directory = tempfile::tempdir().unwrap();
    let index = Embedded::open(config(directory.path())).unwrap();
    create(&index, &[document(1, 0, "first")]).await;
    index.close().await;
    let day = directory.path().join("days/2026-11-23");
    for entry in fs::read_dir(&day).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "term") {
            fs::write(path, b"").unwrap();
        }
    }
    let index = Embedded::open(config(directory.path())).unwrap();
    assert_eq!(index.state().borrow().damaged.len(), 1);
}

#[tokio::test]
async fn retention_drops_old_days_and_keeps_their_intervals_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { retention_days: Some(2), ..config(directory.path()) };
    let index = Embedded::open(config.clone()).unwrap();
    let documents: Vec<Document> =
        stream_of(1, &["a", "b", "c", "d"]).into_iter().zip(0..).map(|(document, day)| on_day(document, day)).collect();
    create(&index, &documents).await;
    let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(documents[3].received_unix_nano);
    index.enforce_retention(now).await;
    assert_eq!(index.view().documents(), 3);
    assert!(!directory.path().join("days/2026-11-23").exists());
    assert_eq!(create(&index, &documents).await, vec![Outcome::Exists; 4]);
    index.close().await;
    let index = Embedded::open(config).unwrap();
    assert_eq!(create(&index, &documents).await, vec![Outcome::Exists; 4]);
    assert_eq!(index.view().documents(), 3);
    let resent = Document { resend: true, ..documents[0].clone() };
    assert_eq!(create(&index, &[resent]).await, [Outcome::Created], "what was dropped and sent again comes back");
}

/// Makes every commit to a day fail, and every reopening too; gives what heals it.
fn break_day(directory: &Path, day: &str) -> impl FnOnce() + use<> {
    let meta = directory.join("days").join(day).join("meta.json");
    fs::rename(&meta, meta.with_extension("kept")).unwrap();
    fs::create_dir(&meta).unwrap();
    move || {
        fs::remove_dir(&meta).unwrap();
        fs::rename(meta.with_extension("kept"), &meta).unwrap();
    }
}

#[tokio::test]
async fn two_failing_days_and_a_third_one_leave_the_writer_alive() {
    let fresh = Fresh::new();
    let spread = |documents: Vec<Document>| -> Vec<Document> {
        documents.into_iter().zip(0..).map(|(document, n)| on_day(document, n % 2)).collect()
    };
    create(&fresh.index, &spread(stream_of(1, &["one", "two"]))).await;
    let heal = ["2026-11-23", "2026-11-24"].map(|day| break_day(fresh.directory.path(), day));
    let mut documents = spread(stream_of(2, &["three", "four"]));
    documents.push(on_day(document(3, 0, "five"), 2));
    let outcomes = create(&fresh.index, &documents).await;
    assert!(outcomes[..2].iter().all(|outcome| matches!(outcome, Outcome::Retry { .. })), "{outcomes:?}");
    heal.into_iter().for_each(|heal| heal());
    let missing: Vec<Document> = documents
        .into_iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| !outcome.is_done())
        .map(|(document, _)| document)
        .collect();
    let outcomes = create(&fresh.index, &missing).await;
    assert!(outcomes.iter().all(Outcome::is_done), "{outcomes:?}");
    assert_eq!(fresh.index.view().documents(), 5);
}

#[tokio::test]
async fn a_commit_that_was_made_after_all_doubles_nothing() {
    let fresh = Fresh::new();
    let documents = stream_of(1, &["one", "two"]);
    create(&fresh.index, &documents[..1]).await;
    let heal = break_day(fresh.directory.path(), "2026-11-23");
    let outcomes = create(&fresh.index, &documents[1..]).await;
    assert!(matches!(outcomes[0], Outcome::Retry { .. }), "{outcomes:?}");
    // The directory turns out to hold the commit that was reported as failed.
    heal();
    let other = Fresh::new();
    create(&other.index, &documents).await;
    other.index.close().await;
    let day = fresh.directory.path().join("days/2026-11-23");
    fs::remove_dir_all(&day).unwrap();
    fs::rename(other.directory.path().join("days/2026-11-23"), &day).unwrap();
    assert_eq!(create(&fresh.index, &documents[1..]).await, [Outcome::Exists]);
    assert_eq!(fresh.index.view().documents(), 2);
}

/// The directory as a kill at this moment would leave it.
fn killed(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

#[test]
fn a_kill_between_prepare_and_commit_leaves_the_commit_before_documents_and_intervals_alike() {
    let directory = tempfile::tempdir().unwrap();
    let mut day = day::Day::open(directory.path()).unwrap();
    day.open_writer(day::WriterShape { threads: 1, thread_bytes: THREAD_BYTES_MIN }).unwrap();
    let documents = stream_of(1, &["one", "two", "three", "four", "five", "six"]);
    let mut entries = entry::EntryReader::default();
    let mut add = |day: &mut day::Day, document: &Document, sequence| {
        let entry = entries.read(document, schema::schema_fields(), sequence).unwrap();
        let place = (document.stream_key, document.offset, document.end_offset);
        day.add(entry, place, document.timestamp_unix_nano, None).unwrap();
    };
    for (round, pair) in documents.chunks(2).enumerate() {
        let committed = round * 2;
        pair.iter().zip(committed as u64..).for_each(|(document, sequence)| add(&mut day, document, sequence));
        for moment in ["before", "prepared"] {
            if moment == "prepared" {
                day.prepare_only().unwrap();
            }
            assert_documents_equal_intervals(&killed(directory.path()), &documents, committed);
        }
        day.commit(committed as u64 + 2).unwrap();
        assert_documents_equal_intervals(&killed(directory.path()), &documents, committed + 2);
    }
}

/// Exactly the first `count` documents are searchable, and exactly they are covered.
fn assert_documents_equal_intervals(directory: &TempDir, documents: &[Document], count: usize) {
    let day = day::Day::open(directory.path()).unwrap();
    assert_eq!(day.searcher().num_docs(), count as u64);
    for (n, document) in documents.iter().enumerate() {
        let covered = day.committed().intervals.covers(document.stream_key, document.offset);
        assert_eq!(covered, n < count, "document {n} of {count}");
        assert_eq!(day.holds(document.stream_key, document.offset, &document.id).unwrap(), covered);
    }
    assert_eq!(day.committed().next_sequence, count as u64);
}

#[tokio::test]
async fn a_deeply_nested_body_is_indexed_without_harm() {
    let fresh = Fresh::new();
    let mut deep = document(1, 0, "deep");
    let body = format!("{{\"message\":\"deep\",\"fields\":{}1{}}}", "{\"a\":".repeat(100), "}".repeat(100));
    deep.body = Bytes::from(body);
    assert_eq!(create(&fresh.index, &[deep.clone()]).await, [Outcome::Created]);
    assert_eq!(bodies(&fresh.index.view(), deep.id), [deep.body]);
}
