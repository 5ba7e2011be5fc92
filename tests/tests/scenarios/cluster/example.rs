//! The example of a cluster is true: every line of its commands runs, its units and its compose file hold.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use logmesh_rig::{Elasticsearch, Kafka};
use logmesh_tests::binary;
use logmesh_tests::process::Process;
use logmesh_tests::scene::scenario;
use tokio::task::block_in_place;

/// For all commands of the page together.
const ALL_DONE_WITHIN: Duration = Duration::from_secs(180);

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cluster")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_page_runs_and_the_search_finds_the_line() {
    scenario(async |scene| {
        // A broker of its own: the example's topics bear the names that everybody would choose.
        let (kafka, server) = block_in_place(|| anyhow::Ok((Kafka::start(&[])?, Elasticsearch::start(&[])?)))?;
        let stage = scene.path("example");
        std::fs::create_dir(&stage)?;
        let ports = free_ports()?;
        for name in ["agent.toml", "gateway.toml", "processor.toml"] {
            std::fs::write(stage.join(name), moved(&std::fs::read_to_string(example().join(name))?, &ports))?;
        }
        std::fs::copy(server.ca(), stage.join("index-ca.pem"))?;
        let admin = server.admin();
        let own = BTreeMap::from([
            ("LOGMESH_BUS_BROKERS", kafka.bootstrap()),
            ("LOGMESH_INDEX_URLS", server.url()),
            ("LOGMESH_INDEX_USERNAME", admin.user),
            ("INDEX_PASSWORD", admin.password),
        ]);
        let commands = moved(&commands(&own)?, &ports);
        let script = scene.write("example.sh", &script(&commands, &binary::logmesh()?))?;
        let words: [OsString; 2] = ["bash".into(), script.into()];
        let process = Process::spawn(&words, &[], &scene.path("example"))?;
        let since = process.started();
        let ended = process.ended_within(since, ALL_DONE_WITHIN).await?;
        let said = std::fs::read_to_string(scene.path("example.stdout"))?;
        ensure!(ended.code() == Some(0), "{}\n{said}\n{}", ended.status, ended.stderr);
        ensure!(said.contains("GET /cart HTTP/1.1") && said.contains("no dead letters"), "{said}");
        Ok(())
    })
    .await;
}

/// A free port for each fixed one that an example may have.
fn free_ports() -> Result<Vec<(&'static str, String)>> {
    let fixed = ["4417", "4418", "4419", "4420", "4427", "4429"];
    let free = logmesh_rig::free_ports(fixed.len())?;
    Ok(fixed.into_iter().zip(free).map(|(fixed, free)| (fixed, free.to_string())).collect())
}

/// The text with free ports for its fixed ones.
fn moved(text: &str, ports: &[(&str, String)]) -> String {
    ports.iter().fold(text.to_owned(), |text, (fixed, free)| text.replace(&format!(":{fixed}"), &format!(":{free}")))
}

/// All commands of the page, with other values for what it says to set.
fn commands(own: &BTreeMap<&str, String>) -> Result<String> {
    let page = std::fs::read_to_string(example().join("README.md"))?;
    let mut commands = String::new();
    for block in page.split("```sh\n").skip(1) {
        let block = block.split_once("```").context("a block that ends")?.0;
        for line in block.lines() {
            let name = line.strip_prefix("export ").and_then(|setting| setting.split_once('=')).map(|(name, _)| name);
            match name.and_then(|name| Some((name, own.get(name)?))) {
                Some((name, value)) => commands += &format!("export {name}='{value}'\n"),
                None => commands += &format!("{line}\n"),
            }
        }
    }
    ensure!(own.keys().all(|name| commands.contains(&format!("export {name}='"))), "the page sets all of {own:?}");
    Ok(commands)
}

/// Runs in the copy of the example's directory; whatever was started ends with the script, in order, and must do so well.
/// The search is asked again until it finds something, as a reader would.
fn script(commands: &str, logmesh: &Path) -> String {
    let directory = logmesh.parent().map(|parent| parent.display().to_string()).unwrap_or_default();
    let (commands, search) = commands.split_once("curl -s --cacert").unwrap_or((commands, ""));
    let (search, rest) = search.split_once('\n').unwrap_or((search, ""));
    format!(
        "set -eu\ncd \"$(dirname \"$0\")/example\"\nexport PATH=\"{directory}:$PATH\"\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n\
         {commands}\nuntil curl -s --cacert{search} | tee found | grep -q cart; do :; done\ncat found\n{rest}\n"
    )
}

#[test]
fn the_units_hold() {
    let scratch = tempfile::tempdir().expect("a directory");
    let binaries = binary::logmesh().expect("built");
    for service in ["agent", "gateway", "processor"] {
        let name = format!("logmesh-{service}.service");
        let unit = std::fs::read_to_string(example().join("systemd").join(&name)).expect("the unit is there");
        // Only the path of the program is not this machine's.
        let unit = unit.replace(&format!("/usr/bin/logmesh-{service}"), &binaries.display().to_string());
        let path = scratch.path().join(&name);
        std::fs::write(&path, unit).expect("written");
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
        let output = output.expect("systemd-analyze runs: `make setup` installs it");
        let said = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains(&name)).collect();
        assert!(output.status.success() && ours.is_empty(), "{said}");
    }
}

#[test]
fn the_compose_file_names_services_that_exist_with_the_files_beside_it() {
    let text = std::fs::read_to_string(example().join("compose.yaml")).expect("the file is there");
    let compose: serde_json::Value = serde_yaml_ng::from_str(&text).expect("compose.yaml is YAML");
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        assert!(service["image"].is_string(), "{name} has no image");
        for dependency in service["depends_on"].as_array().into_iter().flatten() {
            assert!(services.contains_key(dependency.as_str().expect("a name")), "{name} depends on {dependency}");
        }
        for word in service["command"].as_array().into_iter().flatten().filter_map(|word| word.as_str()) {
            let file = word.strip_prefix("/etc/logmesh/");
            assert!(file.is_none_or(|file| example().join(file).is_file()), "{name} names {word}");
        }
        let volumes = service["volumes"].as_array().into_iter().flatten().filter_map(|volume| volume.as_str());
        for (volume, _) in volumes.filter_map(|volume| volume.split_once(':')) {
            let known = volume.starts_with(['.', '/']) || compose["volumes"].get(volume).is_some();
            assert!(known, "{name} mounts {volume}, which is declared nowhere");
        }
    }
    assert!(text.contains("NOT RUN"), "the file says that nobody runs it");
}
