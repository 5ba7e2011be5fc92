//! Requests to one cluster: which node, with what credentials, and what went wrong in plain words.
//!
//! Owns the [`Access`] to each node, with its own pool of connections, and the choice between them. What it sends again is
//! only what a node refused to hear, when certificates or secrets were renewed where they lie meanwhile.

use std::{
    error::Error as StdError,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use elasticsearch::http::{
    Method,
    headers::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};

use super::{
    access::{Access, OpenError},
    nodes::Nodes,
    options::ElasticsearchOptions,
};

/// Largest answer in bytes that is read: a bulk of 100,000 refused documents stays below.
const ANSWER_BYTES_MAX: u64 = 128 << 20;

/// What a server answered.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Bytes,
    /// Least time that the server asks to wait.
    pub(super) retry_after: Option<Duration>,
}

/// Why there is no answer. The words name the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection came about: nothing was sent.
    Connect(String),
    /// No whole answer in time.
    Timeout(String),
    /// The connection broke while the request was being sent.
    CutInSending(String),
    /// The connection broke before the whole answer was there.
    Cut(String),
}

impl Failure {
    pub(super) fn words(&self) -> &str {
        let (Self::Connect(words) | Self::Timeout(words) | Self::CutInSending(words) | Self::Cut(words)) = self;
        words
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request<'r> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: &'r str,
    pub(super) body: Option<Bytes>,
    pub(super) content_type: &'static str,
    pub(super) gzip: bool,
    /// Instead of the configured one.
    pub(super) timeout: Option<Duration>,
}

impl<'r> Request<'r> {
    pub(super) fn get(path: &'r str) -> Self {
        Self { method: Method::Get, path, body: None, content_type: "application/json", gzip: false, timeout: None }
    }

    pub(super) fn with_json(method: Method, path: &'r str, body: &serde_json::Value) -> Self {
        Self { method, body: Some(Bytes::from(body.to_string())), ..Self::get(path) }
    }

    pub(super) fn within(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Answers are small once filtered; packing them would cost both sides more than it saves.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers
    }
}

/// The cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    options: ElasticsearchOptions,
    access: Mutex<Arc<Access>>,
    nodes: Mutex<Nodes>,
}

impl Cluster {
    pub(super) fn new(options: &ElasticsearchOptions) -> Result<Self, OpenError> {
        let access = Mutex::new(Arc::new(Access::new(options)?));
        Ok(Self { nodes: Mutex::new(Nodes::new(options.urls.len())), access, options: options.clone() })
    }

    /// The nodes' addresses.
    pub(super) fn urls(&self) -> impl Iterator<Item = &str> {
        self.options.urls.iter().map(|url| url.trim_end_matches('/'))
    }

    /// Sends a request to the node whose turn it is. A node that does not answer, or answers that it cannot serve, is set
    /// aside; if nothing had been sent yet, the next one gets the request at once.
    pub(super) async fn send(&self, request: Request<'_>) -> Result<Reply, Failure> {
        loop {
            let node = self.with_nodes(|nodes| nodes.pick(Instant::now()));
            let result = self.send_to(node, request.clone()).await;
            let unwell = match &result {
                Ok(reply) => matches!(reply.status, 502..=504),
                Err(_) => true,
            };
            self.with_nodes(|nodes| match unwell {
                true => nodes.failed(node, Instant::now(), rand::random()),
                false => nodes.answered(node),
            });
            if !(matches!(result, Err(Failure::Connect(_))) && self.has_nodes_left()) {
                return result;
            }
        }
    }

    /// Whether any node is not set aside.
    pub(super) fn has_nodes_left(&self) -> bool {
        self.with_nodes(|nodes| nodes.aside(Instant::now())) < self.options.urls.len()
    }

    /// Sends a request to one node. One that does not trust us, or that we do not trust, gets it once more if what decides
    /// that was renewed where it lies.
    pub(super) async fn send_to(&self, node: usize, request: Request<'_>) -> Result<Reply, Failure> {
        let access = self.access();
        let result = self.send_by(&access, node, request.clone()).await;
        let distrust = match &result {
            Ok(reply) => reply.status == 401,
            Err(Failure::Connect(_)) => true,
            Err(Failure::Timeout(_) | Failure::CutInSending(_) | Failure::Cut(_)) => false,
        };
        if !distrust {
            return result;
        }
        match self.renew(&access) {
            Some(access) => self.send_by(&access, node, request).await,
            None => result,
        }
    }

    async fn send_by(&self, access: &Access, node: usize, request: Request<'_>) -> Result<Reply, Failure> {
        let (Some(url), Some(transport)) = (self.urls().nth(node), access.transport(node)) else {
            return Err(Failure::Connect("no index server is configured".to_owned()));
        };
        let headers = request.headers();
        let Request { method, path, body, timeout, .. } = request;
        let sent = transport.send(method, path, headers, None::<&()>, body, timeout).await;
        let response = sent.map_err(|error| failure(url, &error, false))?;
        let status = response.status_code().as_u16();
        if response.content_length().is_some_and(|bytes| bytes > ANSWER_BYTES_MAX) {
            return Err(Failure::Cut(format!("{url} answers with more than can be an answer")));
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.map_err(|error| failure(url, &error, true))?;
        Ok(Reply { status, body, retry_after: retry_after.map(Duration::from_secs) })
    }

    fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another access than the one that was refused, if there is one by now. What cannot work is said and changes nothing.
    fn renew(&self, refused: &Arc<Access>) -> Option<Arc<Access>> {
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&access, refused) {
            match access.renewed(&self.options)? {
                Ok(renewed) => *access = Arc::new(renewed),
                Err(error) => {
                    tracing::warn!(%error, "what was changed of the way to the index servers cannot work; keeping the old one");
                    return None;
                }
            }
            tracing::info!("took renewed certificates or secrets for the index servers");
        }
        Some(Arc::clone(&access))
    }

    fn with_nodes<T>(&self, act: impl FnOnce(&mut Nodes) -> T) -> T {
        act(&mut self.nodes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Which kind of failure an error of the client is.
fn failure(url: &str, error: &elasticsearch::Error, answering: bool) -> Failure {
    let http = causes(error).find_map(|cause| cause.downcast_ref::<reqwest::Error>());
    let words = innermost(error);
    if http.is_some_and(reqwest::Error::is_connect) {
        return Failure::Connect(format!("{url} cannot be reached: {}", unreachable(words)));
    }
    if http.is_some_and(reqwest::Error::is_timeout) {
        return Failure::Timeout(format!("{url} did not answer in time"));
    }
    let broken = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    let in_sending = broken.into_iter().any(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
        )
    });
    if in_sending && !answering {
        Failure::CutInSending(format!("{url} closed the connection in the middle of a request: {words}"))
    } else {
        Failure::Cut(format!("{url} closed the connection before its answer was whole: {words}"))
    }
}

/// Why there is no connection, with the cure where there is a usual one.
fn unreachable(words: String) -> String {
    const CURE: &str = "set `tls.ca` in [index] to the CA that signed the server's certificate";
    // rustls has a name for it, and no words.
    if words.contains("UnknownIssuer") {
        return format!("its certificate is not signed by an authority that we trust; {CURE}");
    }
    if words.contains("certificate") { format!("{words}; {CURE}") } else { words }
}

pub(super) fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}
