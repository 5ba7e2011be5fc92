//! What makes an Elasticsearch.

use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};

use super::directory::{Command, Directory, readable};
use super::{ADMIN, ADMIN_HASH};
use crate::artefacts::{cached, run, unpack};
use crate::java::{Java, OLDEST};

pub(super) const SETTINGS: &str = include_str!("../../files/elasticsearch/elasticsearch.yml");
const PLUGIN: &str = include_str!("../../files/elasticsearch/RigPlugin.java");
const DESCRIPTOR: &str = include_str!("../../files/elasticsearch/plugin-descriptor.properties");

/// A release that the tests run on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Release {
    pub(super) version: &'static str,
    /// The oldest Java that it runs on.
    pub(super) java: u32,
    /// What its plugins are given to make their handlers from.
    handler_parameters: &'static str,
}

pub(super) const EIGHT: Release = Release {
    version: "8.19.21",
    java: OLDEST,
    handler_parameters: "Settings settings, NamedWriteableRegistry registry, RestController controller, \
                         ClusterSettings cluster, IndexScopedSettings index, SettingsFilter filter, \
                         IndexNameExpressionResolver resolver, Supplier<DiscoveryNodes> nodes, \
                         Predicate<NodeFeature> features",
};

pub(super) const NINE: Release = Release {
    version: "9.5.3",
    java: 21,
    handler_parameters: "RestHandlersServices services, Supplier<DiscoveryNodes> nodes, \
                         Predicate<NodeFeature> features",
};

/// Its directory, and what runs it there.
pub(super) fn prepare(release: Release, directory: &Directory) -> Result<Command> {
    let java = Java::find(release.java)?;
    let home = home(release)?;
    directory.write("users", &format!("{ADMIN}:{ADMIN_HASH}\n"))?;
    directory.write("users_roles", &format!("superuser:{ADMIN}\n"))?;
    directory.write("roles.yml", "")?;
    let environment = vec![
        ("ES_JAVA_HOME", java.home().into()),
        ("ES_PATH_CONF", directory.part("config").into()),
        ("ES_TMPDIR", directory.part("tmp").into()),
        ("HOME", directory.part("tmp").into()),
    ];
    Ok(Command { words: directory.command(&home, "bin/elasticsearch")?, environment })
}

fn home(release: Release) -> Result<PathBuf> {
    let version = release.version;
    let entry = cached(&format!("elasticsearch-{version}"), |directory| {
        unpack(&format!("org.elasticsearch.distribution.integ-test-zip:elasticsearch:{version}:zip"), directory)?;
        let home = directory.join("home");
        std::fs::rename(directory.join(format!("elasticsearch-{version}")), &home)?;
        build_plugin(release, &home)?;
        readable(directory)
    })
    .context("Elasticsearch's distribution")?;
    Ok(entry.join("home"))
}

fn build_plugin(release: Release, home: &Path) -> Result<()> {
    let java = Java::find(release.java)?;
    let plugin = home.join("plugins/rig");
    std::fs::create_dir_all(&plugin)?;
    std::fs::write(plugin.join("plugin-descriptor.properties"), DESCRIPTOR.replace("@VERSION@", release.version))?;
    let work = tempfile::tempdir()?;
    let source = work.path().join("RigPlugin.java");
    std::fs::write(&source, PLUGIN.replace("@PARAMETERS@", release.handler_parameters))?;
    let classes = work.path().join("classes");
    // Both are modules of a full Java, which is not to be told from a mere run time by its command.
    let mut jars = Vec::new();
    for entry in std::fs::read_dir(home.join("lib"))? {
        jars.push(entry?.path());
    }
    let mut compile = process::Command::new(java.command());
    compile.args(["-m", "jdk.compiler/com.sun.tools.javac.Main", "-nowarn", "-cp"]).arg(std::env::join_paths(jars)?);
    run(compile.arg("-d").arg(&classes).arg(source)).context("compiling its plugin (needs a full JDK)")?;
    let mut pack = process::Command::new(java.command());
    pack.args(["-m", "jdk.jartool/sun.tools.jar.Main", "--create", "--file"]).arg(plugin.join("rig.jar"));
    run(pack.arg("-C").arg(&classes).arg("."))
}
