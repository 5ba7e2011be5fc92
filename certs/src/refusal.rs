//! The words for a handshake that failed: which check, for which name.
//!
//! Owns the classification of TLS errors into a closed list of reasons (for metrics) and a sentence (for people). A
//! verifier leaves what it saw in an [`Observed`], since a TLS error by itself no longer knows the certificate.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::OnceLock;

use rustls::{CertificateError, Error as RustlsError, OtherError};

use crate::identity::IdentityError;

/// Why a handshake failed: a closed list, fit for a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The peer presented no certificate.
    NoCertificate,
    /// The peer's certificate comes from another authority.
    UnknownIssuer,
    /// The peer's certificate or proof of possession has a bad signature.
    BadSignature,
    /// The peer's certificate is no longer valid.
    Expired,
    /// The peer's certificate is not valid yet.
    NotYetValid,
    /// The peer's certificate was revoked.
    Revoked,
    /// The peer's certificate is not made for this use (client or server).
    WrongUsage,
    /// The peer's certificate does not name the host that was asked for.
    WrongName,
    /// The peer's certificate names an identity of another role.
    WrongRole,
    /// The peer's certificate names an identity of another mesh.
    WrongMesh,
    /// The peer's certificate names no identity.
    NoIdentity,
    /// The peer's certificate cannot be decoded.
    Undecodable,
    /// The peer refused our certificate, or gave up, with a TLS alert.
    RefusedByPeer,
    /// The peer speaks something else than TLS 1.3.
    Protocol,
    /// The peer offers no HTTP/2.
    NoHttp2,
    /// The connection broke.
    Connection,
    /// The peer did not finish in time.
    Timeout,
}

/// A refused handshake, classified and told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Class.
    pub reason: Reason,
    /// Which check failed, and for which name.
    pub text: String,
}

/// What the verifier of one handshake found wrong; empty while nothing was.
#[derive(Debug, Default)]
pub struct Observed(OnceLock<Refusal>);

impl Reason {
    /// The reason as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::WrongUsage => "wrong_usage",
            Self::WrongName => "wrong_name",
            Self::WrongRole => "wrong_role",
            Self::WrongMesh => "wrong_mesh",
            Self::NoIdentity => "no_identity",
            Self::Undecodable => "undecodable",
            Self::RefusedByPeer => "refused_by_peer",
            Self::Protocol => "protocol",
            Self::NoHttp2 => "no_http2",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
        }
    }
}

impl Observed {
    pub(crate) fn note(&self, refusal: Refusal) {
        // The first finding is the cause; a handshake verifies one certificate anyway.
        let _ = self.0.set(refusal);
    }

    /// What was found wrong with the peer's certificate, if anything.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.0.get()
    }
}

impl Refusal {
    /// Classifies the error of a handshake that a gateway ran. `observed` comes with the configuration of that handshake.
    pub fn of_agent(error: &io::Error, observed: &Observed) -> Self {
        observed.refusal().cloned().unwrap_or_else(|| Self::of(error))
    }

    /// Classifies the error of a handshake that an agent ran (or of the first read after it: with TLS 1.3 a client learns
    /// only then that it was refused).
    pub fn of_gateway(error: &io::Error) -> Self {
        Self::of(error)
    }

    fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) {
            Some(tls) => Self::of_tls(tls),
            None => {
                Self { reason: Reason::Connection, text: format!("the connection broke during the handshake: {error}") }
            }
        }
    }

    /// A handshake that took too long.
    pub fn timeout(limit: std::time::Duration) -> Self {
        Self {
            reason: Reason::Timeout,
            text: format!("the handshake was not finished within {} s", limit.as_secs_f32()),
        }
    }

    /// A peer that did not agree on HTTP/2.
    pub fn no_http2() -> Self {
        Self { reason: Reason::NoHttp2, text: "the peer did not agree on HTTP/2 (ALPN h2)".to_owned() }
    }

    pub(crate) fn of_certificate(error: &RustlsError, names: &str) -> Self {
        let reason = certificate_reason(error);
        Self { reason, text: format!("{} (certificate for {names})", explanation(reason, error)) }
    }

    /// A peer whose certificate was verified but names nobody who may come in.
    pub fn of_identity(error: &IdentityError) -> Self {
        let reason = match error {
            IdentityError::NoCertificate => Reason::NoCertificate,
            IdentityError::Undecodable(_) => Reason::Undecodable,
            IdentityError::NoUri { .. } | IdentityError::SeveralUris(_) | IdentityError::Malformed { .. } => {
                Reason::NoIdentity
            }
            IdentityError::WrongRole { .. } => Reason::WrongRole,
            IdentityError::WrongMesh { .. } => Reason::WrongMesh,
            IdentityError::WrongUsage { .. } => Reason::WrongUsage,
            IdentityError::NotValid { .. } => Reason::Revoked,
        };
        Self { reason, text: error.to_string() }
    }

    fn of_tls(error: &RustlsError) -> Self {
        if matches!(error, RustlsError::NoCertificatesPresented) {
            return Self { reason: Reason::NoCertificate, text: "the peer presented no certificate".to_owned() };
        }
        if let RustlsError::AlertReceived(alert) = error {
            let text = format!("the peer ended the handshake with the TLS alert {alert:?}; its log says why");
            return Self { reason: Reason::RefusedByPeer, text };
        }
        if matches!(error, RustlsError::NoApplicationProtocol) {
            return Self::no_http2();
        }
        if let RustlsError::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error
            && let Some(refusal) = inner.downcast_ref::<Self>()
        {
            return refusal.clone();
        }
        if matches!(error, RustlsError::InvalidCertificate(_)) {
            let reason = certificate_reason(error);
            return Self { reason, text: explanation(reason, error) };
        }
        Self { reason: Reason::Protocol, text: format!("no TLS 1.3 handshake: {error}") }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl StdError for Refusal {}

fn certificate_reason(error: &RustlsError) -> Reason {
    use CertificateError as C;
    let RustlsError::InvalidCertificate(fault) = error else { return Reason::Protocol };
    if matches!(fault, C::Expired | C::ExpiredContext { .. }) {
        Reason::Expired
    } else if matches!(fault, C::NotValidYet | C::NotValidYetContext { .. }) {
        Reason::NotYetValid
    } else if matches!(fault, C::Revoked) {
        Reason::Revoked
    } else if matches!(fault, C::UnknownIssuer | C::UnknownRevocationStatus) {
        Reason::UnknownIssuer
    } else if matches!(fault, C::InvalidPurpose | C::InvalidPurposeContext { .. }) {
        Reason::WrongUsage
    } else if matches!(fault, C::NotValidForName | C::NotValidForNameContext { .. }) {
        Reason::WrongName
    } else if matches!(fault, C::BadEncoding | C::UnhandledCriticalExtension) {
        Reason::Undecodable
    } else {
        Reason::BadSignature
    }
}

fn explanation(reason: Reason, error: &RustlsError) -> String {
    let check = match reason {
        Reason::Expired => "the peer's certificate has expired",
        Reason::NotYetValid => "the peer's certificate is not valid yet",
        Reason::Revoked => "the peer's certificate is revoked",
        Reason::UnknownIssuer => "the peer's certificate was issued by an authority that is not in our CA file",
        Reason::WrongUsage => "the peer's certificate is not made for this use (extended key usage)",
        Reason::WrongName => "the peer's certificate does not name the host that was asked for",
        Reason::Undecodable => "the peer's certificate cannot be decoded",
        Reason::NoCertificate | Reason::BadSignature | Reason::WrongRole | Reason::WrongMesh | Reason::NoIdentity => {
            "the peer's certificate could not be verified"
        }
        Reason::RefusedByPeer | Reason::Protocol | Reason::NoHttp2 | Reason::Connection | Reason::Timeout => {
            "the handshake failed"
        }
    };
    format!("{check}: {error}")
}
