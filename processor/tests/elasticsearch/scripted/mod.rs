//! A bulk server that does what a test tells it: an oracle that keeps what it was given, and every way to fail.
//!
//! It speaks just enough HTTP/1.1 for a client that sends a length with each body. What it holds follows the rules of a
//! real server: `create` of an id that is there is a conflict, `index` replaces.

#[cfg(feature = "contract")]
pub(crate) mod client;

use std::{
    collections::HashMap,
    io::Read as _,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// A request, before its body is read.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// Counted from zero over all requests to `_bulk`.
    pub(crate) number: usize,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) length: usize,
}

/// What becomes of a request.
pub(crate) enum Plan {
    /// What a well server does.
    Serve,
    /// As `Serve`, but what this says of an id is answered instead of being written: status and `error`.
    Items(Box<Refuse>),
    /// Nothing is written; this is answered: status, more headers, body.
    Whole(u16, String, String),
    /// The connection is closed after so many bytes of the body were read.
    CutInSending(usize),
    /// The body is read, the connection closed; nothing is written.
    CutBefore,
    /// All is written, the connection closed without an answer.
    CutAfter,
    /// All is written; half of the answer is sent.
    CutAnswer,
    /// All is written; this is answered with 200.
    Odd(String),
    /// Nothing is written and nothing answered, until the client gives up.
    Stall,
    /// What a well server does, after this time.
    Slowly(Duration),
    /// As `Items`, after this time.
    LateItems(Duration, Box<Refuse>),
    /// Decided by the indexes that the request names.
    ByIndex(Box<Decide>),
}

type Script = dyn Fn(&Head) -> Plan + Send + Sync;

/// What is known of one document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The body, if it is held.
    pub(crate) body: Option<String>,
    /// How often it was written.
    pub(crate) written: usize,
    /// How often it was sent.
    pub(crate) sent: usize,
    /// A final outcome was told in an answer that went out whole.
    pub(crate) settled: bool,
}

/// What the server holds and has told.
#[derive(Default)]
pub(crate) struct Oracle {
    /// By index and id.
    pub(crate) documents: HashMap<(String, String), Known>,
    /// Statuses told in answers that went out whole.
    pub(crate) told: HashMap<u16, u64>,
    /// Documents that came again after they had their final outcome.
    pub(crate) needless: Vec<String>,
    /// Documents in each bulk request that was read whole.
    pub(crate) sizes: Vec<usize>,
    /// Bodies of bulk requests, as they stood on the wire, in bytes.
    pub(crate) bytes: Vec<usize>,
    /// Other requests: method, path, body.
    pub(crate) others: Vec<(String, String, String)>,
    /// Headers of the last request.
    pub(crate) headers: HashMap<String, String>,
}

impl Oracle {
    pub(crate) fn held(&self) -> usize {
        self.documents.values().filter(|known| known.body.is_some()).count()
    }
}

/// Answers to anything but `_bulk`: status and body by method and path.
pub(crate) type Others = dyn Fn(&str, &str, &str) -> (u16, Value) + Send + Sync;

struct Inner {
    script: Mutex<Arc<Script>>,
    others: Mutex<Arc<Others>>,
    /// Refused whatever the plan is.
    refused: Mutex<Option<Arc<Refuse>>>,
    oracle: Mutex<Oracle>,
    number: AtomicUsize,
    under_way: AtomicUsize,
    under_way_max: AtomicUsize,
}

/// The server; it ends when dropped.
pub(crate) struct Scripted {
    pub(crate) url: String,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    /// A server that is well.
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    /// The same, at an address that was one's before.
    pub(crate) async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            script: Mutex::new(Arc::new(|_: &Head| Plan::Serve)),
            others: Mutex::new(Arc::new(elasticsearch)),
            refused: Mutex::default(),
            oracle: Mutex::default(),
            number: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            under_way_max: AtomicUsize::new(0),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&inner)));
        Self { url, inner, task }
    }

    /// From now on requests to `_bulk` follow this.
    pub(crate) fn script(&self, script: impl Fn(&Head) -> Plan + Send + Sync + 'static) {
        *self.inner.script.lock().unwrap() = Arc::new(script);
    }

    /// From now on other requests are answered by this.
    pub(crate) fn others(&self, others: impl Fn(&str, &str, &str) -> (u16, Value) + Send + Sync + 'static) {
        *self.inner.others.lock().unwrap() = Arc::new(others);
    }

    /// From now on these are refused, whatever the plan is.
    pub(crate) fn refuse(&self, refuse: impl Fn(&str, &Value) -> Option<(u16, Value)> + Send + Sync + 'static) {
        *self.inner.refused.lock().unwrap() = Some(Arc::new(refuse));
    }

    pub(crate) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.inner.oracle.lock().unwrap()
    }

    /// Most bulk requests that were under way at once.
    pub(crate) fn under_way_max(&self) -> usize {
        self.inner.under_way_max.load(Ordering::SeqCst)
    }
}

