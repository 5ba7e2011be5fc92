//! A cluster of real processes: its mesh, its configuration files, and the agents, gateways and processors that run.
//!
//! Every cluster has a tenant of its own, hence a bus topic, a group and daily indices of its own, so that many share one
//! broker and one index server.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::api::Api;
use crate::binary;
use crate::process::{Ended, Process};
use crate::scene::Scene;
use crate::wait::{SLACK, wait_until};

/// Promised time from the start of a service to readiness, with everything it needs at hand.
pub const READY_WITHIN: Duration = Duration::from_secs(10);

/// What a cluster is built of.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Gateways.
    pub gateways: usize,
    /// Processors.
    pub processors: usize,
    /// The body of `[bus]`.
    pub bus: String,
    /// The body of `[index]`.
    pub index: String,
    /// Further lines of `[agent]`.
    pub agent: String,
}

/// A service of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `logmesh agent`, the one of this number.
    Agent(usize),
    /// `logmesh gateway`.
    Gateway(usize),
    /// `logmesh processor`.
    Processor(usize),
}

/// The files of a cluster, from which its services are started again and again.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    logs: PathBuf,
    tenant: String,
    runs: std::cell::Cell<u32>,
    layout: Layout,
    /// Where each gateway listens, and its admin address.
    gateways: Vec<[SocketAddr; 2]>,
    processors: Vec<SocketAddr>,
    agents: Vec<SocketAddr>,
}

/// One service that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Service {
    process: Process,
    admin: Api,
    role: Role,
}

impl Layout {
    /// Two gateways and two processors over Kafka and an index server.
    #[must_use]
    pub fn over(brokers: &str, index: String) -> Layout {
        let brokers: Vec<&str> = brokers.split(',').collect();
        let bus = format!("kind = \"kafka\"\nbrokers = {brokers:?}");
        Layout { gateways: 2, processors: 2, bus, index, agent: String::new() }
    }
}

impl Cluster {
    /// Makes the mesh and writes every configuration file. `logs` is what agents tail.
    ///
    /// # Errors
    ///
    /// When the certificates cannot be made or a file cannot be written.
    pub async fn build(scene: &Scene, layout: Layout, agents: usize, include: &str) -> Result<Cluster> {
        let tenant = format!("t{:08x}", rand::random::<u32>());
        let ports = logmesh_rig::free_ports(2 * layout.gateways + layout.processors + agents)?;
        let mut addresses = ports.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut address = || addresses.next().context("a port for each");
        let cluster = Cluster {
            directory: scene.path("cluster"),
            logs: scene.logs(),
            tenant,
            runs: std::cell::Cell::new(0),
            gateways: (0..layout.gateways).map(|_| Ok([address()?, address()?])).collect::<Result<_>>()?,
            processors: (0..layout.processors).map(|_| address()).collect::<Result<_>>()?,
            agents: (0..agents).map(|_| address()).collect::<Result<_>>()?,
            layout,
        };
        std::fs::create_dir(&cluster.directory)?;
        cluster.certificates().await?;
        for (number, admin) in cluster.agents.iter().enumerate() {
            let logs = cluster.logs(number);
            std::fs::create_dir_all(&logs)?;
            cluster.write(Role::Agent(number), &cluster.agent_toml(number, *admin, &logs.join(include)))?;
        }
        for number in 0..cluster.gateways.len() {
            cluster.write(Role::Gateway(number), &cluster.gateway_toml(number))?;
        }
        for number in 0..cluster.processors.len() {
            cluster.write(Role::Processor(number), &cluster.processor_toml(number))?;
        }
        Ok(cluster)
    }

    /// The tenant of the first agent; the indices are `logmesh-<tenant>-*`.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The tenant of an agent: each has its own.
    #[must_use]
    pub fn tenant_of(&self, agent: usize) -> String {
        if agent == 0 { self.tenant.clone() } else { format!("{}{agent}", self.tenant.replace('t', "u")) }
    }

    /// The bus topic of the first agent.
    #[must_use]
    pub fn topic(&self) -> String {
        self.topic_of(0)
    }

    /// The bus topic of an agent.
    #[must_use]
    pub fn topic_of(&self, agent: usize) -> String {
        format!("{}-logs.{}", self.tenant, self.tenant_of(agent))
    }

