//! Certificates of a syslog listener.
//!
//! They come from any authority and name no identity of a mesh: senders of syslog are no agents. New files are taken up
//! without a restart, by the next connection that comes at least [`LOOK_INTERVAL`] after the last look; files that are
//! not good leave the last good ones in use.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use thiserror::Error;

use crate::inputs::config::SyslogTls;

const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// No file of certificates is larger; a larger one is a mistake.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(in crate::inputs) struct TlsFiles {
    files: SyslogTls,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    marks: Vec<Option<(SystemTime, u64)>>,
    looked: Instant,
    /// What is wrong with the files as they are now, while other ones are in use.
    fault: Option<String>,
}

/// Why certificates cannot be used.
#[derive(Debug, Error)]
pub(in crate::inputs) enum TlsError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has no {wanted} that can be read: {fault}; write it in PEM", path.display())]
    Pem { path: PathBuf, wanted: &'static str, fault: String },
    #[error("certificate {} and key {} cannot be used together: {source}", cert.display(), key.display())]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("the authorities in {} cannot be used: {source}", path.display())]
    Authorities { path: PathBuf, source: VerifierBuilderError },
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl TlsFiles {
    pub(in crate::inputs) fn load(files: SyslogTls) -> Result<Self, TlsError> {
        let marks = marks(&files);
        let config = Arc::new(read(&files)?);
        Ok(Self { files, loaded: Mutex::new(Loaded { config, marks, looked: Instant::now(), fault: None }) })
    }

    /// What the next connection is to be accepted with.
    pub(super) fn current(&self, now: Instant) -> Arc<ServerConfig> {
        let mut loaded = self.loaded();
        if now.saturating_duration_since(loaded.looked) >= LOOK_INTERVAL {
            loaded.looked = now;
            let marks = marks(&self.files);
            if marks != loaded.marks {
                loaded.marks = marks;
                match read(&self.files) {
                    Ok(config) => (loaded.config, loaded.fault) = (Arc::new(config), None),
                    Err(error) => loaded.fault = Some(error.to_string()),
                }
            }
        }
        Arc::clone(&loaded.config)
    }

    /// Why the files as they are now are not in use.
    pub(super) fn fault(&self) -> Option<String> {
        self.loaded().fault.clone()
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        // Each change is one assignment: a thread that panicked with the lock held left whole values behind.
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn marks(files: &SyslogTls) -> Vec<Option<(SystemTime, u64)>> {
    let mark = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [Some(&files.cert), Some(&files.key), files.ca.as_ref()].into_iter().flatten().map(mark).collect()
}

fn read(files: &SyslogTls) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&files.cert)?;
    let key =
        PrivateKeyDer::from_pem_slice(&bytes(&files.key)?).map_err(|error| pem(&files.key, "private key", &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &files.ca {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(verifier(ca, provider)?),
    };
    let pair = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
    builder.with_single_cert(chain, key).map_err(pair)
}

fn verifier(
    ca: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca)? {
        roots.add(authority).map_err(|error| pem(ca, "certificate of an authority", &error))?;
    }
    let authorities = |source| TlsError::Authorities { path: ca.to_owned(), source };
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(authorities)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(pem(path, "certificate", &"it has none")),
        Err(error) => Err(pem(path, "certificate", &error)),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let error = |source| TlsError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(error)?.len() > FILE_BYTES_MAX {
        return Err(pem(path, "certificate or key", &"it is larger than 4 MiB"));
    }
    fs::read(path).map_err(error)
}

fn pem(path: &Path, wanted: &'static str, fault: &dyn std::fmt::Display) -> TlsError {
    TlsError::Pem { path: path.to_owned(), wanted, fault: fault.to_string() }
}
