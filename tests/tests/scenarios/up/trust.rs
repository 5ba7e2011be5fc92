//! No way in without the right certificate; and who came in is who the certificate says.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use logmesh_proto::v1;
use logmesh_tests::mesh::{Authority, Pass, Validity};
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::session::{Claim, Session, batch};
use logmesh_tests::up::Up;

/// For one line, and for a log line about a refusal.
const WITHIN: Duration = Duration::from_secs(30);

/// The mesh's CA as `up` keeps it, below its data directory.
const CA_CERTIFICATE: &str = "pki/ca.pem";

/// Its key.
const CA_KEY: &str = "pki/ca-key.pem";

/// The name of the mesh that `up` makes.
const MESH: &str = "local";

/// A policy that lets only these in; `up`'s own agent is called by the host's name.
const POLICY: &str = r#"
[[gateway.policy]]
identity = "spiffe://*/agent/allowed-*"
tenant = "default"
topics = ["logs"]
"#;

fn ca(scene: &Scene) -> Result<Authority> {
    Authority::load(&scene.data().join(CA_CERTIFICATE), &scene.data().join(CA_KEY))
}

fn claim(path: &str) -> Claim {
    Claim {
        stream_id: b"third-party-stream".to_vec(),
        first_offset: 0,
        info: Some(v1::StreamInfo {
            path: path.to_owned(),
            host: String::from("claimed-host"),
            agent: String::from("somebody-else"),
            ..v1::StreamInfo::default()
        }),
        codec: v1::Codec::None,
    }
}