/// As Elasticsearch answers at `/`, and to whatever set-up asks.
pub(crate) fn elasticsearch(method: &str, path: &str, _body: &str) -> (u16, Value) {
    match (method, path.split('?').next().unwrap()) {
        ("GET", "/") => (
            200,
            json!({ "cluster_name": "scripted", "version": { "number": "8.19.0", "build_flavor": "default" }, "tagline": "You Know, for Search" }),
        ),
        ("GET", path) if path.contains("template/") => {
            (404, json!({ "error": { "type": "resource_not_found_exception" } }))
        }
        ("PUT" | "POST", _) => (200, json!({ "acknowledged": true })),
        _ => (404, json!({ "error": "no handler" })),
    }
}

async fn serve(listener: TcpListener, inner: Arc<Inner>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, Arc::clone(&inner)));
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(stream: TcpStream, inner: Arc<Inner>) {
    stream.set_nodelay(true).ok();
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    while let Some(mut head) = read_head(&mut stream).await {
        let bulk = head.path.starts_with("/_bulk");
        let go_on = if bulk {
            head.number = inner.number.fetch_add(1, Ordering::SeqCst);
            let now = inner.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            inner.under_way_max.fetch_max(now, Ordering::SeqCst);
            let go_on = bulk_request(&mut stream, &inner, &head).await;
            inner.under_way.fetch_sub(1, Ordering::SeqCst);
            go_on
        } else {
            other_request(&mut stream, &inner, &head).await
        };
        if !go_on {
            return;
        }
    }
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> Option<Head> {
    let mut raw = Vec::new();
    while !raw.ends_with(b"\r\n\r\n") {
        raw.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8_lossy(&raw);
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    Some(Head { number: 0, method, path, headers, length })
}

async fn read_body(stream: &mut BufReader<TcpStream>, head: &Head) -> Option<Vec<u8>> {
    let mut body = vec![0; head.length];
    stream.read_exact(&mut body).await.ok()?;
    if head.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut unpacked).unwrap();
        body = unpacked;
    }
    Some(body)
}

async fn answer(stream: &mut BufReader<TcpStream>, status: u16, more: &str, body: &str) -> bool {
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{more}content-length: {}\r\n\r\n",
        body.len()
    );
    let whole = [head.as_bytes(), body.as_bytes()].concat();
    stream.write_all(&whole).await.is_ok()
}

async fn other_request(stream: &mut BufReader<TcpStream>, inner: &Inner, head: &Head) -> bool {
    let Some(body) = read_body(stream, head).await else { return false };
    let body = String::from_utf8(body).unwrap();
    let others = Arc::clone(&inner.others.lock().unwrap());
    let (status, reply) = others(&head.method, &head.path, &body);
    {
        let mut oracle = inner.oracle.lock().unwrap();
        oracle.others.push((head.method.clone(), head.path.clone(), body));
        oracle.headers.clone_from(&head.headers);
    }
    answer(stream, status, "", &reply.to_string()).await
}

