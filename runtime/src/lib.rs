//! The process skeleton that every service shares.
//!
//! Owns what makes a process a good citizen and knows nothing of logs: strict configuration ([`config`]), ordered
//! stopping ([`shutdown`], [`process`]), retry pacing ([`backoff`]), memory admission ([`budget`]), and being seen
//! ([`health`], [`status`], [`telemetry`], [`admin`], [`terminal`]). It does not own any service's settings, queues or
//! tasks: those live with the service that needs them. What two services merely happen to need is not a reason to put it
//! here.

pub mod admin;
pub mod backoff;
pub mod budget;
pub mod config;
mod context;
pub mod finding;
pub mod health;
pub mod process;
pub mod service;
pub mod shutdown;
pub mod status;
pub mod telemetry;
pub mod terminal;

pub use context::Context;
