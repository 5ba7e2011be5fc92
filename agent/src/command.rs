//! The agent as a process: its command line, shared by `logmesh-agent` and `logmesh agent`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use axum::Router;
use clap::{Args, Subcommand};
use logmesh_certs::TlsSource;
use logmesh_runtime::{
    Context,
    admin::{self, Admin},
    config::{Faults, Root},
    health::Health,
    process::{self, Options},
    shutdown::{Exit, Shutdown},
    status::Status,
    telemetry::{Telemetry, TelemetryConfig, logging},
};

use crate::{Agent, Config};

/// Sections of other services, which one file for all may hold.
const OTHERS: [&str; 5] = ["gateway", "bus", "processor", "index", "up"];
/// Environment variables with our prefix that are no settings.
const RESERVED: [&str; 4] = ["LOGMESH_FAULTS", "LOGMESH_TOKEN", "LOGMESH_VERSION", "LOGMESH_LOG"];
/// A collector that hangs holds the end of the process up for no longer.
const LAST_PUSH: Duration = Duration::from_secs(2);

/// What the agent is told on the command line.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What an agent can do beside running.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Says what is wrong with the configuration: every fault, with file, line and cure.
    Check,
}

/// Runs an agent until the process is told to stop. `name` begins every message.
#[must_use]
pub fn run(name: &'static str, arguments: &Arguments) -> ExitCode {
    let Some(path) = &arguments.config else {
        return process::refuse(name, &"no configuration: give --config FILE");
    };
    let (config, telemetry) = match Root::read(path).and_then(read) {
        Ok(read) => read,
        Err(faults) => return process::refuse(name, &faults),
    };
    if let Some(Command::Check) = arguments.command {
        return check(name, &config);
    }
    // One thread is enough for the sockets: the work is done on the tailer's own.
    let options = Options { worker_threads: Some(1), blocking_threads_max: 4, ..Options::new(name) };
    process::run(&options, |shutdown| serve(config, telemetry, shutdown))
}

fn read(root: Root) -> Result<(Config, TelemetryConfig), Faults> {
    let root = root.process_env().reserve_env(&RESERVED).leave(&OTHERS);
    let read = (Config::read_standalone(&root), TelemetryConfig::read(&root));
    root.finish()?;
    Ok(read)
}

fn check(name: &'static str, config: &Config) -> ExitCode {
    match config.tls.clone().map(TlsSource::load) {
        Some(Err(error)) => process::refuse(name, &process::chain(&error)),
        Some(Ok(_)) | None => {
            println!("{name}: the configuration is good");
            Exit::Clean.into()
        }
    }
}

async fn serve(config: Config, telemetry: TelemetryConfig, shutdown: Shutdown) -> anyhow::Result<Exit> {
    logging(&telemetry)?;
    let telemetry = Telemetry::start(&telemetry, "logmesh-agent")?;
    let context =
        Context { health: Health::new(), meter: telemetry.meter(), status: Status::new(), shutdown: shutdown.clone() };
    let files = config.tls.clone().ok_or_else(|| anyhow::anyhow!("`agent.tls` is missing"))?;
    let tls = TlsSource::load(files)?;
    let listener = admin::listen(config.admin).await?;
    tracing::info!(address = %listener.local_addr()?, "admin address");
    let shown = Admin {
        health: context.health.clone(),
        telemetry: telemetry.clone(),
        status: context.status.clone(),
        token: config.admin_token.clone(),
    };
    let agent = Agent::new(config, tls, context)?;
    // The admin address outlives the agent, so that its last moments can be seen.
    let seen = Shutdown::new();
    let serving = tokio::spawn(admin::serve(listener, shown, Router::new(), seen.clone()));
    let exit = agent.run().await;
    seen.begin();
    if let Err(error) = serving.await? {
        tracing::warn!(%error, "the admin address failed");
    }
    tokio::task::spawn_blocking(move || telemetry.shutdown(LAST_PUSH)).await?;
    Ok(exit)
}
