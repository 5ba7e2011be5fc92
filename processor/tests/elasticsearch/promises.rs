//! The index on real servers: what every index promises, templates, faults of documents, of rights, of indices.

use std::{future::Future, time::Duration};

use crate::servers::{Subject, documents, options};
use bytes::Bytes;
use logmesh_processor::{
    document::Document,
    index::{
        Index as _, Outcome, contract,
        contract::Subject as _,
        elasticsearch::{Authentication, ElasticsearchOptions, Product, check, minimal_role},
    },
};
use logmesh_rig::SearchServer;
use logmesh_runtime::{
    config::Secret,
    finding::{Finding, Verdict},
};
use serde_json::{Value, json};

/// What every index promises.
mod contract_on_elasticsearch {
    logmesh_processor::index_contract!(crate::servers::Subject::new(crate::servers::elasticsearch()));
}

mod contract_on_opensearch {
    logmesh_processor::index_contract!(crate::servers::Subject::new(crate::servers::opensearch()));
}

/// The same claim on both servers.
macro_rules! on_both {
    ($($claim:ident,)+) => {
        mod on_elasticsearch {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::$claim(crate::servers::elasticsearch()).await;
            })+
        }
        mod on_opensearch {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::$claim(crate::servers::opensearch()).await;
            })+
        }
    };
}

on_both! {
    indices_are_made_from_our_templates,
    a_data_stream_takes_our_template_before_the_servers_own,
    documents_of_real_logs_are_taken_without_a_rejection,
    lines_that_nobody_should_write_are_taken_without_a_rejection,
    a_mapping_conflict_is_refused_with_its_innermost_cause,
    a_read_only_index_is_waited_for,
    an_index_that_the_role_may_not_write_holds_its_lane_alone_and_heals,
    a_closed_index_holds_and_heals,
    an_index_without_a_primary_makes_no_other_wait,
    wrong_credentials_hold_and_are_said,
    a_server_of_another_authority_is_not_spoken_to,
    the_check_says_what_is_there,
}

/// What differs between versions, on the newer ones.
macro_rules! on_newer {
    ($($claim:ident,)+) => {
        mod on_newer_elasticsearch {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                if let Some(server) = crate::servers::newer_elasticsearch() {
                    super::$claim(server).await;
                }
            })+
        }
        mod on_newer_opensearch {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                if let Some(server) = crate::servers::newer_opensearch() {
                    super::$claim(server).await;
                }
            })+
        }
    };
}

on_newer! {
    all_that_every_index_promises_is_kept,
    indices_are_made_from_our_templates,
    a_data_stream_takes_our_template_before_the_servers_own,
    documents_of_real_logs_are_taken_without_a_rejection,
    lines_that_nobody_should_write_are_taken_without_a_rejection,
    a_mapping_conflict_is_refused_with_its_innermost_cause,
    a_closed_index_holds_and_heals,
}

/// The contract, which has a test for each promise on the other versions.
async fn all_that_every_index_promises_is_kept(server: &'static SearchServer) {
    let fresh = || Subject::new(server);
    contract::a_new_document_is_created_and_searchable_when_answered(&fresh()).await;
    contract::the_same_again_exists(&fresh()).await;
    contract::the_same_twice_in_one_call_is_one_document(&fresh()).await;
    contract::concurrent_duplicates_become_one_document(&fresh()).await;
    contract::order_of_arrival_does_not_matter(&fresh()).await;
    contract::a_bad_document_harms_only_itself(&fresh()).await;
    contract::index_mode_replaces(&fresh()).await;
    contract::a_retry_after_a_failed_commit_doubles_nothing(&fresh()).await;
}

/// Tries until the outcome is another one; fails after a minute.
async fn until<F: Future<Output = Outcome>>(wanted: fn(&Outcome) -> bool, mut attempt: impl FnMut() -> F) {
    let tries = async {
        while !wanted(&attempt().await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), tries).await.expect("it heals by itself");
}

async fn one(subject: &Subject) -> Outcome {
    subject.write(&[contract::document(1, 0, "one")]).await.remove(0)
}

