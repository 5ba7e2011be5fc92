//! The index on real servers with small limits, and on servers that die.

use std::time::Duration;

use crate::servers::{Subject, options};
use bytes::Bytes;
use logmesh_processor::{
    document::Document,
    index::{Outcome, contract, contract::Subject as _},
};
use logmesh_rig::SearchServer;
use serde_json::Value;

const SMALL: [(&str, &str); 2] = [("http.max_content_length", "1mb"), ("indexing_pressure.memory.limit", "900kb")];

/// Writes until all are there, as a lane does.
async fn write_all(subject: &Subject, documents: &[Document]) -> Vec<(u64, String)> {
    let mut left = documents.to_vec();
    let mut rejected = Vec::new();
    let work = async {
        while !left.is_empty() {
            let outcomes = subject.write(&left).await;
            let mut again = Vec::new();
            for (document, outcome) in std::mem::take(&mut left).into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Created | Outcome::Exists => {}
                    Outcome::Rejected { reason } => rejected.push((document.offset, reason)),
                    Outcome::Retry { .. } => again.push(document),
                    Outcome::Held { reason } => panic!("nothing holds: {reason}"),
                }
            }
            left = again;
            if !left.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(300), work).await.expect("all are there in the end");
    rejected
}

fn large(offset: u64, bytes: usize) -> Document {
    let mut document = contract::document(9, offset, &format!("large {offset}"));
    document.body = Bytes::from(format!("{{\"message\":\"{}\"}}", "word ".repeat(bytes / 5)));
    document
}

/// A server with small limits, that is then killed and started again under load.
async fn limits_and_deaths_lose_and_double_nothing(server: &'static SearchServer) {
    let subject = Subject::with(server, &options(server, &server.admin()));
    // Larger than `http.max_content_length`: halved; the one that is larger by itself is refused.
    let mut documents: Vec<Document> = (0..30).map(|at| large(at * 10_000_000, 100_000)).collect();
    documents[17] = large(17 * 10_000_000, 1_500_000);
    let rejected = write_all(&subject, &documents).await;
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert!(rejected[0].0 == 17 * 10_000_000 && rejected[0].1.starts_with("too large"), "{rejected:?}");
    assert!(subject.index.inner.counts().halved > 0);

    // Killed in the middle, and started again.
    let texts: Vec<String> = (0..10_000).map(|number| format!("line {number}")).collect();
    let numbered = contract::stream_of(3, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    let work = async {
        let mut rejected = Vec::new();
        for part in numbered.chunks(500) {
            rejected.extend(write_all(&subject, part).await);
        }
        rejected
    };
    let death = tokio::task::spawn_blocking(move || {
        server.kill().expect("it was running");
        server.start_again().expect("it starts again");
    });
    let (rejected, death) = tokio::join!(work, death);
    death.unwrap();
    assert_eq!(rejected, []);
    subject.settle().await;
    let count = subject.request("GET", &format!("/{}/_count", subject.index.name), Value::Null);
    assert_eq!(count["count"], 10_000 + 29);
    assert!(subject.health.readiness().ready, "healed by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_deaths_of_elasticsearch_lose_and_double_nothing() {
    let server: &'static logmesh_rig::Elasticsearch =
        Box::leak(Box::new(logmesh_rig::Elasticsearch::start(&SMALL).expect("a server")));
    limits_and_deaths_lose_and_double_nothing(server).await;
    server.stop().expect("it was running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_deaths_of_opensearch_lose_and_double_nothing() {
    let server: &'static logmesh_rig::OpenSearch =
        Box::leak(Box::new(logmesh_rig::OpenSearch::start(&SMALL).expect("a server")));
    limits_and_deaths_lose_and_double_nothing(server).await;
    server.stop().expect("it was running");
}
