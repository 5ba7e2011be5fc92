//! What makes an OpenSearch.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::ADMIN_HASH;
use super::directory::{Command, Directory, readable};
use crate::artefacts::{cached, unpack};
use crate::java::{Java, OLDEST};

pub(super) const SETTINGS: &str = include_str!("../../files/opensearch/opensearch.yml");
const USERS: &str = include_str!("../../files/opensearch/internal_users.yml");

/// A release that the tests run on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Release {
    pub(super) version: &'static str,
    /// The oldest Java that it runs on.
    pub(super) java: u32,
    /// The plugin without which it has no TLS and no users; Maven does not have it for every release.
    pub(super) security: Option<&'static str>,
    /// What it wants of its Java machine, relative to its home.
    jvm: &'static str,
}

pub(super) const TWO: Release =
    Release { version: "2.19.4", java: OLDEST, security: Some("2.19.4.0"), jvm: "18-:-Djava.security.manager=allow\n" };
pub(super) const THREE: Release = Release {
    version: "3.6.0",
    java: 21,
    security: None,
    jvm: "-javaagent:agent/opensearch-agent.jar\n--add-opens=java.base/java.nio=org.apache.arrow.memory.core,ALL-UNNAMED\n",
};

/// Its directory, and what runs it there.
pub(super) fn prepare(release: Release, directory: &Directory) -> Result<Command> {
    let java = Java::find(release.java)?;
    let home = home(release)?;
    if release.security.is_some() {
        directory.copy(&home.join("plugins/opensearch-security/config"), "opensearch-security")?;
        directory.write("opensearch-security/internal_users.yml", &USERS.replace("@HASH@", ADMIN_HASH))?;
    }
    directory.write("jvm.options.d/release.options", release.jvm)?;
    let environment = vec![
        ("OPENSEARCH_JAVA_HOME", java.home().into()),
        ("OPENSEARCH_PATH_CONF", directory.part("config").into()),
        ("OPENSEARCH_TMPDIR", directory.part("tmp").into()),
        ("HOME", directory.part("tmp").into()),
    ];
    Ok(Command { words: directory.command(&home, "bin/opensearch")?, environment })
}

fn home(release: Release) -> Result<PathBuf> {
    let version = release.version;
    let entry = cached(&format!("opensearch-{version}"), |directory| {
        unpack(&format!("org.opensearch.distribution.integ-test-zip:opensearch:{version}:zip"), directory)?;
        let home = directory.join("home");
        std::fs::rename(directory.join(format!("opensearch-{version}")), &home)?;
        if let Some(security) = release.security {
            let security = format!("org.opensearch.plugin:opensearch-security:{security}:zip");
            unpack(&security, &home.join("plugins/opensearch-security"))?;
        }
        readable(directory)
    })
    .context("OpenSearch's distribution")?;
    Ok(entry.join("home"))
}
