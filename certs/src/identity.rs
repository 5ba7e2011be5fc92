//! Who a certificate says its holder is.
//!
//! Owns the form of identities, `spiffe://<mesh>/<role>/<name>`, and the rule by which one is read from a certificate:
//! exactly one URI among the subject alternative names, in this form, with the extended key usage of its role. Whether a
//! certificate may be believed at all (chain, dates, revocation) is checked elsewhere, before.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const NAME_BYTES_MAX: usize = 128;
const MESH_BYTES_MAX: usize = 255;
const SCHEME: &str = "spiffe://";

/// What the holder of an identity does in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sends records: agents and other clients. Its certificates are for TLS clients.
    Agent,
    /// Takes records in. Its certificates are for TLS servers.
    Gateway,
}

/// An identity: mesh, role and name, as one URI. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    uri: Arc<str>,
    role: Role,
    /// Where the mesh ends in `uri`.
    mesh_end: usize,
    /// Where the name begins in `uri`.
    name_start: usize,
}

/// Why a certificate or a text gives no usable identity.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// No certificate was presented.
    #[error("no certificate was presented")]
    NoCertificate,
    /// The bytes are not an X.509 certificate.
    #[error("the certificate cannot be decoded: {0}")]
    Undecodable(String),
    /// There is no URI among the subject alternative names.
    #[error(
        "the certificate has no URI SAN (its subject is {subject:?}); an identity looks like spiffe://<mesh>/agent/<name>"
    )]
    NoUri {
        /// The subject's distinguished name, which says nothing about identity but tells people which certificate it is.
        subject: String,
    },
    /// There are several URIs, so that it is not clear which one is meant.
    #[error("the certificate has {} URI SANs ({}); exactly one is allowed", .0.len(), .0.join(", "))]
    SeveralUris(Vec<String>),
    /// The URI is not an identity of this kind of mesh.
    #[error(
        "{uri:?} is no identity: {fault}; it must look like spiffe://<mesh>/agent/<name> or spiffe://<mesh>/gateway/<name>"
    )]
    Malformed {
        /// The text that was read.
        uri: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The identity is fine but not of the role asked for.
    #[error("{identity} is {}, but only {} is accepted here", role_phrase(*found), role_phrase(*wanted))]
    WrongRole {
        /// Who the certificate names.
        identity: Identity,
        /// Its role.
        found: Role,
        /// The role that was needed.
        wanted: Role,
    },
    /// The identity belongs to another mesh.
    #[error("{identity} belongs to another mesh; this is {wanted:?}")]
    WrongMesh {
        /// Who the certificate names.
        identity: Identity,
        /// The mesh that was needed.
        wanted: String,
    },
    /// The certificate was good once and is not any more.
    #[error("the certificate of {identity} {fault}")]
    NotValid {
        /// Who the certificate names.
        identity: Identity,
        /// What happened to it.
        fault: &'static str,
    },
    /// The extended key usage does not allow the role.
    #[error("the certificate of {identity} lacks the extended key usage {usage}")]
    WrongUsage {
        /// Who the certificate names.
        identity: Identity,
        /// The extended key usage that is missing.
        usage: &'static str,
    },
}

impl Role {
    /// The role's word in an identity.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Gateway => "gateway",
        }
    }

    /// The extended key usage that the role's certificates carry.
    pub const fn usage(self) -> &'static str {
        match self {
            Self::Agent => "clientAuth",
            Self::Gateway => "serverAuth",
        }
    }
}

impl Identity {
    /// Builds an identity from its parts.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] where a part is empty, too long, or has characters outside the SPIFFE set.
    pub fn new(mesh: &str, role: Role, name: &str) -> Result<Self, IdentityError> {
        Self::parse(&format!("{SCHEME}{mesh}/{}/{name}", role.as_str()))
    }

    /// Reads an identity from its URI.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] says what is wrong.
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        let malformed = |fault| IdentityError::Malformed { uri: uri.to_owned(), fault };
        let rest = uri.strip_prefix(SCHEME).ok_or_else(|| malformed("it does not begin with spiffe://"))?;
        let (mesh, path) = rest.split_once('/').ok_or_else(|| malformed("it has no role and name"))?;
        let (role, name) = path.split_once('/').ok_or_else(|| malformed("it has no name"))?;
        let role = match role {
            "agent" => Role::Agent,
            "gateway" => Role::Gateway,
            _ => return Err(malformed("its role is neither agent nor gateway")),
        };
        if mesh.is_empty() || mesh.len() > MESH_BYTES_MAX || !mesh.bytes().all(is_mesh_byte) {
            return Err(malformed("the mesh is 1 to 255 of a-z 0-9 . - _"));
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_name_byte) {
            return Err(malformed("the name is 1 to 128 of A-Z a-z 0-9 . - _"));
        }
        if name == "." || name == ".." {
            return Err(malformed("the name is a path step"));
        }
        let mesh_end = SCHEME.len() + mesh.len();
        Ok(Self { uri: uri.into(), role, mesh_end, name_start: uri.len() - name.len() })
    }

    /// Reads the identity of a certificate, with the extended key usage that its role needs. The certificate is not
    /// verified here.
    ///
    /// # Errors
    /// Every variant of [`IdentityError`] but the ones about what the caller wanted.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let parsed = parse_certificate(certificate)?;
        let uris = uris(&parsed)?;
        let identity = match uris.as_slice() {
            [] => return Err(IdentityError::NoUri { subject: parsed.subject().to_string() }),
            [uri] => Self::parse(uri)?,
            _ => return Err(IdentityError::SeveralUris(uris)),
        };
        let usage = parsed.extended_key_usage().map_err(undecodable)?;
        let allowed = usage.is_some_and(|usage| match identity.role {
            Role::Agent => usage.value.client_auth,
            Role::Gateway => usage.value.server_auth,
        });
        if !allowed {
            return Err(IdentityError::WrongUsage { usage: identity.role.usage(), identity });
        }
        Ok(identity)
    }

    /// The mesh: the SPIFFE trust domain.
    pub fn mesh(&self) -> &str {
        &self.uri[SCHEME.len()..self.mesh_end]
    }

    /// The role.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The name within mesh and role.
    pub fn name(&self) -> &str {
        &self.uri[self.name_start..]
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The whole URI, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.uri)
    }

    /// Refuses an identity of another role.
    ///
    /// # Errors
    /// [`IdentityError::WrongRole`].
    pub fn require_role(self, wanted: Role) -> Result<Self, IdentityError> {
        if self.role == wanted {
            Ok(self)
        } else {
            Err(IdentityError::WrongRole { found: self.role, wanted, identity: self })
        }
    }

    /// Refuses an identity of another mesh.
    ///
    /// # Errors
    /// [`IdentityError::WrongMesh`].
    pub fn require_mesh(self, wanted: &str) -> Result<Self, IdentityError> {
        if self.mesh() == wanted {
            Ok(self)
        } else {
            Err(IdentityError::WrongMesh { identity: self, wanted: wanted.to_owned() })
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.uri)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.uri)
    }
}

