//! Tokens for OAUTHBEARER: fetched with the client credentials grant (RFC 6749, section 4.4), shared by all clients.
//!
//! librdkafka asks for a token when it begins and again at 80 % of its life, on the thread that polls the client; it
//! may be asked by several at once. A failed fetch is told as an authentication error and asked for again after ten
//! seconds. The secret goes to the token endpoint alone, and neither it nor a token is in any message.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::client::OAuthToken;
use serde_json::Value;

use super::options::{OAuth, Tls};
use crate::BusError;

/// How long the token endpoint may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(8);
/// Where the server does not say, a token is taken to live so long.
const LIFE_DEFAULT: Duration = Duration::from_secs(300);
/// The share of its life after which a token is not handed out any more.
const RENEW_AT: f64 = 0.75;
/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the token endpoint {url} cannot be asked: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("the token endpoint {url} refuses with {status}{reason}: check client_id, client_secret and scope")]
    Refused { url: String, status: u16, reason: String },
    #[error("the answer of the token endpoint {url} holds no access_token")]
    Odd { url: String },
}

/// The source of tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    oauth: OAuth,
    client: reqwest::Client,
    kept: Mutex<Option<Kept>>,
}

#[derive(Clone)]
struct Kept {
    token: String,
    renew_at: Instant,
    expires_unix_ms: i64,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kept").field("expires_unix_ms", &self.expires_unix_ms).finish_non_exhaustive()
    }
}

impl Tokens {
    /// The CA of `tls`, if there is one, also counts for the token endpoint.
    pub(super) fn new(oauth: OAuth, tls: Option<&Tls>) -> Result<Self, BusError> {
        let invalid = |reason: String| BusError::Invalid { reason };
        reqwest::Url::parse(&oauth.token_url)
            .map_err(|error| invalid(format!("token_url `{}` is no URL: {error}", oauth.token_url)))?;
        let mut builder = reqwest::Client::builder().timeout(FETCH_TIMEOUT).redirect(reqwest::redirect::Policy::none());
        if let Some(path) = tls.and_then(|tls| tls.ca.as_ref()) {
            let pem = std::fs::read(path)
                .map_err(|error| invalid(format!("the CA {} cannot be read: {error}", path.display())))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| invalid(format!("the CA {} is no PEM: {error}", path.display())))?;
            builder = roots.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        let client = builder.build().map_err(|error| invalid(format!("an HTTP client cannot be made: {error}")))?;
        Ok(Self { oauth, client, kept: Mutex::new(None) })
    }

    /// A token with most of its life before it. Blocks for as long as the endpoint takes.
    pub(super) fn token(&self) -> Result<OAuthToken, TokenError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let current = kept.clone().filter(|kept| Instant::now() < kept.renew_at);
        let current = match current {
            Some(current) => current,
            None => self.fetch()?,
        };
        *kept = Some(current.clone());
        Ok(OAuthToken {
            token: current.token,
            principal_name: self.oauth.client_id.clone(),
            lifetime_ms: current.expires_unix_ms,
        })
    }

    /// The caller is a client's own thread, which may outlive the runtime of whoever opened the bus: so the request
    /// gets a small runtime of its own.
    fn fetch(&self) -> Result<Kept, TokenError> {
        let unreachable = |reason: String| TokenError::Unreachable { url: self.oauth.token_url.clone(), reason };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unreachable(error.to_string()))?;
        runtime.block_on(self.request())
    }

    async fn request(&self) -> Result<Kept, TokenError> {
        let url = || self.oauth.token_url.clone();
        let unreachable = |error: reqwest::Error| TokenError::Unreachable { url: url(), reason: causes(&error) };
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.oauth.scope.as_deref().map(|scope| ("scope", scope)));
        let request = self.client.post(&self.oauth.token_url);
        // Both are form-encoded before they go into the header (RFC 6749, section 2.3.1).
        let (id, secret) = (form_encoded(&self.oauth.client_id), form_encoded(self.oauth.client_secret.expose()));
        let request = request.basic_auth(id, Some(secret));
        let response = request.form(&form).send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        let answer: Value =
            serde_json::from_slice(body.get(..ANSWER_BYTES_MAX).unwrap_or(&body)).unwrap_or(Value::Null);
        if !status.is_success() {
            let reason = answer["error"].as_str().map_or_else(String::new, |reason| format!(" ({reason})"));
            return Err(TokenError::Refused { url: url(), status: status.as_u16(), reason });
        }
        let token = answer["access_token"].as_str().filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| TokenError::Odd { url: url() })?.to_owned();
        let life = answer["expires_in"].as_u64().map_or(LIFE_DEFAULT, Duration::from_secs);
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + life;
        let expires_unix_ms = i64::try_from(expires.as_millis()).unwrap_or(i64::MAX);
        Ok(Kept { token, renew_at: Instant::now() + life.mul_f64(RENEW_AT), expires_unix_ms })
    }
}

/// An error with all that is behind it: reqwest's own words only name the request.
fn causes(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::form_encoded;

    #[test]
    fn credentials_are_encoded_as_forms_are() {
        assert_eq!(form_encoded("a-b_c.9*"), "a-b_c.9*");
        assert_eq!(form_encoded("s p+c:%ä"), "s+p%2Bc%3A%25%C3%A4");
    }
}