async fn indices_are_made_from_our_templates(server: &'static SearchServer) {
    let subject = Subject::new(server);
    assert_eq!(one(&subject).await, Outcome::Created);
    let template = subject.request("GET", "/_index_template/logmesh", Value::Null);
    assert_eq!(template.pointer("/index_templates/0/index_template/version"), Some(&json!(1)));
    let name = subject.index.name.clone();
    let index = subject.request("GET", &format!("/{name}"), Value::Null);
    let at = |pointer: &str| index[&name].pointer(pointer).unwrap_or(&Value::Null).clone();
    assert_eq!(at("/mappings/dynamic"), "false");
    assert_eq!(at("/mappings/properties/message/type"), "text");
    assert_eq!(at("/mappings/properties/http/properties/response/properties/status_code/type"), "long");
    assert_eq!(at("/settings/index/auto_expand_replicas"), "0-1");
    let container = at("/mappings/properties/fields/type");
    assert!(container == "flattened" || container == "flat_object", "{container}");
}

async fn a_data_stream_takes_our_template_before_the_servers_own(server: &'static SearchServer) {
    let mut options = options(server, &server.admin());
    options.data_streams = true;
    let subject = Subject::with(server, &options);
    let [mut document] = [contract::document(1, 0, "no number")];
    document.body = Bytes::from_static(b"{\"@timestamp\":\"2026-11-23T03:00:00Z\",\"message\":\"no number\"}");
    // The look-alike maps `message` as a number: it would refuse this.
    assert_eq!(subject.write(&[document.clone()]).await, [Outcome::Created]);
    assert_eq!(subject.write(&[document]).await, [Outcome::Exists]);
    let name = subject.index.name.trim_end_matches(crate::servers::DAY).trim_end_matches('-').to_owned();
    let mapping = subject.request("GET", &format!("/logs-{name}/_mapping"), Value::Null);
    let (index, mapping) = mapping.as_object().unwrap().iter().next().unwrap();
    assert!(index.starts_with(&format!(".ds-logs-{name}-")), "{index} belongs to a data stream");
    assert_eq!(mapping.pointer("/mappings/properties/message/type"), Some(&json!("text")));
}

async fn assert_all_created(subject: &Subject, what: &str, documents: &[Document]) {
    let outcomes = subject.write(documents).await;
    for (document, outcome) in documents.iter().zip(&outcomes) {
        let body = String::from_utf8_lossy(&document.body[..document.body.len().min(300)]);
        assert_eq!(*outcome, Outcome::Created, "{what}: {body}");
    }
}

async fn documents_of_real_logs_are_taken_without_a_rejection(server: &'static SearchServer) {
    let subject = Subject::new(server);
    let mut count = 0;
    for (name, lines) in documents::real_logs() {
        let documents = documents::built(&name, lines.iter().map(Vec::as_slice));
        count += documents.len();
        assert_all_created(&subject, &name, &documents).await;
    }
    subject.settle().await;
    let index = &subject.index.name;
    let hits = |query: Value| {
        let answer = subject.request("POST", &format!("/{index}/_count"), json!({ "query": query }));
        answer["count"].as_u64().unwrap() as usize
    };
    assert_eq!(hits(json!({ "match_all": {} })), count);
    assert_eq!(hits(json!({ "exists": { "field": "@timestamp" } })), count);
    assert!(hits(json!({ "term": { "log.level": "error" } })) > 0);
    assert!(hits(json!({ "range": { "http.response.status_code": { "gte": 400 } } })) > 0);
    assert!(hits(json!({ "term": { "labels.env": "prod" } })) == count);
}

async fn lines_that_nobody_should_write_are_taken_without_a_rejection(server: &'static SearchServer) {
    let subject = Subject::new(server);
    let lines = documents::hostile();
    let documents = documents::built("hostile", lines.iter().map(Vec::as_slice));
    assert_eq!(documents.len(), lines.len());
    assert_all_created(&subject, "hostile", &documents).await;
    let mapping = subject.request("GET", &format!("/{}/_mapping", subject.index.name), Value::Null).to_string();
    assert!(!mapping.contains("k1999"), "no field of a producer's became one of the index");
}

