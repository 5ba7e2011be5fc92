//! The one place that handshakes take their certificates from.
//!
//! Owns the swap: new files become visible as a whole or not at all, a failed reload leaves the last good ones in use,
//! and connections that exist are not touched. Callers ask for a configuration for each connection, so that the next
//! handshake after a reload uses the new material. Tickets are made under new keys after each reload, since a resumed
//! session is not verified again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};

use crate::error::TlsError;
use crate::identity::{Identity, IdentityError, parse_certificate, peer};
use crate::material::{Material, TlsFiles};
use crate::refusal::Observed;

/// A process's own certificate, key, CA and CRL, swappable under running handshakes.
pub struct TlsSource {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
    /// Reloads happen one after another; the value is the newest generation.
    reload: Mutex<u64>,
}

struct Loaded {
    material: Material,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    generation: u64,
}

impl TlsSource {
    /// Reads and validates the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file and the cure.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let loaded = Loaded::new(&files, SystemTime::now(), None, 1)?;
        Ok(Arc::new(Self { files, current: ArcSwap::from_pointee(loaded), reload: Mutex::new(1) }))
    }

    /// Reads and validates the files again and puts them in place of what is in use; nothing changes where they are the
    /// same or not valid.
    ///
    /// # Errors
    /// As [`TlsSource::load`]; also for a CRL older than the one in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let mut generation = self.reload.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load_full();
        let loaded = Loaded::new(&self.files, SystemTime::now(), Some(&current.material), *generation + 1)?;
        if loaded.material.bytes == current.material.bytes {
            return Ok(());
        }
        *generation += 1;
        self.current.store(Arc::new(loaded));
        Ok(())
    }

    /// Counts the materials loaded so far, from 1. It changes with each reload that changed something: live streams are
    /// then to be held against [`TlsSource::readmit`].
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// Who this process is.
    pub fn identity(&self) -> Identity {
        self.current.load().material.identity.clone()
    }

    /// The last second of this process's certificate.
    pub fn expires_at(&self) -> SystemTime {
        self.current.load().material.not_after
    }

    /// The files that are read.
    pub const fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// A configuration for accepting connections of agents.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// As [`TlsSource::server`], for one connection: where the handshake fails, [`Observed`] knows which check it was.
    pub fn server_observed(&self) -> (Arc<ServerConfig>, Arc<Observed>) {
        let observed = Arc::new(Observed::default());
        let loaded = self.current.load();
        let config = loaded.material.server(Arc::clone(&observed));
        // It could be built when the material was loaded, so it can be built now; if not, the shared one serves as well.
        (config.map_or_else(|_| Arc::clone(&loaded.server), Arc::new), observed)
    }

    /// A configuration for connecting to gateways. Sessions are resumed until the next reload. Where the handshake fails,
    /// [`Refusal::of_gateway`](crate::Refusal::of_gateway) says which check it was.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.load().client)
    }

    /// The identity of a client after its handshake, whose certificate is held against the current dates and CRL once
    /// more: a resumed session was not verified again. It also serves to find live streams that must be closed.
    ///
    /// # Errors
    /// As [`peer`], and [`IdentityError::NotValid`] for a certificate whose time is over or that was revoked.
    pub fn readmit(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Identity, IdentityError> {
        let identity = peer(chain)?;
        let leaf = chain.first().ok_or(IdentityError::NoCertificate)?;
        let parsed = parse_certificate(leaf)?;
        let loaded = self.current.load();
        let identity = identity.require_mesh(loaded.material.identity.mesh())?;
        let not_valid = |fault| IdentityError::NotValid { identity: identity.clone(), fault };
        let seconds = crate::material::unix(now);
        if seconds > parsed.validity().not_after.timestamp() {
            return Err(not_valid("has expired"));
        }
        if loaded.material.is_revoked(parsed.raw_serial()) {
            return Err(not_valid("is revoked"));
        }
        Ok(identity)
    }
}

impl std::fmt::Debug for TlsSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TlsSource")
            .field("files", &self.files)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

impl Loaded {
    fn new(files: &TlsFiles, now: SystemTime, previous: Option<&Material>, generation: u64) -> Result<Self, TlsError> {
        let material = Material::load(files, now, previous)?;
        let server = Arc::new(material.server(Arc::default())?);
        let client = Arc::new(material.client()?);
        Ok(Self { material, server, client, generation })
    }
}

#[cfg(test)]
mod tests;
