//! The index on servers against a server that fails on demand: the whole matrix of outcomes.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod scripted;

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use logmesh_processor::{
    document::Document,
    index::{
        Index as _, Mode, Outcome, contract,
        elasticsearch::{Elasticsearch, ElasticsearchOptions},
    },
};
use logmesh_runtime::health::Health;
use scripted::{Plan, Scripted};
use serde_json::json;

fn open(server: &Scripted, change: impl FnOnce(&mut ElasticsearchOptions)) -> (Elasticsearch, Health) {
    let mut options = ElasticsearchOptions::new([server.url.clone()]);
    options.request_timeout = Duration::from_secs(2);
    change(&mut options);
    let health = Health::new();
    let index = Elasticsearch::open(&options, health.condition("index")).expect("usable options");
    (index, health)
}

fn numbered(stream: u8, count: usize) -> Vec<Document> {
    let texts: Vec<String> = (0..count).map(|number| format!("line {number}")).collect();
    contract::stream_of(stream, &texts.iter().map(String::as_str).collect::<Vec<_>>())
}

async fn create(index: &Elasticsearch, documents: &[Document]) -> Vec<Outcome> {
    index.bulk(documents.to_vec(), Mode::Create).await
}

#[tokio::test]
async fn documents_are_created_once_with_their_id_and_their_bytes() {
    let server = Scripted::start().await;
    let (index, health) = open(&server, |_| {});
    let documents = numbered(1, 1000);
    assert_eq!(create(&index, &documents).await, vec![Outcome::Created; 1000]);
    assert_eq!(create(&index, &documents[..10]).await, vec![Outcome::Exists; 10]);
    let oracle = server.oracle();
    assert_eq!(oracle.held(), 1000);
    for document in &documents {
        let id = String::from_utf8(document.id.hex().to_vec()).unwrap();
        let known = &oracle.documents[&(document.index.to_string(), id)];
        assert_eq!(known.body.as_deref().unwrap().as_bytes(), document.body);
    }
    let counts = index.counts();
    assert_eq!((counts.created, counts.existing, counts.requests), (1000, 10, 2));
    assert!(health.readiness().ready);
}
