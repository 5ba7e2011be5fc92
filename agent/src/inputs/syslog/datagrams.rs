//! Datagrams: each is a message.
//!
//! The kernel's buffer is the queue: it is read as fast as the intake takes it, and what does not fit there is dropped by
//! the kernel. That cannot be prevented from here, but counted: the drops of a UDP socket are read from `/proc/net/udp`
//! and told. Senders to a local socket wait instead.

use std::{io, os::fd::AsFd as _, sync::atomic::Ordering::Relaxed, time::Duration};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use tokio::{
    net::{UdpSocket, UnixDatagram},
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{LEFTOVER_BYTES_MAX, local::LocalSocket};
use crate::inputs::{
    intake::RECORD_BYTES,
    outlet::{ARRIVAL_BYTES_MAX, ARRIVAL_RECORDS_MAX, Outlet, Piece},
    standing::Part,
};

/// Room that is asked of the kernel for what is not read yet.
const KERNEL_BYTES: usize = 16 * 1024 * 1024;
/// Larger datagrams do not exist over UDP, and hardly over local sockets.
const DATAGRAM_BYTES_MAX: usize = 1024 * 1024;
const UDP_BYTES_MAX: usize = 64 * 1024;
/// How often the kernel is asked what it dropped.
const DROPS_INTERVAL: Duration = Duration::from_secs(10);

/// Where datagrams come from.
#[derive(Debug)]
pub(super) enum Socket {
    Udp(UdpSocket),
    /// The file goes with it.
    Unix {
        socket: UnixDatagram,
        _file: LocalSocket,
    },
}

/// One listener.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: Socket,
    address: String,
    buffer: Vec<u8>,
    drops_told: u64,
    outlet: Outlet,
    part: Part,
    stop: CancellationToken,
}

/// What was received in one go.
#[derive(Debug, Default)]
struct Round {
    pieces: Vec<Piece>,
    /// Bytes of its datagrams.
    bytes: usize,
    /// How often the kernel was asked for one.
    asked: usize,
    /// Whether there are no more.
    drained: bool,
}

impl Round {
    /// What it counts of what may be read after the stop. Datagrams without content count, too.
    fn cost(&self) -> usize {
        self.bytes.max(self.asked * RECORD_BYTES)
    }
}

impl Socket {
    /// Asks for a large buffer: as much as the system gives.
    pub(super) fn udp(socket: UdpSocket) -> Self {
        if set_socket_recv_buffer_size_force(socket.as_fd(), KERNEL_BYTES).is_err() {
            // Without CAP_NET_ADMIN: up to net.core.rmem_max. Less room is no reason not to listen.
            let _ = set_socket_recv_buffer_size(socket.as_fd(), KERNEL_BYTES);
        }
        Self::Udp(socket)
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.readable().await,
            Self::Unix { socket, .. } => socket.readable().await,
        }
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.try_recv(buffer),
            Self::Unix { socket, .. } => socket.try_recv(buffer),
        }
    }
}

impl Datagrams {
    pub(super) fn new(socket: Socket, address: String, outlet: Outlet, part: Part, stop: CancellationToken) -> Self {
        let room = match socket {
            Socket::Udp(_) => UDP_BYTES_MAX,
            Socket::Unix { .. } => DATAGRAM_BYTES_MAX,
        };
        Self { socket, address, buffer: vec![0; room], drops_told: 0, outlet, part, stop }
    }

    /// Receives until `stop`, and then what is in the kernel's buffer by that time.
    pub(super) async fn run(mut self) {
        self.receive_all().await;
        // What was dropped since it was asked last would be told by nobody.
        self.look_at_drops();
    }

    async fn receive_all(&mut self) {
        let mut drops = interval_at(Instant::now() + DROPS_INTERVAL, DROPS_INTERVAL);
        drops.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leftover = LEFTOVER_BYTES_MAX;
        loop {
            tokio::select! {
                biased;
                // First, for under load there is always something to read, and that is when the kernel drops.
                _ = drops.tick() => {
                    self.look_at_drops();
                    continue;
                }
                // An error shows itself where it is read.
                _ = self.socket.readable() => {}
                () = self.stop.cancelled() => return,
            }
            let round = self.receive();
            let (cost, drained) = (round.cost(), round.drained);
            if self.outlet.send(round.pieces, None).await.is_err() {
                return;
            }
            if self.stop.is_cancelled() {
                leftover = leftover.saturating_sub(cost);
                if leftover == 0 {
                    return;
                }
            }
            if !drained {
                // Where nothing else made it wait, others of its thread have their turn.
                yield_now().await;
            }
        }
    }

