//! The HTTP face of search.
//!
//! - `GET /api/search?q=&from=&to=&limit=&sort=&cursor=`: `{"total", "took_ms", "hits": [document with _id and _index],
//!   "next"}`. `sort` is `desc` (default) or `asc`; `limit` 0 to 10,000 (default 100). A page ends early, with `next`, where its
//!   hits would exceed 16 MiB. With a `cursor`, `from`, `to` and `sort` are those of the first page, whatever is said.
//! - `GET /api/count?q=&from=&to=`: `{"count"}`.
//! - `GET /api/export?q=&from=&to=`: every hit as a line of JSON, the newest parts of the index first; ends with a broken
//!   transfer if it could not be completed.
//!
//! A fault of the question is 400, `{"error": {"message", "position", "query"}}` (position in characters, null where no
//! place in the query is at fault). Too many searches at once: 503 with `Retry-After`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Fault, LIMIT_DEFAULT, LIMIT_MAX, Order, Prepared, Question, SearchError, export, run::Page};
use crate::index::embedded::Embedded;

/// Searches that run at once; more wait.
const SEARCHES_MAX: usize = 4;

/// Exports that run at once; more are turned away.
const EXPORTS_MAX: usize = 4;

/// How long a search waits for its turn.
const TURN_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Desk {
    index: Arc<Embedded>,
    searches: Arc<Semaphore>,
    exports: Arc<Semaphore>,
}

/// The routes of search, over an index.
pub fn router(index: Arc<Embedded>) -> Router {
    let desk = Desk {
        index,
        searches: Arc::new(Semaphore::new(SEARCHES_MAX)),
        exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
    };
    Router::new()
        .route("/api/search", get(search))
        .route("/api/count", get(count))
        .route("/api/export", get(export))
        .with_state(desk)
}

type Parameters = Result<Query<BTreeMap<String, String>>, QueryRejection>;

async fn search(State(desk): State<Desk>, parameters: Parameters) -> Response {
    let began = Instant::now();
    answer(async {
        let mut parameters = read(parameters, &["q", "from", "to", "since", "limit", "sort", "cursor"])?;
        let limit = limit(parameters.remove("limit"))?;
        let order = order(parameters.remove("sort").as_deref())?;
        let cursor = parameters.remove("cursor").filter(|cursor| !cursor.is_empty());
        let since = since(parameters.remove("since"))?;
        let question = Question { since, ..question(parameters) };
        let permit = turn(&desk.searches).await?;
        let (page, next) = blocking(permit, move || {
            Prepared::new(&desk.index, question, SystemTime::now())?.page(order, limit, cursor.as_deref())
        })
        .await?;
        Ok(page_response(&page, next.as_deref(), began.elapsed()))
    })
    .await
}

async fn count(State(desk): State<Desk>, parameters: Parameters) -> Response {
    answer(async {
        let question = question(read(parameters, &["q", "from", "to"])?);
        let permit = turn(&desk.searches).await?;
        let count = blocking(permit, move || Prepared::new(&desk.index, question, SystemTime::now())?.count()).await?;
        Ok(axum::Json(json!({ "count": count })).into_response())
    })
    .await
}

async fn export(State(desk): State<Desk>, parameters: Parameters) -> Response {
    answer(async {
        let question = question(read(parameters, &["q", "from", "to"])?);
        let Ok(permit) = Arc::clone(&desk.exports).try_acquire_owned() else { return Err(Refusal::Busy) };
        let prepared = Prepared::new(&desk.index, question, SystemTime::now())?;
        let body = Body::from_stream(export::stream(prepared, permit));
        Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
    })
    .await
}

