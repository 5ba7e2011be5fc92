//! Agents, gateways and processors as processes of their own, over Kafka and an index server.

mod brokers;
mod example;
mod index;
mod kills;
mod members;
mod refusals;
mod whole;
