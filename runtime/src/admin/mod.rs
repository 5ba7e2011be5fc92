//! The admin address: liveness, readiness, metrics and status over HTTP, acknowledging what cannot be undone, and whatever
//! routes a process adds.
//!
//! Owns the listener's loop, every connection's life and the token check. Does not own what is shown. Invariants:
//! - A peer that says nothing, or never stops talking, delays the end by at most [`DRAIN`].
//! - At most [`CONNECTIONS_MAX`] connections are served; more wait in the listener's backlog.
//! - With a token configured, everything but `/livez` and `/readyz` asks for it; without one, the address must be
//!   loopback ([`check_exposure`]).
//! - A failing accept (no descriptors left) is paced, never spun on.

mod connections;
mod routes;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub use connections::serve;
use tokio::net::TcpListener;

use crate::config::{Secret, Section};
use crate::health::Health;
use crate::status::Status;
use crate::telemetry::Telemetry;

/// How long open requests may take to end once stopping was asked for.
pub const DRAIN: Duration = Duration::from_secs(2);

/// How many connections are served at once.
pub const CONNECTIONS_MAX: usize = 256;

/// How long a peer may take to send a request's head, or stay silent between two.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// What the admin address shows, and to whom.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Shown at `/readyz`.
    pub health: Health,
    /// Shown at `/metrics`.
    pub telemetry: Telemetry,
    /// Shown at `/status`.
    pub status: Status,
    /// What a request must bear, as `Authorization: Bearer <token>`; none asks for nothing.
    pub token: Option<Secret>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    /// The address as configured.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// Listens on `address`; port 0 takes a free one.
///
/// # Errors
/// The address and why it cannot be had: taken, not of this host, or not allowed.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Notes a fault at `key` when `address` can be reached from other hosts and there is no token.
pub fn check_exposure(section: &Section, key: &str, address: SocketAddr, token: Option<&Secret>) {
    if !address.ip().to_canonical().is_loopback() && token.is_none() {
        let what = format!("{address} can be reached from other hosts and no `admin_token` is set");
        section.fault(key, what, "listen on 127.0.0.1, or set admin_token = { file = \"/path/to/it\" }");
    }
}
