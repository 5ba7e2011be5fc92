//! The agent as a process, the same for `logmesh-agent` and `logmesh agent`.

mod state;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use logmesh_certs::TlsSource;
use logmesh_runtime::{
    Context,
    config::{Root, Secret},
    finding::{Finding, Verdict},
    process::Options,
    service::{self, Service},
    shutdown::Exit,
};

pub use state::State;

use crate::{Agent, Config, inputs, ship::look::look};

/// What an agent is told on the command line.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// What to do instead of running.
    #[command(subcommand)]
    command: Option<Command>,
}

/// What an agent's command can do beside running.
#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Says what is wrong with the configuration: every fault, with file, line and cure.
    Check,
    State(State),
}

impl Arguments {
    /// Runs the agent until the process is told to stop, or does what is asked for instead. `name` begins every message.
    #[must_use]
    pub fn run(self, name: &'static str) -> ExitCode {
        let Self { config, command } = self;
        let command = match command {
            Some(Command::State(state)) => return state.run(name, config.as_deref()),
            Some(Command::Check) => Some(service::Command::Check),
            None => None,
        };
        service::run::<AgentService>(name, &service::Arguments { config, command })
    }
}

/// An agent that is a process of its own.
#[derive(Debug)]
pub struct AgentService(Config);

impl Service for AgentService {
    const NAME: &'static str = "logmesh-agent";
    const SECTIONS: &'static [&'static str] = &["agent"];

    fn read(root: &Root) -> Self {
        Self(Config::read_standalone(root))
    }

    fn verify(&self) -> anyhow::Result<()> {
        self.0.tls.clone().map(TlsSource::load).transpose()?;
        Ok(())
    }

    async fn look(&self) -> Vec<Finding> {
        let mut findings = match self.0.tls.clone().map(TlsSource::load) {
            Some(Ok(tls)) => look(&self.0.gateways, &tls).await,
            Some(Err(error)) => vec![Finding::new("certificates", Verdict::Bad, error.to_string())],
            // Reading the configuration has said so.
            None => Vec::new(),
        };
        findings.extend(inputs::look(&self.0.inputs));
        findings
    }

    fn admin(&self) -> (SocketAddr, Option<Secret>) {
        (self.0.admin, self.0.admin_token.clone())
    }

    /// One thread is enough for the sockets: the work is done on the tailer's own.
    fn options(&self, name: &'static str) -> Options {
        Options { worker_threads: Some(1), blocking_threads_max: 4, ..Options::new(name) }
    }

    async fn serve(self, context: Context) -> anyhow::Result<Exit> {
        let files = self.0.tls.clone().context("`agent.tls` is missing")?;
        let tls = TlsSource::load(files)?;
        Ok(Agent::new(self.0, tls, context)?.run().await)
    }
}
