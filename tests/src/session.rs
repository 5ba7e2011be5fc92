//! A client of the published protocol that owes nothing to the agent: generated messages, TLS, and batches built by
//! hand after the comments of `ingest.proto`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use logmesh_proto::v1;
use logmesh_proto::v1::ingest_client::IngestClient;
use prost::Message as _;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::mesh::Pass;

/// Frames that may wait to be sent.
const OUTBOX_FRAMES: usize = 16;

/// Longest wait for any one frame.
const FRAME_WITHIN: Duration = Duration::from_secs(25);

/// An open session with a gateway.
#[derive(Debug)]
pub struct Session {
    outbox: mpsc::Sender<v1::ClientFrame>,
    inbox: Streaming<v1::ServerFrame>,
    welcome: v1::Welcome,
    sequence: u64,
}

/// What a client claims in a batch.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Stream id.
    pub stream_id: Vec<u8>,
    /// Offset of the first line.
    pub first_offset: u64,
    /// What it says of the stream; `None` after the first batch.
    pub info: Option<v1::StreamInfo>,
    /// The codec.
    pub codec: v1::Codec,
}

impl Session {
    /// Connects, shows the pass (or none), says hello, and waits for the welcome.
    ///
    /// # Errors
    ///
    /// When the gateway does not let it in.
    pub async fn open(gateway: SocketAddr, ca: CertificateDer<'static>, pass: Option<Pass>) -> Result<Session> {
        tokio::time::timeout(FRAME_WITHIN, Session::open_unhurried(gateway, ca, pass))
            .await
            .context("the gateway neither let the client in nor refused it in time")?
    }

    async fn open_unhurried(gateway: SocketAddr, ca: CertificateDer<'static>, pass: Option<Pass>) -> Result<Session> {
        let tls = TlsConnector::from(Arc::new(client_config(ca, pass)?));
        let connector = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let socket = TcpStream::connect(gateway).await?;
                let name = ServerName::IpAddress(gateway.ip().into());
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, socket).await?))
            }
        });
        let channel = Endpoint::from_static("http://gateway.test").connect_with_connector(connector).await?;
        let (outbox, frames) = mpsc::channel(OUTBOX_FRAMES);
        outbox.send(frame(v1::client_frame::Frame::Hello(hello()))).await?;
        let mut inbox = IngestClient::new(channel).stream(ReceiverStream::new(frames)).await?.into_inner();
        let first = inbox.message().await?.context("the gateway ended the session at once")?;
        let Some(v1::server_frame::Frame::Welcome(welcome)) = first.frame else {
            bail!("the gateway's first frame is no welcome: {first:?}");
        };
        Ok(Session { outbox, inbox, welcome, sequence: 0 })
    }

    /// What the gateway said first.
    #[must_use]
    pub fn welcome(&self) -> &v1::Welcome {
        &self.welcome
    }

    /// Sends lines as one batch and returns its sequence.
    ///
    /// # Errors
    ///
    /// When the session has ended.
    pub async fn send(&mut self, claim: &Claim, lines: &[&[u8]]) -> Result<u64> {
        let batch = batch(claim, lines)?;
        self.send_batch(batch).await
    }

    /// Sends a batch as it is, with the next sequence, and returns that.
    ///
    /// # Errors
    ///
    /// When the session has ended.
    pub async fn send_batch(&mut self, mut batch: v1::Batch) -> Result<u64> {
        self.sequence += 1;
        batch.sequence = self.sequence;
        self.outbox.send(frame(v1::client_frame::Frame::Batch(batch))).await.context("the session has ended")?;
        Ok(self.sequence)
    }

    /// Waits for the answer to a batch: `None` is an ack.
    ///
    /// # Errors
    ///
    /// When the session ends first.
    pub async fn answer(&mut self, sequence: u64) -> Result<Option<v1::Nack>> {
        loop {
            let frame = tokio::time::timeout(FRAME_WITHIN, self.inbox.message())
                .await
                .with_context(|| format!("no answer to batch {sequence} in time"))??
                .context("the gateway ended the session")?;
            match frame.frame {
                Some(v1::server_frame::Frame::Ack(ack)) if ack.sequences.contains(&sequence) => return Ok(None),
                Some(v1::server_frame::Frame::Nack(nack)) if nack.sequence == sequence => return Ok(Some(nack)),
                Some(
                    v1::server_frame::Frame::Ack(_)
                    | v1::server_frame::Frame::Nack(_)
                    | v1::server_frame::Frame::Credit(_)
                    | v1::server_frame::Frame::Drain(_)
                    | v1::server_frame::Frame::Welcome(_),
                )
                | None => {}
            }
        }
    }
}

