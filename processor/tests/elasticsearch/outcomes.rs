//! The index on servers against a server that fails on demand: the whole matrix of outcomes.

#![allow(clippy::wildcard_enum_match_arm, reason = "all other outcomes are compared whole")]

use std::{collections::HashSet, sync::Arc, time::Duration};

use crate::scripted::{
    Plan, Scripted,
    client::{create, hex, numbered, open},
};
use bytes::Bytes;
use futures_util::future::join_all;
use logmesh_processor::{
    document::Document,
    index::{
        Index as _, Mode, Outcome,
        elasticsearch::{Authentication, Elasticsearch},
    },
};
use logmesh_runtime::config::Secret;
use serde_json::{Value, json};

#[tokio::test]
async fn documents_are_created_once_with_their_id_and_their_bytes() {
    let server = Scripted::start().await;
    let (index, health) = open(&server, |_| {});
    let documents = numbered(1, 1000);
    assert_eq!(create(&index, &documents).await, vec![Outcome::Created; 1000]);
    assert_eq!(create(&index, &documents[..10]).await, vec![Outcome::Exists; 10]);
    let oracle = server.oracle();
    assert_eq!(oracle.held(), 1000);
    for document in &documents {
        let known = &oracle.documents[&(document.index.to_string(), hex(document.id))];
        assert_eq!(known.body.as_deref().unwrap().as_bytes(), document.body);
    }
    let counts = index.counts();
    assert_eq!((counts.created, counts.existing, counts.requests), (1000, 10, 2));
    assert!(health.readiness().ready);
}

/// What was told to one lane of the great test below.
#[derive(Default)]
struct Told {
    retried: u64,
    rejected: HashSet<String>,
}

/// Brings documents in until each is done or refused, as a lane does, with no pause between tries.
async fn lane(index: Arc<Elasticsearch>, documents: Vec<Document>) -> Told {
    let mut told = Told::default();
    for batch in documents.chunks(250) {
        let mut batch = batch.to_vec();
        while !batch.is_empty() {
            let outcomes = index.bulk(batch.clone(), Mode::Create).await;
            assert_eq!(outcomes.len(), batch.len());
            let mut again = Vec::new();
            for (document, outcome) in batch.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Created | Outcome::Exists => {}
                    Outcome::Retry { .. } => {
                        told.retried += 1;
                        again.push(document);
                    }
                    Outcome::Rejected { reason } => {
                        assert!(reason.starts_with("illegal_argument_exception: poison (in mapper"), "{reason}");
                        assert!(told.rejected.insert(hex(document.id)), "refused once");
                    }
                    Outcome::Held { reason } => panic!("nothing holds: {reason}"),
                }
            }
            batch = again;
        }
    }
    told
}

/// A draw that follows from a seed: the same run each time.
fn draw(seed: u64, range: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^= mixed >> 27;
    mixed = mixed.wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % range
}

