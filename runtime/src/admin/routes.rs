//! What is answered.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use super::Admin;
use crate::config::Secret;

/// The admin routes with `extra` beside them, all behind the token where there is one.
pub(super) fn router(admin: Admin, extra: Router) -> Router {
    let token = admin.token.clone();
    let shown = Router::new()
        .route("/livez", get(async || Json(json!({ "live": true }))))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/acknowledge/{condition}", post(acknowledge))
        .with_state(Arc::new(admin))
        .merge(extra)
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed);
    match token {
        Some(token) => shown.layer(middleware::from_fn_with_state(Arc::new(token), check_token)),
        None => shown,
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let readiness = admin.health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.telemetry.prometheus_text())
        .into_response()
}

async fn status(State(admin): State<Arc<Admin>>) -> Response {
    Json(admin.status.snapshot()).into_response()
}

/// For conditions that say `"acknowledge": true` at `/readyz`.
async fn acknowledge(State(admin): State<Arc<Admin>>, Path(condition): Path<String>) -> Response {
    if admin.health.acknowledge(&condition) {
        return Json(json!({ "acknowledged": condition })).into_response();
    }
    fault(StatusCode::NOT_FOUND, &format!("no condition named {condition} waits to be acknowledged"))
}

async fn not_found(request: Request) -> Response {
    fault(StatusCode::NOT_FOUND, &format!("there is nothing at {}", request.uri().path()))
}

async fn not_allowed(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    fault(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} does not take {method}"))
}

async fn check_token(State(token): State<Arc<Secret>>, request: Request, next: Next) -> Response {
    let open = matches!(request.uri().path(), "/livez" | "/readyz");
    if open || bears(request.headers(), &token) {
        return next.run(request).await;
    }
    let mut response =
        fault(StatusCode::UNAUTHORIZED, "this address needs its admin token, as Authorization: Bearer <token>");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
    response
}

fn bears(headers: &HeaderMap, token: &Secret) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
    let Some((scheme, given)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && same(given.trim_ascii(), token.expose().as_bytes())
}

/// Compares in a time that depends on the lengths only, so that a token cannot be guessed byte by byte.
fn same(given: &[u8], token: &[u8]) -> bool {
    let differing = given.iter().zip(token).fold(0u8, |seen, (left, right)| seen | (left ^ right));
    given.len() == token.len() && differing == 0
}

fn fault(status: StatusCode, words: &str) -> Response {
    (status, Json(json!({ "error": words }))).into_response()
}
