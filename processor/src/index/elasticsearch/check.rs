//! `logmesh check --connect` for the index: is it there, who are we, what may we, is it set up.
//!
//! Looks, and installs templates where the configuration asks for that and the role allows it. It writes no document.

use std::time::Duration;

use elasticsearch::http::Method;
use logmesh_runtime::finding::{Finding, Verdict};
use serde_json::{Value, json};

use super::{
    answer,
    options::{Authentication, ElasticsearchOptions},
    server::{Product, Server},
    setup::{self, SetUp, Standing},
    transport::{Cluster, Request},
};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Looks at the servers as the options name them.
pub async fn check(options: &ElasticsearchOptions) -> Vec<Finding> {
    let cluster = match Cluster::new(options) {
        Ok(cluster) => cluster,
        Err(error) => return vec![Finding::new("index", Verdict::Bad, error.to_string())],
    };
    let (mut findings, server) = nodes(&cluster, options).await;
    if findings.iter().all(|finding| finding.verdict == Verdict::Bad) {
        return findings;
    }
    match setup::set_up(&cluster, options).await {
        Ok(set_up) => findings.extend(standings(&set_up)),
        Err(obstacle) => findings.push(
            Finding::new("index templates", Verdict::Bad, obstacle.words())
                .cured_by("run this check once with an administrator's credentials in [index]"),
        ),
    }
    findings.push(privileges(&cluster, options, server.as_ref()).await);
    if let Some(server) = &server {
        let role = minimal_role(server.product, options);
        findings.push(Finding::new("smallest role for a processor", Verdict::Good, role.to_string()));
    }
    findings
}

/// Each node by itself, and what the first that answers is.
async fn nodes(cluster: &Cluster, options: &ElasticsearchOptions) -> (Vec<Finding>, Option<Server>) {
    let (mut findings, mut server) = (Vec::new(), None);
    for (node, url) in cluster.urls().enumerate() {
        let subject = format!("index server {url}");
        let reply = cluster.send_to(node, Request::get("/").within(ANSWER_WITHIN)).await;
        findings.push(match reply {
            Err(failure) => Finding::new(subject, Verdict::Bad, failure.words())
                .cured_by("correct `urls` and `tls.ca` in [index], or start the server"),
            Ok(reply) if reply.status == 200 => match Server::read(&reply.body) {
                Some(found) => {
                    let finding = match found.caveat() {
                        Some(caveat) => Finding::new(subject, Verdict::Doubtful, caveat)
                            .cured_by("try it with logs that you can spare, or take a version that was tried"),
                        None => Finding::new(subject, Verdict::Good, format!("{found}, {}", who(options))),
                    };
                    server = server.or(Some(found));
                    finding
                }
                None => {
                    let words = format!("neither Elasticsearch nor OpenSearch: {}", answer::excerpt(&reply.body));
                    Finding::new(subject, Verdict::Bad, words).cured_by("correct `urls` in [index]")
                }
            },
            Ok(reply) if reply.status == 401 => {
                let words = format!("refuses the credentials ({})", who(options));
                Finding::new(subject, Verdict::Bad, words)
                    .cured_by("correct api_key, bearer, or username and password in [index]")
            }
            Ok(reply) if reply.status == 403 => {
                let words = "does not let us ask for its version";
                Finding::new(subject, Verdict::Doubtful, words).cured_by("grant the cluster privilege `monitor`")
            }
            Ok(reply) => {
                let words = format!("answers {}: {}", reply.status, answer::excerpt(&reply.body));
                Finding::new(subject, Verdict::Bad, words).cured_by("correct `urls` in [index], or mend the server")
            }
        });
    }
    (findings, server)
}

fn who(options: &ElasticsearchOptions) -> String {
    match &options.authentication {
        Authentication::None => "without credentials".to_owned(),
        Authentication::Basic { username, .. } => format!("as user {username}"),
        Authentication::ApiKey(_) => "with an API key".to_owned(),
        Authentication::Bearer(_) => "with a bearer token".to_owned(),
    }
}

