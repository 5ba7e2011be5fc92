//! The HTTP face of dead letters.
//!
//! - `GET /api/dead-letters?tenant=&reason=&limit=&all=`: `{"total", "complete", "letters": […]}`; `limit` 0 to 1,000 (default
//!   100), `all=true` shows those too that are dealt with.
//! - `GET /api/dead-letters/{id}`: one letter with all that it holds; 404 where there is none.
//! - `POST /api/dead-letters/replay` with `{"ids", "tenant", "reason", "dry_run"}`, all optional.
//! - `POST /api/dead-letters/discard` with `{"ids", "tenant", "reason", "all"}`: at least one of them, so that nobody gives up
//!   everything by an empty request.
//!
//! The last two answer with a line of JSON for each letter as it is dealt with, and end with `{"summary": …}` or
//! `{"error": …}`; a transfer that ends without either broke off. They take `application/json` only, which no page of another
//! origin can send unasked.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State, rejection::JsonRejection, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt as _, stream};
use logmesh_bus::BusError;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    office::{Office, OfficeError, Selection},
    replay::{Said, Summary},
    view,
};

/// Letters on a page unless it is said.
const LIMIT_DEFAULT: usize = 100;

/// Letters on a page at most.
const LIMIT_MAX: usize = 1_000;

/// Ids in one request at most: each is looked for by itself.
const IDS_MAX: usize = 10_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Listed {
    tenant: Option<String>,
    reason: Option<String>,
    limit: Option<usize>,
    all: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Order {
    ids: Vec<String>,
    tenant: Option<String>,
    reason: Option<String>,
    all: bool,
    dry_run: bool,
}

/// The routes of dead letters, over a desk.
pub fn router(office: Office) -> Router {
    Router::new()
        .route("/api/dead-letters", get(list))
        .route("/api/dead-letters/{id}", get(show))
        .route("/api/dead-letters/replay", post(replay))
        .route("/api/dead-letters/discard", post(discard))
        .with_state(office)
}

async fn list(State(office): State<Office>, asked: Result<Query<Listed>, QueryRejection>) -> Response {
    let Query(asked) = match asked {
        Ok(asked) => asked,
        Err(rejection) => return fault(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT);
    if limit > LIMIT_MAX {
        return fault(StatusCode::BAD_REQUEST, &format!("`limit` is a number from 0 to {LIMIT_MAX}, not {limit}"));
    }
    let selection = Selection { ids: Vec::new(), tenant: asked.tenant, reason: asked.reason, all: asked.all };
    match office.list(&selection, limit).await {
        Ok(listing) => Json(listing.into_json()).into_response(),
        Err(error) => refuse(&error),
    }
}

async fn show(State(office): State<Office>, Path(id): Path<String>) -> Response {
    match office.show(&id).await {
        Ok(Some((letter, fate))) => Json(view::whole(&letter, fate)).into_response(),
        Ok(None) => fault(StatusCode::NOT_FOUND, &format!("there is no dead letter `{id}`")),
        Err(error) => refuse(&error),
    }
}

async fn replay(State(office): State<Office>, order: Result<Json<Order>, JsonRejection>) -> Response {
    let (order, selection) = match read(order) {
        Ok(read) => read,
        Err(response) => return *response,
    };
    let (said, heard) = mpsc::channel(64);
    answer(heard, async move { office.replay(&selection, order.dry_run, &said).await })
}

async fn discard(State(office): State<Office>, order: Result<Json<Order>, JsonRejection>) -> Response {
    let (order, selection) = match read(order) {
        Ok(read) => read,
        Err(response) => return *response,
    };
    let is_said = order.all || !selection.ids.is_empty() || selection.tenant.is_some() || selection.reason.is_some();
    if !is_said || order.dry_run {
        let words = "say which: `ids`, `tenant`, `reason`, or `\"all\": true`; a discard has no dry run";
        return fault(StatusCode::BAD_REQUEST, words);
    }
    let (said, heard) = mpsc::channel(64);
    answer(heard, async move { office.discard(&selection, &said).await })
}

fn read(order: Result<Json<Order>, JsonRejection>) -> Result<(Order, Selection), Box<Response>> {
    let Json(order) = order.map_err(|rejection| Box::new(fault(rejection.status(), &rejection.body_text())))?;
    if order.ids.len() > IDS_MAX {
        let words = format!("{} ids at once are too many; {IDS_MAX} are taken", order.ids.len());
        return Err(Box::new(fault(StatusCode::BAD_REQUEST, &words)));
    }
    let selection =
        Selection { ids: order.ids.clone(), tenant: order.tenant.clone(), reason: order.reason.clone(), all: false };
    Ok((order, selection))
}

/// Streams what is said while `work` goes on. The work is a part of the stream: it ends when nobody listens any more.
fn answer(
    heard: mpsc::Receiver<Said>,
    work: impl Future<Output = Result<Summary, OfficeError>> + Send + 'static,
) -> Response {
    let letters = ReceiverStream::new(heard).map(|said| line(&json!(said)));
    let end = stream::once(work).map(|ended| match ended {
        Ok(summary) => line(&json!({ "summary": summary })),
        Err(error) => line(&json!({ "error": { "message": error.to_string() } })),
    });
    // The end must be the last line: it is held back until every letter is said.
    let lines = stream::select(letters.map(|line| (false, line)), end.map(|line| (true, line)));
    let ordered = lines.chain(stream::once(async { (true, Bytes::new()) })).scan(None, |last, (is_end, line)| {
        let out = if is_end && !line.is_empty() {
            *last = Some(line);
            Bytes::new()
        } else if is_end {
            last.take().unwrap_or_default()
        } else {
            line
        };
        std::future::ready(Some(out))
    });
    let body = ordered.filter(|line| std::future::ready(!line.is_empty())).map(Ok::<_, std::convert::Infallible>);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

fn refuse(error: &OfficeError) -> Response {
    let status = match error {
        OfficeError::Read(BusError::Invalid { .. }) => StatusCode::BAD_REQUEST,
        OfficeError::Read(_) | OfficeError::Note(_) | OfficeError::Gone => StatusCode::SERVICE_UNAVAILABLE,
    };
    fault(status, &error.to_string())
}

fn fault(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": { "message": message } }))).into_response()
}
