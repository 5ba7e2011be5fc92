//! How much goes to the servers at once, and to which: sizes, pace, nodes, against a server that fails on demand.

#![allow(clippy::wildcard_enum_match_arm, reason = "all other outcomes are compared whole")]

use std::time::Duration;

use crate::scripted::{
    Plan, Scripted,
    client::{create, large, numbered, open},
};
use bytes::Bytes;
use futures_util::future::join_all;
use logmesh_processor::{document::Document, index::Outcome};
use serde_json::json;

#[tokio::test]
async fn what_is_too_large_is_halved_down_to_the_one_that_is() {
    let server = Scripted::start().await;
    server.script(|head| match head.length {
        4001.. => Plan::Whole(413, String::new(), "Request Entity Too Large".into()),
        _ => Plan::Serve,
    });
    let (index, health) = open(&server, |_| {});
    let mut documents = numbered(1, 100);
    documents[37] = large(1 << 20, 6000);
    let outcomes = create(&index, &documents).await;
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Rejected { reason } => assert!(at == 37 && reason.starts_with("too large"), "{at}: {reason}"),
            outcome => assert_eq!((*outcome == Outcome::Created, at == 37), (true, false), "{at}: {outcome:?}"),
        }
    }
    assert!(index.counts().halved >= 2);
    assert!(health.readiness().ready, "one large document is no trouble of the server's");
    assert_eq!(server.oracle().needless, Vec::<String>::new());
}

#[tokio::test]
async fn a_pipe_that_breaks_in_mid_send_is_halved_too() {
    let server = Scripted::start().await;
    server.script(|head| match head.length {
        4_000_001.. => Plan::CutInSending(1_000_000),
        _ => Plan::Serve,
    });
    let (index, _) = open(&server, |options| options.bulk_bytes_max = 64 << 20);
    let mut documents: Vec<Document> = (0..20).map(|at| large(at * 10_000_000, 1_000_000)).collect();
    documents[11] = large(11 * 10_000_000, 6_000_000);
    // A cut that cannot be told from a lost answer is tried again by the lane.
    let mut outcomes = vec![Outcome::Retry { reason: String::new(), after: None }; documents.len()];
    while outcomes.iter().any(|outcome| matches!(outcome, Outcome::Retry { .. })) {
        outcomes = create(&index, &documents).await;
    }
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Rejected { reason } => assert!(at == 11 && reason.starts_with("too large"), "{at}: {reason}"),
            outcome => assert_eq!((outcome.is_done(), at == 11), (true, false), "{at}: {outcome:?}"),
        }
    }
    assert_eq!(server.oracle().held(), 19);
    assert!(server.oracle().documents.values().all(|known| known.written <= 1));
}

