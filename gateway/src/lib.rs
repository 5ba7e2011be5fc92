//! The gateway: accept, authenticate, admit, publish, acknowledge.
//!
//! The way of a batch: [`connection`] (TLS with client certificates, HTTP/2) → [`driver`] reads a frame → [`session`]
//! checks it against limits, [`policy`], [`order`] and [`lanes`] → the driver reserves memory and appends it to the bus,
//! payload closed → the bus says durable → the session acknowledges. What a payload claims about its sender is ignored:
//! identity, tenant and stream key come from the certificate.
//!
//! Invariants: nothing is acknowledged that the bus has not called durable; every queue is bounded, and a peer that is
//! silent, greedy or does not read harms only itself; shutting down takes no longer than the grace, whatever peers or
//! the bus do. Accepting, TLS and the life of connections are ours; tonic supplies routing and codecs.

#[cfg(feature = "kafka")]
pub mod command;
mod complaints;
mod config;
mod connection;
mod credit;
mod driver;
mod gateway;
mod lanes;
mod metrics;
mod order;
mod policy;
mod rate;
mod registry;
mod service;
mod session;
mod streams;

pub use config::{Config, DEFAULT_TOML};
pub use gateway::{Gateway, GatewayError};
pub use policy::PolicyRule;
