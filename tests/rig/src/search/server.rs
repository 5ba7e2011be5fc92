//! One server of either kind.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client, Method};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::directory::{Command, Directory};
use super::{ADMIN, ADMIN_HASH, PASSWORD, elasticsearch, opensearch};
use crate::blocking::block_on;
use crate::ports;
use crate::scratch::Scratch;
use crate::server::{Server, port_was_taken};

/// Who may only write `logmesh-*`.
const WRITER: &str = "logmesh-writer";
/// A start takes 15 s on a quiet machine.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Longest time that a stop by SIGTERM may take; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Of one request.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Starts with other ports when others took them.
const START_TRIES: usize = 4;

/// What both have in common.
#[derive(Debug)]
pub struct SearchServer {
    product: Product,
    port: u16,
    command: Command,
    client: Client,
    process: Mutex<Option<Server>>,
    directory: Directory,
    /// After the process: dropped in this order.
    scratch: Scratch,
}

/// Who says what to a server: HTTP basic authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: String,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Product {
    Elasticsearch(elasticsearch::Release),
    OpenSearch(opensearch::Release),
}

impl Credentials {
    fn of(user: &str) -> Credentials {
        Credentials { user: user.to_owned(), password: PASSWORD.to_owned() }
    }
}

impl Product {
    fn is_secure(self) -> bool {
        match self {
            Product::Elasticsearch(_) => true,
            Product::OpenSearch(release) => release.security.is_some(),
        }
    }
}

impl Display for Product {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Product::Elasticsearch(release) => write!(f, "Elasticsearch {}", release.version),
            Product::OpenSearch(release) => write!(f, "OpenSearch {}", release.version),
        }
    }
}

impl SearchServer {
    pub(super) fn start(product: Product, settings: &[(&str, &str)], jvm: &[&str]) -> Result<SearchServer> {
        let mut tries = START_TRIES;
        loop {
            tries -= 1;
            let server = SearchServer::prepare(product, settings, jvm)?;
            match server.start_again() {
                Ok(()) => return Ok(server),
                Err(_) if tries > 0 && port_was_taken(&server.log()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Its directory and command; nothing is started.
    fn prepare(product: Product, settings: &[(&str, &str)], jvm: &[&str]) -> Result<SearchServer> {
        let scratch = Scratch::new("search")?;
        let directory = Directory::create(scratch.path().join("server"), jvm)?;
        let ports = ports::free(2)?;
        let (file, usual) = match product {
            Product::Elasticsearch(_) => ("elasticsearch.yml", elasticsearch::SETTINGS),
            Product::OpenSearch(_) => ("opensearch.yml", opensearch::SETTINGS),
        };
        let (data, logs) = (directory.part("data"), directory.part("logs"));
        let mut merged: BTreeMap<&str, String> = usual
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key, value.to_owned()))
            .collect();
        if !product.is_secure() {
            merged.retain(|key, _| !key.starts_with("plugins.security."));
        }
        merged.insert("path.data", data.to_string_lossy().into_owned());
        merged.insert("path.logs", logs.to_string_lossy().into_owned());
        merged.insert("http.port", ports[0].to_string());
        merged.insert("transport.port", ports[1].to_string());
        merged.extend(settings.iter().map(|&(key, value)| (key, value.to_owned())));
        let mut text = String::new();
        for (key, value) in &merged {
            writeln!(text, "{key}: {value}")?;
        }
        directory.write(file, &text)?;
        let command = match product {
            Product::Elasticsearch(release) => elasticsearch::prepare(release, &directory)?,
            Product::OpenSearch(release) => opensearch::prepare(release, &directory)?,
        };
        let ca = Certificate::from_pem(&std::fs::read(directory.ca())?)?;
        // Every call has a runtime of its own, which a connection does not outlive.
        let client = Client::builder().tls_built_in_root_certs(false).add_root_certificate(ca);
        let client = client.pool_max_idle_per_host(0).timeout(ANSWER_WITHIN).build()?;
        let (port, process) = (ports[0], Mutex::new(None));
        Ok(SearchServer { product, port, command, client, process, directory, scratch })
    }

    /// Where it listens, `https://127.0.0.1:PORT`, or without TLS where it has none. The same after each start.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.is_secure() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Whether it has TLS and users; if not, it answers anybody.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.product.is_secure()
    }

    /// The certificate of the authority that signed its own, PEM.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.directory.ca()
    }

