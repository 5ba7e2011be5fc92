//! Holds one of the rig's servers, for a look at it by hand: `logmesh-rig kafka`, `logmesh-rig elasticsearch`. It says
//! where the server listens and its pid, and runs until its input ends.

use std::io::Write;

use anyhow::{Result, bail};
use logmesh_rig::{ADMIN, Elasticsearch, Kafka, KafkaCluster, OpenSearch, PASSWORD, SearchServer, SecureKafka};

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("kafka") => {
            let kafka = Kafka::shared();
            hold(&format!("{} pid {}", kafka.bootstrap(), kafka.pid()?))
        }
        Some("kafka-cluster") => hold(&KafkaCluster::start(&[])?.bootstrap()),
        Some("secure-kafka") => {
            let kafka = SecureKafka::shared();
            hold(&format!("{} scram-sha-512 {} pid {}", kafka.bootstrap(), kafka.scram512(), kafka.pid()?))
        }
        Some("elasticsearch") => hold_search(Elasticsearch::shared()),
        Some("opensearch") => hold_search(OpenSearch::shared()),
        other => {
            bail!("{other:?} is none of kafka, kafka-cluster, secure-kafka, elasticsearch, opensearch")
        }
    }
}

fn hold_search(server: &SearchServer) -> Result<()> {
    hold(&format!(
        "{} pid {} user {ADMIN} password {PASSWORD} ca {}",
        server.url(),
        server.pid()?,
        server.ca().display()
    ))
}

fn hold(what: &str) -> Result<()> {
    println!("{what}");
    std::io::stdout().flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