/// Builds a batch by hand, as the comments of `ingest.proto` say.
///
/// # Errors
///
/// When the lines are too many or too long for the fields.
pub fn batch(claim: &Claim, lines: &[&[u8]]) -> Result<v1::Batch> {
    let records = v1::Records {
        bodies: Bytes::from(lines.concat()),
        body_lengths: lines.iter().map(|line| u32::try_from(line.len())).collect::<Result<_, _>>()?,
        source_lengths: Vec::new(),
        observed_time_deltas_nano: Vec::new(),
    };
    let inflated = records.encode_to_vec();
    let payload = match claim.codec {
        v1::Codec::Snappy => snap::raw::Encoder::new().compress_vec(&inflated)?,
        v1::Codec::Zstd => zstd::bulk::compress(&inflated, 1)?,
        v1::Codec::None | v1::Codec::Unspecified => inflated.clone(),
    };
    let length: usize = lines.iter().map(|line| line.len() + 1).sum();
    let mut batch = v1::Batch {
        sequence: 0,
        stream_id: Bytes::from(claim.stream_id.clone()),
        info: claim.info.clone(),
        first_offset: claim.first_offset,
        end_offset: claim.first_offset + length as u64,
        record_count: u32::try_from(lines.len())?,
        observed_time_unix_nano: u64::try_from(jiff::Timestamp::now().as_nanosecond())?,
        flags: 0,
        codec: claim.codec.into(),
        uncompressed_size: u32::try_from(inflated.len())?,
        crc32c: 0,
        payload: Bytes::from(payload),
    };
    batch.crc32c = checksum(&batch)?;
    Ok(batch)
}

/// CRC-32C over the header fields and the payload, in the order that `Batch.crc32c` gives.
///
/// # Errors
///
/// When the stream id is too long.
pub fn checksum(batch: &v1::Batch) -> Result<u32> {
    let mut covered = Vec::with_capacity(64 + batch.payload.len());
    covered.extend_from_slice(&u32::try_from(batch.stream_id.len())?.to_le_bytes());
    covered.extend_from_slice(&batch.stream_id);
    covered.extend_from_slice(&batch.first_offset.to_le_bytes());
    covered.extend_from_slice(&batch.end_offset.to_le_bytes());
    covered.extend_from_slice(&batch.record_count.to_le_bytes());
    covered.extend_from_slice(&batch.observed_time_unix_nano.to_le_bytes());
    covered.extend_from_slice(&batch.flags.to_le_bytes());
    covered.extend_from_slice(&u32::try_from(batch.codec)?.to_le_bytes());
    covered.extend_from_slice(&batch.uncompressed_size.to_le_bytes());
    covered.extend_from_slice(&batch.payload);
    Ok(crc32c::crc32c(&covered))
}

fn hello() -> v1::Hello {
    v1::Hello {
        protocol_version: 1,
        software: String::from("third-party/1"),
        instance: Bytes::copy_from_slice(&rand::random::<[u8; 16]>()),
        codecs: vec![v1::Codec::None.into(), v1::Codec::Snappy.into(), v1::Codec::Zstd.into()],
        host: String::from("elsewhere"),
    }
}

fn frame(frame: v1::client_frame::Frame) -> v1::ClientFrame {
    v1::ClientFrame { frame: Some(frame) }
}

fn client_config(ca: CertificateDer<'static>, pass: Option<Pass>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match pass {
        Some(pass) => builder.with_client_auth_cert(vec![pass.certificate], pass.key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
