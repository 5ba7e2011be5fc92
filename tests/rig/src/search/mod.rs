//! Elasticsearch and OpenSearch: TLS, users and roles, one node each.

mod directory;
mod elasticsearch;
mod opensearch;
mod server;

use std::ops::Deref;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use self::server::Product;
pub use self::server::{Credentials, SearchServer};
use crate::java::Java;

/// The user who may do everything.
pub const ADMIN: &str = "admin";
/// The password of every user here.
pub const PASSWORD: &str = "admin-password";
/// Of [`PASSWORD`], bcrypt, as both servers keep it.
const ADMIN_HASH: &str = "$2a$10$4TWRUQEkxJwc8glIEdapUui4ROgusTp1SONLqDzElgcYb/hWtqGBu";

/// An Elasticsearch 8. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Elasticsearch(SearchServer);

/// An OpenSearch 2. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct OpenSearch(SearchServer);

impl Elasticsearch {
    /// The server that all tests of this process share, started at first use. Tests use indexes of their own
    /// ([`crate::unique`]).
    ///
    /// # Panics
    ///
    /// When it cannot be started, with its last words.
    #[must_use]
    pub fn shared() -> &'static Elasticsearch {
        static SHARED: OnceLock<Result<Elasticsearch, String>> = OnceLock::new();
        match SHARED.get_or_init(|| Elasticsearch::start(&[]).map_err(|error| format!("{error:#}"))) {
            Ok(server) => server,
            Err(error) => panic!("the shared Elasticsearch did not start: {error}"),
        }
    }

    /// Starts one, with settings beside or instead of the usual ones, and waits until it indexes.
    ///
    /// # Errors
    ///
    /// When it cannot be fetched or started, with its last words.
    pub fn start(settings: &[(&str, &str)]) -> Result<Elasticsearch> {
        Elasticsearch::start_tuned(settings, &[])
    }

    /// Like [`Elasticsearch::start`], with options for its Java machine, of which the last counts. A server for tests is
    /// tuned to be there soon: to measure one, say `-XX:TieredStopAtLevel=4` and the heap it shall have (`-Xms2g`, `-Xmx2g`).
    ///
    /// # Errors
    ///
    /// When it cannot be fetched or started, with its last words.
    pub fn start_tuned(settings: &[(&str, &str)], jvm: &[&str]) -> Result<Elasticsearch> {
        Ok(Elasticsearch(SearchServer::start(Product::Elasticsearch(elasticsearch::EIGHT), settings, jvm)?))
    }

    /// An Elasticsearch 9 that all tests of this process share, where there is a Java that it runs on.
    ///
    /// # Panics
    ///
    /// When there is such a Java and it cannot be started, with its last words.
    #[must_use]
    pub fn newer() -> Option<&'static Elasticsearch> {
        static NEWER: OnceLock<Result<Elasticsearch, String>> = OnceLock::new();
        Java::find(elasticsearch::NINE.java).ok()?;
        let start = || SearchServer::start(Product::Elasticsearch(elasticsearch::NINE), &[], &[]);
        match NEWER.get_or_init(|| start().map(Elasticsearch).map_err(|error| format!("{error:#}"))) {
            Ok(server) => Some(server),
            Err(error) => panic!("the newer Elasticsearch did not start: {error}"),
        }
    }

    /// A new API key, encoded as the header `Authorization: ApiKey` takes it, for what a role (as the server's API
    /// describes one) may do.
    ///
    /// # Errors
    ///
    /// When the server refuses it or does not answer.
    pub fn api_key(&self, role: &Value) -> Result<String> {
        let body = json!({ "name": crate::unique("key"), "role_descriptors": { "role": role } });
        let answer = self.expect("POST", "/_security/api_key", body)?;
        Ok(answer["encoded"].as_str().context("no key in the answer")?.to_owned())
    }

    /// A new token as the header `Authorization: Bearer` takes it, good for 20 minutes.
    ///
    /// # Errors
    ///
    /// When the server refuses it or does not answer.
    pub fn bearer_token(&self, credentials: &Credentials) -> Result<String> {
        let Credentials { user, password } = credentials;
        let body = json!({ "grant_type": "password", "username": user, "password": password });
        let answer = self.expect("POST", "/_security/oauth2/token", body)?;
        Ok(answer["access_token"].as_str().context("no token in the answer")?.to_owned())
    }
}

impl OpenSearch {
    /// The server that all tests of this process share, started at first use. Tests use indexes of their own
    /// ([`crate::unique`]).
    ///
    /// # Panics
    ///
    /// When it cannot be started, with its last words.
    #[must_use]
    pub fn shared() -> &'static OpenSearch {
        static SHARED: OnceLock<Result<OpenSearch, String>> = OnceLock::new();
        match SHARED.get_or_init(|| OpenSearch::start(&[]).map_err(|error| format!("{error:#}"))) {
            Ok(server) => server,
            Err(error) => panic!("the shared OpenSearch did not start: {error}"),
        }
    }

    /// Starts one, with settings beside or instead of the usual ones, and waits until it indexes.
    ///
    /// # Errors
    ///
    /// When it cannot be fetched or started, with its last words.
    pub fn start(settings: &[(&str, &str)]) -> Result<OpenSearch> {
        OpenSearch::start_tuned(settings, &[])
    }

    /// Like [`OpenSearch::start`], with options for its Java machine, as [`Elasticsearch::start_tuned`] takes them.
    ///
    /// # Errors
    ///
    /// When it cannot be fetched or started, with its last words.
    pub fn start_tuned(settings: &[(&str, &str)], jvm: &[&str]) -> Result<OpenSearch> {
        Ok(OpenSearch(SearchServer::start(Product::OpenSearch(opensearch::TWO), settings, jvm)?))
    }

    /// An OpenSearch 3 that all tests of this process share, where there is a Java that it runs on. It has neither TLS nor
    /// users.
    ///
    /// # Panics
    ///
    /// When there is such a Java and it cannot be started, with its last words.
    #[must_use]
    pub fn newer() -> Option<&'static OpenSearch> {
        static NEWER: OnceLock<Result<OpenSearch, String>> = OnceLock::new();
        Java::find(opensearch::THREE.java).ok()?;
        let start = || SearchServer::start(Product::OpenSearch(opensearch::THREE), &[], &[]);
        match NEWER.get_or_init(|| start().map(OpenSearch).map_err(|error| format!("{error:#}"))) {
            Ok(server) => Some(server),
            Err(error) => panic!("the newer OpenSearch did not start: {error}"),
        }
    }
}

impl Deref for Elasticsearch {
    type Target = SearchServer;

    fn deref(&self) -> &SearchServer {
        &self.0
    }
}

impl Deref for OpenSearch {
    type Target = SearchServer;

    fn deref(&self) -> &SearchServer {
        &self.0
    }
}