    /// What there is, as much as goes into one arrival.
    fn receive(&mut self) -> Round {
        let Self { socket, buffer, address, outlet, .. } = self;
        receive_round(buffer, outlet, |buffer| {
            socket.try_receive(buffer).inspect_err(|error| {
                if error.kind() != io::ErrorKind::WouldBlock {
                    // Errors of a datagram socket are those of single datagrams; the next one is another matter.
                    tracing::debug!(%error, address = address.as_str(), "cannot receive a datagram");
                }
            })
        })
    }

    fn look_at_drops(&mut self) {
        let Socket::Udp(socket) = &self.socket else { return };
        let Some(drops) = kernel_drops(socket) else { return };
        let new = drops.saturating_sub(self.drops_told);
        if new == 0 {
            return self.part.well();
        }
        self.drops_told = drops;
        self.outlet.counts.kernel_drops.fetch_add(new, Relaxed);
        self.part.warn(format!(
            "{}: the kernel dropped {new} datagrams in the last {} s, {drops} since it listens: they came faster than they \
             could be taken; raise net.core.rmem_max, or send over TCP",
            self.address,
            DROPS_INTERVAL.as_secs()
        ));
    }
}

/// Receives until there is nothing, an error, or enough for one arrival. However many have no content, it ends.
fn receive_round(buffer: &mut [u8], outlet: &Outlet, mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>) -> Round {
    let mut round = Round::default();
    while round.bytes < ARRIVAL_BYTES_MAX && round.asked < ARRIVAL_RECORDS_MAX {
        round.asked += 1;
        match receive(buffer) {
            Ok(length) => {
                round.bytes += length;
                round.pieces.extend(outlet.pieces(message(&buffer[..length])));
            }
            Err(error) => {
                round.drained = error.kind() == io::ErrorKind::WouldBlock;
                break;
            }
        }
    }
    round
}

/// A datagram without the end that some senders put behind the message.
fn message(datagram: &[u8]) -> &[u8] {
    let end = datagram.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | b'\0')).map_or(0, |last| last + 1);
    &datagram[..end]
}

/// How many datagrams the kernel dropped for want of room since the socket was made.
fn kernel_drops(socket: &UdpSocket) -> Option<u64> {
    let inode = rustix::fs::fstat(socket.as_fd()).ok()?.st_ino;
    let table = match socket.local_addr().ok()? {
        std::net::SocketAddr::V4(_) => "/proc/net/udp",
        std::net::SocketAddr::V6(_) => "/proc/net/udp6",
    };
    drops_of(inode, &std::fs::read_to_string(table).ok()?)
}

