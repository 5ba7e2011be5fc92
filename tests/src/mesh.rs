//! Certificates for those who are to be let in and for those who are not.
//!
//! They are made here with rcgen alone, from the CA of a running mesh or from one of their own: what the product's own
//! crate would refuse to issue is needed too.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Who signs.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate to be shown, with its key.
#[derive(Debug)]
pub struct Pass {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// When a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Now,
    /// Until the end of a year long past.
    Expired,
}

impl Authority {
    /// The CA of a running mesh, by its PEM files.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn load(certificate: &Path, key: &Path) -> Result<Authority> {
        let read =
            |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let pem = read(certificate)?;
        let key = KeyPair::from_pem(&read(key)?).context("the CA's key")?;
        Ok(Authority {
            certificate: CertificateDer::from_pem_slice(pem.as_bytes())?,
            issuer: Issuer::from_ca_cert_pem(&pem, key).context("the CA's certificate")?,
        })
    }

    /// A CA that nobody knows, under the name of one that may be known.
    ///
    /// # Errors
    ///
    /// When the key cannot be made.
    pub fn unknown(name: &str) -> Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Authority { certificate: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    /// The CA's own certificate.
    #[must_use]
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// Signs a certificate, fit for both ends of a connection, whose URI SAN is `uri`, or which has none.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn pass(&self, uri: Option<&str>, validity: Validity) -> Result<Pass> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        params.distinguished_name.push(rcgen::DnType::CommonName, "logmesh tests");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2120, 1, 1)),
            Validity::Expired => (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1)),
        };
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pass {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }
}
