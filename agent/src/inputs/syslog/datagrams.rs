//! Datagrams: each is a message.
//!
//! The kernel's buffer is the queue: it is read as fast as the intake takes it, and what does not fit there is dropped by
//! the kernel. That cannot be prevented from here, but counted: the drops of a UDP socket are read from `/proc/net/udp`
//! and told. Senders to a local socket wait instead.

use std::{io, os::fd::AsFd as _, sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use tokio::{
    net::{UdpSocket, UnixDatagram},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{LEFTOVER_BYTES_MAX, local::LocalSocket};
use crate::inputs::{
    outlet::{ARRIVAL_BYTES_MAX, ARRIVAL_RECORDS_MAX, Outlet},
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
        let mut drops = interval_at(Instant::now() + DROPS_INTERVAL, DROPS_INTERVAL);
        drops.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leftover = LEFTOVER_BYTES_MAX;
        loop {
            tokio::select! {
                biased;
                // An error shows itself where it is read.
                _ = self.socket.readable() => {}
                () = self.stop.cancelled() => return,
                _ = drops.tick() => {
                    self.look_at_drops();
                    continue;
                }
            }
            let (bodies, bytes) = self.receive();
            if self.outlet.send(bodies, None).await.is_err() {
                return;
            }
            if self.stop.is_cancelled() {
                leftover = leftover.saturating_sub(bytes.max(1));
                if leftover == 0 {
                    return;
                }
            }
        }
    }

    /// What there is, as much as goes into one arrival.
    fn receive(&mut self) -> (Vec<Bytes>, usize) {
        let (mut bodies, mut bytes) = (Vec::new(), 0);
        while bytes < ARRIVAL_BYTES_MAX && bodies.len() < ARRIVAL_RECORDS_MAX {
            match self.socket.try_receive(&mut self.buffer) {
                Ok(length) => {
                    bytes += length;
                    bodies.extend(self.outlet.pieces(message(&self.buffer[..length])));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    // Errors of a datagram socket are those of single datagrams; the next one is another matter.
                    tracing::debug!(%error, address = self.address, "cannot receive a datagram");
                    break;
                }
            }
        }
        (bodies, bytes)
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
    use super::*;

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
