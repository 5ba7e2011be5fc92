//! A token endpoint (OAuth 2.0, client credentials) whose tokens a broker takes.
//!
//! One signer, whose public key the broker fetches at `/jwks`, and any number of endpoints that hand out its tokens, so
//! that a test can have one of its own, with tokens that expire when it likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// What the endpoint gives tokens to.
pub(super) const CLIENT_ID: &str = "logmesh-client";
pub(super) const CLIENT_SECRET: &str = "client secret, with / and %";
pub(super) const ISSUER: &str = "http://issuer.test";
pub(super) const AUDIENCE: &str = "kafka";
const KEY_ID: &str = "rig";
/// Of a token, until a test says otherwise.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Of a client that connects and says nothing.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The key that a broker trusts.
#[derive(Debug)]
pub(super) struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

/// A running token endpoint on the loopback address. Dropped, it is stopped.
#[derive(Debug)]
pub struct TokenEndpoint {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    signer: Arc<Signer>,
    lifetime: Mutex<Duration>,
    issued: AtomicU64,
    failing: AtomicBool,
    stopping: AtomicBool,
}

struct Request {
    line: String,
    authorization: Option<String>,
    body: String,
}

impl Signer {
    pub(super) fn new() -> Result<Arc<Signer>> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
            .ok()
            .and_then(|key| EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).ok())
            .context("cannot make a key")?;
        Ok(Arc::new(Signer { key, random }))
    }

    /// The public key, as brokers fetch it.
    fn jwks(&self) -> Value {
        // An uncompressed point: a byte that says so, then both coordinates.
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, "x": x, "y": y,
        }] })
    }

    fn token(&self, lifetime: Duration, number: u64) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": KEY_ID });
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": CLIENT_ID, "jti": number.to_string(),
            // Whole seconds; never less than was said, or a client that renews in good time would be late.
            "iat": now.as_secs(), "exp": (now + lifetime).as_secs() + 1,
        });
        let encode = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.key.sign(&self.random, signed.as_bytes()).ok().context("cannot sign a token")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl TokenEndpoint {
    pub(super) fn start(signer: &Arc<Signer>) -> Result<TokenEndpoint> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen for a token endpoint")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            signer: Arc::clone(signer),
            lifetime: Mutex::new(LIFETIME),
            issued: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let served = Arc::clone(&state);
        let thread = std::thread::Builder::new().name("token-endpoint".to_owned()).spawn(move || {
            // One after another is quick enough for what asks here.
            for client in listener.incoming().flatten() {
                if served.stopping.load(Ordering::Acquire) {
                    return;
                }
                // A client that broke off knows it.
                let _ = served.serve(&client);
            }
        })?;
        Ok(TokenEndpoint { address, state, thread: Some(thread) })
    }

    /// Where tokens are asked for.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    pub(super) fn jwks_url(&self) -> String {
        format!("http://{}/jwks", self.address)
    }

    /// How many tokens it has handed out.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.state.issued.load(Ordering::Acquire)
    }

    /// For how long the next tokens are good, in whole seconds (an hour if never said).
    ///
    /// Less than 15 s fails now and then for a client that does nothing wrong. librdkafka authenticates anew after nine
    /// tenths of a connection's life; for a new token it asks after four fifths of the old one's, but looks only once a
    /// second, and when it is polled. If the old one is still there by then, what is left of it makes the connection
    /// authenticate again within a second, which a broker refuses (`ILLEGAL_SASL_STATE`).
    pub fn set_lifetime(&self, lifetime: Duration) {
        *self.state.lifetime.lock().unwrap_or_else(PoisonError::into_inner) = lifetime;
    }

    /// Whether it answers all who ask for a token with 503.
    pub fn set_failing(&self, failing: bool) {
        self.state.failing.store(failing, Ordering::Release);
    }
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::Release);
        // Wakes the thread, which waits for a client.
        let woken = TcpStream::connect(self.address).is_ok();
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn serve(&self, client: &TcpStream) -> Result<()> {
        client.set_read_timeout(Some(REQUEST_WITHIN))?;
        let request = Request::read(client)?;
        let (status, body) = self.answer(&request)?;
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let mut client = client;
        client.write_all(head.as_bytes())?;
        Ok(client.write_all(body.as_bytes())?)
    }

    fn answer(&self, request: &Request) -> Result<(&'static str, Value)> {
        if request.line.starts_with("GET /jwks ") {
            return Ok(("200 OK", self.signer.jwks()));
        }
        if !request.line.starts_with("POST /token ") {
            return Ok(("404 Not Found", json!({ "error": "not_found" })));
        }
        if self.failing.load(Ordering::Acquire) {
            return Ok(("503 Service Unavailable", json!({ "error": "temporarily_unavailable" })));
        }
        if !request.has_credentials() {
            let description = "client id or secret is wrong";
            return Ok(("401 Unauthorized", json!({ "error": "invalid_client", "error_description": description })));
        }
        if request.field("grant_type").as_deref() != Some("client_credentials") {
            return Ok(("400 Bad Request", json!({ "error": "unsupported_grant_type" })));
        }
        let lifetime = *self.lifetime.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.issued.fetch_add(1, Ordering::AcqRel);
        let token = self.signer.token(lifetime, number)?;
        let answer = json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime.as_secs() });
        Ok(("200 OK", answer))
    }
}

impl Request {
    fn read(client: &TcpStream) -> Result<Request> {
        let mut reader = BufReader::new(client);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let (mut authorization, mut length) = (None, 0);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "authorization" => authorization = Some(value.trim().to_owned()),
                "content-length" => length = value.trim().parse()?,
                _ => {}
            }
        }
        ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes");
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Request { line, authorization, body: String::from_utf8(body)? })
    }

    /// In the header, where RFC 6749 wants them (form-encoded first), or in the body, where it allows them.
    fn has_credentials(&self) -> bool {
        let basic = self.authorization.as_deref().and_then(|value| value.strip_prefix("Basic "));
        if let Some(decoded) = basic.and_then(|value| STANDARD.decode(value).ok()) {
            let decoded = String::from_utf8_lossy(&decoded).into_owned();
            let Some((id, secret)) = decoded.split_once(':') else { return false };
            return (form_decoded(id), form_decoded(secret)) == (CLIENT_ID.to_owned(), CLIENT_SECRET.to_owned());
        }
        let (id, secret) = (self.field("client_id"), self.field("client_secret"));
        id.as_deref() == Some(CLIENT_ID) && secret.as_deref() == Some(CLIENT_SECRET)
    }

    fn field(&self, name: &str) -> Option<String> {
        let mut fields = self.body.split('&').filter_map(|field| field.split_once('='));
        fields.find(|(key, _)| *key == name).map(|(_, value)| form_decoded(value))
    }
}

/// `application/x-www-form-urlencoded`; a broken escape stands for itself.
fn form_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escape = after.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        if let Some(byte) = escape.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            decoded.push(byte);
            rest = &after[2..];
        } else {
            decoded.push(if *first == b'+' { b' ' } else { *first });
            rest = after;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
