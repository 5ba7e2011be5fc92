//! The index on Elasticsearch and OpenSearch: against real servers, and against a scripted one that fails on demand.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod lanes;
mod limits;
mod outcomes;
mod pace;
mod promises;
mod scripted;
mod servers;
mod setup;
