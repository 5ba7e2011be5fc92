//! The agent as a process, the same for `logmesh-agent` and `logmesh agent`.

use std::net::SocketAddr;

use anyhow::Context as _;
use logmesh_certs::TlsSource;
use logmesh_runtime::{
    Context,
    config::{Root, Secret},
    finding::{Finding, Verdict},
    process::Options,
    service::Service,
    shutdown::Exit,
};

use crate::{Agent, Config, ship::look::look};

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
        match self.0.tls.clone().map(TlsSource::load) {
            Some(Ok(tls)) => look(&self.0.gateways, &tls).await,
            Some(Err(error)) => vec![Finding::new("certificates", Verdict::Bad, error.to_string())],
            // Reading the configuration has said so.
            None => Vec::new(),
        }
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
