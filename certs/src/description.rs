//! A certificate told in plain words, for `logmesh certs show`.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use crate::error::TlsError;
use crate::identity::{Identity, alternative_names, parse_certificate};
use crate::material::{PROVIDER, certificates, pem, read, rfc3339, unix};
use crate::serial::Serial;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Description {
    /// The identity; or why there is none.
    pub identity: Result<Identity, String>,
    /// All subject alternative names, each with its kind.
    pub names: Vec<String>,
    /// Extended key usages.
    pub usages: Vec<&'static str>,
    /// Whether it may sign others.
    pub authority: bool,
    /// Distinguished name of the subject.
    pub subject: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Number at the issuer.
    pub serial: Serial,
    /// First second, RFC 3339.
    pub not_before: String,
    /// Last second, RFC 3339.
    pub not_after: String,
    /// Whole days until the last second; negative when it is over.
    pub days_left: i64,
    /// Whether its time has come and is not over.
    pub in_time: bool,
    /// Whether the key that was given is this certificate's; `None` where none was given.
    pub key_matches: Option<bool>,
}

/// Describes the first certificate of a PEM file; with `key`, says also whether that is its private key.
///
/// # Errors
/// [`TlsError::Read`] or [`TlsError::Pem`], naming the file.
pub fn describe(certificate: &Path, key: Option<&Path>, now: SystemTime) -> Result<Description, TlsError> {
    let chain = certificates(certificate, &read(certificate)?)?;
    let Some(leaf) = chain.first() else { return Err(pem(certificate, "certificate", &"it has none")) };
    let parsed = parse_certificate(leaf).map_err(|error| pem(certificate, "certificate", &error))?;
    let (first, last) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let mut usages = Vec::new();
    if let Ok(Some(usage)) = parsed.extended_key_usage() {
        usages.extend(usage.value.server_auth.then_some("serverAuth"));
        usages.extend(usage.value.client_auth.then_some("clientAuth"));
    }
    let key_matches = match key {
        None => None,
        Some(path) => {
            let key = PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| pem(path, "private key", &error))?;
            Some(CertifiedKey::from_der(chain.clone(), key, &PROVIDER).is_ok())
        }
    };
    Ok(Description {
        identity: Identity::from_certificate(leaf).map_err(|error| error.to_string()),
        names: alternative_names(&parsed),
        usages,
        authority: parsed.is_ca(),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial: Serial::from_bytes(parsed.raw_serial()),
        not_before: rfc3339(first),
        not_after: rfc3339(last),
        days_left: (last - unix(now)).div_euclid(DAY_SECONDS),
        in_time: (first..=last).contains(&unix(now)),
        key_matches,
    })
}

impl fmt::Display for Description {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            _ if self.authority => writeln!(formatter, "authority    {}", self.names.join(", "))?,
            Ok(identity) => writeln!(formatter, "identity     {identity}")?,
            Err(fault) => writeln!(formatter, "identity     none: {fault}")?,
        }
        writeln!(formatter, "names        {}", self.names.join(", "))?;
        writeln!(
            formatter,
            "usage        {}",
            if self.usages.is_empty() { "any".to_owned() } else { self.usages.join(", ") }
        )?;
        writeln!(formatter, "valid        {} to {} ({})", self.not_before, self.not_after, self.time_left())?;
        writeln!(formatter, "subject      {}", self.subject)?;
        writeln!(formatter, "issuer       {}", self.issuer)?;
        writeln!(formatter, "serial       {}", self.serial)?;
        match self.key_matches {
            Some(true) => writeln!(formatter, "private key  matches"),
            Some(false) => writeln!(formatter, "private key  DOES NOT MATCH this certificate"),
            None => Ok(()),
        }
    }
}

impl Description {
    fn time_left(&self) -> String {
        match (self.in_time, self.days_left) {
            (true, 1) => "1 day left".to_owned(),
            (true, days) => format!("{days} days left"),
            (false, days) if days < 0 => "EXPIRED".to_owned(),
            (false, _) => "NOT VALID YET".to_owned(),
        }
    }
}