#[tokio::test]
async fn a_node_that_is_gone_is_set_aside_and_taken_back() {
    let (first, second) = (Scripted::start().await, Scripted::start().await);
    let (index, health) = open(&first, |options| options.urls.push(second.url.clone()));
    let documents = numbered(1, 400);
    for part in documents[..100].chunks(10) {
        assert_eq!(create(&index, part).await, vec![Outcome::Created; 10]);
    }
    let used = |server: &Scripted| server.oracle().sizes.len();
    assert_eq!((used(&first), used(&second)), (5, 5), "nodes take turns");
    let address = second.url.trim_start_matches("http://").to_owned();
    drop(second);
    let mut failed = 0;
    for part in documents[100..200].chunks(10) {
        // What was sent on an old connection is tried again by its lane; where a new one is refused, nothing was sent,
        // and the other node has it at once.
        while !create(&index, part).await.iter().all(Outcome::is_done) {
            failed += 1;
            assert!(health.readiness().ready, "there is another node");
        }
    }
    assert!(failed <= 2, "{failed} tries on connections that were open");
    assert!(health.readiness().ready);
    let second = Scripted::start_at(&address).await;
    let back = tokio::time::timeout(Duration::from_secs(150), async {
        while used(&second) == 0 {
            assert!(create(&index, &documents[200..210]).await.iter().all(Outcome::is_done));
            tokio::task::yield_now().await;
        }
    });
    back.await.expect("the node is used again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_calls_join_and_what_is_under_way_is_bounded() {
    let server = Scripted::start().await;
    server.script(|_| Plan::Slowly(Duration::from_millis(20)));
    let (index, _) = open(&server, |options| options.concurrency_max = 3);
    let documents = numbered(1, 2000);
    let calls = join_all(documents.chunks(2).map(|part| create(&index, part))).await;
    assert!(calls.iter().flatten().all(|outcome| *outcome == Outcome::Created));
    let requests = server.oracle().sizes.len();
    assert!(requests < 100, "{requests} requests for 1000 calls");
    assert!(server.under_way_max() <= 3);
}

#[tokio::test]
async fn a_server_that_pushes_back_gets_less_at_once() {
    let server = Scripted::start().await;
    server.script(|head| match head.length {
        100_001.. => Plan::Whole(429, String::new(), String::new()),
        _ => Plan::Serve,
    });
    let (index, _) = open(&server, |_| {});
    let documents = numbered(1, 10_000);
    // Calls of any size, also larger than what the server takes.
    let mut left: Vec<&[Document]> = documents[..5000].chunks(100).chain([&documents[5000..]]).collect();
    while !left.is_empty() {
        let answers = join_all(left.iter().map(|part| create(&index, part))).await;
        let done = answers.iter().map(|outcomes| outcomes.iter().all(Outcome::is_done));
        left = left.iter().zip(done).filter(|(_, done)| !done).map(|(part, _)| *part).collect();
    }
    assert_eq!(server.oracle().held(), 10_000);
    assert!(server.oracle().documents.values().all(|known| known.written == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_answers_late_and_badly_makes_no_other_wait() {
    let server = Scripted::start().await;
    let late = |index: &String| index.contains("-acme-");
    server.script(move |_| {
        Plan::ByIndex(Box::new(move |indexes| match indexes.iter().any(late) {
            true => Plan::LateItems(
                Duration::from_millis(500),
                Box::new(|_, body| {
                    let bad = body["tenant"] == "acme";
                    bad.then(|| (503, json!({ "type": "unavailable_shards_exception", "reason": "no primary" })))
                }),
            ),
            false => Plan::Serve,
        }))
    });
    let (index, health) = open(&server, |options| options.concurrency_max = 2);
    let mut acme = numbered(2, 20);
    for document in &mut acme {
        document.index = "logmesh-acme-2026.11.23".into();
        document.body = Bytes::from_static(b"{\"tenant\":\"acme\"}");
    }
    let others = numbered(1, 2000);
    // Whatever shares a request with the bad index waits for it; from then on it goes apart.
    create(&index, &acme).await;
    let stuck = async {
        loop {
            let outcomes = join_all(acme.chunks(2).map(|part| create(&index, part))).await;
            assert!(outcomes.iter().flatten().all(|outcome| matches!(outcome, Outcome::Retry { .. })), "{outcomes:?}");
        }
    };
    let flowing = async {
        let begun = std::time::Instant::now();
        for part in others.chunks(10) {
            assert_eq!(create(&index, part).await, vec![Outcome::Created; 10]);
        }
        begun.elapsed()
    };
    let took = tokio::select! {
        took = flowing => took,
        () = stuck => unreachable!("it has no end"),
    };
    // 200 calls, one after the other: had each waited for the bad index, that would be 100 s.
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(health.readiness().ready, "one index's trouble is not the server's");
    server.script(|_| Plan::Serve);
    assert!(create(&index, &acme).await.iter().all(Outcome::is_done), "well again, by itself");
}

#[tokio::test]
async fn gzip_is_used_on_request() {
    let server = Scripted::start().await;
    let (index, _) = open(&server, |options| options.gzip = true);
    let documents = numbered(1, 1000);
    assert_eq!(create(&index, &documents).await, vec![Outcome::Created; 1000]);
    let counts = index.counts();
    assert!(counts.bytes_sent * 4 < counts.bytes, "{counts:?}");
    let oracle = server.oracle();
    assert_eq!((oracle.held(), oracle.bytes[0]), (1000, counts.bytes_sent as usize));
}
