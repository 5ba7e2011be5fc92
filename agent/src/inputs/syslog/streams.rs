//! Connections: accepted, bounded in number, and read as fast as the intake takes what they bring.
//!
//! When there are `connections_max` of them, no more are accepted until one ends; those who come wait in the kernel. A
//! connection that is idle between messages may stay; one that stops within a message is ended after
//! [`HALF_MESSAGE`]. What had come of the message is a record then, as it is whenever a connection ends.

use std::{
    io,
    os::fd::AsFd as _,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use logmesh_runtime::telemetry::Throttle;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    LEFTOVER_BYTES_MAX,
    framing::{Framer, FramingError},
    local::LocalSocket,
    tls::TlsFiles,
    unfinished::Unfinished,
};
use crate::inputs::{
    intake::Closed,
    outlet::{ARRIVAL_BYTES_MAX, ARRIVAL_RECORDS_MAX, Outlet, Piece},
    standing::{Pace, Part},
};

const HANDSHAKE: Duration = Duration::from_secs(10);
const GOODBYE: Duration = Duration::from_secs(1);
/// How long a connection may be silent within a message.
const HALF_MESSAGE: Duration = Duration::from_secs(30);
/// What is read at once of a connection that is busy, and of one that is not.
const READ_BYTES: (usize, usize) = (64 * 1024, 4 * 1024);
/// One line in the log per kind of trouble and time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Tls(TcpListener, Arc<TlsFiles>),
    /// The file goes with it.
    Unix {
        listener: UnixListener,
        _file: LocalSocket,
    },
}

/// One listener with its connections.
#[derive(Debug)]
pub(super) struct Streams {
    acceptor: Acceptor,
    address: String,
    seats: Arc<Semaphore>,
    open: JoinSet<(Ended, OwnedSemaphorePermit)>,
    said: Throttle,
    troubles: Troubles,
    outlet: Outlet,
    part: Part,
    stop: CancellationToken,
}

/// What should be known of a listener that works. Each has its own end, whatever becomes of the others.
#[derive(Debug, Default)]
struct Troubles {
    /// Why no connection can be accepted.
    accept: Option<String>,
    /// Whether all seats are taken.
    full: bool,
    /// Why new certificates are not in use.
    certificates: Option<String>,
}

impl Troubles {
    fn words(&self) -> Vec<String> {
        let accept = self.accept.as_ref().map(|error| format!("cannot accept connections: {error}"));
        let full = || "all connections are taken, others wait; raise `connections_max`".to_owned();
        let fault = self.certificates.as_ref();
        let stale = fault.map(|fault| format!("new certificates are not good, the last ones stay in use: {fault}"));
        [accept, self.full.then(full), stale].into_iter().flatten().collect()
    }
}

/// How a connection ended.
#[derive(Debug)]
enum Ended {
    /// By its sender, or with the agent.
    Well,
    /// For this reason.
    Broken(&'static str, String),
    /// It never was one.
    Refused(String),
}

/// A connection that is accepted, before its handshake.
enum Accepted {
    Plain(Box<dyn AsyncRead + Send + Unpin>, String),
    Tls(TcpStream, TlsAcceptor, String),
}

impl Streams {
    pub(super) fn new(
        acceptor: Acceptor,
        address: String,
        connections_max: usize,
        outlet: Outlet,
        part: Part,
        stop: CancellationToken,
    ) -> Self {
        let seats = Arc::new(Semaphore::new(connections_max));
        let (said, troubles) = (Throttle::new(LOG_INTERVAL), Troubles::default());
        Self { acceptor, address, seats, open: JoinSet::new(), said, troubles, outlet, part, stop }
    }

