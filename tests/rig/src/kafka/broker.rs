//! One broker process with its directory, which it keeps from start to start.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::jars;
use crate::server::Server;

const BASE: &str = include_str!("../../files/kafka/broker.properties");
/// Longest time that a stop by SIGTERM may take; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Broker {
    directory: PathBuf,
    /// Of the machine, beside the usual ones.
    jvm: Vec<String>,
    process: Mutex<Option<Server>>,
}

impl Broker {
    /// Writes the properties of a broker (added to what all have) and formats its directory; nothing is started.
    pub(super) fn prepare(
        directory: PathBuf,
        node: usize,
        users: &[String],
        properties: &str,
        jvm: Vec<String>,
    ) -> Result<Broker> {
        let data = directory.join("data");
        std::fs::create_dir_all(&directory)?;
        jars::format(&data, node, users)?;
        let properties = format!("{BASE}node.id={node}\nlog.dirs={}\n{properties}", data.display());
        std::fs::write(directory.join("server.properties"), properties)?;
        Ok(Broker { directory, jvm, process: Mutex::new(None) })
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// Starts the process and does not wait for more.
    pub(super) fn spawn(&self) -> Result<()> {
        let mut process = self.process();
        ensure!(process.is_none(), "the broker runs already");
        let words: Vec<OsString> = jars::broker(&self.directory.join("server.properties"), &self.jvm)?;
        *process = Some(Server::spawn(&words, &[], &self.log())?);
        Ok(())
    }

    pub(super) fn wait_ready(&self, within: Duration, ready: impl FnMut() -> Result<()>) -> Result<()> {
        let mut process = self.process();
        process.as_mut().context("the broker was not started")?.wait_ready(within, ready).context("a Kafka broker")
    }

    pub(super) fn pid(&self) -> Result<i32> {
        Ok(self.process().as_ref().context("the broker does not run")?.pid())
    }

    pub(super) fn kill(&self) -> Result<()> {
        self.take()?.kill()
    }

    pub(super) fn stop(&self) -> Result<()> {
        self.take()?.terminate(STOP_WITHIN)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        self.process().as_ref().context("the broker does not run")?.signal(signal)
    }

    fn take(&self) -> Result<Server> {
        self.process().take().context("the broker does not run")
    }

    fn process(&self) -> MutexGuard<'_, Option<Server>> {
        // A panic elsewhere does not change what runs.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
