//! The certificate authority of a mesh: its key, and what it signs.
//!
//! Owns issuing and the authority's directory:
//!
//! | file | mode | what |
//! |---|---|---|
//! | `ca-key.pem` | 0600 | the private key, PKCS#8 |
//! | `ca.pem` | 0644 | the certificate that every member of the mesh trusts |
//! | `issued.log` | 0644 | a line per certificate: serial, identity, first and last second of validity, tab separated |
//! | `crl.pem` | 0644 | the newest revocation list, once something was revoked |
//!
//! Crash cases: the key is written before the certificate, so that a `ca.pem` always has its key; a key alone, with
//! nothing issued, is what a creation cut short leaves behind, and the next creation replaces it. A certificate is in
//! `issued.log` before it leaves [`Authority::issue_recorded`]; a torn last line (no line feed) is ignored.
//!
//! Keys are ECDSA P-256. Certificates for agents carry clientAuth alone, those for gateways serverAuth alone, so that
//! neither can pass for the other.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::files::{self, Existing, Privacy};
use crate::identity::{Identity, IdentityError, Role, parse_certificate};
use crate::serial::Serial;

const KEY_FILE: &str = "ca-key.pem";
const CERTIFICATE_FILE: &str = "ca.pem";
const ISSUED_FILE: &str = "issued.log";
const CRL_FILE: &str = "crl.pem";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates are valid a little before they are made, for peers whose clocks are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
const CRL_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A certificate authority, ready to sign.
pub struct Authority {
    mesh: String,
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// What a certificate is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Agent or gateway.
    pub role: Role,
    /// Name within mesh and role.
    pub name: String,
    /// Host names that a gateway is reached by. Agents need none.
    pub dns: Vec<String>,
    /// Addresses that a gateway is reached by. Agents need none.
    pub ips: Vec<IpAddr>,
    /// From when to when the certificate is good.
    pub validity: Validity,
}

/// A span of time, whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: SystemTime,
    /// Last second.
    pub not_after: SystemTime,
}

/// A certificate with its key, fresh from the authority.
pub struct Issued {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
    /// Who it names.
    pub identity: Identity,
    /// Its number at this authority.
    pub serial: Serial,
    /// From when to when it is good.
    pub validity: Validity,
}

/// A line of the authority's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedEntry {
    /// The certificate's number.
    pub serial: Serial,
    /// Who it names.
    pub identity: Identity,
    /// From when to when it is good.
    pub validity: Validity,
}

/// Why the authority could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is something in the way already.
    #[error("{} exists already and was left alone; choose another place, or move it away first", .0.display())]
    Exists(PathBuf),
    /// The directory holds a certificate without its key.
    #[error("{} is there but its private key {KEY_FILE} is not: nothing can be signed; restore the key from a backup, or begin a new mesh in another directory", .0.display())]
    KeyMissing(PathBuf),
    /// A file holds something else than it should.
    #[error("{}: {fault}; restore it from a backup, or begin a new mesh in another directory", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        fault: String,
    },
    /// The identity asked for is not one.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A name or an address asked for cannot stand in a certificate.
    #[error("{0:?} cannot be a DNS name of a certificate; use letters, digits, dots and hyphens")]
    DnsName(String),
    /// The times asked for make no sense.
    #[error("the validity ends before it begins, or lies before 1970")]
    Validity,
    /// The signing library refused.
    #[error("signing: {0}")]
    Signing(#[from] rcgen::Error),
}

impl Validity {
    /// Good from now (less five minutes, for peers whose clocks are behind) for `lifetime`.
    pub fn starting(now: SystemTime, lifetime: Duration) -> Self {
        Self { not_before: now.checked_sub(CLOCK_SKEW).unwrap_or(now), not_after: now + lifetime }
    }

    /// The usual span of an agent's or gateway's certificate: 90 days.
    pub fn leaf(now: SystemTime) -> Self {
        Self::starting(now, 90 * DAY)
    }

    /// The usual span of an authority: 10 years.
    pub fn authority(now: SystemTime) -> Self {
        Self::starting(now, 3652 * DAY)
    }

