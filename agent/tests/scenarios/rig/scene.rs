//! A scene: a directory, a mesh, a gateway, and how the agent is told to tail.

use std::{
    cell::Cell,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Line, Process, Status, Verdict, judge, poll};
use crate::stub::{Mesh, StubGateway};

/// Some times what anything here takes.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Scene {
    directory: tempfile::TempDir,
    mesh: Mesh,
    pub(crate) gateway: StubGateway,
    /// Lines under `[agent]`.
    pub(crate) settings: String,
    /// Whole `[[agent.files]]` sections.
    pub(crate) files: String,
    /// A command that runs the rest of its arguments.
    pub(crate) wrapper: Vec<OsString>,
    starts: Cell<u32>,
}

impl Scene {
    /// A scene whose agent tails these names in the directory of logs.
    pub(crate) async fn new(names: &[&str]) -> Self {
        Self::within(tempfile::tempdir().unwrap(), names).await
    }

    /// The same in a given directory.
    pub(crate) async fn within(directory: tempfile::TempDir, names: &[&str]) -> Self {
        let mesh = Mesh::new();
        let gateway = StubGateway::start(&mesh).await;
        let logs = directory.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let include: Vec<String> = names.iter().map(|name| format!("{:?}", logs.join(name))).collect();
        Self {
            files: format!("[[agent.files]]\ninclude = [{}]\n", include.join(", ")),
            settings: String::new(),
            wrapper: Vec::new(),
            directory,
            mesh,
            gateway,
            starts: Cell::new(0),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes the configuration and starts the agent.
    pub(crate) fn start(&self) -> Process {
        self.starts.set(self.starts.get() + 1);
        let tls = self.mesh.agent_files();
        let text = format!(
            "[agent]\ndata_dir = {:?}\nadmin = \"127.0.0.1:0\"\ngateways = [{:?}]\n\
             tls = {{ cert = {:?}, key = {:?}, ca = {:?} }}\n{}\n{}",
            self.data(),
            self.gateway.endpoint(),
            tls.cert,
            tls.key,
            tls.ca,
            self.settings,
            self.files
        );
        let config = self.path("agent.toml");
        fs::write(&config, text).unwrap();
        Process::start(&self.wrapper, &config, self.path(&format!("agent-{}.log", self.starts.get())))
    }

    /// What the agent says of itself.
    pub(crate) fn status(agent: &Process) -> Status {
        Status(serde_json::from_str(&agent.ask("/status")).unwrap())
    }

    /// Waits until the agent says something of itself.
    pub(crate) fn wait_for(agent: &Process, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let mut status = None;
        let told = poll(WITHIN, || {
            let now = status.insert(Self::status(agent));
            holds(now)
        });
        let status = status.unwrap();
        assert!(told, "waited in vain: {what}\n{:#}\n{}", status.0, agent.said());
        status
    }

    /// Waits until so many records are there, as long as they keep coming; whether they are the right ones is for the
    /// oracle to say.
    pub(crate) fn wait_for_count(&self, count: usize) {
        let mut seen = self.gateway.count();
        while seen < count {
            if !poll(WITHIN / 2, || self.gateway.count() > seen) {
                return;
            }
            seen = self.gateway.count();
        }
    }

    /// Waits until the agent is connected and has found every file that is in the directory of logs itself.
    pub(crate) fn wait_until_ready(&self, agent: &Process) {
        let entries = fs::read_dir(self.logs()).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file()).count().max(1);
        Self::wait_for(agent, "all files are found", |status| status.found() >= files);
        let ready = || agent.ask("/readyz").contains("\"ready\":true");
        assert!(poll(WITHIN, ready), "it is not ready: {}\n{}", agent.ask("/readyz"), agent.said());
    }

    /// What the oracle says now.
    pub(crate) fn judge<'a>(&self, lines: impl IntoIterator<Item = &'a Line>) -> Verdict {
        judge(lines, &self.gateway.arrived())
    }

    /// The end of a scenario in which nothing may be missing: all arrives, a clean stop, and another run that has
    /// nothing left to send.
    pub(crate) fn finish(&self, agent: Process, lines: &[Line]) {
        self.wait_for_count(lines.len());
        self.judge(lines).require_exact(&agent.said());
        Self::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
        let (code, said) = agent.terminate();
        assert_eq!(code, Some(0), "{said}");
        let agent = self.start();
        Self::wait_for(&agent, "the next run is at rest", Status::is_at_rest);
        let status = Self::status(&agent);
        self.judge(lines).require_exact(&agent.said());
        assert_eq!(
            (status.tally("read_records"), status.lost_in_all()),
            (0, (0, 0)),
            "of the next run\n{:#}",
            status.0
        );
        let (code, said) = agent.terminate();
        assert_eq!(code, Some(0), "{said}");
        self.judge(lines).require_exact(&said);
    }

    /// A file under the directory of logs.
    pub(crate) fn log(&self, name: impl AsRef<Path>) -> PathBuf {
        self.logs().join(name)
    }
}