async fn bulk_request(stream: &mut BufReader<TcpStream>, inner: &Inner, head: &Head) -> bool {
    let script = Arc::clone(&inner.script.lock().unwrap());
    let plan = script(head);
    if let Plan::CutInSending(bytes) = plan {
        let mut some = vec![0; bytes.min(head.length)];
        stream.read_exact(&mut some).await.ok();
        // What stays unread makes the kernel answer with a reset.
        return false;
    }
    let Some(body) = read_body(stream, head).await else { return false };
    let entries = parse(&body);
    {
        let mut oracle = inner.oracle.lock().unwrap();
        oracle.sizes.push(entries.len());
        oracle.bytes.push(head.length);
        oracle.headers.clone_from(&head.headers);
        for entry in &entries {
            let known = oracle.documents.entry(entry.key()).or_default();
            known.sent += 1;
            if known.settled && entry.operation == "create" {
                oracle.needless.push(entry.id.clone());
            }
        }
    }
    let plan = if let Plan::ByIndex(decide) = plan {
        decide(&entries.iter().map(|entry| entry.index.clone()).collect::<Vec<_>>())
    } else {
        plan
    };
    match plan {
        Plan::CutInSending(_) | Plan::CutBefore | Plan::ByIndex(_) => false,
        Plan::Slowly(time) => {
            tokio::time::sleep(time).await;
            tell(stream, inner, &entries, None).await
        }
        Plan::Stall => {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.ok();
            false
        }
        Plan::LateItems(time, refuse) => {
            tokio::time::sleep(time).await;
            tell(stream, inner, &entries, Some(&*refuse)).await
        }
        Plan::Whole(status, more, body) => answer(stream, status, &more, &body).await,
        Plan::Odd(body) => {
            write(inner, &entries, None);
            answer(stream, 200, "", &body).await
        }
        Plan::CutAfter => {
            write(inner, &entries, None);
            false
        }
        Plan::CutAnswer => {
            let (body, _) = write(inner, &entries, None);
            let head = format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n", body.len());
            let whole = [head.as_bytes(), &body.as_bytes()[..body.len() / 2]].concat();
            stream.write_all(&whole).await.ok();
            false
        }
        Plan::Serve => tell(stream, inner, &entries, None).await,
        Plan::Items(refuse) => tell(stream, inner, &entries, Some(&*refuse)).await,
    }
}

/// What becomes of a request that names these indexes.
pub(crate) type Decide = dyn Fn(&[String]) -> Plan + Send + Sync;

/// What is answered for an id and a body instead of writing it: status and `error`.
pub(crate) type Refuse = dyn Fn(&str, &Value) -> Option<(u16, Value)> + Send + Sync;

async fn tell(stream: &mut BufReader<TcpStream>, inner: &Inner, entries: &[Entry], refuse: Option<&Refuse>) -> bool {
    let (body, statuses) = write(inner, entries, refuse);
    {
        let mut oracle = inner.oracle.lock().unwrap();
        for (entry, status) in entries.iter().zip(statuses) {
            *oracle.told.entry(status).or_default() += 1;
            if matches!(status, 200..300 | 400 | 409) {
                oracle.documents.entry(entry.key()).or_default().settled = true;
            }
        }
    }
    answer(stream, 200, "", &body).await
}

struct Entry {
    operation: String,
    index: String,
    id: String,
    body: String,
}

impl Entry {
    fn key(&self) -> (String, String) {
        (self.index.clone(), self.id.clone())
    }
}

fn parse(body: &[u8]) -> Vec<Entry> {
    assert!(body.ends_with(b"\n"), "a bulk body ends with a line feed");
    let text = std::str::from_utf8(body).unwrap();
    let mut lines = text.lines();
    let mut entries = Vec::new();
    while let (Some(action), Some(body)) = (lines.next(), lines.next()) {
        let action: Value = serde_json::from_str(action).unwrap();
        let (operation, target) = action.as_object().unwrap().iter().next().unwrap();
        let text = |key: &str| target[key].as_str().unwrap().to_owned();
        entries.push(Entry {
            operation: operation.clone(),
            index: text("_index"),
            id: text("_id"),
            body: body.to_owned(),
        });
    }
    entries
}

/// Writes what may be written; the answer's body, and each status.
fn write(inner: &Inner, entries: &[Entry], refuse: Option<&Refuse>) -> (String, Vec<u16>) {
    let always = inner.refused.lock().unwrap().clone();
    let mut oracle = inner.oracle.lock().unwrap();
    let mut items = Vec::with_capacity(entries.len());
    let mut statuses = Vec::with_capacity(entries.len());
    for entry in entries {
        let body = || serde_json::from_str(&entry.body).unwrap_or_default();
        let refused = always.as_ref().and_then(|refuse| refuse(&entry.id, &body()));
        let refused = refused.or_else(|| refuse.and_then(|refuse| refuse(&entry.id, &body())));
        let known = oracle.documents.entry(entry.key()).or_default();
        let (status, error) = match refused {
            Some((status, error)) => (status, Some(error)),
            None if entry.operation == "create" && known.body.is_some() => {
                (409, Some(json!({ "type": "version_conflict_engine_exception", "reason": "document already exists" })))
            }
            None => {
                let status = if known.body.is_some() { 200 } else { 201 };
                known.body = Some(entry.body.clone());
                known.written += 1;
                (status, None)
            }
        };
        let mut item = json!({ "status": status });
        if let Some(error) = error {
            item["error"] = error;
        }
        items.push(json!({ entry.operation.as_str(): item }));
        statuses.push(status);
    }
    let errors = statuses.iter().any(|status| *status >= 300);
    (json!({ "errors": errors, "items": items }).to_string(), statuses)
}