    /// Accepts and reads until `stop`; then until its connections are at the end of what they had sent.
    pub(super) async fn run(mut self) {
        let mut pace = Pace::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(ended) = self.open.join_next(), if !self.open.is_empty() => {
                    self.note(ended);
                    continue;
                }
                accepted = accept(&self.acceptor, &self.seats) => accepted,
            };
            match accepted {
                Ok((accepted, seat)) => {
                    pace.reset();
                    self.admit(accepted, seat);
                }
                Err(error) => {
                    // Out of descriptors, most likely: trying at once again would only burn time.
                    self.troubles.accept = Some(error.to_string());
                    self.show();
                    pace.wait(&self.stop).await;
                    self.troubles.accept = None;
                    self.show();
                }
            }
        }
        while let Some(ended) = self.open.join_next().await {
            self.note(ended);
        }
    }

    fn admit(&mut self, accepted: io::Result<Accepted>, seat: OwnedSemaphorePermit) {
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return self.log("accept", &error.to_string()),
        };
        self.show_certificates();
        let (outlet, stop) = (self.outlet.clone(), self.stop.clone());
        outlet.counts.connections.fetch_add(1, Relaxed);
        self.open.spawn(async move {
            let ended = serve(accepted, &outlet, &stop).await;
            outlet.counts.connections.fetch_sub(1, Relaxed);
            (ended, seat)
        });
        self.show_seats();
    }

    /// Says what there is to be known; again only where it has changed.
    fn show(&self) {
        let words = self.troubles.words();
        if words.is_empty() {
            self.part.well();
        } else {
            self.part.warn(format!("{}: {}", self.address, words.join("; ")));
        }
    }

    /// Says whether new certificates are not good.
    fn show_certificates(&mut self) {
        let Acceptor::Tls(_, files) = &self.acceptor else { return };
        self.troubles.certificates = files.fault();
        self.show();
    }

    /// Says whether all seats are taken.
    fn show_seats(&mut self) {
        self.troubles.full = self.seats.available_permits() == 0;
        self.show();
    }

    fn note(&mut self, ended: Result<(Ended, OwnedSemaphorePermit), tokio::task::JoinError>) {
        match ended {
            Ok((ended, seat)) => {
                drop(seat);
                match ended {
                    Ended::Well => {}
                    Ended::Broken(what, why) => {
                        self.outlet.counts.framing_errors.fetch_add(1, Relaxed);
                        self.log(what, &why);
                    }
                    Ended::Refused(why) => {
                        self.outlet.counts.refused.fetch_add(1, Relaxed);
                        self.log("handshake", &why);
                    }
                }
            }
            Err(error) => tracing::error!(%error, address = self.address, "the task of a connection failed"),
        }
        self.show_seats();
    }

    fn log(&mut self, what: &'static str, why: &str) {
        if let Some(suppressed) = self.said.admit(what, Instant::now()) {
            tracing::warn!(address = self.address, suppressed, why, "a syslog connection ended in trouble");
        }
    }
}

/// A connection for which there is a seat. The inner error is the connection's own, the outer one that of accepting.
async fn accept(
    acceptor: &Acceptor,
    seats: &Arc<Semaphore>,
) -> io::Result<(io::Result<Accepted>, OwnedSemaphorePermit)> {
    let seat = Arc::clone(seats).acquire_owned().await.map_err(io::Error::other)?;
    let accepted = match acceptor {
        Acceptor::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            keep_alive(&stream).map(|()| Accepted::Plain(Box::new(stream), peer.to_string()))
        }
        Acceptor::Tls(listener, files) => {
            let (stream, peer) = listener.accept().await?;
            let acceptor = TlsAcceptor::from(files.current(Instant::now()));
            keep_alive(&stream).map(|()| Accepted::Tls(stream, acceptor, peer.to_string()))
        }
        Acceptor::Unix { listener, .. } => {
            let (stream, _) = listener.accept().await?;
            Ok(Accepted::Plain(Box::new(stream), "a local process".to_owned()))
        }
    };
    Ok((accepted, seat))
}

/// A peer that is gone without a word gives its seat back after some three minutes.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let socket = stream.as_fd();
    set_socket_keepalive(socket, true)?;
    set_tcp_keepidle(socket, Duration::from_secs(60))?;
    set_tcp_keepintvl(socket, Duration::from_secs(20))?;
    Ok(set_tcp_keepcnt(socket, 6)?)
}

async fn serve(accepted: Accepted, outlet: &Outlet, stop: &CancellationToken) -> Ended {
    match accepted {
        Accepted::Plain(stream, peer) => converse(stream, &peer, outlet, stop).await,
        Accepted::Tls(stream, acceptor, peer) => {
            let handshake = stop.run_until_cancelled(timeout(HANDSHAKE, acceptor.accept(stream)));
            match handshake.await {
                None => Ended::Well,
                Some(Err(_)) => Ended::Refused(format!("{peer}: no TLS handshake within {} s", HANDSHAKE.as_secs())),
                Some(Ok(Err(error))) => Ended::Refused(format!("{peer}: TLS handshake failed: {error}")),
                Some(Ok(Ok(mut stream))) => {
                    let ended = converse(&mut stream, &peer, outlet, stop).await;
                    // The sender is told that this is the end and no attack; it may have gone.
                    let _ = timeout(GOODBYE, stream.shutdown()).await;
                    ended
                }
            }
        }
    }
}

