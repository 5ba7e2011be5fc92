//! The gateway as a process, the same for `logmesh-gateway` and `logmesh gateway`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use logmesh_bus::Bus as _;
use logmesh_bus::config::read_shared;
use logmesh_bus::kafka::{KafkaBus, KafkaOptions, check};
use logmesh_certs::TlsSource;
use logmesh_runtime::Context;
use logmesh_runtime::admin;
use logmesh_runtime::config::{Root, Secret};
use logmesh_runtime::finding::{Finding, Verdict};
use logmesh_runtime::service::Service;
use logmesh_runtime::shutdown::Exit;

use crate::{Config, Gateway};

/// A gateway that is a process of its own.
#[derive(Debug)]
pub struct GatewayService {
    config: Config,
    bus: KafkaOptions,
}

impl Service for GatewayService {
    const NAME: &'static str = "logmesh-gateway";
    const SECTIONS: &'static [&'static str] = &["gateway", "bus"];

    fn read(root: &Root) -> Self {
        let config = Config::read_standalone(root);
        // What the policy lets in is where it goes: those topics are looked at before the first batch.
        let topics = config.bus_topics();
        Self { bus: KafkaOptions { topics, ..read_shared(root) }, config }
    }

    fn verify(&self) -> anyhow::Result<()> {
        self.config.tls.clone().map(TlsSource::load).transpose()?;
        Ok(())
    }

    async fn look(&self) -> Vec<Finding> {
        let found = check(self.bus.clone(), &self.bus.topics, None).await;
        found.unwrap_or_else(|error| vec![Finding::new("bus", Verdict::Bad, error.to_string())])
    }

    fn admin(&self) -> (SocketAddr, Option<Secret>) {
        (self.config.admin, self.config.admin_token.clone())
    }

    async fn serve(self, context: Context) -> anyhow::Result<Exit> {
        let files = self.config.tls.clone().context("`gateway.tls` is missing")?;
        let tls = TlsSource::load(files)?;
        let listener = admin::listen(self.config.listen).await?;
        let grace = self.config.shutdown_grace;
        let bus = Arc::new(KafkaBus::open(self.bus)?);
        let exit = Gateway::new(self.config, tls, bus.clone(), context)?.run(listener).await;
        // Whatever was acknowledged is durable: this only lets go of the connections.
        bus.close(grace / 10).await;
        Ok(exit)
    }
}