/// Finds a socket's line in the table; its last column are the drops.
fn drops_of(inode: u64, table: &str) -> Option<u64> {
    let inode = inode.to_string();
    let line = table.lines().find(|line| line.split_whitespace().nth(9) == Some(inode.as_str()))?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use logmesh_runtime::health::Health;
    use tokio::time::advance;

    use super::*;
    use crate::inputs::{
        intake::{Arrivals, Intake, intake},
        outlet::Counts,
        standing::parts,
    };

    /// Datagrams that are sent to a socket whose buffer takes only some of them.
    const SENT: u64 = 50;
    /// So many of them fill an arrival to the byte.
    const SENT_BYTES: usize = ARRIVAL_BYTES_MAX / 4;

    /// A socket of which the kernel dropped datagrams.
    async fn overflowed() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        set_socket_recv_buffer_size(socket.as_fd(), 200 * 1024).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..SENT {
            // Over loopback a datagram is there, or dropped, when this returns.
            sender.send_to(&[b'x'; SENT_BYTES], socket.local_addr().unwrap()).unwrap();
        }
        socket.readable().await.unwrap();
        socket
    }

    fn listener(socket: UdpSocket, intake: &Intake, stop: CancellationToken) -> (Datagrams, Arc<Counts>) {
        let part = parts(&Health::new(), "syslog", 1).remove(0);
        let outlet = Outlet::new(intake.for_input(0), 64 * 1024);
        let counts = Arc::clone(&outlet.counts);
        (Datagrams::new(Socket::Udp(socket), "udp://here".into(), outlet, part, stop), counts)
    }

    fn records(arrivals: &mut Arrivals) -> u64 {
        arrivals.take().iter().map(|arrival| arrival.records.len() as u64).sum()
    }

    #[tokio::test]
    async fn what_the_kernel_dropped_is_counted_when_listening_ends() {
        let (intake, mut arrivals) = intake(16 << 20, || {});
        let stop = CancellationToken::new();
        let (datagrams, counts) = listener(overflowed().await, &intake, stop.clone());
        stop.cancel();
        datagrams.run().await;
        let received = records(&mut arrivals);
        assert!((1..SENT).contains(&received), "{received}");
        assert_eq!(counts.kernel_drops.load(Relaxed), SENT - received);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_kernel_dropped_is_counted_while_there_is_always_something_to_read() {
        // Room for one arrival, however large it is, and that is taken.
        let (intake, mut arrivals) = intake(1, || {});
        intake.for_input(0).send(Vec::new(), None).await.unwrap();
        let (datagrams, counts) = listener(overflowed().await, &intake, CancellationToken::new());
        let mut running = Box::pin(datagrams.run());
        assert!((&mut running).now_or_never().is_none(), "it waits for room");
        advance(2 * DROPS_INTERVAL).await;
        drop(arrivals.take());
        for _ in 0..3 {
            assert!((&mut running).now_or_never().is_none(), "the next arrival waits for room");
        }
        assert!(counts.kernel_drops.load(Relaxed) > 0);
    }

    #[test]
    fn a_datagram_that_is_too_long_is_split_into_pieces_that_say_so() {
        let (intake, _arrivals) = intake(1 << 20, || {});
        let outlet = Outlet::new(intake.for_input(0), 1024);
        let mut lengths = [5, 2049, 1024].into_iter();
        let round = receive_round(&mut [b'x'; 4096], &outlet, |_| {
            lengths.next().ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))
        });
        let marks = |piece: &Piece| (piece.body.len(), piece.continued, piece.split);
        let split = [(1024, false, true), (1024, true, true), (1, true, false)];
        let expected = [(5, false, false), split[0], split[1], split[2], (1024, false, false)];
        assert_eq!(round.pieces.iter().map(marks).collect::<Vec<_>>(), expected);
        assert!(round.drained);
    }

    #[test]
    fn a_round_ends_though_datagrams_without_content_keep_coming() {
        let (intake, _arrivals) = intake(1 << 20, || {});
        let outlet = Outlet::new(intake.for_input(0), 1024);
        let mut buffer = *b"\n\0";
        for length in [0, 2] {
            let round = receive_round(&mut buffer, &outlet, |_| Ok(length));
            assert_eq!((round.asked, round.pieces.len(), round.drained), (ARRIVAL_RECORDS_MAX, 0, false));
            assert!(LEFTOVER_BYTES_MAX / round.cost() < 100, "nor do they hide the stop for long");
        }
    }

    #[test]
    fn what_stands_behind_a_message_is_no_part_of_it() {
        for (datagram, body) in
            [("<1>a\n\0", "<1>a"), ("<1>a\r\n", "<1>a"), ("<1>a\nb", "<1>a\nb"), ("\n", ""), ("<1>a ", "<1>a ")]
        {
            assert_eq!(message(datagram.as_bytes()), body.as_bytes());
        }
    }

    #[test]
    fn drops_are_found_in_the_kernels_table() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops            \n\
                     14286: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 11 2 0000000000000000 0         \n\
                     14287: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 110055 2 0000000000000000 42        \n";
        assert_eq!((drops_of(110_055, table), drops_of(11, table), drops_of(1, table)), (Some(42), Some(0), None));
    }

    #[tokio::test]
    async fn what_is_not_received_is_what_the_kernel_says_it_dropped() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        set_socket_recv_buffer_size(socket.as_fd(), 8 * 1024).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            // Over loopback a datagram is there, or dropped, when this returns.
            sender.send_to(&[b'x'; 1000], socket.local_addr().unwrap()).unwrap();
        }
        socket.readable().await.unwrap();
        let received = std::iter::from_fn(|| socket.try_recv(&mut [0; 1000]).ok()).count() as u64;
        assert!(received < 200, "the buffer takes a few");
        assert_eq!(kernel_drops(&socket), Some(200 - received));
    }
}
