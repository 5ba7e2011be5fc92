//! Requests to one cluster: which node, with what credentials, and what went wrong in plain words.
//!
//! Owns a [`Transport`] for each node, with its own pool of connections, and the choice between them. It retries nothing.

use std::{
    error::Error as StdError,
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use elasticsearch::{
    auth::Credentials,
    cert::{Certificate, CertificateValidation},
    http::{
        Method,
        headers::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
        transport::{SingleNodeConnectionPool, Transport, TransportBuilder},
    },
};

use super::{
    nodes::Nodes,
    options::{Authentication, ElasticsearchOptions},
};

/// Largest answer in bytes that is read: a bulk of 100,000 refused documents stays below.
const ANSWER_BYTES_MAX: u64 = 128 << 20;

/// Why a cluster cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The CA's file cannot be read.
    #[error("the CA {path} of the index servers cannot be read: {source}; correct `tls.ca` in [index]")]
    ReadCa {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The CA's file holds no certificate.
    #[error("the CA {path} of the index servers holds no PEM certificate; correct `tls.ca` in [index]")]
    ParseCa {
        /// The file.
        path: String,
    },
    /// An address is none.
    #[error(
        "`{url}` is no address of an index server: {words}; write it as \"https://host:9200\" in `urls` of [index]"
    )]
    Url {
        /// As configured.
        url: String,
        /// Why.
        words: String,
    },
}

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
    transports: Vec<(String, Transport)>,
    nodes: Mutex<Nodes>,
}

impl Cluster {
    pub(super) fn new(options: &ElasticsearchOptions) -> Result<Self, OpenError> {
        let authority = options.ca.as_ref().map(|path| read_ca(path)).transpose()?;
        let transport = |url: &String| {
            let wrong = |words: String| OpenError::Url { url: url.clone(), words };
            let parsed = reqwest::Url::parse(url).map_err(|error| wrong(error.to_string()))?;
            let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(parsed))
                .timeout(options.request_timeout)
                .enable_meta_header(false);
            if let Some(credentials) = credentials(&options.authentication) {
                builder = builder.auth(credentials);
            }
            if let Some((path, pem)) = &authority {
                let certificate = Certificate::from_pem(pem).map_err(|_| OpenError::ParseCa { path: path.clone() })?;
                builder = builder.cert_validation(CertificateValidation::Full(certificate));
            }
            let transport = builder.build().map_err(|error| wrong(chain(&error)))?;
            Ok((url.trim_end_matches('/').to_owned(), transport))
        };
        let transports = options.urls.iter().map(transport).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { nodes: Mutex::new(Nodes::new(transports.len())), transports })
    }

    /// The nodes' addresses.
    pub(super) fn urls(&self) -> impl Iterator<Item = &str> {
        self.transports.iter().map(|(url, _)| url.as_str())
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
        self.with_nodes(|nodes| nodes.aside(Instant::now())) < self.transports.len()
    }

    /// Sends a request to one node.
    pub(super) async fn send_to(&self, node: usize, request: Request<'_>) -> Result<Reply, Failure> {
        let Some((url, transport)) = self.transports.get(node) else {
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

    fn with_nodes<T>(&self, act: impl FnOnce(&mut Nodes) -> T) -> T {
        act(&mut self.nodes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read_ca(path: &std::path::Path) -> Result<(String, Vec<u8>), OpenError> {
    let shown = path.display().to_string();
    std::fs::read(path).map(|pem| (shown.clone(), pem)).map_err(|source| OpenError::ReadCa { path: shown, source })
}

fn credentials(authentication: &Authentication) -> Option<Credentials> {
    match authentication {
        Authentication::None => None,
        Authentication::Basic { username, password } => {
            Some(Credentials::Basic(username.clone(), password.expose().to_owned()))
        }
        // Elasticsearch shows keys in both forms.
        Authentication::ApiKey(key) => Some(match key.expose().split_once(':') {
            Some((id, secret)) => Credentials::ApiKey(id.to_owned(), secret.to_owned()),
            None => Credentials::EncodedApiKey(key.expose().to_owned()),
        }),
        Authentication::Bearer(token) => Some(Credentials::Bearer(token.expose().to_owned())),
    }
}

/// Which kind of failure an error of the client is.
fn failure(url: &str, error: &elasticsearch::Error, answering: bool) -> Failure {
    let http = causes(error).find_map(|cause| cause.downcast_ref::<reqwest::Error>());
    let words = innermost(error);
    if http.is_some_and(reqwest::Error::is_connect) {
        let cure = if words.contains("certificate") {
            "; set `tls.ca` in [index] to the CA that signed the server's certificate"
        } else {
            ""
        };
        return Failure::Connect(format!("{url} cannot be reached: {words}{cure}"));
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

fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
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

fn chain(error: &(dyn StdError + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
