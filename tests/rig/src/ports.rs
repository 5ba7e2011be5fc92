//! Ports for servers that want to be told theirs.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Below the range from which the kernel takes the ports of outgoing connections (32768 and up by default). There, a
/// client that keeps trying a stopped server's port would sooner or later connect to itself, and take the port.
const RANGE: std::ops::Range<u16> = 12_000..32_000;
const TRIES: usize = 1000;

/// So many different ports of the loopback address on which nobody listens now. Another may come first: a server whose
/// start fails for that is started again with others.
///
/// # Errors
///
/// When hardly any is free.
pub fn free(count: usize) -> Result<Vec<u16>> {
    // Held until all are found, so that no two are the same.
    let mut listeners = Vec::with_capacity(count);
    let mut ports = Vec::with_capacity(count);
    for _ in 0..TRIES {
        if ports.len() == count {
            return Ok(ports);
        }
        let port = rand::random_range(RANGE);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            listeners.push(listener);
            ports.push(port);
        }
    }
    bail!("no {count} free ports in {RANGE:?} after {TRIES} tries")
}
