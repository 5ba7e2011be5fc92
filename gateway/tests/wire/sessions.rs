//! Sessions over real mTLS connections: what is published, what is refused, and what is answered when.

use crate::support::{Bench, Client, Mood, hello, info, rule};
use logmesh_bus::AppendError;
use logmesh_proto::v1::{NackReason, client_frame, server_frame};
use logmesh_proto::{Envelope, StreamKey, v1};
use prost::Message;
use tonic::Code;

#[tokio::test]
async fn a_batch_goes_from_hello_to_the_bus_and_is_acknowledged() {
    let bench = Bench::new().await;
    let mut client = bench.session("edge-1").await;
    let welcome = client.welcome.clone().unwrap();
    assert_eq!(welcome.identity, "spiffe://mesh/agent/edge-1");
    assert!(welcome.credit_bytes >= u64::from(welcome.batch_encoded_bytes_max));
    let batch = client.simple("stream", 0);
    let sequence = client.batch(batch.clone()).await;
    assert_eq!(client.ack().await, [sequence]);

    let records = bench.bus.records();
    let [(topic, record)] = records.as_slice() else { panic!("{} records", records.len()) };
    assert_eq!(topic, "logs.default");
    let sent = v1::Batch { sequence, ..batch };
    assert_eq!(record.value, sent.encode_to_vec(), "the value is the frame's own bytes");
    let key = StreamKey::derive("spiffe://mesh/agent/edge-1", b"stream");
    assert_eq!(record.key, key.as_bytes().as_slice());
    let envelope = Envelope::from_headers(&record.headers).unwrap();
    assert_eq!((envelope.stream_key, envelope.first_offset, envelope.end_offset), (key, 0, 10));
    assert_eq!((envelope.tenant.as_str(), envelope.info.path.as_str()), ("default", "/var/log/a.log"));

    assert_eq!(client.finish().await.code(), Code::Ok);
    let (exit, _) = bench.stop().await;
    assert_eq!(exit, logmesh_runtime::shutdown::Exit::Clean);
}

#[tokio::test]
async fn what_a_payload_claims_about_its_sender_is_stamped_over() {
    let bench = Bench::new().await;
    let mut client = bench.session("edge-1").await;
    let lying =
        v1::StreamInfo { agent: "edge-2".to_owned(), host: "spiffe://mesh/agent/edge-2".to_owned(), ..info("") };
    let batch = v1::Batch { info: Some(lying), ..client.seal("stream", 0, &["x"]) };
    client.batch(batch).await;
    client.ack().await;
    let envelope = Envelope::from_headers(&bench.bus.records()[0].1.headers).unwrap();
    assert_eq!(envelope.identity, "spiffe://mesh/agent/edge-1");
    assert_eq!(envelope.stream_key, StreamKey::derive("spiffe://mesh/agent/edge-1", b"stream"));
    assert_eq!(envelope.tenant, "default");
}

#[tokio::test]
async fn the_first_frame_must_be_hello() {
    let bench = Bench::new().await;
    let channel = bench.channel(bench.issue("edge-1").client()).await.unwrap();
    let mut client = Client::open(channel).await.unwrap();
    let batch = client.simple("s", 0);
    client.batch(batch).await;
    assert_eq!(client.end().await.code(), Code::InvalidArgument);
    assert!(bench.bus.records().is_empty());
}