/// Tries to come in, and checks that the gateway's log names the check that failed.
async fn refused(up: &Up, ca: &Authority, pass: Option<Pass>, words: &[&str]) -> Result<()> {
    match Session::open(up.addresses()?.ingest, ca.certificate(), pass).await {
        Ok(session) => bail!("let in as {:?}", session.welcome().identity),
        Err(error) => println!("{words:?}: the client sees: {error:#}"),
    }
    let line = up.says(words, WITHIN).await?;
    println!("{words:?}: the gateway says: {line}");
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_by_name_of_the_check() {
    scenario(async |scene| {
        let up = scene.up("*.log").start().await?;
        refused(&up, &ca(scene)?, None, &["no_certificate"]).await
    })
    .await;
}

#[tokio::test]
async fn certificates_of_another_ca_expired_or_of_a_wrong_name_are_refused_by_name_of_the_check() {
    scenario(async |scene| {
        let up = scene.up("*.log").start().await?;
        let ca = ca(scene)?;
        let agent = format!("spiffe://{MESH}/agent/edge-1");
        let other = Authority::unknown("logmesh CA")?.pass(Some(&agent), Validity::Now)?;
        refused(&up, &ca, Some(other), &["unknown_issuer", "edge-1"]).await?;
        let expired = ca.pass(Some(&agent), Validity::Expired)?;
        refused(&up, &ca, Some(expired), &["expired", "edge-1"]).await?;
        let nobody = ca.pass(None, Validity::Now)?;
        refused(&up, &ca, Some(nobody), &["no_identity"]).await?;
        let gateway = ca.pass(Some(&format!("spiffe://{MESH}/gateway/gw-1")), Validity::Now)?;
        refused(&up, &ca, Some(gateway), &["wrong_role", "gw-1"]).await?;
        let elsewhere = ca.pass(Some("spiffe://elsewhere/agent/edge-1"), Validity::Now)?;
        refused(&up, &ca, Some(elsewhere), &["wrong_mesh", "elsewhere"]).await?;
        let malformed = ca.pass(Some("https://example.com/agent/edge-1"), Validity::Now)?;
        refused(&up, &ca, Some(malformed), &["no_identity", "example.com"]).await?;
        // None of this harms those who may come in.
        let good = ca.pass(Some(&agent), Validity::Now)?;
        Session::open(up.addresses()?.ingest, ca.certificate(), Some(good)).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_identity_outside_the_policy_is_refused_and_one_inside_is_not() {
    scenario(async |scene| {
        let config = scene.write("logmesh.toml", POLICY)?;
        let mut up = scene.up("*.log").config(&config).spawn()?;
        let ingest = up.listening().await?.ingest;
        let ca = ca(scene)?;
        let outside = ca.pass(Some(&format!("spiffe://{MESH}/agent/edge-1")), Validity::Now)?;
        refused(&up, &ca, Some(outside), &["policy", "edge-1"]).await?;
        let inside = ca.pass(Some(&format!("spiffe://{MESH}/agent/allowed-1")), Validity::Now)?;
        Session::open(ingest, ca.certificate(), Some(inside)).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_payload_that_claims_another_name_is_stamped_with_the_certificates() {
    scenario(async |scene| {
        let up = scene.up("*.log").start().await?;
        let ca = ca(scene)?;
        let identity = format!("spiffe://{MESH}/agent/edge-1");
        let pass = ca.pass(Some(&identity), Validity::Now)?;
        let mut session = Session::open(up.addresses()?.ingest, ca.certificate(), Some(pass)).await?;
        ensure!(session.welcome().identity == identity, "{:?}", session.welcome());
        let sequence = session.send(&claim("/claimed/path.log"), &[b"who wrote stampedline"]).await?;
        ensure!(session.answer(sequence).await?.is_none(), "refused");
        up.api()?.wait_for_count("stampedline", 1, WITHIN).await?;
        let found = up.api()?.export("stampedline").await?;
        let document = found.first().context("counted, but not exported")?;
        ensure!(document.agent_id.as_deref() == Some(&*identity), "{document:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_third_party_client_that_knows_only_the_published_proto_is_served_in_every_codec() {
    scenario(async |scene| {
        let up = scene.up("*.log").start().await?;
        let ca = ca(scene)?;
        let pass = ca.pass(Some(&format!("spiffe://{MESH}/agent/third-party")), Validity::Now)?;
        let mut session = Session::open(up.addresses()?.ingest, ca.certificate(), Some(pass)).await?;
        let mut claim = claim("third/party");
        for codec in [v1::Codec::None, v1::Codec::Snappy, v1::Codec::Zstd] {
            claim.codec = codec;
            let lines = [format!("thirdparty {codec:?} one"), String::new(), format!("thirdparty {codec:?} three")];
            let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
            let built = batch(&claim, &lines)?;
            claim.first_offset = built.end_offset;
            let first = session.send_batch(built.clone()).await?;
            ensure!(session.answer(first).await?.is_none(), "{codec:?} refused");
            // The same again, as after a lost ack: acknowledged, and found once.
            let again = session.send_batch(built).await?;
            ensure!(session.answer(again).await?.is_none(), "{codec:?} refused the second time");
            claim.info = None;
        }
        up.api()?.wait_for_count("log.file.path:\"third/party\"", 9, WITHIN).await?;
        ensure!(up.api()?.count("thirdparty").await? == 6, "lines are doubled");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_damaged_batch_is_refused_with_its_reason_and_the_session_goes_on() {
    scenario(async |scene| {
        let up = scene.up("*.log").start().await?;
        let ca = ca(scene)?;
        let pass = ca.pass(Some(&format!("spiffe://{MESH}/agent/third-party")), Validity::Now)?;
        let mut session = Session::open(up.addresses()?.ingest, ca.certificate(), Some(pass)).await?;
        let good = batch(&claim("x"), &[b"batchafterdamage"])?;
        let damaged = v1::Batch { crc32c: good.crc32c ^ 1, ..good.clone() };
        let bomb = v1::Batch { uncompressed_size: 1 << 30, ..good.clone() };
        let mut unknown = good.clone();
        (unknown.info, unknown.stream_id) = (None, bytes::Bytes::from_static(b"never introduced"));
        unknown.crc32c = logmesh_tests::session::checksum(&unknown)?;
        for (batch, reasons) in [
            (damaged, vec![v1::NackReason::Corrupt]),
            (bomb, vec![v1::NackReason::Corrupt, v1::NackReason::TooLarge]),
            (unknown, vec![v1::NackReason::UnknownStream]),
        ] {
            let sequence = session.send_batch(batch).await?;
            let nack = session.answer(sequence).await?.context("a damaged batch was acknowledged")?;
            ensure!(reasons.contains(&nack.reason()), "{nack:?} instead of {reasons:?}");
        }
        let sequence = session.send_batch(good).await?;
        ensure!(session.answer(sequence).await?.is_none(), "a good batch was refused");
        up.api()?.wait_for_count("batchafterdamage", 1, WITHIN).await
    })
    .await;
}