    /// Where the logs of an agent are: those of the first are the stage's.
    #[must_use]
    pub fn logs(&self, agent: usize) -> PathBuf {
        if agent == 0 { self.logs.clone() } else { self.directory.join(format!("logs-{agent}")) }
    }

    /// Runs `logmesh dead-letters` with these words as the administrator of the stage, whom
    /// [`set_up`](crate::index_server::set_up) has introduced: a replay replaces documents, which a processor may not.
    /// Answers what it prints.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub async fn letters(&self, words: &[&str]) -> Result<String> {
        let mut command: Vec<OsString> = vec![binary::logmesh()?.into(), "dead-letters".into()];
        command.extend(words.iter().map(OsString::from));
        command.extend(["--tenant", &self.tenant, "--config"].map(OsString::from));
        command.push(self.directory.with_file_name("administrator.toml").into());
        let stem = self.directory.join("letters");
        let ended = Process::spawn(&command, &[], &stem)?.ended().await?;
        let said = std::fs::read_to_string(stem.with_extension("stdout"))?;
        ensure!(ended.code() == Some(0), "{words:?} ended with {}: {said}{}", ended.status, ended.stderr);
        Ok(said)
    }

    /// The bus topic of dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> String {
        format!("dead-letters.{}", self.tenant)
    }

    /// The processors' group.
    #[must_use]
    pub fn group(&self) -> String {
        format!("group-{}", self.tenant)
    }

    /// The configuration file of a service.
    #[must_use]
    pub fn file(&self, role: Role) -> PathBuf {
        self.directory.join(format!("{}.toml", role.name()))
    }

    /// Starts a service, without waiting for anything.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn spawn(&self, role: Role) -> Result<Service> {
        let (command, admin) = match role {
            Role::Agent(number) => ("agent", self.agents[number]),
            Role::Gateway(number) => ("gateway", self.gateways[number][1]),
            Role::Processor(number) => ("processor", self.processors[number]),
        };
        self.runs.set(self.runs.get() + 1);
        let words: [OsString; 4] =
            [binary::logmesh()?.into(), command.into(), "--config".into(), self.file(role).into()];
        let environment = [(OsString::from("RUST_BACKTRACE"), OsString::from("1"))];
        // Beside the stage's own logs, so that a failed scenario shows them.
        let stage = self.directory.parent().context("a cluster stands on a stage")?;
        let log = stage.join(format!("{:03}-{}", self.runs.get(), role.name()));
        Ok(Service { process: Process::spawn(&words, &environment, &log)?, admin: Api::new(admin), role })
    }

    /// Starts a service and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it is not within [`SLACK`] times the promise, or ends.
    pub async fn start(&self, role: Role) -> Result<Service> {
        let mut service = self.spawn(role)?;
        service.ready().await?;
        Ok(service)
    }

    /// Starts all processors, gateways and agents, each ready before the next.
    ///
    /// # Errors
    ///
    /// When one is not ready in time.
    pub async fn start_all(&self) -> Result<Vec<Service>> {
        let mut services = Vec::new();
        for role in self.roles() {
            services.push(self.start(role).await?);
        }
        Ok(services)
    }

    /// All services, in the order in which they start.
    #[must_use]
    pub fn roles(&self) -> Vec<Role> {
        let processors = (0..self.processors.len()).map(Role::Processor);
        let gateways = (0..self.gateways.len()).map(Role::Gateway);
        processors.chain(gateways).chain((0..self.agents.len()).map(Role::Agent)).collect()
    }

    async fn certificates(&self) -> Result<()> {
        let pki = self.directory.join("pki");
        self.certs(&["init", "--mesh", "mesh", "--dir"], &[&pki]).await?;
        for role in self.roles() {
            let out = self.directory.join(role.name());
            match role {
                Role::Agent(_) => {
                    self.certs(&["issue", "agent", &role.name(), "--dir"], &[&pki, Path::new("--out"), &out]).await?;
                }
                Role::Gateway(_) => {
                    let words = ["issue", "gateway", &role.name(), "--ip", "127.0.0.1", "--dns", "localhost", "--dir"];
                    self.certs(&words, &[&pki, Path::new("--out"), &out]).await?;
                }
                Role::Processor(_) => {}
            }
        }
        Ok(())
    }

    async fn certs(&self, words: &[&str], paths: &[&Path]) -> Result<()> {
        let mut command: Vec<OsString> = vec![binary::logmesh()?.into(), "certs".into()];
        command.extend(words.iter().map(OsString::from));
        command.extend(paths.iter().map(OsString::from));
        let ended = Process::spawn(&command, &[], &self.directory.join("certs"))?.ended().await?;
        ensure!(ended.code() == Some(0), "{command:?} ended with {}: {}", ended.status, ended.stderr);
        Ok(())
    }

    fn write(&self, role: Role, text: &str) -> Result<()> {
        let file = self.file(role);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    fn tls(&self, role: Role) -> String {
        let directory = self.directory.join(role.name());
        let file = |name: &str| directory.join(name).display().to_string();
        format!("tls = {{ cert = {:?}, key = {:?}, ca = {:?} }}", file("cert.pem"), file("key.pem"), file("ca.pem"))
    }

    fn agent_toml(&self, number: usize, admin: SocketAddr, include: &Path) -> String {
        let role = Role::Agent(number);
        let gateways: Vec<String> = self.gateways.iter().map(|[listen, _]| listen.to_string()).collect();
        let data = self.directory.join(format!("{}-data", role.name()));
        format!(
            "[agent]\nname = \"{}\"\ndata_dir = {:?}\nadmin = \"{admin}\"\ngateways = {gateways:?}\n{}\n{}\n\
             [[agent.files]]\ninclude = [{:?}]\n",
            role.name(),
            data.display().to_string(),
            self.tls(role),
            self.layout.agent,
            include.display().to_string()
        )
    }

    fn gateway_toml(&self, number: usize) -> String {
        let [listen, admin] = self.gateways[number];
        let rules: Vec<String> = (0..self.agents.len())
            .map(|agent| {
                format!(
                    "[[gateway.policy]]\nidentity = \"spiffe://mesh/agent/{}\"\ntenant = \"{}\"\ntopics = [\"{}-logs\"]\n",
                    Role::Agent(agent).name(),
                    self.tenant_of(agent),
                    self.tenant
                )
            })
            .collect();
        format!(
            "[gateway]\nlisten = \"{listen}\"\nadmin = \"{admin}\"\n{}\n{}[bus]\n{}\n",
            self.tls(Role::Gateway(number)),
            rules.concat(),
            self.layout.bus
        )
    }

    fn processor_toml(&self, number: usize) -> String {
        format!(
            "[processor]\nadmin = \"{}\"\ngroup = \"{}\"\n[[processor.pipelines]]\ntopics = [\"{}-logs\"]\n\
             [bus]\n{}\n[index]\n{}\n",
            self.processors[number],
            self.group(),
            self.tenant,
            self.layout.bus,
            self.layout.index
        )
    }
}

