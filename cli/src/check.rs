//! `logmesh check`: every fault of a configuration at once.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use logmesh_agent::command::AgentService;
use logmesh_gateway::command::GatewayService;
use logmesh_processor::command::ProcessorService;
use logmesh_runtime::{
    config::{Faults, Root},
    finding::{Finding, Verdict},
    process,
    service::{self, Service},
    shutdown::Exit,
};

use crate::{settings, up};

/// Says what is wrong with a configuration: every fault, with file, line and cure.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  logmesh check --config logmesh.toml
  logmesh check --config agent.toml --role agent
  logmesh check --config processor.toml --role processor --connect")]
pub(crate) struct Check {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Also check what this process needs, and what it does not allow.
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// Also look at what this process will talk to: reachable, lets us in, set up; and at what its inputs need on this
    /// machine. Installs index templates where the credentials allow it.
    #[arg(long, requires = "role")]
    connect: bool,
    /// What --connect found, as JSON.
    #[arg(long, requires = "connect")]
    json: bool,
}

/// Processes that read a configuration.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// `logmesh up`.
    Up,
    /// `logmesh agent`.
    Agent,
    /// `logmesh gateway`.
    Gateway,
    /// `logmesh processor`.
    Processor,
}

impl Check {
    /// Reads and reports.
    pub(crate) fn run(&self) -> Exit {
        match self.read() {
            Ok(findings) => self.report(&findings),
            Err(faults) => {
                eprintln!("{faults}");
                Exit::Usage
            }
        }
    }

    fn read(&self) -> Result<Vec<Finding>, Faults> {
        let root = settings::root(Some(&self.config))?;
        match self.role {
            Some(Role::Agent) => self.service::<AgentService>(root),
            Some(Role::Gateway) => self.service::<GatewayService>(root),
            Some(Role::Processor) => self.service::<ProcessorService>(root),
            Some(Role::Up) => {
                up::refuse_own_keys(&root);
                settings::read(root).map(|_| Vec::new())
            }
            None => settings::read(root).map(|_| Vec::new()),
        }
    }

    fn service<S: Service>(&self, root: Root) -> Result<Vec<Finding>, Faults> {
        let (service, _) = service::read::<S>(root)?;
        let mut findings = Vec::new();
        if let Err(error) = service.verify() {
            findings.push(Finding::new("files", Verdict::Bad, process::chain(error.as_ref())));
        } else if self.connect {
            match tokio::runtime::Runtime::new() {
                Ok(runtime) => findings.extend(runtime.block_on(service.look())),
                Err(error) => findings.push(Finding::new("this process", Verdict::Bad, error.to_string())),
            }
        }
        Ok(findings)
    }

    fn report(&self, findings: &[Finding]) -> Exit {
        let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
        if self.json {
            println!("{}", serde_json::json!({ "findings": findings, "good": !bad }));
        } else {
            findings.iter().for_each(|finding| println!("{finding}"));
            println!("{}: {}", self.config.display(), if bad { "would not work" } else { "good" });
        }
        if bad { Exit::Failed } else { Exit::Clean }
    }
}