async fn a_mapping_conflict_is_refused_with_its_innermost_cause(server: &'static SearchServer) {
    let subject = Subject::new(server);
    let mappings = json!({ "mappings": { "properties": { "message": { "type": "long" } } } });
    subject.request("PUT", &format!("/{}", subject.index.name), mappings);
    let mut documents = contract::stream_of(1, &["no number", "7"]);
    documents[1].body = Bytes::from_static(b"{\"message\":7}");
    let outcomes = subject.write(&documents).await;
    let Outcome::Rejected { reason } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(reason.contains("For input string: \"no number\"") && reason.contains("[message]"), "{reason}");
    assert_eq!(outcomes[1], Outcome::Created);
    assert!(subject.health.readiness().ready, "a document's fault is no trouble of the server's");
}

async fn a_read_only_index_is_waited_for(server: &'static SearchServer) {
    let subject = Subject::new(server);
    assert_eq!(one(&subject).await, Outcome::Created);
    subject.break_writes();
    let documents = contract::stream_of(1, &["one", "two"]);
    for outcome in subject.write(&documents[1..]).await {
        assert!(matches!(&outcome, Outcome::Retry { reason, .. } if reason.contains("read-only")), "{outcome:?}");
    }
    subject.heal_writes();
    assert_eq!(subject.write(&documents).await, [Outcome::Exists, Outcome::Created]);
}

/// A role as the server's interface takes it, for these names.
fn role(server: &SearchServer, names: &[&str]) -> Value {
    let product = if server.version().starts_with('2') { Product::OpenSearch } else { Product::Elasticsearch };
    let mut role = minimal_role(product, &ElasticsearchOptions::new([]));
    let (list, key) = match product {
        Product::Elasticsearch => ("indices", "names"),
        Product::OpenSearch => ("index_permissions", "index_patterns"),
    };
    role[list][0][key] = json!(names);
    role
}

async fn an_index_that_the_role_may_not_write_holds_its_lane_alone_and_heals(server: &'static SearchServer) {
    let name = logmesh_rig::unique("narrow");
    let who = server.user(&name, &role(server, &[&format!("logmesh-{name}-*")])).expect("a user");
    let subject = Subject::with(server, &options(server, &who));
    let own: Document = {
        let mut document = contract::document(2, 0, "mine");
        document.index = format!("logmesh-{name}-{}", crate::servers::DAY).into();
        document
    };
    let other: Document = {
        let mut document = contract::document(1, 0, "forbidden");
        document.index = format!("logmesh-x{name}-{}", crate::servers::DAY).into();
        document
    };
    let write = || subject.index.inner.bulk(vec![other.clone(), own.clone()], logmesh_processor::index::Mode::Create);
    let outcomes = write().await;
    assert!(
        matches!(&outcomes[0], Outcome::Held { reason } if reason.contains("403") && reason.contains(&*other.index)),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[1], Outcome::Created, "the neighbour is written");
    assert!(subject.health.readiness().ready, "one lane's trouble is not the server's");
    server.user(&name, &role(server, &["logmesh-*"])).expect("a wider role");
    until(|outcome| *outcome == Outcome::Created, || async { write().await.remove(0) }).await;
}

async fn a_closed_index_holds_and_heals(server: &'static SearchServer) {
    let subject = Subject::new(server);
    assert_eq!(one(&subject).await, Outcome::Created);
    subject.request("POST", &format!("/{}/_close", subject.index.name), Value::Null);
    let outcome = one(&subject).await;
    assert!(matches!(&outcome, Outcome::Held { reason } if reason.contains("index_closed_exception")), "{outcome:?}");
    subject.request("POST", &format!("/{}/_open", subject.index.name), Value::Null);
    until(|outcome| *outcome == Outcome::Exists, || one(&subject)).await;
}

async fn an_index_without_a_primary_makes_no_other_wait(server: &'static SearchServer) {
    let mut options = options(server, &server.admin());
    options.request_timeout = Duration::from_secs(9);
    let subject = Subject::with(server, &options);
    let nowhere = json!({ "settings": { "index.routing.allocation.require._name": "nobody" } });
    let path = format!("/{}?wait_for_active_shards=0&timeout=1s", subject.index.name);
    subject.request("PUT", &path, nowhere);
    let stuck = one(&subject).await;
    assert!(matches!(&stuck, Outcome::Retry { reason, .. } if reason.contains("503")), "{stuck:?}");
    let other = format!("{}x", subject.index.name);
    let stuck = async {
        loop {
            let outcomes = futures_util::future::join_all((0..8).map(|_| one(&subject))).await;
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Retry { .. })), "{outcomes:?}");
        }
    };
    let flowing = async {
        let begun = std::time::Instant::now();
        for offset in 0..50 {
            let mut document = contract::document(2, offset, "flows");
            document.index = other.as_str().into();
            let outcomes = subject.index.inner.bulk(vec![document], logmesh_processor::index::Mode::Create).await;
            assert_eq!(outcomes, [Outcome::Created]);
        }
        begun.elapsed()
    };
    let took = tokio::select! {
        took = flowing => took,
        () = stuck => unreachable!("it has no end"),
    };
    // Had each of the 50 waited for the other index, that would be 150 s.
    assert!(took < Duration::from_secs(60), "{took:?}");
    subject.settings(json!({ "index.routing.allocation.require._name": null }));
    // Perhaps by one of the calls that were given up.
    until(Outcome::is_done, || one(&subject)).await;
}

