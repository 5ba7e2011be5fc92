//! A process's own certificate, key, CA and CRL: read and validated as one unit.
//!
//! Owns the checks: everything parses, the key is the certificate's, the dates hold, the chain leads from the leaf to a
//! CA of the file, the leaf is not revoked, and each CRL is signed by a CA of the file. Of several CRLs of one issuer the
//! newest counts. A CRL past its next update still revokes what it names (an overdue list must not cut everybody off),
//! and is reported; an issuer without a CRL is not checked for revocation, so that a CA can be exchanged.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::error::TlsError;
use crate::identity::{Identity, Role, parse_certificate};
use crate::refusal::Observed;
use crate::verify::{AgentVerifier, GatewayVerifier};

/// The one crypto provider of all configurations: named explicitly, since a second one anywhere in the program would
/// make rustls's own choice a panic.
pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// No file of a PKI is larger; a larger one is a mistake, not a certificate.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const PROTOCOL: &[u8] = b"h2";

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and, behind it, any intermediates; PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities that peers must come from, PEM.
    pub ca: PathBuf,
    /// Revocation lists, PEM.
    pub crl: Option<PathBuf>,
}

/// When a CRL of an issuer was made: what must not go back with a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CrlAge {
    issuer: Vec<u8>,
    this_update: i64,
}

/// Everything that a handshake needs, valid as a whole.
pub(crate) struct Material {
    pub(crate) identity: Identity,
    pub(crate) not_after: SystemTime,
    /// The files' bytes, to tell whether a reload changes anything.
    pub(crate) bytes: Vec<Vec<u8>>,
    revoked: Vec<Vec<u8>>,
    crl_ages: Vec<CrlAge>,
    key: Arc<SingleCertAndKey>,
    agents: Arc<dyn ClientCertVerifier>,
    gateways: Arc<WebPkiServerVerifier>,
    tickets: Arc<dyn ProducesTickets>,
    mesh: Arc<str>,
}

impl Material {
    /// Reads and validates the files. `previous` is what is in use: its CRLs must not be undone.
    pub(crate) fn load(files: &TlsFiles, now: SystemTime, previous: Option<&Self>) -> Result<Self, TlsError> {
        let bytes = read_all(files)?;
        let chain = certificates(&files.cert, &bytes[0])?;
        let key = PrivateKeyDer::from_pem_slice(&bytes[1]).map_err(|error| pem(&files.key, "private key", &error))?;
        warn_about_mode(&files.key);
        let authorities = certificates(&files.ca, &bytes[2])?;
        let leaf = chain.first().ok_or_else(|| pem(&files.cert, "certificate", &"it is empty"))?.clone();
        let identity = Identity::from_certificate(&leaf)
            .map_err(|source| TlsError::Identity { path: files.cert.clone(), source })?;
        let key = certified_key(files, chain.clone(), key)?;
        let not_after = check_dates(&files.cert, &leaf, &identity, now)?;
        let roots = Arc::new(roots(&files.ca, &authorities, now)?);
        let crls = match (&files.crl, bytes.get(3)) {
            (Some(path), Some(bytes)) => Crls::read(path, bytes, &authorities, now)?,
            _ => Crls::default(),
        };
        if let (Some(path), Some(previous)) = (&files.crl, previous) {
            crls.require_no_older(path, &previous.crl_ages)?;
        }
        let agents = agent_chain(&roots, &crls.lists).map_err(|error| crl_fault(files, &error))?;
        let gateways = gateway_chain(&roots, &crls.lists).map_err(|error| crl_fault(files, &error))?;
        check_chain(files, &identity, &chain, &roots, &agents, now)?;
        Ok(Self {
            mesh: identity.mesh().into(),
            identity,
            not_after,
            bytes,
            revoked: crls.revoked,
            crl_ages: crls.ages,
            key: Arc::new(SingleCertAndKey::from(key)),
            agents,
            gateways,
            tickets: ring::Ticketer::new()?,
        })
    }