/// Why there is no answer.
enum Refusal {
    Fault(Fault),
    Busy,
    Broken,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

async fn answer(asked: impl Future<Output = Result<Response, Refusal>>) -> Response {
    let refusal = match asked.await {
        Ok(response) => return response,
        Err(refusal) => refusal,
    };
    let (status, message) = match refusal {
        Refusal::Fault(Fault::Query(error)) => {
            return error_response(StatusCode::BAD_REQUEST, &error.message, Some(error.position), Some(&error.query));
        }
        Refusal::Fault(Fault::Parameter(message)) => (StatusCode::BAD_REQUEST, message),
        Refusal::Fault(Fault::Search(error @ SearchError::TimedOut)) => {
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        Refusal::Fault(Fault::Search(error)) => {
            tracing::error!(%error, "a search failed");
            (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
        Refusal::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too many searches at once; try again soon".to_owned()),
        Refusal::Broken => {
            tracing::error!("a search ended with a panic; the index may be damaged");
            (StatusCode::INTERNAL_SERVER_ERROR, "the search broke off; see the log".to_owned())
        }
    };
    error_response(status, &message, None, None)
}

fn error_response(status: StatusCode, message: &str, position: Option<usize>, query: Option<&str>) -> Response {
    let body = json!({ "error": { "message": message, "position": position, "query": query } });
    let mut response = (status, axum::Json(body)).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn page_response(page: &Page, next: Option<&str>, took: Duration) -> Response {
    let bytes: usize = page.hits.iter().map(|hit| hit.len() + 1).sum();
    let mut out = Vec::with_capacity(bytes + 256);
    out.extend_from_slice(format!("{{\"total\":{},\"took_ms\":{},\"hits\":[", page.total, took.as_millis()).as_bytes());
    for (n, hit) in page.hits.iter().enumerate() {
        out.extend_from_slice(if n > 0 { b"," } else { b"" });
        out.extend_from_slice(hit);
    }
    // A cursor is base64: nothing in it needs escaping.
    let next = next.map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
    out.extend_from_slice(format!("],\"next\":{next},\"revision\":{}}}", page.revision).as_bytes());
    ([(header::CONTENT_TYPE, "application/json")], Bytes::from(out)).into_response()
}

fn read(parameters: Parameters, known: &[&str]) -> Result<BTreeMap<String, String>, Refusal> {
    let Query(parameters) = parameters.map_err(|error| Fault::Parameter(error.body_text()))?;
    match parameters.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(parameters),
        Some(unknown) => {
            let message = format!("unknown parameter `{unknown}`; known are {}", known.join(", "));
            Err(Fault::Parameter(message).into())
        }
    }
}

fn question(mut parameters: BTreeMap<String, String>) -> Question {
    Question {
        query: parameters.remove("q").unwrap_or_default(),
        from: parameters.remove("from"),
        to: parameters.remove("to"),
        since: 0,
    }
}

fn since(text: Option<String>) -> Result<u64, Fault> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(0) };
    text.parse().map_err(|_| Fault::Parameter(format!("`since` is the `revision` of an earlier answer, not `{text}`")))
}

fn limit(text: Option<String>) -> Result<usize, Fault> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(LIMIT_DEFAULT) };
    let limit = text.parse().ok().filter(|limit| *limit <= LIMIT_MAX);
    limit.ok_or_else(|| Fault::Parameter(format!("`limit` is a number from 0 to {LIMIT_MAX}, not `{text}`")))
}

fn order(text: Option<&str>) -> Result<Order, Fault> {
    match text {
        None | Some("" | "desc") => Ok(Order::NewestFirst),
        Some("asc") => Ok(Order::OldestFirst),
        Some(other) => Err(Fault::Parameter(format!("`sort` is desc or asc, not `{other}`"))),
    }
}

async fn turn(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    match tokio::time::timeout(TURN_TIME_MAX, Arc::clone(semaphore).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => Err(Refusal::Busy),
    }
}

/// Runs a search where blocking does no harm. It runs to its end, holding its permit, also when nobody waits any more.
async fn blocking<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Refusal> {
    let work = move || {
        let _permit = permit;
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Refusal::Broken),
    }
}