async fn wrong_credentials_hold_and_are_said(server: &'static SearchServer) {
    let mut options = options(server, &server.admin());
    options.authentication = Authentication::Basic { username: "admin".into(), password: Secret::new("wrong") };
    let subject = Subject::with(server, &options);
    let outcome = one(&subject).await;
    assert!(
        matches!(&outcome, Outcome::Held { reason } if reason.contains("refuses our credentials (401)")),
        "{outcome:?}"
    );
    let readiness = subject.health.readiness();
    assert!(!readiness.ready && readiness.reasons[0].reason.contains("correct api_key"), "{readiness:?}");
}

async fn a_server_of_another_authority_is_not_spoken_to(server: &'static SearchServer) {
    let mut options = options(server, &server.admin());
    options.ca = None;
    let subject = Subject::with(server, &options);
    let outcome = one(&subject).await;
    assert!(
        matches!(&outcome, Outcome::Retry { reason, .. } if reason.contains("set `tls.ca` in [index]")),
        "{outcome:?}"
    );
}

async fn the_check_says_what_is_there(server: &'static SearchServer) {
    let of = |findings: &[Finding], subject: &str| -> Finding {
        findings
            .iter()
            .find(|finding| finding.subject.starts_with(subject))
            .unwrap_or_else(|| panic!("{findings:?}"))
            .clone()
    };
    let findings = check(&options(server, &server.admin())).await;
    let url = of(&findings, "index server https://");
    assert!(url.verdict == Verdict::Good && url.words.contains(server.version()), "{url:?}");
    assert_eq!(of(&findings, "index template logmesh").verdict, Verdict::Good);
    let role: Value = serde_json::from_str(&of(&findings, "smallest role").words).expect("a role");
    // The printed role is enough, and no more: it may write, and not look at templates.
    let name = logmesh_rig::unique("printed");
    let who = server.user(&name, &role).expect("the server takes the role as it is printed");
    let findings = check(&options(server, &who)).await;
    assert!(findings.iter().all(|finding| finding.verdict != Verdict::Bad), "{findings:?}");
    let subject = Subject::with(server, &options(server, &who));
    assert_eq!(one(&subject).await, Outcome::Created);
    assert_eq!(one(&subject).await, Outcome::Exists);
    let again = vec![{
        let mut document = contract::document(1, 0, "one");
        document.index = subject.index.name.as_str().into();
        document
    }];
    let replaced = subject.index.inner.bulk(again, logmesh_processor::index::Mode::Index).await;
    assert_eq!(replaced, [Outcome::Created], "a dead letter's replay is allowed too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_key_and_a_bearer_token_are_as_good_as_a_user() {
    let shared = logmesh_rig::Elasticsearch::shared();
    let server = crate::servers::elasticsearch();
    let role = minimal_role(Product::Elasticsearch, &ElasticsearchOptions::new([]));
    // An administrator sets the server up; the smallest role could not.
    assert_eq!(one(&Subject::new(server)).await, Outcome::Created);
    let user = server.user(&logmesh_rig::unique("bearer"), &role).expect("a user");
    for authentication in [
        Authentication::ApiKey(Secret::new(shared.api_key(&role).expect("a key"))),
        Authentication::Bearer(Secret::new(shared.bearer_token(&user).expect("a token"))),
    ] {
        let mut options = options(server, &server.admin());
        options.authentication = authentication;
        let subject = Subject::with(server, &options);
        assert_eq!(one(&subject).await, Outcome::Created);
    }
}
