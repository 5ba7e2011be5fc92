//! The agent in this process, over real directories, real TLS and gateways that are stubs.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod archives;
mod delivery;
mod discovery;
mod framing;
mod moving;
#[path = "../stub/mod.rs"]
mod stub;