    /// A server configuration whose verifier leaves its findings in `observed`.
    pub(crate) fn server(&self, observed: Arc<Observed>) -> Result<ServerConfig, rustls::Error> {
        let verifier = AgentVerifier { chain: Arc::clone(&self.agents), mesh: Arc::clone(&self.mesh), observed };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(&self.key) as _);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::clone(&self.tickets);
        // One ticket is enough: a client reconnects once.
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    /// A client configuration. There is one for all connections, since rustls resumes a session only under the verifier
    /// that it began with.
    pub(crate) fn client(&self) -> Result<ClientConfig, rustls::Error> {
        let verifier = GatewayVerifier { chain: Arc::clone(&self.gateways), mesh: Arc::clone(&self.mesh) };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.key) as _);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::in_memory_sessions(64);
        Ok(config)
    }

    /// Whether the certificate is named by a revocation list.
    pub(crate) fn is_revoked(&self, serial: &[u8]) -> bool {
        self.revoked.iter().any(|revoked| revoked == serial)
    }
}

/// The revocation lists of a file, checked, the newest of each issuer.
#[derive(Default)]
struct Crls {
    lists: Vec<CertificateRevocationListDer<'static>>,
    ages: Vec<CrlAge>,
    revoked: Vec<Vec<u8>>,
}

impl Crls {
    fn read(
        path: &Path,
        bytes: &[u8],
        authorities: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let fault = |fault: String| TlsError::Crl { path: path.to_owned(), fault };
        let mut newest: Vec<(CrlAge, CertificateRevocationListDer<'static>)> = Vec::new();
        for der in CertificateRevocationListDer::pem_slice_iter(bytes) {
            let der = der.map_err(|error| pem(path, "revocation list", &error))?;
            let age = check_crl(&der, authorities, now).map_err(fault)?;
            match newest.iter_mut().find(|(known, _)| known.issuer == age.issuer) {
                Some(known) if known.0.this_update < age.this_update => *known = (age, der),
                Some(_) => {}
                None => newest.push((age, der)),
            }
        }
        if newest.is_empty() {
            return Err(pem(path, "revocation list", &"it has none"));
        }
        let mut crls = Self::default();
        for (age, der) in newest {
            if let Ok((_, list)) = CertificateRevocationList::from_der(&der) {
                crls.revoked.extend(list.iter_revoked_certificates().map(|entry| entry.raw_serial().to_vec()));
            }
            crls.ages.push(age);
            crls.lists.push(der);
        }
        Ok(crls)
    }

    fn require_no_older(&self, path: &Path, previous: &[CrlAge]) -> Result<(), TlsError> {
        let older = |age: &&CrlAge| {
            previous.iter().any(|known| known.issuer == age.issuer && known.this_update > age.this_update)
        };
        match self.ages.iter().find(older) {
            None => Ok(()),
            Some(age) => Err(TlsError::Crl {
                path: path.to_owned(),
                fault: format!("its list of {} is older than the one in use", rfc3339(age.this_update)),
            }),
        }
    }
}

/// Checks one list's signature and dates.
fn check_crl(
    der: &CertificateRevocationListDer<'_>,
    authorities: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<CrlAge, String> {
    let (_, list) =
        CertificateRevocationList::from_der(der).map_err(|error| format!("undecodable revocation list: {error}"))?;
    let signed_by = |authority: &CertificateDer<'_>| {
        parse_certificate(authority).is_ok_and(|authority| {
            authority.subject().as_raw() == list.issuer().as_raw()
                && list.verify_signature(authority.public_key()).is_ok()
        })
    };
    if !authorities.iter().any(signed_by) {
        return Err(format!("a revocation list by {} is not signed by an authority of the CA file", list.issuer()));
    }
    let this_update = list.last_update().timestamp();
    if this_update > unix(now) + 300 {
        return Err(format!(
            "a revocation list is dated {}, in the future; check this host's clock",
            rfc3339(this_update)
        ));
    }
    if let Some(next_update) = list.next_update()
        && next_update.timestamp() < unix(now)
    {
        tracing::warn!(issuer = %list.issuer(), due = %rfc3339(next_update.timestamp()), "revocation list is overdue; what it names stays revoked");
    }
    Ok(CrlAge { issuer: list.issuer().as_raw().to_vec(), this_update })
}

fn read_all(files: &TlsFiles) -> Result<Vec<Vec<u8>>, TlsError> {
    [Some(&files.cert), Some(&files.key), Some(&files.ca), files.crl.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| read(path))
        .collect()
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let error = |source| TlsError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(error)?.len();
    if length > FILE_BYTES_MAX {
        return Err(pem(path, "certificate or key", &"it is larger than 4 MiB"));
    }
    std::fs::read(path).map_err(error)
}

pub(crate) fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(pem(path, "certificate", &"it has none")),
        Err(error) => Err(pem(path, "certificate", &error)),
    }
}

