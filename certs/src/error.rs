//! Why certificates cannot be used.

use std::io;
use std::path::PathBuf;

use crate::identity::{Identity, IdentityError};

/// Why the files cannot be used. Each text names the file and the cure.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}; check that the path is right and that this user may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file holds something else than it should, or was cut short.
    #[error("{}: no {wanted} in it: {fault}; it must be PEM, whole (was it being written?)", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What was found.
        fault: String,
    },
    /// Certificate and key do not belong together.
    #[error("{} is not the private key of the certificate in {}; issue both again, or wait until both are written", key.display(), cert.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The certificate names no identity.
    #[error("{}: {source}; issue it with `logmesh certs issue`", path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// The certificate's time is over.
    #[error("{}: the certificate of {identity} expired at {not_after}; issue a new one", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// Who it names.
        identity: Identity,
        /// Its last second.
        not_after: String,
    },
    /// The certificate's time has not come.
    #[error("{}: the certificate of {identity} is not valid before {not_before}; check this host's clock", path.display())]
    NotYetValid {
        /// The certificate's file.
        path: PathBuf,
        /// Who it names.
        identity: Identity,
        /// Its first second.
        not_before: String,
    },
    /// The certificate does not lead to an authority of the CA file.
    #[error("{}: not accepted by the authorities in {}: {source}; use the CA that issued it", cert.display(), ca.display())]
    Untrusted {
        /// The certificate's file.
        cert: PathBuf,
        /// The CA file.
        ca: PathBuf,
        /// What the verifier said.
        source: rustls::Error,
    },
    /// No authority of the CA file can be used.
    #[error("{}: {fault}; get the mesh's current ca.pem", path.display())]
    Authority {
        /// The CA file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A revocation list cannot be used.
    #[error("{}: {fault}; get the current crl.pem from the authority", path.display())]
    Crl {
        /// The CRL file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The TLS library refused the whole.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}
