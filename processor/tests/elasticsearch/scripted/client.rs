//! An index on the scripted server, and documents for it.

use std::time::Duration;

use bytes::Bytes;
use logmesh_processor::{
    document::Document,
    index::{
        Index as _, Mode, Outcome, contract,
        elasticsearch::{Elasticsearch, ElasticsearchOptions},
    },
};
use logmesh_proto::RecordId;
use logmesh_runtime::health::Health;

use super::Scripted;

pub(crate) fn open(server: &Scripted, change: impl FnOnce(&mut ElasticsearchOptions)) -> (Elasticsearch, Health) {
    let mut options = ElasticsearchOptions::new([server.url.clone()]);
    options.request_timeout = Duration::from_secs(2);
    change(&mut options);
    let health = Health::new();
    let index = Elasticsearch::open(&options, health.condition("index")).expect("usable options");
    (index, health)
}

pub(crate) fn numbered(stream: u8, count: usize) -> Vec<Document> {
    let texts: Vec<String> = (0..count).map(|number| format!("line {number}")).collect();
    contract::stream_of(stream, &texts.iter().map(String::as_str).collect::<Vec<_>>())
}

pub(crate) async fn create(index: &Elasticsearch, documents: &[Document]) -> Vec<Outcome> {
    index.bulk(documents.to_vec(), Mode::Create).await
}

/// A document whose body is so large.
pub(crate) fn large(offset: u64, bytes: usize) -> Document {
    let mut document = contract::document(7, offset, &format!("large {offset}"));
    document.body = Bytes::from(format!("{{\"message\":\"{}\"}}", "x".repeat(bytes - 14)));
    document
}

pub(crate) fn hex(id: RecordId) -> String {
    String::from_utf8(id.hex().to_vec()).unwrap()
}
