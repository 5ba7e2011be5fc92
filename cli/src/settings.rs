//! The configuration of all services together, as one file holds it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use logmesh_agent::{FilesConfig, discovery::Group};
use logmesh_bus::config::BusConfig;
use logmesh_processor::index::{IndexKind, IndexOptions};
use logmesh_runtime::{
    admin,
    config::{Fault, Faults, Resolved, Root, Secret},
    service::RESERVED,
    telemetry::TelemetryConfig,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The least memory with which `up` works: each stage's share must hold one batch of the largest size.
const MEMORY_MIN: u64 = 96 * MIB;

/// The commented defaults of `[up]`.
const DEFAULT_TOML: &str = include_str!("default.toml");

/// What all services are told.
pub(crate) struct Settings {
    pub(crate) agent: logmesh_agent::Config,
    pub(crate) gateway: logmesh_gateway::Config,
    pub(crate) processor: logmesh_processor::Config,
    pub(crate) index: IndexOptions,
    pub(crate) bus: BusConfig,
    pub(crate) telemetry: TelemetryConfig,
    pub(crate) up: UpSettings,
}

/// `[up]`.
#[derive(Clone, Debug)]
pub(crate) struct UpSettings {
    pub(crate) data: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) ingest: SocketAddr,
    pub(crate) admin_token: Option<Secret>,
    /// Memory in bytes for all parts together.
    pub(crate) memory: u64,
    /// Time from the request to stop until the process ends.
    pub(crate) shutdown_grace: Duration,
}

impl Settings {
    /// Adds files to tail, as the command line names them.
    ///
    /// # Errors
    /// A pattern cannot be read.
    pub(crate) fn tail(&mut self, patterns: &[String]) -> Result<(), Faults> {
        let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        for pattern in patterns {
            if let Err(error) = Group::new(std::slice::from_ref(pattern), &[], &directory) {
                let cure = "quote it, and close every [ and {".to_owned();
                let origin = "command line".to_owned();
                return Err(Faults(vec![Fault {
                    origin,
                    position: None,
                    key: String::new(),
                    what: error.to_string(),
                    cure,
                }]));
            }
        }
        if !patterns.is_empty() {
            self.agent.files.push(FilesConfig { include: patterns.to_vec(), ..FilesConfig::default() });
        }
        Ok(())
    }
}

/// Reads a file, or nothing, with the environment laid over it.
pub(crate) fn root(file: Option<&Path>) -> Result<Root, Faults> {
    let root = file.map_or_else(|| Ok(Root::empty()), Root::read)?;
    Ok(root.process_env().reserve_env(&RESERVED))
}

/// Reads every section.
pub(crate) fn read(root: Root) -> Result<(Settings, Resolved), Faults> {
    let settings = Settings {
        agent: logmesh_agent::Config::read(&root),
        gateway: logmesh_gateway::Config::read(&root),
        processor: logmesh_processor::Config::read(&root),
        index: IndexOptions::read(&root, &[IndexKind::Embedded, IndexKind::Elasticsearch]),
        bus: BusConfig::read(&root),
        telemetry: TelemetryConfig::read(&root),
        up: read_up(&root),
    };
    Ok((settings, root.finish()?))
}

fn read_up(root: &Root) -> UpSettings {
    let section = root.section("up");
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let settings = UpSettings {
        data: section.path("data", Path::new("./logmesh-data")),
        http: section.address("http", loopback(4400)),
        ingest: section.address("ingest", loopback(4417)),
        admin_token: section.secret("admin_token"),
        memory: section.size("memory", 768 * MIB, MEMORY_MIN..=1024 * GIB),
        shutdown_grace: section.duration(
            "shutdown_grace",
            Duration::from_secs(10),
            Duration::from_secs(1)..=Duration::from_secs(600),
        ),
    };
    admin::check_exposure(&section, "http", settings.http, settings.admin_token.as_ref());
    settings
}

/// The whole commented default.
pub(crate) fn default_toml() -> String {
    [
        DEFAULT_TOML,
        logmesh_agent::DEFAULT_TOML,
        logmesh_gateway::DEFAULT_TOML,
        logmesh_bus::config::DEFAULT_TOML,
        logmesh_processor::DEFAULT_TOML,
        logmesh_runtime::telemetry::DEFAULT_TOML,
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_default_is_the_default() {
        let default = default_toml();
        let root = Root::parse(&default, "default.toml").expect("toml");
        let (_, printed) = read(root).expect("no fault");
        let (_, unset) = read(Root::empty()).expect("no fault");
        // What stands behind each value is where it comes from.
        let values = |resolved: Resolved| -> Vec<String> {
            resolved.to_toml().lines().map(|line| line.split("  # ").next().unwrap_or(line).to_owned()).collect()
        };
        assert_eq!(values(printed), values(unset));
    }
}