fn standings(set_up: &SetUp) -> Vec<Finding> {
    let finding = |(title, standing): &(String, Standing)| match standing {
        Standing::Installed => Finding::new(title, Verdict::Good, "installed just now"),
        Standing::Present(version) => Finding::new(title, Verdict::Good, format!("present, version {version}")),
        Standing::Foreign => {
            Finding::new(title, Verdict::Doubtful, "there, but not made by logmesh; it was left alone")
                .cured_by("rename it, or make sure that it maps what logmesh's template maps")
        }
        Standing::Unknown(words) => Finding::new(title, Verdict::Doubtful, words)
            .cured_by("run this check once with an administrator's credentials in [index]"),
        Standing::Lacking(words) => Finding::new(title, Verdict::Doubtful, words)
            .cured_by("leave `retention` out of [index], and remove old indices by other means"),
    };
    set_up.templates.iter().map(finding).collect()
}

/// What the role may do, as far as the server tells.
async fn privileges(cluster: &Cluster, options: &ElasticsearchOptions, server: Option<&Server>) -> Finding {
    const SUBJECT: &str = "privileges";
    let unknown = |words: &str| Finding::new(SUBJECT, Verdict::Doubtful, words);
    let Some(server) = server else { return unknown("nobody can say without knowing the server") };
    if server.product == Product::OpenSearch {
        return unknown("OpenSearch does not tell what a role may do; the first document will show")
            .cured_by("compare the role with the smallest one below");
    }
    let role = minimal_role(server.product, options);
    let asked = json!({ "cluster": role["cluster"], "index": role["indices"] });
    let request = Request::with_json(Method::Post, "/_security/user/_has_privileges", &asked);
    let reply = match setup::ask(cluster, request).await {
        Ok(reply) => reply,
        Err(obstacle) => return unknown(obstacle.words()),
    };
    let Ok(body) = serde_json::from_slice::<Value>(&reply.body) else { return unknown("the answer cannot be read") };
    match (reply.status, body.get("has_all_requested").and_then(Value::as_bool)) {
        (200, Some(true)) => Finding::new(SUBJECT, Verdict::Good, "all that is needed"),
        (200, Some(false)) => Finding::new(SUBJECT, Verdict::Bad, format!("missing: {}", lacking(&body).join(", ")))
            .cured_by("grant the smallest role below"),
        (200.., _) => unknown("the server's security is off, or does not tell: everybody may do everything"),
        (_, _) => unknown("the answer cannot be read"),
    }
}

/// Names of the privileges that an answer denies.
fn lacking(body: &Value) -> Vec<String> {
    let denied = |privileges: &Value, place: &str| -> Vec<String> {
        let entries = privileges.as_object().into_iter().flatten();
        entries.filter(|(_, has)| **has == json!(false)).map(|(name, _)| format!("{name} ({place})")).collect()
    };
    let mut all = denied(&body["cluster"], "cluster");
    for (index, privileges) in body["index"].as_object().into_iter().flatten() {
        all.extend(denied(privileges, index));
    }
    all
}

/// The least that a processor needs, as the server's own interface for roles takes it.
#[must_use]
pub fn minimal_role(product: Product, options: &ElasticsearchOptions) -> Value {
    let mut names = vec!["logmesh-*"];
    if options.data_streams {
        names.push("logs-logmesh-*");
    }
    match product {
        Product::Elasticsearch => json!({
            "cluster": ["monitor"],
            "indices": [{ "names": names, "privileges": ["index", "create_index", "auto_configure"] }],
        }),
        Product::OpenSearch => json!({
            "cluster_permissions": ["cluster_monitor", "indices:data/write/bulk"],
            "index_permissions": [{
                "index_patterns": names,
                "allowed_actions": [
                    "indices:data/write/index",
                    "indices:data/write/bulk*",
                    "create_index",
                    "indices:admin/mapping/put",
                ],
            }],
        }),
    }
}
