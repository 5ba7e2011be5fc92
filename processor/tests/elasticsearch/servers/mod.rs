//! Real servers, and an index on each that a test has for itself.

pub(crate) mod documents;

use std::{ops::Deref, sync::OnceLock, time::Duration};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use logmesh_processor::{
    document::Document,
    index::{
        Index, Mode, Outcome, contract,
        elasticsearch::{Authentication, Elasticsearch, ElasticsearchOptions},
    },
};
use logmesh_proto::RecordId;
use logmesh_rig::{Credentials, SearchServer};
use logmesh_runtime::{config::Secret, health::Health};
use serde_json::{Value, json};

/// The day of the contract's documents.
pub(crate) const DAY: &str = "2026.11.23";

/// The shared Elasticsearch, where Elastic's own template for `logs-*-*` stands, as in every real one.
pub(crate) fn elasticsearch() -> &'static SearchServer {
    static PREPARED: OnceLock<()> = OnceLock::new();
    let server = logmesh_rig::Elasticsearch::shared();
    PREPARED.get_or_init(|| look_alike(server));
    server
}

/// The shared OpenSearch, with the same template.
pub(crate) fn opensearch() -> &'static SearchServer {
    static PREPARED: OnceLock<()> = OnceLock::new();
    let server = logmesh_rig::OpenSearch::shared();
    PREPARED.get_or_init(|| look_alike(server));
    server
}

/// Elasticsearch 9, where there is a Java that it runs on.
pub(crate) fn newer_elasticsearch() -> Option<&'static SearchServer> {
    static PREPARED: OnceLock<()> = OnceLock::new();
    let server: &'static SearchServer = logmesh_rig::Elasticsearch::newer()?;
    PREPARED.get_or_init(|| look_alike(server));
    Some(server)
}

/// OpenSearch 3, where there is a Java that it runs on.
pub(crate) fn newer_opensearch() -> Option<&'static SearchServer> {
    static PREPARED: OnceLock<()> = OnceLock::new();
    let server: &'static SearchServer = logmesh_rig::OpenSearch::newer()?;
    PREPARED.get_or_init(|| look_alike(server));
    Some(server)
}

fn look_alike(server: &SearchServer) {
    let template = json!({
        "index_patterns": ["logs-*-*"], "priority": 100, "data_stream": {}, "version": 14,
        "template": { "mappings": { "properties": { "@timestamp": { "type": "date" }, "message": { "type": "long" } } } },
    });
    let (status, answer) = server.request("PUT", "/_index_template/logs", template).expect("an answer");
    assert_eq!(status, 200, "{answer}");
}

/// Options to speak to a server as somebody.
pub(crate) fn options(server: &SearchServer, who: &Credentials) -> ElasticsearchOptions {
    let mut options = ElasticsearchOptions::new([server.url()]);
    // One of them has neither TLS nor users.
    if !server.url().starts_with("https") {
        return options;
    }
    options.ca = Some(server.ca());
    options.authentication =
        Authentication::Basic { username: who.user.clone(), password: Secret::new(who.password.clone()) };
    options
}

/// An index of one test, as [`contract::Subject`].
pub(crate) struct Subject {
    pub(crate) index: Renamed,
    pub(crate) health: Health,
    server: &'static SearchServer,
    client: reqwest::Client,
}

/// Puts the documents of tenant `default` into those of another: the contract's documents name one index, and tests run
/// side by side.
pub(crate) struct Renamed {
    pub(crate) inner: Elasticsearch,
    pub(crate) name: String,
}

impl Subject {
    pub(crate) fn new(server: &'static SearchServer) -> Self {
        Self::with(server, &options(server, &server.admin()))
    }

    pub(crate) fn with(server: &'static SearchServer, options: &ElasticsearchOptions) -> Self {
        let health = Health::new();
        let inner = Elasticsearch::open(options, health.condition("index")).expect("usable options");
        let name = format!("logmesh-{}-{DAY}", logmesh_rig::unique("t"));
        let mut client = reqwest::Client::builder();
        if options.ca.is_some() {
            let ca = std::fs::read(server.ca()).unwrap();
            client = client.add_root_certificate(reqwest::Certificate::from_pem(&ca).unwrap());
        }
        let client = client.build().unwrap();
        Self { index: Renamed { inner, name }, health, server, client }
    }

    #[allow(clippy::needless_pass_by_value, reason = "bodies are written where they are used")]
    pub(crate) fn request(&self, method: &str, path: &str, body: Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = self.server.request(method, path, body).expect("an answer");
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) fn settings(&self, settings: Value) {
        self.request("PUT", &format!("/{}/_settings", self.index.name), settings);
    }

    /// The answer's very bytes.
    async fn bytes(&self, path: &str, body: Option<String>) -> Bytes {
        let who = self.server.admin();
        let url = format!("{}/{}/{path}", self.server.url(), self.index.name);
        let request = match body {
            Some(body) => self.client.post(url).header("content-type", "application/json").body(body),
            None => self.client.get(url),
        };
        let request = request.basic_auth(who.user, Some(who.password)).timeout(Duration::from_secs(60));
        request.send().await.unwrap().bytes().await.unwrap()
    }

    pub(crate) async fn write(&self, documents: &[Document]) -> Vec<Outcome> {
        self.index.bulk(documents.to_vec(), Mode::Create).await
    }
}

fn hex(id: RecordId) -> String {
    String::from_utf8(id.hex().to_vec()).unwrap()
}

impl contract::Subject for Subject {
    fn index(&self) -> &dyn Index {
        &self.index
    }

    fn find(&self, id: RecordId) -> BoxFuture<'_, Vec<Bytes>> {
        async move {
            let query = json!({ "query": { "ids": { "values": [hex(id)] } } }).to_string();
            let answer = self.bytes("_search", Some(query)).await;
            let hits = sonic_rs::get(&answer, ["hits", "hits"]).expect("hits");
            let hits = sonic_rs::to_array_iter(hits.as_raw_str()).map(|hit| hit.expect("a hit"));
            hits.map(|hit| {
                let source = sonic_rs::get(hit.as_raw_str(), ["_source"]).expect("a source");
                Bytes::from(source.as_raw_str().to_owned())
            })
            .collect()
        }
        .boxed()
    }

    fn find_at_once(&self, id: RecordId) -> BoxFuture<'_, Vec<Bytes>> {
        async move { vec![self.bytes(&format!("_source/{}", hex(id)), None).await] }.boxed()
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        async move { drop(self.bytes("_refresh", Some(String::new())).await) }.boxed()
    }

    fn break_writes(&self) {
        self.settings(json!({ "index.blocks.read_only_allow_delete": true }));
    }

    fn heal_writes(&self) {
        self.settings(json!({ "index.blocks.read_only_allow_delete": null }));
    }
}

impl Index for Renamed {
    fn bulk(&self, mut documents: Vec<Document>, mode: Mode) -> BoxFuture<'_, Vec<Outcome>> {
        for document in &mut documents {
            document.index = self.name.as_str().into();
        }
        self.inner.bulk(documents, mode)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

impl Deref for Renamed {
    type Target = Elasticsearch;

    fn deref(&self) -> &Elasticsearch {
        &self.inner
    }
}