pub(crate) fn pem(path: &Path, wanted: &'static str, fault: &dyn std::fmt::Display) -> TlsError {
    TlsError::Pem { path: path.to_owned(), wanted, fault: fault.to_string() }
}

fn certified_key(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key, &PROVIDER).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            return TlsError::KeyMismatch { key: files.key.clone(), cert: files.cert.clone() };
        }
        pem(&files.key, "usable private key", &error)
    })
}

fn check_dates(
    path: &Path,
    leaf: &CertificateDer<'_>,
    identity: &Identity,
    now: SystemTime,
) -> Result<SystemTime, TlsError> {
    let parsed = parse_certificate(leaf).map_err(|source| TlsError::Identity { path: path.to_owned(), source })?;
    let (first, last) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    if unix(now) < first {
        return Err(TlsError::NotYetValid {
            path: path.to_owned(),
            identity: identity.clone(),
            not_before: rfc3339(first),
        });
    }
    if unix(now) > last {
        return Err(TlsError::Expired { path: path.to_owned(), identity: identity.clone(), not_after: rfc3339(last) });
    }
    Ok(UNIX_EPOCH + Duration::from_secs(u64::try_from(last).unwrap_or(0)))
}

/// The authorities that are still good. webpki does not look at a trust anchor's dates.
fn roots(path: &Path, authorities: &[CertificateDer<'static>], now: SystemTime) -> Result<RootCertStore, TlsError> {
    let fault = |fault: String| TlsError::Authority { path: path.to_owned(), fault };
    let mut roots = RootCertStore::empty();
    let mut expired = None;
    for authority in authorities {
        let parsed = parse_certificate(authority).map_err(|error| fault(error.to_string()))?;
        if !parsed.is_ca() {
            return Err(fault(format!("the certificate of {} is no authority's", parsed.subject())));
        }
        let last = parsed.validity().not_after.timestamp();
        if unix(now) > last {
            tracing::warn!(authority = %parsed.subject(), since = %rfc3339(last), "authority has expired and is not trusted any more");
            expired = Some(format!("the authority {} expired at {}", parsed.subject(), rfc3339(last)));
            continue;
        }
        roots.add(authority.clone()).map_err(|error| fault(error.to_string()))?;
    }
    if roots.is_empty() { Err(fault(expired.unwrap_or_else(|| "it has no authority".to_owned()))) } else { Ok(roots) }
}

fn agent_chain(
    roots: &Arc<RootCertStore>,
    crls: &[CertificateRevocationListDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, rustls::server::VerifierBuilderError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&PROVIDER));
    builder.with_crls(crls.iter().cloned()).allow_unknown_revocation_status().build()
}

fn gateway_chain(
    roots: &Arc<RootCertStore>,
    crls: &[CertificateRevocationListDer<'static>],
) -> Result<Arc<WebPkiServerVerifier>, rustls::client::VerifierBuilderError> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&PROVIDER));
    builder.with_crls(crls.iter().cloned()).allow_unknown_revocation_status().build()
}

/// Verifies our own certificate as a peer would.
fn check_chain(
    files: &TlsFiles,
    identity: &Identity,
    chain: &[CertificateDer<'static>],
    roots: &RootCertStore,
    agents: &Arc<dyn ClientCertVerifier>,
    now: SystemTime,
) -> Result<(), TlsError> {
    let Some((leaf, intermediates)) = chain.split_first() else { return Ok(()) };
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let verified = match identity.role() {
        Role::Agent => agents.verify_client_cert(leaf, intermediates, now).map(|_| ()),
        Role::Gateway => ParsedCertificate::try_from(leaf).and_then(|leaf| {
            let algorithms = PROVIDER.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, now, algorithms)
        }),
    };
    verified.map_err(|source| TlsError::Untrusted { cert: files.cert.clone(), ca: files.ca.clone(), source })
}

fn crl_fault(files: &TlsFiles, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Crl { path: files.crl.clone().unwrap_or_default(), fault: error.to_string() }
}

fn warn_about_mode(path: &Path) {
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(key = %path.display(), mode = format!("{:o}", metadata.permissions().mode() & 0o777), "private key is open to others; chmod 600 it");
    }
}

pub(crate) fn unix(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

pub(crate) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
