//! The gateway over real mTLS connections: what gets in, what does not, and what is answered when.

mod support;

use logmesh_proto::v1::{NackReason, client_frame};
use logmesh_proto::{ClientFrame, Envelope, StreamKey, v1};
use prost::Message;
use support::{Bench, Client};

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

    assert_eq!(client.finish().await.code(), tonic::Code::Ok);
    let (exit, _) = bench.stop().await;
    assert_eq!(exit, logmesh_runtime::shutdown::Exit::Clean);
}
