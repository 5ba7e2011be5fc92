//! Set-up at start: what the server is, and whether indices will be made from our templates.
//!
//! Nothing is written before this is known: an index that is made without its template guesses a mapping from the first
//! documents, and keeps it for its whole day. Where the role may neither install nor look, that is said and work goes on:
//! somebody has set it up with other rights.

use std::time::Duration;

use elasticsearch::http::Method;
use serde_json::Value;

use super::{
    super::Outcome,
    answer, lifecycle,
    options::ElasticsearchOptions,
    server::Server,
    templates::{self, Purpose, Step, Template},
    transport::{Cluster, Reply, Request},
};

/// Time for each question: they are small.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What set-up came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SetUp {
    pub(super) server: Option<Server>,
    /// One for each template and policy.
    pub(super) templates: Vec<(String, Standing)>,
}

/// How a template or policy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Written just now.
    Installed,
    /// There, of this version.
    Present(u64),
    /// Of the same name, and not ours: left alone.
    Foreign,
    /// The role may not look: nobody can say.
    Unknown(String),
    /// The server has no such thing.
    Lacking(String),
}

/// Why documents must wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) outcome: Outcome,
}

impl Obstacle {
    fn retry(reason: String) -> Self {
        Self { outcome: Outcome::Retry { reason, after: None } }
    }

    fn held(reason: String) -> Self {
        Self { outcome: Outcome::Held { reason } }
    }

    pub(super) fn words(&self) -> &str {
        match &self.outcome {
            Outcome::Retry { reason, .. } | Outcome::Rejected { reason } | Outcome::Held { reason } => reason,
            Outcome::Created | Outcome::Exists => "",
        }
    }
}

/// Looks what answers, and installs what is missing, where that is asked for.
pub(super) async fn set_up(cluster: &Cluster, options: &ElasticsearchOptions) -> Result<SetUp, Obstacle> {
    let server = detect(cluster).await?;
    let Some(server) = server else { return Ok(SetUp::default()) };
    let purpose = Purpose {
        product: server.product,
        data_streams: options.data_streams,
        lifecycle: options.retention_days.is_some(),
    };
    let mut standings = Vec::new();
    let mut lifecycle = false;
    if let Some(days) = options.retention_days {
        let standing = policy(cluster, purpose, days, options.install_templates).await?;
        // A server without this part refuses an index that names a policy.
        lifecycle = !matches!(standing, Standing::Lacking(_));
        standings.push((format!("lifecycle policy {}", templates::NAME), standing));
    }
    for template in templates::templates(Purpose { lifecycle, ..purpose }) {
        let standing = install(cluster, &template, options.install_templates).await?;
        standings.push((template.title, standing));
    }
    Ok(SetUp { server: Some(server), templates: standings })
}

/// What answers; `None` where the role may not ask.
pub(super) async fn detect(cluster: &Cluster) -> Result<Option<Server>, Obstacle> {
    let reply = ask(cluster, Request::get("/")).await?;
    match reply.status {
        200 => match Server::read(&reply.body) {
            Some(server) => Ok(Some(server)),
            None => Err(strange(&reply)),
        },
        403 => Ok(None),
        _ => Err(refusal(&reply)),
    }
}

/// Asks whichever node answers.
pub(super) async fn ask(cluster: &Cluster, request: Request<'_>) -> Result<Reply, Obstacle> {
    let request = request.within(ANSWER_WITHIN);
    let mut words = String::new();
    for _ in cluster.urls() {
        match cluster.send(request.clone()).await {
            Ok(reply) => return Ok(reply),
            Err(failure) => failure.words().clone_into(&mut words),
        }
    }
    Err(Obstacle::retry(words))
}

fn strange(reply: &Reply) -> Obstacle {
    Obstacle::retry(format!(
        "what answers at `urls` of [index] is neither Elasticsearch nor OpenSearch: {}; correct the address",
        answer::excerpt(&reply.body)
    ))
}

fn refusal(reply: &Reply) -> Obstacle {
    let outcome = answer::refused(reply.status, &answer::cause_of_whole(&reply.body), None);
    Obstacle { outcome }
}

/// Looks for a template, and writes it where it is missing or older.
async fn install(cluster: &Cluster, template: &Template, allowed: bool) -> Result<Standing, Obstacle> {
    let reply = ask(cluster, Request::get(&template.path)).await?;
    let there = match reply.status {
        200 => json(&reply)?,
        404 => Value::Null,
        401 => return Err(refusal(&reply)),
        403 => return Ok(Standing::Unknown("the role may not read templates".to_owned())),
        _ => return Err(refusal(&reply)),
    };
    match templates::step(template, &there) {
        Step::Keep { version } => return Ok(Standing::Present(version)),
        Step::Foreign => return Ok(Standing::Foreign),
        Step::Put if !allowed => return Err(missing(template, "`install_templates` is off in [index]")),
        Step::Put => {}
    }
    let reply = ask(cluster, Request::with_json(Method::Put, &template.path, &template.body)).await?;
    match reply.status {
        200..300 => Ok(Standing::Installed),
        403 => Err(missing(template, "the role may not install it")),
        _ => Err(refused(&template.title, &reply)),
    }
}

fn missing(template: &Template, why: &str) -> Obstacle {
    Obstacle::held(format!(
        "the {} is missing or old, and {why}; run `logmesh check --connect` once with an administrator's credentials",
        template.title
    ))
}

fn refused(title: &str, reply: &Reply) -> Obstacle {
    let words = answer::cause_of_whole(&reply.body).words;
    let reason = format!("the index server does not take the {title} ({}): {words}", reply.status);
    if matches!(reply.status, 429 | 500..) { Obstacle::retry(reason) } else { Obstacle::held(reason) }
}

fn json(reply: &Reply) -> Result<Value, Obstacle> {
    serde_json::from_slice(&reply.body).map_err(|_| strange(reply))
}

/// Looks for the lifecycle policy, and writes it where it is missing or other.
async fn policy(cluster: &Cluster, purpose: Purpose, days: u32, allowed: bool) -> Result<Standing, Obstacle> {
    let path = lifecycle::path(purpose.product);
    let wanted = lifecycle::policy(purpose.product, days, purpose.data_streams);
    let reply = ask(cluster, Request::get(&path)).await?;
    let there = match reply.status {
        200 => json(&reply)?,
        // A policy that is not there is told in an object; a server without this part has no handler.
        404 if answer::cause_of_whole(&reply.body).kind.ends_with("_exception") => Value::Null,
        403 => return Ok(Standing::Unknown("the role may not read lifecycle policies".to_owned())),
        400 | 404 | 405 => {
            return Ok(Standing::Lacking("this server has no lifecycle management: nothing is removed".to_owned()));
        }
        _ => return Err(refusal(&reply)),
    };
    let query = match lifecycle::step(purpose.product, &wanted, &there) {
        lifecycle::Step::Keep => return Ok(Standing::Present(0)),
        lifecycle::Step::Put(_) if !allowed => {
            return Ok(Standing::Unknown("missing or other, and `install_templates` is off".to_owned()));
        }
        lifecycle::Step::Put(query) => query,
    };
    let path = format!("{path}{query}");
    let reply = ask(cluster, Request::with_json(Method::Put, &path, &wanted)).await?;
    match reply.status {
        200..300 => Ok(Standing::Installed),
        403 => Ok(Standing::Unknown("the role may not install lifecycle policies".to_owned())),
        _ => Err(refused("lifecycle policy", &reply)),
    }
}
