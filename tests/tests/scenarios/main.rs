//! The whole product as its operators run it: real processes, real files, real Kafka and index servers, and what goes wrong
//! with each.

mod cluster;
mod gateways;
mod up;