#[tokio::test]
async fn nothing_is_acknowledged_before_the_bus_says_durable() {
    let bench = Bench::new().await;
    bench.bus.set(Mood::Holding);
    let mut client = bench.session("edge-1").await;
    for number in 0..5 {
        let batch = client.simple("s", number * 10);
        client.batch(batch).await;
    }
    bench.bus.wait_for(5).await;
    client.silence().await;
    bench.bus.release();
    let mut sequences = Vec::new();
    while sequences.len() < 5 {
        sequences.extend(client.ack().await);
    }
    sequences.sort_unstable();
    assert_eq!(sequences, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn after_a_refusal_later_batches_of_the_stream_wait_and_other_streams_do_not() {
    let bench = Bench::new().await;
    let mut client = bench.session("edge-1").await;
    bench.bus.set(Mood::Failing(AppendError::Unavailable { reason: "no quorum".to_owned() }));
    let (first, second) = (client.simple("s", 0), client.simple("s", 10));
    client.batch(first.clone()).await;
    let nack = client.nack().await;
    assert_eq!((nack.sequence, nack.reason()), (1, NackReason::Unavailable));
    assert!(nack.delay_millis > 0 && nack.detail.contains("no quorum"), "{nack:?}");

    bench.bus.set(Mood::Prompt);
    client.batch(second.clone()).await;
    assert_eq!(client.nack().await.reason(), NackReason::OutOfOrder);
    let other = client.simple("t", 0);
    let sequence = client.batch(other).await;
    assert_eq!(client.ack().await, [sequence], "another stream goes on");
    client.batch(first).await;
    client.ack().await;
    client.batch(second).await;
    client.ack().await;
    let offsets: Vec<_> = bench
        .bus
        .records()
        .iter()
        .map(|(_, record)| Envelope::from_headers(&record.headers).unwrap())
        .filter(|envelope| envelope.stream_key == StreamKey::derive("spiffe://mesh/agent/edge-1", b"s"))
        .map(|envelope| envelope.first_offset)
        .collect();
    assert_eq!(offsets, [0, 10]);
}

#[tokio::test]
async fn each_bad_batch_is_refused_with_its_reason_and_harms_only_itself() {
    let bench = Bench::new().await;
    let mut client = bench.session("edge-1").await;
    let good = client.simple("good", 0);
    let cases: Vec<(NackReason, v1::Batch)> = vec![
        (NackReason::Corrupt, v1::Batch { crc32c: good.crc32c ^ 1, ..good.clone() }),
        (NackReason::Corrupt, with_crc(v1::Batch { uncompressed_size: good.uncompressed_size + 1, ..good.clone() })),
        (NackReason::TooLarge, with_crc(v1::Batch { uncompressed_size: u32::MAX, ..good.clone() })),
        (NackReason::TooLarge, with_crc(v1::Batch { record_count: 10_001, end_offset: 1 << 20, ..good.clone() })),
        (NackReason::Corrupt, with_crc(v1::Batch { codec: 99, ..good.clone() })),
        (NackReason::Corrupt, with_crc(v1::Batch { record_count: 2, ..client.simple("lying", 0) })),
        (NackReason::UnknownStream, client.seal("unknown", 0, &["x"])),
        (NackReason::Forbidden, v1::Batch { info: Some(info("secret")), ..client.seal("forbidden", 0, &["x"]) }),
        (NackReason::TooLarge, with_crc(v1::Batch { payload: vec![0; 700 << 10].into(), ..client.simple("large", 0) })),
    ];
    for (reason, batch) in cases {
        client.batch(batch).await;
        let nack = client.nack().await;
        assert_eq!(nack.reason(), reason, "{nack:?}");
        assert!(!nack.detail.is_empty());
        assert_eq!(nack.limit_bytes > 0, reason == NackReason::TooLarge, "{nack:?}");
    }
    assert!(bench.bus.records().is_empty());
    // The corrupt ones named offset 0 of this stream, so that they do not stand in its way.
    client.batch(good).await;
    client.ack().await;
}

fn with_crc(mut batch: v1::Batch) -> v1::Batch {
    batch.crc32c = logmesh_proto::crc(&batch);
    batch
}

#[tokio::test]
async fn a_bomb_is_refused_without_being_inflated() {
    let bench = Bench::new().await;
    let mut client = bench.session("edge-1").await;
    let line = "0".repeat(1000);
    let lines: Vec<&str> = std::iter::repeat_n(line.as_str(), 1000).collect();
    let honest = v1::Batch { info: Some(info("")), ..client.seal("bomb", 0, &lines) };
    assert!(honest.uncompressed_size as usize > 900 * honest.payload.len(), "about 1000 to 1");
    // Within the limits it is an ordinary batch; beyond them it is refused by what it claims, true or not.
    let limit = client.welcome.as_ref().unwrap().batch_uncompressed_bytes_max;
    let claims = [4 << 20, u32::MAX, limit - 1];
    let reasons = [NackReason::TooLarge, NackReason::TooLarge, NackReason::Corrupt];
    for (claim, reason) in claims.into_iter().zip(reasons) {
        client.batch(with_crc(v1::Batch { uncompressed_size: claim, ..honest.clone() })).await;
        assert_eq!(client.nack().await.reason(), reason, "claim {claim}");
    }
    assert!(bench.bus.records().is_empty());
}

#[tokio::test]
async fn a_frame_beyond_eight_mebibytes_ends_the_session_alone() {
    let bench = Bench::new().await;
    let (mut client, mut other) = (bench.session("edge-1").await, bench.session("edge-2").await);
    let huge = v1::Batch { payload: vec![0; 9 << 20].into(), ..client.simple("s", 0) };
    client.batch(huge).await;
    assert_eq!(client.end().await.code(), Code::ResourceExhausted);
    let batch = other.simple("s", 0);
    other.batch(batch).await;
    assert_eq!(other.ack().await, [1]);
}

#[tokio::test]
async fn a_tenant_over_its_rate_is_told_to_wait() {
    let bench = Bench::with(|config| {
        config.policy = vec![rule("spiffe://mesh/agent/*")];
        config.policy[0].rate_limit = Some(1000);
    })
    .await;
    let mut client = bench.session("edge-1").await;
    let line = "x".repeat(900 << 10);
    let first = v1::Batch { info: Some(info("")), ..client.seal("s", 0, &[&line]) };
    let next = client.seal("s", first.end_offset, &[&line]);
    client.batch(first).await;
    client.ack().await;
    client.batch(next).await;
    let nack = client.nack().await;
    assert_eq!(nack.reason(), NackReason::RateLimited);
    assert!(nack.delay_millis > 60_000, "{nack:?}");
}

#[tokio::test]
async fn every_failure_of_the_bus_has_its_answer() {
    let bench = Bench::new().await;
    let mut client = bench.session("edge-1").await;
    let reason = "why".to_owned();
    let topic = "logs.default".to_owned();
    let cases = [
        (AppendError::Full { reason: reason.clone() }, NackReason::Overloaded),
        (AppendError::Unavailable { reason: reason.clone() }, NackReason::Unavailable),
        (AppendError::Closed, NackReason::Unavailable),
        (AppendError::Fatal { reason: reason.clone() }, NackReason::Unavailable),
        (AppendError::TooLarge { size: 5000, limit: 4990 }, NackReason::TooLarge),
        (AppendError::Denied { topic: topic.clone(), reason: reason.clone() }, NackReason::Held),
    ];
    for (error, wanted) in cases {
        bench.bus.set(Mood::Failing(error));
        let batch = client.simple("s", 0);
        client.batch(batch.clone()).await;
        let nack = client.nack().await;
        assert_eq!(nack.reason(), wanted, "{nack:?}");
        if wanted == NackReason::TooLarge {
            assert!(nack.limit_bytes > 0 && (nack.limit_bytes as usize) < batch.encoded_len(), "{nack:?}");
        }
    }
    // The lane is held now: refused at once, without asking the bus; another topic goes on.
    bench.bus.set(Mood::Prompt);
    let batch = client.simple("s", 0);
    client.batch(batch).await;
    assert_eq!(client.nack().await.reason(), NackReason::Held);
    let audit = v1::Batch { info: Some(info("audit")), ..client.seal("a", 0, &["x"]) };
    client.batch(audit).await;
    client.ack().await;
    assert_eq!(bench.bus.records()[0].0, "audit.default");
    let status = bench.context.status.snapshot();
    assert_eq!(status["gateway"]["lanes"][0]["lane"], "logs.default");
    assert_eq!(status["gateway"]["sessions"][0]["identity"], "spiffe://mesh/agent/edge-1");
}

#[tokio::test]
async fn bye_and_half_close_end_a_session_after_the_outstanding_answers() {
    let bench = Bench::new().await;
    for (before, half_close) in [false, true].into_iter().enumerate() {
        bench.bus.set(Mood::Holding);
        let mut client = bench.session("edge-1").await;
        let batch = client.simple("s", 0);
        client.batch(batch).await;
        bench.bus.wait_for(before + 1).await;
        let bus = std::sync::Arc::clone(&bench.bus);
        let release = async move {
            // Whether the gateway has seen the end of the client's frames by now must not matter.
            tokio::task::yield_now().await;
            bus.release();
        };
        if half_close {
            let (status, ()) = tokio::join!(client.finish(), release);
            assert_eq!(status.code(), Code::Ok);
        } else {
            client.send(client_frame::Frame::Bye(v1::Bye::default())).await;
            release.await;
            assert_eq!(client.ack().await, [1]);
            assert_eq!(client.end().await.code(), Code::Ok);
        }
    }
}

#[tokio::test]
async fn sequences_only_grow_and_there_is_one_hello() {
    let bench = Bench::new().await;
    let mut client = bench.session("edge-1").await;
    client.send(client_frame::Frame::Hello(hello(b"x"))).await;
    assert_eq!(client.end().await.code(), Code::InvalidArgument);
    let mut client = bench.session("edge-1").await;
    let batch = client.simple("s", 0);
    client.batch(batch.clone()).await;
    client.ack().await;
    client.send(client_frame::Frame::Batch(v1::Batch { sequence: 1, ..batch })).await;
    assert_eq!(client.end().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn with_the_bus_stuck_memory_stays_within_the_share_and_all_is_taken_afterwards() {
    let bench = Bench::with(|config| {
        config.policy = vec![rule("spiffe://mesh/agent/*")];
        config.memory = 4 << 20;
    })
    .await;
    bench.bus.set(Mood::Holding);
    let mut clients = Vec::new();
    for number in 0..8 {
        clients.push(bench.session(&format!("edge-{number}")).await);
    }
    // Incompressible lines, so that a batch is as large encoded as it says.
    let line: String = (0..400_000_u32)
        .map(|i| char::from(b'!' + u8::try_from(i.wrapping_mul(2_654_435_761) >> 25).unwrap_or(0) % 90))
        .collect();
    for client in &mut clients {
        for number in 0..3_u64 {
            let batch = client.seal("s", number * 400_001, &[&line]);
            client.batch(v1::Batch { info: Some(info("")), ..batch }).await;
        }
    }
    let used = || bench.context.status.snapshot()["gateway"]["memory"]["used_bytes"].as_u64().unwrap();
    bench.bus.wait_for(8).await;
    assert!(used() <= 3 << 20, "{}", used());
    bench.bus.set(Mood::Prompt);
    bench.bus.release();
    for client in &mut clients {
        let mut acknowledged = 0;
        while acknowledged < 3 {
            acknowledged += client.ack().await.len();
        }
    }
    assert_eq!(bench.bus.records().len(), 24);
    assert_eq!(used(), 0);
}

#[tokio::test]
async fn one_identity_with_two_instances_is_reported_and_the_process_stays_ready() {
    let bench = Bench::new().await;
    let tls = bench.issue("edge-1").client();
    let _one = Client::open(bench.channel(tls.clone()).await.unwrap()).await.unwrap().greeted().await;
    let mut two = Client::open(bench.channel(tls).await.unwrap()).await.unwrap();
    two.send(client_frame::Frame::Hello(hello(b"fedcba9876543210"))).await;
    assert!(matches!(two.answer().await, server_frame::Frame::Welcome(_)));
    let readiness = bench.context.health.readiness();
    assert!(readiness.ready, "{readiness:?}");
    assert!(
        readiness.reasons.iter().any(|reason| reason.reason.contains("spiffe://mesh/agent/edge-1")),
        "{readiness:?}"
    );
}

#[tokio::test]
async fn the_health_service_answers_on_the_same_port() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let bench = Bench::new().await;
    let channel = bench.channel(bench.issue("edge-1").client()).await.unwrap();
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest { service: "logmesh.v1.Ingest".to_owned() };
    let serving = async {
        // The first look at the conditions comes with the first tick.
        loop {
            match health.check(request.clone()).await {
                Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(crate::support::LONG, serving).await.expect("serving");
}