/// Reads one connection to its end.
async fn converse(mut stream: impl AsyncRead + Unpin, peer: &str, outlet: &Outlet, stop: &CancellationToken) -> Ended {
    let mut framer = Framer::new(outlet.record_bytes_max);
    let mut unfinished = Unfinished::new(outlet.unfinished());
    let (mut busy, mut leftover) = (false, LEFTOVER_BYTES_MAX);
    loop {
        if !framer.is_within() {
            // An idle connection holds no more than it needs.
            framer.buffer = BytesMut::new();
        }
        framer.buffer.reserve(if busy { READ_BYTES.0 } else { READ_BYTES.1 });
        let room = framer.buffer.capacity() - framer.buffer.len();
        let within = framer.is_within();
        let read = tokio::select! {
            biased;
            read = stream.read_buf(&mut framer.buffer) => read,
            () = stop.cancelled() => break,
            () = sleep(HALF_MESSAGE), if within => {
                let why = format!("{peer}: silent for {} s within a message", HALF_MESSAGE.as_secs());
                return leave(framer, outlet, Some(("silence", why))).await;
            }
        };
        let length = match read {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => return leave(framer, outlet, within.then(|| ("cut", format!("{peer}: {error}")))).await,
        };
        busy = length == room;
        match pass(&mut framer, outlet).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return leave(framer, outlet, Some(("framing", format!("{peer}: {error}")))).await,
            Err(Closed) => return Ended::Well,
        }
        if !unfinished.hold(framer.buffer.len()) {
            // Others hold all there is, perhaps for as long as they like: to wait for it could be for ever.
            let piece = framer.spill().into_iter().collect();
            if outlet.send(piece, None).await.is_err() {
                return Ended::Well;
            }
            unfinished.hold(framer.buffer.len());
        }
        if stop.is_cancelled() {
            leftover = leftover.saturating_sub(length);
            if leftover == 0 {
                break;
            }
        }
    }
    let cut = framer.is_within() && !stop.is_cancelled();
    leave(framer, outlet, cut.then(|| ("cut", format!("{peer}: the connection ended within a message")))).await
}

/// Hands over every message that is complete.
async fn pass(framer: &mut Framer, outlet: &Outlet) -> Result<Result<(), FramingError>, Closed> {
    loop {
        let (pieces, end) = next_arrival(framer);
        outlet.send(pieces, None).await?;
        if let Some(result) = end {
            return Ok(result);
        }
    }
}

/// Complete messages, as many as go into one arrival: short ones take far more room than what they were read into. With
/// the last of them comes why there are no more.
fn next_arrival(framer: &mut Framer) -> (Vec<Piece>, Option<Result<(), FramingError>>) {
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    while bytes < ARRIVAL_BYTES_MAX && pieces.len() < ARRIVAL_RECORDS_MAX {
        match framer.next() {
            Ok(Some(piece)) => {
                bytes += piece.body.len();
                pieces.push(piece);
            }
            Ok(None) => return (pieces, Some(Ok(()))),
            Err(error) => return (pieces, Some(Err(error))),
        }
    }
    (pieces, None)
}

