//! Kafka's jars, its formatted directories, and the command that runs it.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::artefacts::{cached, copy_dependencies, run};
use crate::java::{Java, OLDEST};

pub(super) const VERSION: &str = "4.3.1";
const POM: &str = include_str!("../../files/kafka/pom.xml");
const LOG4J: &str = include_str!("../../files/kafka/log4j2.properties");
/// Any UUID as 22 url-safe characters that do not begin with `-`.
const CLUSTER_ID: &str = "bG9nbWVzaC1yaWctMDAwMA";
/// A quick start and little memory before all.
const JVM: [&str; 4] = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

/// The directory with the jars, fetched if need be.
fn home() -> Result<PathBuf> {
    cached(&format!("kafka-{VERSION}"), |directory| {
        std::fs::write(directory.join("pom.xml"), POM.replace("@VERSION@", VERSION))?;
        std::fs::write(directory.join("log4j2.properties"), LOG4J)?;
        copy_dependencies(directory)
    })
    .context("Kafka's jars")
}

/// The words that run a broker with the given properties.
pub(super) fn broker(properties: &Path, jvm: &[String]) -> Result<Vec<OsString>> {
    let home = home()?;
    let mut logging = OsString::from("-Dlog4j2.configurationFile=");
    logging.push(home.join("log4j2.properties"));
    let mut words = vec![Java::find(OLDEST)?.command().into()];
    words.extend(JVM.map(OsString::from));
    words.extend(jvm.iter().map(OsString::from));
    words.extend([logging, "-cp".into(), home.join("libs/*").into(), "kafka.Kafka".into(), properties.into()]);
    Ok(words)
}

/// Fills `data` with what Kafka's storage tool writes for such a node and such users (as the tool takes them), which is
/// the same every time and therefore kept.
pub(super) fn format(data: &Path, node: usize, scram: &[String]) -> Result<()> {
    let home = home()?;
    let mut users = DefaultHasher::new();
    scram.hash(&mut users);
    let formatted = cached(&format!("kafka-{VERSION}-formatted-{node}-{:016x}", users.finish()), |directory| {
        let properties = directory.join("format.properties");
        let data = directory.join("data");
        let settings = format!(
            "process.roles=broker,controller\nnode.id={node}\ncontroller.quorum.voters={node}@127.0.0.1:1\n\
             listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\ncontroller.listener.names=CONTROLLER\n\
             log.dirs={}\n",
            data.display()
        );
        std::fs::write(&properties, settings)?;
        let mut command = Command::new(Java::find(OLDEST)?.command());
        command.args(JVM).arg("-cp").arg(home.join("libs/*"));
        command.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&properties);
        command.args(scram.iter().flat_map(|user| ["--add-scram", user]));
        run(&mut command)
    })
    .context("Kafka's storage tool")?;
    std::fs::create_dir_all(data)?;
    for file in std::fs::read_dir(formatted.join("data"))? {
        let file = file?;
        std::fs::copy(file.path(), data.join(file.file_name()))?;
    }
    Ok(())
}
