//! The loop over the listener, and the life of each connection.

use std::io;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Admin, CONNECTIONS_MAX, DRAIN, HEADER_TIMEOUT, routes};
use crate::backoff::Backoff;
use crate::shutdown::Shutdown;
use crate::telemetry::Throttle;

/// Serves the admin routes and `extra` until `shutdown` is requested and open requests have ended, at most [`DRAIN`]
/// later. A process that wants to be seen while it drains passes a request of its own here and makes it last.
///
/// # Errors
/// None today: what goes wrong with the listener is waited out, and with a connection ends that one alone.
pub async fn serve(listener: TcpListener, admin: Admin, extra: Router, shutdown: Shutdown) -> io::Result<()> {
    let router = routes::router(admin, extra);
    let mut connections = JoinSet::new();
    let mut pace = Pace::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.requested() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    pace.worked();
                    connections.spawn(connection(stream, router.clone(), shutdown.clone()));
                }
                Err(error) => {
                    let wait = pace.failed(&error);
                    tokio::select! {
                        () = shutdown.requested() => break,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        _ = tokio::time::timeout(DRAIN, drained) => {}
        () = shutdown.aborted() => {}
    }
    connections.shutdown().await;
    Ok(())
}

async fn connection(stream: TcpStream, router: Router, shutdown: Shutdown) {
    // Answers are small and waited for; a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// How a failing accept is waited out: it fails again at once while descriptors are short.
struct Pace {
    backoff: Backoff,
    throttle: Throttle,
}

impl Pace {
    fn new() -> Pace {
        Pace {
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_secs(1)),
            throttle: Throttle::new(Duration::from_secs(30)),
        }
    }

    fn worked(&mut self) {
        self.backoff.reset();
    }

    fn failed(&mut self, error: &io::Error) -> Duration {
        if let Some(suppressed) = self.throttle.admit("accept", Instant::now()) {
            tracing::warn!(%error, suppressed, "the admin address cannot accept connections");
        }
        self.backoff.next(rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_accept_is_waited_out_ever_longer_up_to_a_second() {
        let mut pace = Pace::new();
        let error = io::Error::from_raw_os_error(24);
        let waits: Vec<Duration> = (0..200).map(|_| pace.failed(&error)).collect();
        assert!(waits.iter().all(|wait| *wait >= Duration::from_millis(1) && *wait <= Duration::from_secs(1)));
        assert!(waits.iter().sum::<Duration>() > Duration::from_secs(20));
        pace.worked();
        assert!(pace.failed(&error) <= Duration::from_millis(10));
    }
}