    /// Of its release.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match self.product {
            Product::Elasticsearch(release) => release.version,
            Product::OpenSearch(release) => release.version,
        }
    }

    /// The user who may do everything.
    #[must_use]
    pub fn admin(&self) -> Credentials {
        Credentials::of(ADMIN)
    }

    /// A user who may write documents into `logmesh-*`, creating indexes there, and nothing else.
    ///
    /// # Errors
    ///
    /// When the server refuses it or does not answer.
    pub fn writer(&self) -> Result<Credentials> {
        let role = match self.product {
            Product::Elasticsearch(_) => json!({
                "cluster": ["monitor"],
                "indices": [{
                    "names": ["logmesh-*"],
                    "privileges": ["create_doc", "create_index", "view_index_metadata"],
                }],
            }),
            Product::OpenSearch(_) => json!({
                "cluster_permissions": ["cluster_monitor", "indices:data/write/bulk"],
                "index_permissions": [{
                    "index_patterns": ["logmesh-*"],
                    "allowed_actions": [
                        "indices:data/write/index", "indices:data/write/bulk*", "create_index",
                        "indices:admin/mapping/put",
                    ],
                }],
            }),
        };
        self.user(WRITER, &role)
    }

    /// A user with a role of the same name, which is made as the server's API describes one.
    ///
    /// # Errors
    ///
    /// When the server refuses it, does not answer, or has no users.
    pub fn user(&self, name: &str, role: &Value) -> Result<Credentials> {
        ensure!(self.is_secure(), "this server has no users");
        match self.product {
            Product::Elasticsearch(_) => {
                self.expect("PUT", &format!("/_security/role/{name}"), role)?;
                let user = json!({ "password": PASSWORD, "roles": [name] });
                self.expect("PUT", &format!("/_security/user/{name}"), user)?;
            }
            Product::OpenSearch(_) => {
                self.expect("PUT", &format!("/_plugins/_security/api/roles/{name}"), role)?;
                let user = json!({ "hash": ADMIN_HASH, "opendistro_security_roles": [name] });
                self.expect("PUT", &format!("/_plugins/_security/api/internalusers/{name}"), user)?;
            }
        }
        Ok(Credentials::of(name))
    }

    /// Asks as [`ADMIN`]: method, path with query, body (`""` for none; a `serde_json::Value`, or the lines of a bulk). The
    /// answer is its status and body, a string where that is not JSON.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn request(&self, method: &str, path: &str, body: impl Display) -> Result<(u16, Value)> {
        self.request_as(&self.admin(), method, path, body)
    }

    /// Asks as somebody else, otherwise like [`SearchServer::request`].
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn request_as(
        &self,
        credentials: &Credentials,
        method: &str,
        path: &str,
        body: impl Display,
    ) -> Result<(u16, Value)> {
        let method = Method::from_bytes(method.as_bytes())?;
        let mut request = self.client.request(method, format!("{}{path}", self.url()));
        request = request.basic_auth(&credentials.user, Some(&credentials.password));
        let body = body.to_string();
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body);
        }
        block_on(async {
            let response = request.send().await?;
            let (status, text) = (response.status().as_u16(), response.text().await?);
            let body = match text.as_str() {
                "" => Value::Null,
                text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
            };
            Ok((status, body))
        })
    }

    /// Like [`SearchServer::request`], where only success will do.
    pub(super) fn expect(&self, method: &str, path: &str, body: impl Display) -> Result<Value> {
        let (status, body) = self.request(method, path, body)?;
        ensure!((200..300).contains(&status), "{method} {path}: {status} {body}");
        Ok(body)
    }

    /// Of its process, while it runs.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn pid(&self) -> Result<i32> {
        Ok(self.process().as_ref().context("the server does not run")?.pid())
    }

    /// Kills it with SIGKILL; its directory stays.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        self.process().take().context("the server does not run")?.kill()
    }

    /// Stops it with SIGTERM, after 30 s with SIGKILL; its directory stays.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn stop(&self) -> Result<()> {
        self.process().take().context("the server does not run")?.terminate(STOP_WITHIN)
    }

    /// Starts it anew after a kill or stop, on the same port and directory, and waits until it indexes.
    ///
    /// # Errors
    ///
    /// When it runs, or does not start, with its last words.
    pub fn start_again(&self) -> Result<()> {
        let mut process = self.process();
        ensure!(process.is_none(), "the server runs already");
        let mut server = Server::spawn(&self.command.words, &self.command.environment, &self.log())?;
        server.wait_ready(READY_WITHIN, || self.ready()).with_context(|| self.product.to_string())?;
        *process = Some(server);
        Ok(())
    }

    /// Stops its clock with SIGSTOP: connections stay, nothing is answered.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.process().as_ref().context("the server does not run")?.signal(Signal::STOP)
    }

    /// Lets it run on after a pause.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.process().as_ref().context("the server does not run")?.signal(Signal::CONT)
    }

    /// Users are known, all that was indexed is there, and a document was indexed.
    fn ready(&self) -> Result<()> {
        let health = self.expect("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s", "")?;
        ensure!(health["timed_out"] == false, "not healthy: {health}");
        let answer = self.expect("POST", "/rig-ready/_bulk", "{\"index\":{\"_id\":\"1\"}}\n{\"ready\":true}\n")?;
        ensure!(answer["errors"] == false, "a document was refused: {answer}");
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.scratch.path().join("server.log")
    }

    fn process(&self) -> MutexGuard<'_, Option<Server>> {
        // A panic elsewhere does not change what runs.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
