//! A broker's classes as the Java machine has them after loading (a class data sharing archive): made once by a broker that
//! does what each does at its start, it halves the time of all further starts.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Result, ensure};

use super::broker::Broker;
use super::{Layout, READY_WITHIN, client, jars, properties};
use crate::artefacts::cached;
use crate::java::{Java, OLDEST};
use crate::ports;

const ARCHIVE: &str = "classes.jsa";

/// The machine's options that make use of the archive. Without one a broker merely starts more slowly, so that a failure
/// to make it is none of the tests.
pub(super) fn options() -> Vec<String> {
    static ARCHIVED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let archived = ARCHIVED.get_or_init(|| archive().ok());
    archived.iter().map(|archive| format!("-XX:SharedArchiveFile={}", archive.display())).collect()
}

/// One for each Java, which takes none but its own.
fn archive() -> Result<PathBuf> {
    let name = format!("kafka-{}-classes-{}", jars::VERSION, Java::find(OLDEST)?.version());
    Ok(cached(&name, make)?.join(ARCHIVE))
}

fn make(directory: &Path) -> Result<()> {
    let archive = directory.join(ARCHIVE);
    let ports = ports::free(2)?;
    let scratch = tempfile::tempdir()?;
    let properties = properties(ports[0], ports[1], &Layout::default(), &[])?;
    let jvm = vec![format!("-XX:ArchiveClassesAtExit={}", archive.display())];
    let broker = Broker::prepare(scratch.path().join("broker"), 1, &[], &properties, jvm)?;
    broker.spawn()?;
    broker.wait_ready(READY_WITHIN, || client::ready(&format!("127.0.0.1:{}", ports[0]), 1))?;
    broker.stop()?;
    ensure!(archive.is_file(), "the broker left no archive");
    Ok(())
}
