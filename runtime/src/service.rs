//! A service as a process: command line, configuration, admin address, telemetry, status; the same for all of them.
//!
//! Owns the frame around [`Service::serve`]. What a service does, and what it is told, are its own crate's. Invariants: a
//! configuration that cannot be used ends the process before anything is opened; the admin address answers from before
//! the service begins until after it has ended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use clap::{Args, Subcommand};

use crate::Context;
use crate::admin::{self, Admin};
use crate::config::{Faults, Root, Secret};
use crate::finding::Finding;
use crate::health::Health;
use crate::process::{self, Options};
use crate::shutdown::{Exit, Shutdown};
use crate::status::Status;
use crate::telemetry::{Telemetry, TelemetryConfig, logging};

/// The sections that one file for all services may have; each process reads its own and leaves the others.
const SECTIONS: [&str; 6] = ["agent", "gateway", "bus", "processor", "index", "up"];
/// Environment variables with our prefix that are no settings.
pub const RESERVED: [&str; 4] = ["LOGMESH_FAULTS", "LOGMESH_TOKEN", "LOGMESH_VERSION", "LOGMESH_LOG"];
/// A collector that hangs holds the end of the process up for no longer.
const LAST_PUSH: Duration = Duration::from_secs(2);

/// What a service is told on the command line.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What a service's command can do beside running.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Says what is wrong with the configuration: every fault, with file, line and cure.
    Check,
}

/// One service of a cluster, ready to be run: what it was told.
pub trait Service: Sized + Send {
    /// The name of its slim binary, under which its telemetry is known.
    const NAME: &'static str;
    /// Sections of the configuration that it reads.
    const SECTIONS: &'static [&'static str];

    /// Reads its sections; faults are noted in `root`.
    fn read(root: &Root) -> Self;

    /// Looks at what the configuration names on this machine (certificates, keys), without opening anything else.
    ///
    /// # Errors
    /// What is wrong, and with which file.
    fn verify(&self) -> anyhow::Result<()>;

    /// Looks at what it will talk to: whether it is there, lets us in, and is set up. Sets up what it is allowed to.
    fn look(&self) -> impl Future<Output = Vec<Finding>> + Send;

    /// Where its admin address listens, and the token it asks for.
    fn admin(&self) -> (SocketAddr, Option<Secret>);

    /// Threads of its process.
    fn options(&self, name: &'static str) -> Options {
        Options::new(name)
    }

    /// Works until the context's shutdown is requested.
    fn serve(self, context: Context) -> impl Future<Output = anyhow::Result<Exit>> + Send;
}

/// Runs a service until the process is told to stop. `name` begins every message.
#[must_use]
pub fn run<S: Service>(name: &'static str, arguments: &Arguments) -> ExitCode {
    let Some(path) = &arguments.config else {
        return process::refuse(name, &"no configuration: give --config FILE");
    };
    let (service, telemetry) = match Root::read(path).map(Root::process_env).and_then(read::<S>) {
        Ok(read) => read,
        Err(faults) => return process::refuse(name, &faults),
    };
    if let Some(Command::Check) = arguments.command {
        return check(name, &service);
    }
    let options = service.options(name);
    process::run(&options, |shutdown| serve(service, telemetry, shutdown))
}

/// Reads what a service is told, and how it is to be seen.
///
/// # Errors
/// Every fault of the sections that it reads.
pub fn read<S: Service>(root: Root) -> Result<(S, TelemetryConfig), Faults> {
    let others: Vec<_> = SECTIONS.into_iter().filter(|name| !S::SECTIONS.contains(name)).collect();
    let root = root.reserve_env(&RESERVED).leave(&others);
    let read = (S::read(&root), TelemetryConfig::read(&root));
    root.finish()?;
    Ok(read)
}

fn check<S: Service>(name: &'static str, service: &S) -> ExitCode {
    match service.verify() {
        Err(error) => process::refuse(name, &process::chain(error.as_ref())),
        Ok(()) => {
            println!("{name}: the configuration is good");
            Exit::Clean.into()
        }
    }
}

async fn serve<S: Service>(service: S, telemetry: TelemetryConfig, shutdown: Shutdown) -> anyhow::Result<Exit> {
    logging(&telemetry)?;
    service.verify()?;
    let telemetry = Telemetry::start(&telemetry, S::NAME)?;
    let context =
        Context { health: Health::new(), meter: telemetry.meter(), status: Status::new(), shutdown: shutdown.clone() };
    let (address, token) = service.admin();
    let listener = admin::listen(address).await?;
    tracing::info!(address = %listener.local_addr()?, "admin address");
    let shown =
        Admin { health: context.health.clone(), telemetry: telemetry.clone(), status: context.status.clone(), token };
    // The admin address outlives the service, so that its last moments can be seen.
    let seen = Shutdown::new();
    let serving = tokio::spawn(admin::serve(listener, shown, Router::new(), seen.clone()));
    let ended = service.serve(context).await;
    seen.begin();
    if let Err(error) = serving.await? {
        tracing::warn!(%error, "the admin address failed");
    }
    tokio::task::spawn_blocking(move || telemetry.shutdown(LAST_PUSH)).await?;
    ended
}