/// How the n-th request fails, if it does.
fn misfortune(number: usize) -> Plan {
    let whole = |status: u16, body: &str| Plan::Whole(status, String::new(), body.to_owned());
    match draw(number as u64, 20) {
        0 => whole(429, r#"{"error":{"type":"es_rejected_execution_exception","reason":"busy"},"status":429}"#),
        1 => whole(503, "<html>unavailable</html>"),
        2 => whole(500, r#"{"error":{"type":"null_pointer_exception"}}"#),
        3 => Plan::CutInSending(500),
        4 => Plan::CutBefore,
        5 => Plan::CutAfter,
        6 => Plan::CutAnswer,
        7 => Plan::Odd("<html>a proxy's own words</html>".into()),
        8 => Plan::Odd(r#"{"took":1,"errors":false,"items":[]}"#.into()),
        9 => Plan::Odd("{}".into()),
        10..=15 => Plan::Items(Box::new(move |id, _| {
            let luck = draw(number as u64 ^ u64::from_str_radix(&id[..15], 16).unwrap(), 20);
            let error = |kind: &str| json!({ "type": kind, "reason": "at random" });
            match luck {
                0 => Some((429, error("es_rejected_execution_exception"))),
                1 => Some((503, error("unavailable_shards_exception"))),
                _ => None,
            }
        })),
        _ => Plan::Serve,
    }
}

fn is_poison(body: &Value) -> bool {
    let line = body["message"].as_str().unwrap_or_default();
    line.strip_prefix("line ").and_then(|number| number.parse::<u64>().ok()).is_some_and(|number| number % 101 == 7)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_each_document_is_indexed_once_or_refused() {
    let count = if std::env::var_os("LOGMESH_SOAK").is_some() { 100_000 } else { 20_000 };
    let server = Scripted::start().await;
    server.refuse(|_, body| {
        let cause = json!({ "type": "illegal_argument_exception", "reason": "poison" });
        let error = json!({ "type": "mapper_parsing_exception", "reason": "failed to parse", "caused_by": cause });
        is_poison(body).then_some((400, error))
    });
    server.script(|head| misfortune(head.number));
    // Small requests, so that there are many of them.
    let (index, _) = open(&server, |options| options.bulk_bytes_max = 64 << 10);
    let index = Arc::new(index);
    let streams: Vec<Vec<Document>> = (1..=4).map(|stream| numbered(stream, count / 4)).collect();
    let lanes = streams.iter().map(|documents| tokio::spawn(lane(Arc::clone(&index), documents.clone())));
    let told: Vec<Told> = join_all(lanes).await.into_iter().map(Result::unwrap).collect();

    let poison: HashSet<String> = streams
        .iter()
        .flatten()
        .filter(|document| is_poison(&serde_json::from_slice(&document.body).unwrap()))
        .map(|document| hex(document.id))
        .collect();
    let rejected: HashSet<String> = told.iter().flat_map(|told| told.rejected.iter().cloned()).collect();
    assert_eq!(rejected, poison, "refused is what is poison");
    let oracle = server.oracle();
    assert_eq!(oracle.held(), count - poison.len(), "nothing is missing");
    assert!(oracle.documents.values().all(|known| known.written <= 1), "nothing was written twice");
    assert_eq!(oracle.needless, Vec::<String>::new(), "only what may be retried was sent again");
    let counts = index.counts();
    let told_by_server = |status: u16| oracle.told.get(&status).copied().unwrap_or_default();
    assert_eq!(counts.created, told_by_server(201));
    assert_eq!(counts.existing, told_by_server(409));
    assert_eq!(counts.rejected, told_by_server(400));
    assert_eq!(counts.retried, told.iter().map(|told| told.retried).sum::<u64>());
    assert!(counts.retried > told_by_server(429) + told_by_server(503), "whole failures were among them");
    assert_eq!(counts.held, 0);
    assert_eq!((counts.created + counts.existing) as usize, count - poison.len());
}

/// What one request that fails as a whole means for its documents, and that all is well after it.
async fn one_misfortune(plan: impl Fn() -> Plan + Send + Sync + 'static, expected: &str, words: &str) {
    let server = Scripted::start().await;
    let (index, health) = open(&server, |_| {});
    let documents = numbered(1, 10);
    server.script(move |_| plan());
    for outcome in create(&index, &documents).await {
        let outcome = format!("{outcome:?}");
        assert!(outcome.starts_with(expected) && outcome.contains(words), "{outcome}, not {expected} {words}");
    }
    let readiness = health.readiness();
    assert!(!readiness.ready && readiness.reasons[0].reason.contains(words), "{readiness:?}");
    assert!(index.trouble().borrow().as_ref().is_some_and(|trouble| trouble.contains(words)));
    server.script(|_| Plan::Serve);
    assert!(create(&index, &documents).await.iter().all(Outcome::is_done));
    assert!(health.readiness().ready);
    let oracle = server.oracle();
    assert!(oracle.held() == 10 && oracle.documents.values().all(|known| known.written == 1));
}

fn whole(status: u16, more: &'static str, body: &'static str) -> impl Fn() -> Plan + Send + Sync + 'static {
    move || Plan::Whole(status, more.to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_whole_refusal_that_passes_is_to_be_tried_again() {
    let busy = r#"{"error":{"type":"circuit_breaking_exception","reason":"too much"},"status":429}"#;
    one_misfortune(whole(429, "", busy), "Retry", "too much").await;
    one_misfortune(whole(503, "", "<html>no one is here</html>"), "Retry", "no one is here").await;
    one_misfortune(whole(500, "", ""), "Retry", "500").await;
}

#[tokio::test]
async fn a_whole_refusal_that_a_person_must_cure_holds() {
    let error = r#"{"error":{"type":"security_exception","reason":"unauthorized for user [x]"},"status":403}"#;
    one_misfortune(whole(401, "", "Unauthorized"), "Held", "correct api_key").await;
    one_misfortune(whole(403, "", error), "Held", "unauthorized for user [x]").await;
    one_misfortune(whole(404, "", "nothing here"), "Held", "check `urls`").await;
    one_misfortune(whole(400, "", r#"{"error":"odd"}"#), "Held", "odd").await;
    one_misfortune(whole(405, "", ""), "Held", "405").await;
}

#[tokio::test]
async fn an_odd_answer_is_to_be_tried_again_and_said() {
    one_misfortune(|| Plan::Odd("<html>Login</html>".into()), "Retry", "<html>Login</html>").await;
    one_misfortune(|| Plan::Odd(r#"{"items":[{"create":{"status":201}}]}"#.into()), "Retry", "does not answer as")
        .await;
    one_misfortune(whole(304, "", ""), "Retry", "does not answer as").await;
}

#[tokio::test]
async fn a_cut_connection_is_to_be_tried_again_and_doubles_nothing() {
    one_misfortune(|| Plan::CutBefore, "Retry", "closed the connection").await;
    one_misfortune(|| Plan::CutAfter, "Retry", "closed the connection").await;
    one_misfortune(|| Plan::CutAnswer, "Retry", "before its answer was whole").await;
    one_misfortune(|| Plan::CutInSending(10), "Retry", "closed the connection").await;
    one_misfortune(|| Plan::Stall, "Retry", "did not answer in time").await;
}

#[tokio::test]
async fn the_time_that_a_server_asks_for_is_handed_on() {
    let server = Scripted::start().await;
    let (index, _) = open(&server, |_| {});
    server.script(|_| Plan::Whole(429, "retry-after: 7\r\n".into(), String::new()));
    let outcomes = create(&index, &numbered(1, 1)).await;
    assert!(matches!(&outcomes[0], Outcome::Retry { after: Some(after), .. } if after.as_secs() == 7), "{outcomes:?}");
}

#[tokio::test]
async fn an_index_that_is_forbidden_as_a_whole_leaves_its_neighbours_alone() {
    let server = Scripted::start().await;
    let forbidden = |index: &String| index.contains("-acme-");
    server.script(move |_| {
        Plan::ByIndex(Box::new(move |indexes| match indexes.iter().any(forbidden) {
            true => Plan::Whole(403, String::new(), r#"{"error":{"type":"security_exception"}}"#.into()),
            false => Plan::Serve,
        }))
    });
    let (index, _) = open(&server, |_| {});
    let mut documents = numbered(1, 30);
    for document in &mut documents[10..20] {
        document.index = "logmesh-acme-2026.11.23".into();
    }
    let outcomes = create(&index, &documents).await;
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Held { reason } => assert!((10..20).contains(&at) && reason.contains("security_exception")),
            outcome => assert!(*outcome == Outcome::Created && !(10..20).contains(&at), "{at}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_document_that_would_break_the_framing_harms_only_itself() {
    let server = Scripted::start().await;
    let (index, _) = open(&server, |_| {});
    let mut documents = numbered(1, 3);
    documents[1].body = Bytes::from_static(b"{\n}\n{\"delete\":{}}");
    let outcomes = create(&index, &documents).await;
    assert!(matches!(&outcomes[1], Outcome::Rejected { reason } if reason.contains("line break")), "{outcomes:?}");
    assert_eq!((&outcomes[0], &outcomes[2]), (&Outcome::Created, &Outcome::Created));
}

#[tokio::test]
async fn every_way_to_say_who_we_are_reaches_the_server() {
    let secret = |text: &str| Secret::new(text);
    for (authentication, header) in [
        (Authentication::Basic { username: "u".into(), password: secret("p:w") }, "Basic dTpwOnc="),
        (Authentication::ApiKey(secret("ZW5jb2RlZA==")), "ApiKey ZW5jb2RlZA=="),
        (Authentication::ApiKey(secret("id:key")), "ApiKey aWQ6a2V5"),
        (Authentication::Bearer(secret("token")), "Bearer token"),
    ] {
        let server = Scripted::start().await;
        let (index, _) = open(&server, |options| options.authentication = authentication);
        assert_eq!(create(&index, &numbered(1, 1)).await, [Outcome::Created]);
        assert_eq!(server.oracle().headers["authorization"], header);
    }
}

#[tokio::test]
async fn a_call_on_a_closed_index_and_one_that_waits_in_it_are_answered() {
    let server = Scripted::start().await;
    let (index, _) = open(&server, |options| options.concurrency_max = 1);
    let documents = numbered(1, 100);
    assert!(create(&index, &documents[..1]).await[0].is_done());
    server.script(|_| Plan::Slowly(Duration::from_millis(200)));
    let calls = join_all(documents.chunks(10).map(|part| create(&index, part)));
    let (outcomes, ()) = tokio::join!(calls, async {
        while server.under_way_max() == 0 || server.oracle().sizes.len() < 2 {
            tokio::task::yield_now().await;
        }
        index.close().await;
    });
    let (done, open): (Vec<_>, Vec<_>) = outcomes.iter().flatten().partition(|outcome| outcome.is_done());
    assert!(!done.is_empty(), "what was under way got its answer");
    assert!(open.iter().all(|outcome| matches!(outcome, Outcome::Retry { reason, .. } if reason.contains("closed"))));
    assert_eq!(server.oracle().held(), done.len());
}
