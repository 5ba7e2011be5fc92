//! A reader of the admin and search API of a running `logmesh up`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use bytes::{Buf, Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::wait::{Look, wait_until};

/// Longest wait for the head of an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A client of one address. Every request has a connection of its own, so that none outlives a killed process.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    address: SocketAddr,
}

/// An answer in full.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

/// One page of `/api/search`.
#[derive(Clone, Debug)]
pub struct Page {
    /// Number of matching documents.
    pub total: u64,
    /// The documents of this page.
    pub hits: Vec<Value>,
    /// Cursor of the following page.
    pub next: Option<String>,
}

/// What scenarios look at in a document.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// `_id`.
    pub id: String,
    /// `_index`.
    pub index: String,
    /// `log.file.path`.
    pub path: PathBuf,
    /// `log.offset`.
    pub offset: u64,
    /// The exact bytes of the line: `event.original_base64`, else `event.original`, else `message`.
    pub line: Vec<u8>,
    /// `log.level`.
    pub level: Option<String>,
    /// `event.dataset`.
    pub dataset: Option<String>,
    /// `@timestamp`.
    pub timestamp: String,
    /// `agent.id`.
    pub agent_id: Option<String>,
    /// `tags`.
    pub tags: Vec<String>,
}

impl Api {
    /// A client of this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Api {
        Api { address }
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Fetches a target (path and query) whole, whatever its status.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn fetch(&self, target: &str) -> Result<Answer> {
        let open = self.open(target).await?;
        let body = open.body.collect().await.with_context(|| format!("the answer to {target} broke off"))?;
        Ok(Answer { status: open.status, body: body.to_bytes() })
    }

    /// Fetches a JSON answer with status 200.
    ///
    /// # Errors
    ///
    /// When there is no answer, or another one.
    pub async fn json(&self, target: &str) -> Result<Value> {
        let answer = self.fetch(target).await?;
        ensure!(answer.status == StatusCode::OK, "{target}: {} {}", answer.status, answer.text());
        serde_json::from_slice(&answer.body).with_context(|| format!("{target} did not answer JSON"))
    }

    /// Whether `/readyz` says 200; otherwise what it says.
    ///
    /// # Errors
    ///
    /// Never for want of an answer: that is a reason too.
    pub async fn ready(&self) -> Result<Look<()>> {
        Ok(match self.fetch("/readyz").await {
            Ok(answer) if answer.status == StatusCode::OK => Look::Holds(()),
            Ok(answer) => Look::NotYet(format!("/readyz: {} {}", answer.status, answer.text())),
            Err(error) => Look::NotYet(format!("/readyz: {error:#}")),
        })
    }

    /// Number of documents that a query matches.
    ///
    /// # Errors
    ///
    /// When the query is refused or there is no answer.
    pub async fn count(&self, query: &str) -> Result<u64> {
        let target = format!("/api/count?q={}", encoded(query));
        let answer = self.json(&target).await?;
        answer["count"].as_u64().with_context(|| format!("{target} gave no count: {answer}"))
    }

    /// One page of hits. `parameters` are further ones, ready for the URL: `&limit=10&sort=asc`.
    ///
    /// # Errors
    ///
    /// When the query is refused or there is no answer.
    pub async fn search(&self, query: &str, parameters: &str) -> Result<Page> {
        let answer = self.json(&format!("/api/search?q={}{parameters}", encoded(query))).await?;
        Ok(Page {
            total: answer["total"].as_u64().context("a page without a total")?,
            hits: answer["hits"].as_array().context("a page without hits")?.clone(),
            next: answer["next"].as_str().map(str::to_owned),
        })
    }