/// Hands over what had come of a last message. That a line has no end is no trouble: many senders leave the last one out.
async fn leave(mut framer: Framer, outlet: &Outlet, trouble: Option<(&'static str, String)>) -> Ended {
    let (rest, owed) = framer.end();
    // Refused, it goes with the agent, as everything in the kernel's buffers does.
    let _ = outlet.send(rest, None).await;
    match trouble {
        Some((what, why)) if owed || what != "cut" => Ended::Broken(what, why),
        Some(_) | None => Ended::Well,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use logmesh_runtime::health::{Health, State};

    use super::*;
    use crate::inputs::{intake::intake, standing::parts};

    #[tokio::test]
    async fn a_seat_that_is_free_again_leaves_the_warning_of_bad_certificates() {
        let (health, (intake, _arrivals)) = (Health::new(), intake(1 << 20, || {}));
        let part = parts(&health, "syslog", 1).remove(0);
        let acceptor = Acceptor::Tcp(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let outlet = Outlet::new(intake.for_input(0), 1024);
        let mut streams = Streams::new(acceptor, "tls://here".into(), 1, outlet, part, CancellationToken::new());
        let told = |words: &[&str]| {
            let reasons = health.readiness().reasons;
            let [reason] = reasons.as_slice() else { panic!("{reasons:?}") };
            assert_eq!(reason.state, State::Warning);
            let all = ["listener.pem", "connections_max"];
            assert_eq!(
                all.map(|word| reason.reason.contains(word)),
                all.map(|word| words.contains(&word)),
                "{reason:?}"
            );
        };
        streams.troubles.certificates = Some("listener.pem has no certificate".into());
        streams.show();
        told(&["listener.pem"]);
        let seat = Arc::clone(&streams.seats).try_acquire_owned().unwrap();
        streams.show_seats();
        told(&["listener.pem", "connections_max"]);
        drop(seat);
        streams.show_seats();
        told(&["listener.pem"]);
        streams.troubles.certificates = None;
        streams.show();
        assert!(health.readiness().reasons.is_empty());
    }

    #[tokio::test]
    async fn short_messages_wait_for_room_in_the_buffer_that_they_were_read_into() {
        // Room for one arrival, however large it is.
        let (intake, mut arrivals) = intake(1, || {});
        let outlet = Outlet::new(intake.for_input(0), 1024);
        let mut framer = Framer::new(1024);
        framer.buffer.extend_from_slice(&b"x\n".repeat(20_000));
        assert!(pass(&mut framer, &outlet).now_or_never().is_none(), "there is no room for all");
        assert_eq!(arrivals.take()[0].records.len(), ARRIVAL_RECORDS_MAX);
        assert_eq!(framer.buffer.len(), 2 * (20_000 - 2 * ARRIVAL_RECORDS_MAX), "one arrival is in, and one waits");
    }

    #[tokio::test]
    async fn a_message_for_which_there_is_no_room_comes_in_pieces_that_add_up_to_it() {
        let (intake, mut arrivals) = intake(1 << 20, || {});
        let outlet = Outlet::new(intake.for_input(0), 64 * 1024);
        let others = outlet.unfinished().acquire_many_owned(1 << 20).await.unwrap();
        let message = format!("<13>{}", "x".repeat(20_000));
        let (mut sender, stream) = tokio::io::duplex(1024);
        let send = async {
            sender.write_all(message.as_bytes()).await.unwrap();
            drop(others);
            sender.write_all(format!("\n{message}\n").as_bytes()).await.unwrap();
            drop(sender);
        };
        let never = CancellationToken::new();
        let (ended, ()) = tokio::join!(converse(stream, "a test", &outlet, &never), send);
        assert!(matches!(ended, Ended::Well), "{ended:?}");
        let records: Vec<_> = arrivals.take().into_iter().flat_map(|arrival| arrival.records).collect();
        let (whole, pieces) = records.split_last().unwrap();
        assert_eq!((&whole.body[..], whole.continued, whole.split), (message.as_bytes(), false, false));
        assert_eq!(pieces.iter().map(|piece| &piece.body[..]).collect::<Vec<_>>().concat(), message.as_bytes());
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.body.len() <= 8 * 1024));
        let marks = pieces.iter().map(|piece| (piece.continued, piece.split));
        let last = pieces.len() - 1;
        assert!(marks.enumerate().all(|(at, mark)| mark == (at > 0, at < last)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_within_a_message_and_not_between_two() {
        let (intake, mut arrivals) = intake(1 << 20, || {});
        let outlet = Outlet::new(intake.for_input(0), 1024);
        let never = CancellationToken::new();
        let mut bodies = || -> Vec<Bytes> {
            arrivals.take().into_iter().flat_map(|arrival| arrival.records).map(|record| record.body).collect()
        };
        let (mut sender, stream) = tokio::io::duplex(1024);
        let conversation = converse(stream, "a test", &outlet, &never);
        tokio::pin!(conversation);
        sender.write_all(b"<13>whole\n").await.unwrap();
        assert!(timeout(HALF_MESSAGE * 100, &mut conversation).await.is_err(), "it may be idle");
        assert_eq!(bodies(), ["<13>whole"]);
        sender.write_all(b"20 <13>half").await.unwrap();
        let ended = timeout(HALF_MESSAGE * 2, &mut conversation).await.unwrap();
        assert!(matches!(ended, Ended::Broken("silence", _)), "{ended:?}");
        assert_eq!(bodies(), ["<13>half"]);
    }
}
