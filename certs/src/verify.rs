//! Verifying the peer in a handshake: the chain first (rustls with webpki), then who it is.
//!
//! Owns the two verifiers. A certificate passes when webpki accepts chain, dates, revocation, extended key usage and,
//! on the client's side, the host name, **and** its URI SAN names the wanted role in our mesh, **and** the extended key
//! usage of that role is present (webpki accepts a certificate without any).

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};

use crate::identity::{Identity, IdentityError, Role, describe_names};
use crate::refusal::{Observed, Refusal};

/// A gateway's verifier of agents.
#[derive(Debug)]
pub(crate) struct AgentVerifier {
    pub(crate) chain: Arc<dyn ClientCertVerifier>,
    pub(crate) mesh: Arc<str>,
    pub(crate) observed: Arc<Observed>,
}

/// An agent's verifier of gateways.
#[derive(Debug)]
pub(crate) struct GatewayVerifier {
    pub(crate) chain: Arc<WebPkiServerVerifier>,
    pub(crate) mesh: Arc<str>,
}

impl ClientCertVerifier for AgentVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(|error| note_chain(&self.observed, error, end_entity))?;
        let identity = Identity::from_certificate(end_entity)
            .and_then(|found| found.require_role(Role::Agent)?.require_mesh(&self.mesh));
        identity.map_err(|error| note_identity(&self.observed, &error))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .chain
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| telling(Refusal::of_certificate(&error, &describe_names(end_entity))))?;
        let identity = Identity::from_certificate(end_entity)
            .and_then(|found| found.require_role(Role::Gateway)?.require_mesh(&self.mesh));
        identity.map_err(|error| telling(Refusal::of_identity(&error)))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// An error that carries the whole story to whoever connects; the gateway sees the alert `certificate_unknown`.
fn telling(refusal: Refusal) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
}

/// Keeps the error as it is, since the alert that the peer sees is made from it.
fn note_chain(observed: &Observed, error: Error, certificate: &CertificateDer<'_>) -> Error {
    observed.note(Refusal::of_certificate(&error, &describe_names(certificate)));
    error
}

/// The peer sees the alert `access_denied`.
fn note_identity(observed: &Observed, error: &IdentityError) -> Error {
    observed.note(Refusal::of_identity(error));
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}
