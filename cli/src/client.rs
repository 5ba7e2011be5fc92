//! Talking to a running `logmesh up` over its HTTP address.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, Uri, header, request::Builder};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use serde_json::Value;

use crate::up::Addresses;

/// How long an answer's head may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the running `logmesh up` is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// Data directory of the running `logmesh up`.
    #[arg(long, value_name = "DIR", default_value = "./logmesh-data", conflicts_with = "url")]
    data: PathBuf,
    /// Its HTTP address, instead of a data directory: http://127.0.0.1:4400
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Token, where the address asks for one.
    #[arg(long, value_name = "TOKEN", env = "LOGMESH_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// What was asked for cannot be asked: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// A running `logmesh up`.
pub(crate) struct Api {
    base: String,
    token: Option<String>,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalDetail,
}

#[derive(Deserialize)]
struct RefusalDetail {
    message: String,
    #[serde(default)]
    position: Option<usize>,
    #[serde(default)]
    query: Option<String>,
}

impl Target {
    /// Finds the address.
    pub(crate) fn api(&self) -> anyhow::Result<Api> {
        let base = match &self.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", Addresses::read(&self.data)?.http),
        };
        if !base.starts_with("http://") {
            return Err(UsageError(format!("`{base}` is no http:// address")).into());
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Api { base, token: self.token.clone(), client })
    }
}

impl Api {
    /// Asks for a JSON document.
    pub(crate) async fn json(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Value> {
        let body = self.get(path, parameters).await?.collect().await.context("the answer broke off")?;
        serde_json::from_slice(&body.to_bytes()).context("the answer is not JSON")
    }

    /// Asks for a body of any length.
    pub(crate) async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Incoming> {
        let request = Request::get(self.uri(path, parameters)?);
        self.send(path, request, Bytes::new()).await
    }

    /// Sends a JSON document, and takes a body of any length.
    pub(crate) async fn post(&self, path: &str, document: &Value) -> anyhow::Result<Incoming> {
        let request = Request::post(self.uri(path, &[])?).header(header::CONTENT_TYPE, "application/json");
        self.send(path, request, document.to_string().into()).await
    }

    fn uri(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Uri> {
        let uri = format!("{}{path}?{}", self.base, encoded(parameters));
        uri.parse().with_context(|| format!("`{}` is no address", self.base))
    }

    async fn send(&self, path: &str, mut request: Builder, body: Bytes) -> anyhow::Result<Incoming> {
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = self.client.request(request.body(Full::new(body))?);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer)
            .await
            .with_context(|| format!("{} does not answer", self.base))?
            .with_context(|| format!("cannot reach {}; is `logmesh up` running?", self.base))?;
        let status = answer.status();
        if status.is_success() || (path == "/readyz" && status == StatusCode::SERVICE_UNAVAILABLE) {
            return Ok(answer.into_body());
        }
        let body = answer.into_body().collect().await.context("the answer broke off")?.to_bytes();
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) if status == StatusCode::BAD_REQUEST => Err(UsageError(refusal.error.describe()).into()),
            Ok(refusal) => bail!("{status}: {}", refusal.error.message),
            Err(_) => bail!("{} answered {status}: {}", self.base, String::from_utf8_lossy(&body).trim()),
        }
    }
}

impl RefusalDetail {
    /// The message, with a caret under its place in the query.
    fn describe(&self) -> String {
        match (&self.query, self.position) {
            (Some(query), Some(position)) if !query.contains('\n') => {
                format!("{}\n  {query}\n  {:position$}^", self.message, "")
            }
            _ => self.message.clone(),
        }
    }
}

/// Percent-encodes parameters as a query (RFC 3986): everything but the unreserved characters.
fn encoded(parameters: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (name, value) in parameters {
        query.extend((!query.is_empty()).then_some('&'));
        query.push_str(name);
        query.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                query.push(char::from(byte));
            } else {
                query.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    query
}

/// Runs a command that talks to a server.
pub(crate) fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded_whatever_they_hold() {
        assert_eq!(encoded(&[("q", "a b&c=\"ü\""), ("limit", "5")]), "q=a%20b%26c%3D%22%C3%BC%22&limit=5");
    }

    #[test]
    fn a_refused_query_is_shown_with_its_place() {
        let detail = RefusalDetail { message: "missing `)`".into(), position: Some(3), query: Some("(a b".into()) };
        assert_eq!(detail.describe(), "missing `)`\n  (a b\n     ^");
    }
}