    /// Every document that a query matches, streamed a line at a time.
    ///
    /// # Errors
    ///
    /// When the query is refused, the answer breaks off, or a line is no document.
    pub async fn export(&self, query: &str) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        self.export_raw(query, |line| {
            let document: Value = serde_json::from_slice(line).context("a line of the export is not JSON")?;
            found.push(Found::read(&document)?);
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Every document that a query matches, each as its line of the export.
    ///
    /// # Errors
    ///
    /// When the query is refused or the answer breaks off, and whatever `each` returns.
    pub async fn export_raw(&self, query: &str, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let target = format!("/api/export?q={}", encoded(query));
        let mut open = self.open(&target).await?;
        if open.status != StatusCode::OK {
            let body = open.body.collect().await?.to_bytes();
            bail!("{target}: {} {}", open.status, String::from_utf8_lossy(&body));
        }
        let mut rest = BytesMut::new();
        while let Some(frame) = open.body.frame().await {
            let frame = frame.with_context(|| format!("the answer to {target} broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = memchr::memchr(b'\n', &rest) {
                each(&rest[..end])?;
                rest.advance(end + 1);
            }
        }
        ensure!(rest.is_empty(), "the export ends within a line");
        Ok(())
    }

    /// Waits until a query matches exactly this many documents.
    ///
    /// # Errors
    ///
    /// When the deadline passes, or more are found.
    pub async fn wait_for_count(&self, query: &str, count: u64, deadline: Duration) -> Result<()> {
        wait_until(&format!("{count} documents for {query:?}"), deadline, async || {
            Ok(match self.count(query).await {
                Ok(found) if found == count => Look::Holds(()),
                Ok(found) => Look::NotYet(format!("{found} documents")),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
        .await
    }

    async fn open(&self, target: &str) -> Result<Open> {
        tokio::time::timeout(ANSWER_WITHIN, self.open_unhurried(target))
            .await
            .with_context(|| format!("no answer to {target} within {ANSWER_WITHIN:?}"))?
    }

    async fn open_unhurried(&self, target: &str) -> Result<Open> {
        let socket =
            TcpStream::connect(self.address).await.with_context(|| format!("cannot connect to {}", self.address))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // An error here is seen by whoever reads the answer.
            let _ = connection.await;
        });
        let request =
            Request::get(target).header(http::header::HOST, self.address.to_string()).body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await.with_context(|| format!("no answer to {target}"))?;
        let (head, body) = response.into_parts();
        Ok(Open { status: head.status, body, _driver: driver })
    }
}

/// An answer whose body is still coming; the driver of its connection ends with it.
struct Open {
    status: StatusCode,
    body: Incoming,
    _driver: JoinSet<()>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Found {
    /// Reads what scenarios look at out of a document.
    ///
    /// # Errors
    ///
    /// When what every document has is missing.
    pub fn read(document: &Value) -> Result<Found> {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let needed = |pointer: &str| text(pointer).with_context(|| format!("no {pointer} in {document}"));
        let line = match (text("/event/original_base64"), text("/event/original")) {
            (Some(exact), _) => base64::engine::general_purpose::STANDARD.decode(exact)?,
            (None, Some(original)) => original.into_bytes(),
            (None, None) => needed("/message")?.into_bytes(),
        };
        let tags = document.get("tags").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        Ok(Found {
            id: needed("/_id")?,
            index: needed("/_index")?,
            path: needed("/log/file/path")?.into(),
            offset: document.pointer("/log/offset").and_then(Value::as_u64).context("no log.offset")?,
            line,
            level: text("/log/level"),
            dataset: text("/event/dataset"),
            timestamp: needed("/@timestamp")?,
            agent_id: text("/agent/id"),
            tags: tags.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = crate::ledger::shortened(&self.line);
        write!(
            formatter,
            "{} {}:{} {line:?} {:?} ({})",
            self.id,
            self.path.display(),
            self.offset,
            self.tags,
            self.index
        )
    }
}

/// A text as the value of a URL's query parameter.
#[must_use]
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_bytes_are_preferred_to_the_original_and_that_to_the_message() {
        let document = |event: Value| {
            serde_json::json!({"_id": "1", "_index": "i", "@timestamp": "t", "message": "m",
                "log": {"file": {"path": "/p"}, "offset": 7}, "event": event})
        };
        let line = |event| Found::read(&document(event)).unwrap().line;
        assert_eq!(line(serde_json::json!({})), b"m");
        assert_eq!(line(serde_json::json!({"original": "o"})), b"o");
        assert_eq!(line(serde_json::json!({"original": "o", "original_base64": "/wA="})), b"\xff\x00");
    }

    #[test]
    fn a_query_is_encoded_for_the_url() {
        assert_eq!(encoded("a:\"ü b\""), "a%3A%22%C3%BC%20b%22");
    }
}