/// The identity of an authenticated TLS client: the agent whose certificate chain was verified in the handshake.
///
/// # Errors
/// [`IdentityError`] where there is no certificate, no usable identity in it, or one that is no agent's.
pub fn peer(chain: &[CertificateDer<'_>]) -> Result<Identity, IdentityError> {
    let leaf = chain.first().ok_or(IdentityError::NoCertificate)?;
    Identity::from_certificate(leaf)?.require_role(Role::Agent)
}

/// Names a certificate for people, whatever state it is in: its subject alternative names, else its subject.
pub(crate) fn describe_names(certificate: &CertificateDer<'_>) -> String {
    let Ok(parsed) = parse_certificate(certificate) else { return "an undecodable certificate".to_owned() };
    let names = alternative_names(&parsed);
    if names.is_empty() { format!("subject {:?}, no SAN", parsed.subject().to_string()) } else { names.join(", ") }
}

pub(crate) fn parse_certificate<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    X509Certificate::from_der(certificate).map(|(_, parsed)| parsed).map_err(undecodable)
}

/// All subject alternative names, each with its kind.
pub(crate) fn alternative_names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    names.value.general_names.iter().map(describe_name).collect()
}

fn uris(parsed: &X509Certificate<'_>) -> Result<Vec<String>, IdentityError> {
    let Some(names) = parsed.subject_alternative_name().map_err(undecodable)? else { return Ok(Vec::new()) };
    let uri = |name: &GeneralName<'_>| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None };
    Ok(names.value.general_names.iter().filter_map(uri).collect())
}

fn describe_name(name: &GeneralName<'_>) -> String {
    if let GeneralName::IPAddress(bytes) = name {
        if let Ok(v4) = <[u8; 4]>::try_from(*bytes) {
            return format!("IP {}", std::net::Ipv4Addr::from(v4));
        }
        if let Ok(v6) = <[u8; 16]>::try_from(*bytes) {
            return format!("IP {}", std::net::Ipv6Addr::from(v6));
        }
    }
    if let GeneralName::URI(uri) = name {
        return format!("URI {uri}");
    }
    if let GeneralName::DNSName(host) = name {
        return format!("DNS {host}");
    }
    name.to_string()
}

fn undecodable(error: impl fmt::Display) -> IdentityError {
    IdentityError::Undecodable(error.to_string())
}

const fn role_phrase(role: Role) -> &'static str {
    match role {
        Role::Agent => "an agent",
        Role::Gateway => "a gateway",
    }
}

const fn is_mesh_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

const fn is_name_byte(byte: u8) -> bool {
    is_mesh_byte(byte) || byte.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_gives_back_its_parts() {
        let identity = Identity::parse("spiffe://mesh.example/agent/edge-1").unwrap();
        assert_eq!((identity.mesh(), identity.role(), identity.name()), ("mesh.example", Role::Agent, "edge-1"));
        assert_eq!(identity, Identity::new("mesh.example", Role::Agent, "edge-1").unwrap());
    }

    #[test]
    fn anything_that_could_be_read_two_ways_is_refused() {
        for uri in [
            "",
            "spiffe://",
            "spiffe://mesh",
            "spiffe://mesh/agent",
            "spiffe://mesh/agent/",
            "spiffe:///agent/a",
            "spiffe://mesh/agent/a/b",
            "spiffe://mesh/agent/..",
            "spiffe://mesh/agent/a?b",
            "spiffe://mesh/agent/a%2fb",
            "spiffe://Mesh/agent/a",
            "spiffe://mesh:1/agent/a",
            "spiffe://u@mesh/agent/a",
            "SPIFFE://mesh/agent/a",
            "https://mesh/agent/a",
            "spiffe://mesh/admin/a",
            "spiffe://mesh/agent/a b",
            "spiffe://mesh/agent/ä",
        ] {
            assert!(matches!(Identity::parse(uri), Err(IdentityError::Malformed { .. })), "{uri:?} was accepted");
        }
        let long = format!("spiffe://mesh/agent/{}", "a".repeat(129));
        assert!(Identity::parse(&long).is_err());
    }
}