impl Service {
    /// Waits until `/readyz` says 200. Returns the time since the start.
    ///
    /// # Errors
    ///
    /// When it does not within [`SLACK`] times the promise, or ends.
    pub async fn ready(&mut self) -> Result<Duration> {
        let what = format!("{} is ready", self.role.name());
        wait_until(&what, READY_WITHIN * SLACK, async || {
            self.process.require_alive()?;
            self.admin.ready().await
        })
        .await?;
        Ok(self.started().elapsed())
    }

    /// Its part in the cluster.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// A client of its admin address.
    #[must_use]
    pub fn admin(&self) -> Api {
        self.admin
    }

    /// As [`Process::kill`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn kill(self) -> Result<()> {
        self.process.kill().await
    }

    /// As [`Process::terminate`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn terminate(self) -> Result<Ended> {
        self.process.terminate().await
    }

    /// As [`Process::ended`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn ended(self) -> Result<Ended> {
        self.process.ended().await
    }
}

impl Deref for Service {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Role {
    /// Its name within the cluster: `gateway-1`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Role::Agent(number) => format!("agent-{number}"),
            Role::Gateway(number) => format!("gateway-{number}"),
            Role::Processor(number) => format!("processor-{number}"),
        }
    }
}

/// The sum over all labels of a counter or gauge that a service shows at `/metrics`; 0 where there is none yet.
///
/// # Errors
///
/// When the service does not answer.
pub async fn metric(service: &Service, name: &str) -> Result<u64> {
    let text = service.admin().fetch("/metrics").await?.text();
    let of_name = |line: &str| line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{'])).is_some();
    let values = text.lines().filter(|line| of_name(line)).filter_map(|line| line.rsplit(' ').next());
    Ok(values.filter_map(|value| value.parse::<f64>().ok()).sum::<f64>() as u64)
}
