//! Syslog, taken in over UDP, TCP, TLS and local sockets.
//!
//! Owns where messages end, and nothing of what is in them: a record is a message as it came, and the processor parses
//! it. Each listener lives by itself: one that cannot listen is tried again, and its neighbours go on.
//!
//! Syslog has no acknowledgements. What a sender has handed to the kernel is read before the agent leaves; what it sends
//! while no agent listens is its own matter.

mod datagrams;
mod framing;
mod local;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
mod unfinished;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::{
    config::{Listen, SyslogConfig},
    outlet::Outlet,
    standing::{Pace, Part},
};
use datagrams::{Datagrams, Socket};
use local::LocalSocket;
use streams::{Acceptor, Streams};
use tls::TlsError;
pub(super) use tls::TlsFiles;

/// Most that is still read after the wish to stop, of each socket: what senders had handed over by then.
const LEFTOVER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long it listens on after the wish to stop: what the kernel has by then shows itself within that time.
const LINGER: Duration = Duration::from_millis(100);

/// One listener.
#[derive(Debug)]
pub(super) struct SyslogInput {
    pub(super) listen: Listen,
    pub(super) config: Arc<SyslogConfig>,
    pub(super) outlet: Outlet,
    pub(super) part: Part,
    pub(super) stop: CancellationToken,
}

/// Why a listener does not listen.
#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error("{listen}: {error}; {cure}")]
    Bind { listen: Listen, error: io::Error, cure: &'static str },
    #[error("{0}: it has no `tls`")]
    NoTls(Listen),
    #[error("{listen}: {error}")]
    Tls { listen: Listen, error: Box<TlsError> },
}

enum Bound {
    Datagrams(Socket),
    Streams(Acceptor),
}

impl SyslogInput {
    /// Listens until `stop`.
    pub(super) async fn run(self) {
        let mut pace = Pace::new();
        loop {
            match self.bind().await {
                Ok((bound, shown)) => return self.serve(bound, shown).await,
                Err(error) => self.part.fail(error.to_string()),
            }
            if !pace.wait(&self.stop).await {
                return;
            }
        }
    }

    async fn bind(&self) -> Result<(Bound, String), ListenError> {
        let bind = |error: io::Error| {
            let cure = cure(&error);
            ListenError::Bind { listen: self.listen.clone(), error, cure }
        };
        let shown =
            |scheme: &str, address: io::Result<SocketAddr>| Ok(format!("{scheme}://{}", address.map_err(bind)?));
        Ok(match &self.listen {
            Listen::Udp(address) => {
                let socket = UdpSocket::bind(address).await.map_err(bind)?;
                let shown = shown("udp", socket.local_addr())?;
                (Bound::Datagrams(Socket::udp(socket)), shown)
            }
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(bind)?;
                let shown = shown("tcp", listener.local_addr())?;
                (Bound::Streams(Acceptor::Tcp(listener)), shown)
            }
            Listen::Tls(address) => {
                let config = self.config.tls.as_ref().ok_or_else(|| ListenError::NoTls(self.listen.clone()))?;
                let files = TlsFiles::load(config.clone())
                    .map_err(|error| ListenError::Tls { listen: self.listen.clone(), error: error.into() })?;
                let listener = TcpListener::bind(address).await.map_err(bind)?;
                let shown = shown("tls", listener.local_addr())?;
                (Bound::Streams(Acceptor::Tls(listener, Arc::new(files))), shown)
            }
            Listen::Unix(path) => {
                let (listener, _file) = LocalSocket::listen(path, self.config.mode).map_err(bind)?;
                (Bound::Streams(Acceptor::Unix { listener, _file }), self.listen.to_string())
            }
            Listen::Unixgram(path) => {
                let (socket, _file) = LocalSocket::bind(path, self.config.mode).map_err(bind)?;
                (Bound::Datagrams(Socket::Unix { socket, _file }), self.listen.to_string())
            }
        })
    }

    async fn serve(self, bound: Bound, shown: String) {
        tracing::info!(address = shown, "listening for syslog");
        self.outlet.counts.listening().push(shown.clone());
        self.part.well();
        let (outlet, part, leave) = (self.outlet, self.part, CancellationToken::new());
        let listening = async {
            let leave = leave.clone();
            match bound {
                Bound::Datagrams(socket) => Datagrams::new(socket, shown, outlet, part, leave).run().await,
                Bound::Streams(acceptor) => {
                    let connections_max = self.config.connections_max;
                    Streams::new(acceptor, shown, connections_max, outlet, part, leave).run().await;
                }
            }
        };
        let lingering = async {
            self.stop.cancelled().await;
            tokio::time::sleep(LINGER).await;
            leave.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = listening => {}
            () = lingering => {}
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "kinds of errors are an open set")]
fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it, or listen elsewhere; it is tried again",
        io::ErrorKind::AddrNotAvailable => "no interface has this address yet; it is tried again",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, local sockets a directory that the agent may write to"
        }
        io::ErrorKind::NotFound => "create the directory of the socket; it is tried again",
        io::ErrorKind::AlreadyExists => "a file that is no socket stands there: remove it, or listen elsewhere",
        _ => "it is tried again",
    }
}
