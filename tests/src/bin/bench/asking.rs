//! Real-time gets at a search server, over one connection that is kept.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use logmesh_rig::SearchServer;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// A connection to the server, as its administrator.
pub(crate) struct Asking {
    requests: SendRequest<Full<Bytes>>,
    authorization: String,
    host: String,
    /// What drives the connection; it ends with this.
    _driver: JoinSet<()>,
}

impl Asking {
    /// Connects.
    pub(crate) async fn connect(server: &SearchServer) -> Result<Asking> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(server.ca())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let url = server.url();
        let host = url.strip_prefix("https://").context("a server without TLS")?.to_owned();
        let address: SocketAddr = host.parse()?;
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How it ends is told to whoever asks next.
            let _ = connection.await;
        });
        let admin = server.admin();
        let authorization = format!("Basic {}", STANDARD.encode(format!("{}:{}", admin.user, admin.password)));
        Ok(Asking { requests, authorization, host, _driver: driver })
    }

    /// Which of these documents, each an index and an id, are there now: a real-time get, which needs no refresh.
    pub(crate) async fn are_there(&mut self, documents: &[(String, String)]) -> Result<Vec<bool>> {
        let docs = documents.iter().map(|(index, id)| json!({ "_index": index, "_id": id, "_source": false }));
        let body = json!({ "docs": docs.collect::<Vec<_>>() }).to_string();
        let request = Request::post("/_mget?realtime=true")
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::OK, "_mget: {status} {}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body)?;
        let found = answer["docs"].as_array().context("an answer without documents")?;
        ensure!(found.len() == documents.len(), "{} answers for {} documents", found.len(), documents.len());
        // An index that is not there yet is answered with an error, which is a "no" too.
        Ok(found.iter().map(|document| document["found"] == true).collect())
    }
}
