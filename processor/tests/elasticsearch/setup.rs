//! Set-up of the index servers and `check --connect`, against a scripted server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::scripted::Scripted;
use logmesh_processor::index::{
    Index as _, Mode, Outcome, contract,
    elasticsearch::{Elasticsearch, ElasticsearchOptions, check},
};
use logmesh_runtime::{
    finding::{Finding, Verdict},
    health::Health,
};
use serde_json::{Value, json};

fn open(server: &Scripted, change: impl FnOnce(&mut ElasticsearchOptions)) -> (Elasticsearch, Health) {
    let health = Health::new();
    let index = Elasticsearch::open(&options(server, change), health.condition("index")).expect("usable options");
    (index, health)
}

fn options(server: &Scripted, change: impl FnOnce(&mut ElasticsearchOptions)) -> ElasticsearchOptions {
    let mut options = ElasticsearchOptions::new([server.url.clone()]);
    options.request_timeout = Duration::from_secs(2);
    change(&mut options);
    options
}

async fn one(index: &Elasticsearch) -> Outcome {
    index.bulk(vec![contract::document(1, 0, "one")], Mode::Create).await.remove(0)
}

fn opensearch() -> Value {
    json!({ "version": { "distribution": "opensearch", "number": "2.19.4" }, "tagline": "The OpenSearch Project: https://opensearch.org/" })
}

/// Paths of what was put, in order, with their bodies.
fn put(server: &Scripted) -> Vec<(String, Value)> {
    let oracle = server.oracle();
    let puts = oracle.others.iter().filter(|(method, ..)| method == "PUT");
    puts.map(|(_, path, body)| (path.clone(), serde_json::from_str(body).unwrap())).collect()
}

fn paths(server: &Scripted) -> Vec<String> {
    put(server).into_iter().map(|(path, _)| path).collect()
}

#[tokio::test]
async fn templates_are_there_before_the_first_document() {
    let server = Scripted::start().await;
    let (index, health) = open(&server, |_| {});
    assert_eq!(one(&index).await, Outcome::Created);
    let expected =
        ["/_component_template/logmesh-mappings", "/_component_template/logmesh-settings", "/_index_template/logmesh"];
    assert_eq!(paths(&server), expected);
    assert!(health.readiness().ready);
}

#[tokio::test]
async fn a_template_that_is_as_new_is_left_alone_and_an_older_one_replaced() {
    for (version, replaced) in [(0, 2), (1, 0), (99, 0)] {
        let server = Scripted::start().await;
        server.others(move |method, path, body| match (method, path.contains("_component_template/")) {
            ("GET", true) => {
                let template = json!({ "version": version, "_meta": { "managed_by": "logmesh" } });
                (200, json!({ "component_templates": [{ "name": "x", "component_template": template }] }))
            }
            _ => crate::scripted::elasticsearch(method, path, body),
        });
        let (index, _) = open(&server, |_| {});
        assert_eq!(one(&index).await, Outcome::Created);
        let components = paths(&server).iter().filter(|path| path.contains("component")).count();
        assert_eq!(components, replaced, "there in version {version}");
    }
}

#[tokio::test]
async fn without_the_right_to_look_documents_flow_and_without_the_right_to_install_they_wait() {
    let server = Scripted::start().await;
    server.others(|method, path, body| match path.contains("template/") {
        true => (403, json!({ "error": { "type": "security_exception", "reason": "no" } })),
        false => crate::scripted::elasticsearch(method, path, body),
    });
    let (index, health) = open(&server, |_| {});
    assert_eq!(one(&index).await, Outcome::Created, "nobody can say that it is not there");
    assert!(health.readiness().ready);

    let server = Scripted::start().await;
    let allowed = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&allowed);
    server.others(move |method, path, body| match (method, now.load(Ordering::SeqCst)) {
        ("PUT", false) => (403, json!({ "error": { "type": "security_exception", "reason": "no" } })),
        _ => crate::scripted::elasticsearch(method, path, body),
    });
    let (index, health) = open(&server, |_| {});
    let outcome = one(&index).await;
    assert!(matches!(&outcome, Outcome::Held { reason } if reason.contains("logmesh check --connect")), "{outcome:?}");
    assert!(!health.readiness().ready);
    assert_eq!(server.oracle().held(), 0);
    allowed.store(true, Ordering::SeqCst);
    while one(&index).await != Outcome::Created {
        tokio::task::yield_now().await;
    }
    assert!(health.readiness().ready, "healed by itself");
}