    fn seconds(self) -> Result<(u64, u64), AuthorityError> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs());
        match (seconds(self.not_before), seconds(self.not_after)) {
            (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
            _ => Err(AuthorityError::Validity),
        }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authority").field("mesh", &self.mesh).finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Issued")
            .field("identity", &self.identity)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority for `mesh`, in memory.
    ///
    /// # Errors
    /// A mesh name outside the SPIFFE set, or a validity that makes no sense.
    pub fn create(mesh: &str, validity: Validity) -> Result<Self, AuthorityError> {
        // The mesh's name is checked by building an identity in it.
        Identity::new(mesh, Role::Agent, "x")?;
        let key = KeyPair::generate()?;
        let mut params = parameters(validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{mesh}").try_into()?)];
        // Authorities of the same mesh name must not share a subject: a verifier finds the issuer by it.
        let key_id: String = params.key_identifier(&key).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::CommonName, format!("logmesh CA {mesh} {key_id}"));
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { mesh: mesh.to_owned(), issuer: Issuer::new(params, key), certificate_pem })
    }

    /// Reads an authority from its directory.
    ///
    /// # Errors
    /// [`AuthorityError::File`], [`AuthorityError::KeyMissing`] or [`AuthorityError::Damaged`], naming the file.
    pub fn load(directory: &Path) -> Result<Self, AuthorityError> {
        let (certificate_path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        let certificate_pem = read(&certificate_path)?;
        if !key_path.exists() {
            return Err(AuthorityError::KeyMissing(certificate_path));
        }
        let key_pem = read(&key_path)?;
        let damaged = |path: &Path, fault: String| AuthorityError::Damaged { path: path.to_owned(), fault };
        let key =
            KeyPair::from_pem(&key_pem).map_err(|error| damaged(&key_path, format!("no private key: {error}")))?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| damaged(&certificate_path, format!("no certificate: {error}")))?;
        let parsed = parse_certificate(&der).map_err(|error| damaged(&certificate_path, error.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(damaged(&key_path, format!("it is not the key of {}", certificate_path.display())));
        }
        let mesh =
            mesh_of(&parsed).ok_or_else(|| damaged(&certificate_path, "no URI SAN names the mesh".to_owned()))?;
        let issuer =
            Issuer::from_ca_cert_der(&der, key).map_err(|error| damaged(&certificate_path, error.to_string()))?;
        Ok(Self { mesh, issuer, certificate_pem })
    }

    /// Reads the authority in `directory`, or makes one there where there is none, or where making one was cut short.
    ///
    /// # Errors
    /// As [`Authority::load`], [`Authority::create`] and [`Authority::save`].
    pub fn load_or_create(directory: &Path, mesh: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        if directory.join(CERTIFICATE_FILE).exists() {
            return Self::load(directory);
        }
        let authority = Self::create(mesh, Validity::authority(now))?;
        authority.save(directory)?;
        Ok(authority)
    }

    /// Writes a new authority into its directory, which is made where it is missing.
    ///
    /// # Errors
    /// [`AuthorityError::Exists`] where the directory has an authority already.
    pub fn save(&self, directory: &Path) -> Result<(), AuthorityError> {
        files::create_directory(directory)
            .map_err(|source| AuthorityError::File { path: directory.to_owned(), source })?;
        let (certificate_path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        if certificate_path.exists() {
            return Err(AuthorityError::Exists(certificate_path));
        }
        let cut_short = !directory.join(ISSUED_FILE).exists();
        let existing = if cut_short { Existing::Replace } else { Existing::Keep };
        write(&key_path, self.issuer.key().serialize_pem().as_bytes(), Privacy::Private, existing)?;
        write(&certificate_path, self.certificate_pem.as_bytes(), Privacy::Public, Existing::Keep)
    }

    /// The same authority, issuing for another mesh: what only tests do.
    #[cfg(test)]
    pub(crate) fn with_mesh(mut self, mesh: &str) -> Self {
        mesh.clone_into(&mut self.mesh);
        self
    }

    /// The mesh that the authority is for.
    pub fn mesh(&self) -> &str {
        &self.mesh
    }

    /// The authority's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Makes a key and signs a certificate for it.
    ///
    /// # Errors
    /// A name or a validity that cannot stand in a certificate.
    pub fn issue(&self, request: &Request) -> Result<Issued, AuthorityError> {
        let identity = Identity::new(&self.mesh, request.role, &request.name)?;
        let mut params = parameters(request.validity)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match request.role {
            Role::Agent => ExtendedKeyUsagePurpose::ClientAuth,
            Role::Gateway => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.distinguished_name.push(DnType::CommonName, request.name.as_str());
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
        for name in &request.dns {
            params.subject_alt_names.push(SanType::DnsName(dns_name(name)?.try_into()?));
        }
        params.subject_alt_names.extend(request.ips.iter().map(|ip| SanType::IpAddress(*ip)));
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let serial = Serial::from_bytes(parse_certificate(certificate.der())?.raw_serial());
        Ok(Issued {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            identity,
            serial,
            validity: request.validity,
        })
    }

    /// Issues, and notes the certificate in the record of the authority's directory first.
    ///
    /// # Errors
    /// As [`Authority::issue`], and [`AuthorityError::File`] where the record cannot be written.
    pub fn issue_recorded(&self, directory: &Path, request: &Request) -> Result<Issued, AuthorityError> {
        let issued = self.issue(request)?;
        let (first, last) = issued.validity.seconds()?;
        let path = directory.join(ISSUED_FILE);
        let line = format!("{}\t{}\t{first}\t{last}", issued.serial, issued.identity);
        files::append_line(&path, &line).map_err(|source| AuthorityError::File { path, source })?;
        Ok(issued)
    }

    /// The record of all certificates issued from `directory`, oldest first; empty where none was.
    ///
    /// # Errors
    /// [`AuthorityError::File`] where the record cannot be read.
    pub fn issued(directory: &Path) -> Result<Vec<IssuedEntry>, AuthorityError> {
        let path = directory.join(ISSUED_FILE);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = read(&path)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        Ok(whole.lines().filter_map(IssuedEntry::parse).collect())
    }

    /// Signs a list of revoked certificates. A later list replaces an earlier one, so it must name them all.
    ///
    /// # Errors
    /// [`AuthorityError::Validity`] for a time before 1970.
    pub fn crl(&self, revoked: &[Serial], now: SystemTime) -> Result<String, AuthorityError> {
        let (now_seconds, next_seconds) = Validity { not_before: now, not_after: now + CRL_LIFETIME }.seconds()?;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let this_update = epoch + Duration::from_secs(now_seconds);
        let entry = |serial: &Serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial.as_bytes()),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update,
            next_update: epoch + Duration::from_secs(next_seconds),
            // The number must grow with each list; seconds do, without a counter to keep.
            crl_number: SerialNumber::from(now_seconds),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }

    /// Writes a revocation list into the authority's directory, over the one before, and gives its path.
    ///
    /// # Errors
    /// As [`Authority::crl`], and [`AuthorityError::File`].
    pub fn save_crl(&self, directory: &Path, revoked: &[Serial], now: SystemTime) -> Result<PathBuf, AuthorityError> {
        let path = directory.join(CRL_FILE);
        write(&path, self.crl(revoked, now)?.as_bytes(), Privacy::Public, Existing::Replace)?;
        Ok(path)
    }
}

impl Issued {
    /// Writes key (0600) and certificate, key first. Two files cannot be replaced in one step: whoever reads between
    /// finds a pair that does not match, and [`TlsSource::reload`](crate::TlsSource::reload) then keeps what it has.
    ///
    /// # Errors
    /// [`AuthorityError::Exists`] with [`Existing::Keep`] where one of the files exists, with neither of them touched.
    pub fn save(&self, certificate: &Path, key: &Path, existing: Existing) -> Result<(), AuthorityError> {
        if existing == Existing::Keep
            && let Some(path) = [certificate, key].into_iter().find(|path| path.symlink_metadata().is_ok())
        {
            return Err(AuthorityError::Exists(path.to_owned()));
        }
        write(key, self.key_pem.as_bytes(), Privacy::Private, existing)?;
        write(certificate, self.cert_pem.as_bytes(), Privacy::Public, existing)
    }
}

impl IssuedEntry {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split('\t');
        let (serial, identity) = (Serial::parse(parts.next()?)?, Identity::parse(parts.next()?).ok()?);
        let mut time = || parts.next()?.parse().ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        Some(Self { serial, identity, validity: Validity { not_before: time()?, not_after: time()? } })
    }
}

fn parameters(validity: Validity) -> Result<CertificateParams, AuthorityError> {
    let (first, last) = validity.seconds()?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(first);
    params.not_after = epoch + Duration::from_secs(last);
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params)
}

fn mesh_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Option<String> {
    crate::identity::alternative_names(certificate)
        .iter()
        .find_map(|name| name.strip_prefix("URI spiffe://").map(str::to_owned))
}

fn dns_name(name: &str) -> Result<&str, AuthorityError> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let bare = name.strip_prefix("*.").unwrap_or(name);
    if name.len() <= 253 && bare.split('.').all(label) {
        Ok(name)
    } else {
        Err(AuthorityError::DnsName(name.to_owned()))
    }
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    std::fs::read_to_string(path).map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

fn write(path: &Path, contents: &[u8], privacy: Privacy, existing: Existing) -> Result<(), AuthorityError> {
    files::write(path, contents, privacy, existing).map_err(|source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            return AuthorityError::Exists(path.to_owned());
        }
        AuthorityError::File { path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests;
