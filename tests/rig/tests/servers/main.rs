//! The servers that the rig starts are real, keep what they say, and end with whoever started them.

mod end;
mod kafka;
mod kafka_cluster;
mod search;
mod secure_kafka;