#[tokio::test]
async fn templates_are_not_installed_where_that_is_switched_off() {
    let server = Scripted::start().await;
    let (index, _) = open(&server, |options| options.install_templates = false);
    let outcome = one(&index).await;
    assert!(matches!(&outcome, Outcome::Held { reason } if reason.contains("install_templates")), "{outcome:?}");
    assert_eq!(paths(&server), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_neither_server_gets_nothing_and_is_said() {
    let server = Scripted::start().await;
    let cured = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&cured);
    server.others(move |method, path, body| match now.load(Ordering::SeqCst) {
        true => crate::scripted::elasticsearch(method, path, body),
        false => (200, json!({ "hello": "I am a printer" })),
    });
    let (index, health) = open(&server, |_| {});
    let outcome = one(&index).await;
    assert!(matches!(&outcome, Outcome::Retry { reason, .. } if reason.contains("I am a printer")), "{outcome:?}");
    let readiness = health.readiness();
    assert!(readiness.reasons[0].reason.contains("neither Elasticsearch nor OpenSearch"), "{readiness:?}");
    assert!(server.oracle().sizes.is_empty());
    cured.store(true, Ordering::SeqCst);
    while one(&index).await != Outcome::Created {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn readiness_heals_without_a_document_to_write() {
    let server = Scripted::start().await;
    let (index, health) = open(&server, |_| {});
    server.script(|_| crate::scripted::Plan::CutBefore);
    assert!(matches!(one(&index).await, Outcome::Retry { .. }));
    assert!(!health.readiness().ready);
    server.script(|_| crate::scripted::Plan::Serve);
    let mut trouble = index.trouble();
    let healed = tokio::time::timeout(Duration::from_secs(25), trouble.wait_for(Option::is_none));
    healed.await.expect("within five times the 5 s").expect("the index lives");
    assert!(health.readiness().ready);
    assert_eq!(server.oracle().held(), 0);
}

#[tokio::test]
async fn data_streams_come_with_their_template_and_their_name() {
    let server = Scripted::start().await;
    let (index, _) = open(&server, |options| options.data_streams = true);
    assert_eq!(one(&index).await, Outcome::Created);
    let puts = put(&server);
    let (path, body) = puts.last().unwrap();
    assert_eq!(path, "/_index_template/logmesh-streams");
    assert_eq!((&body["data_stream"], &body["index_patterns"]), (&json!({}), &json!(["logs-logmesh-*"])));
    {
        let oracle = server.oracle();
        let names: Vec<&str> = oracle.documents.keys().map(|(index, _)| index.as_str()).collect();
        assert_eq!(names, ["logs-logmesh-default"]);
    }
    // What is there cannot be replaced, and a replay must not wait for that for ever.
    let replayed = index.bulk(vec![contract::document(1, 0, "one")], Mode::Index).await;
    assert_eq!(replayed, [Outcome::Exists]);
}

#[tokio::test]
async fn retention_becomes_a_policy_of_the_servers_own() {
    let server = Scripted::start().await;
    server.others(|method, path, body| match (method, path) {
        ("GET", path) if path.contains("_ilm") => (404, json!({ "error": { "type": "resource_not_found_exception" } })),
        _ => crate::scripted::elasticsearch(method, path, body),
    });
    let (index, _) = open(&server, |options| options.retention_days = Some(30));
    assert_eq!(one(&index).await, Outcome::Created);
    let puts = put(&server);
    assert_eq!(puts[0].0, "/_ilm/policy/logmesh");
    assert_eq!(puts[0].1.pointer("/policy/phases/delete/min_age"), Some(&json!("30d")));
    let component = &puts.iter().find(|(path, _)| path.ends_with("logmesh-lifecycle")).expect("a component").1;
    assert_eq!(component.pointer("/template/settings/index/lifecycle/name"), Some(&json!("logmesh")));
    assert!(puts.last().unwrap().1["composed_of"].as_array().unwrap().contains(&json!("logmesh-lifecycle")));

    let server = Scripted::start().await;
    server.others(|method, path, body| match (method, path) {
        ("GET", "/") => (200, opensearch()),
        ("GET", path) if path.contains("_ism") => {
            (200, json!({ "_seq_no": 7, "_primary_term": 3, "policy": { "states": [] } }))
        }
        _ => crate::scripted::elasticsearch(method, path, body),
    });
    let (index, _) = open(&server, |options| options.retention_days = Some(30));
    assert_eq!(one(&index).await, Outcome::Created);
    let puts = put(&server);
    assert_eq!(puts[0].0, "/_plugins/_ism/policies/logmesh?if_seq_no=7&if_primary_term=3");
    assert_eq!(puts[0].1.pointer("/policy/ism_template/0/index_patterns/0"), Some(&json!("logmesh-*")));
    assert!(!paths(&server).iter().any(|path| path.ends_with("logmesh-lifecycle")));
}

#[tokio::test]
async fn a_server_without_lifecycle_management_takes_documents_all_the_same() {
    let server = Scripted::start().await;
    let (index, _) = open(&server, |options| options.retention_days = Some(30));
    assert_eq!(one(&index).await, Outcome::Created);
    assert!(!paths(&server).iter().any(|path| path.contains("_ilm") || path.ends_with("logmesh-lifecycle")));
    let findings = check(&options(&server, |options| options.retention_days = Some(30))).await;
    let finding = named(&findings, "lifecycle policy logmesh");
    assert_eq!(finding.verdict, Verdict::Doubtful);
    assert!(finding.words.contains("no lifecycle management"));
}

fn named<'f>(findings: &'f [Finding], subject: &str) -> &'f Finding {
    findings
        .iter()
        .find(|finding| finding.subject.starts_with(subject))
        .unwrap_or_else(|| panic!("{subject}: {findings:?}"))
}

#[tokio::test]
async fn the_check_says_how_all_of_it_stands() {
    let server = Scripted::start().await;
    server.others(|method, path, body| match path {
        "/_security/user/_has_privileges" => {
            let index = json!({ "logmesh-*": { "index": true, "create_index": false, "auto_configure": true } });
            (200, json!({ "has_all_requested": false, "cluster": { "monitor": true }, "index": index }))
        }
        _ => crate::scripted::elasticsearch(method, path, body),
    });
    let findings = check(&options(&server, |options| options.urls.push("http://127.0.0.1:1".into()))).await;
    let of = |subject: &str| named(&findings, subject);
    assert_eq!(of(&format!("index server {}", server.url)).verdict, Verdict::Good);
    let gone = of("index server http://127.0.0.1:1");
    assert!(
        gone.verdict == Verdict::Bad && gone.cure.is_some() && gone.words.contains("cannot be reached"),
        "{gone:?}"
    );
    assert_eq!(of("index template logmesh").words, "installed just now");
    assert_eq!(of("privileges").verdict, Verdict::Bad);
    assert_eq!(of("privileges").words, "missing: create_index (logmesh-*)");
    let role: Value = serde_json::from_str(&of("smallest role").words).unwrap();
    assert_eq!(role["indices"][0]["names"], json!(["logmesh-*"]));
}

#[tokio::test]
async fn the_check_of_a_server_that_refuses_us_says_so_and_ends() {
    let server = Scripted::start().await;
    server.others(|_, _, _| (401, json!({ "error": "who are you" })));
    let findings = check(&options(&server, |_| {})).await;
    assert_eq!(findings.len(), 1);
    assert!(findings[0].verdict == Verdict::Bad && findings[0].words.contains("refuses the credentials"));
}
