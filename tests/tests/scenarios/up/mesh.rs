//! An agent in a process of its own, with a certificate that `logmesh certs` issued, against the gateway of an `up`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use logmesh_tests::binary;
use logmesh_tests::counts::either;
use logmesh_tests::process::Process;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::up::Setup;
use logmesh_tests::writer::{Pace, Stamp, Writer};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::watch;

/// For some thousand lines.
const FOUND_WITHIN: Duration = Duration::from_secs(120);

/// Where `up` keeps its mesh, below the data directory.
const MESH: &str = "pki";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_elsewhere_delivers_each_line_once_while_it_and_its_gateway_are_killed() {
    scenario(async |scene| {
        let mut setup = scene.up("none*.log");
        setup.ingest = free_address()?;
        let mut up = setup.start().await?;
        issue(scene, "edge-1").await?;
        let config = agent_config(scene, &setup.ingest)?;
        let mut agent = start_agent(scene, &config, 1)?;
        let pace = Pace { lines: either(9_000, 60_000), per_second: 1_500, rotate_every: 1_000 };
        let (progress, mut written) = watch::channel(0);
        let writer = tokio::spawn(Writer::create(&scene.logs(), "app", Stamp::Mixed)?.run(pace, progress));
        for round in 1..=4 {
            written.wait_for(|written| *written >= pace.lines / 5 * round).await?;
            if round % 2 == 0 {
                up.kill().await?;
                up = Setup { log_stem: scene.path(&format!("up-{round}")), ..setup.clone() }.start().await?;
            } else {
                agent.kill().await?;
                agent = start_agent(scene, &config, round + 1)?;
            }
        }
        let ledger = writer.await??.into_ledger();
        up.api()?.wait_for_count("", ledger.len(), FOUND_WITHIN).await?;
        let ended = agent.terminate().await?;
        ensure!(ended.code() == Some(0), "the agent ended with {}:\n{}", ended.status, ended.stderr);
        let found = up.api()?.export("").await?;
        ledger.balance_by_content(&found).require_exact()?;
        let stranger =
            found.iter().find(|document| document.agent_id.as_deref() != Some("spiffe://local/agent/edge-1"));
        ensure!(stranger.is_none(), "{stranger:?}");
        remembers_that_all_is_acknowledged(&config).await
    })
    .await;
}

/// What the agent's state says, read by its own command.
async fn remembers_that_all_is_acknowledged(config: &Path) -> Result<()> {
    let mut command = Command::new(binary::named("logmesh-agent")?);
    command.args(["state", "--json", "--config"]).arg(config).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await?;
    ensure!(output.status.success(), "logmesh-agent state: {output:?}");
    let state: Value = serde_json::from_slice(&output.stdout)?;
    let generations = state["generations"].as_array().context("generations")?;
    ensure!(state["trust"] == "whole" && !generations.is_empty(), "{state}");
    for generation in generations {
        let settled = generation["size"].is_null() || generation["acknowledged"] == generation["size"];
        ensure!(settled && generation["batches_unacknowledged"] == 0, "{generation}");
    }
    let in_place = generations.iter().filter(|generation| generation["size"].as_u64().is_some_and(|size| size > 0));
    ensure!(in_place.count() > 0, "no file is where it was last seen: {state}");
    Ok(())
}

/// A port that was free a moment ago: the gateway must come back where the agent looks for it.
fn free_address() -> Result<String> {
    Ok(format!("127.0.0.1:{}", logmesh_rig::free_ports(1)?[0]))
}

async fn issue(scene: &Scene, name: &str) -> Result<()> {
    let mut command = Command::new(binary::logmesh()?);
    command.args(["certs", "issue", "agent", name, "--dir"]).arg(scene.data().join(MESH));
    command.arg("--out").arg(scene.path("pki")).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await?;
    ensure!(output.status.success(), "logmesh certs issue: {output:?}");
    Ok(())
}

fn agent_config(scene: &Scene, gateway: &str) -> Result<std::path::PathBuf> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
    let pki = |name: &str| text(&scene.path("pki").join(name));
    let config = format!(
        "[agent]\nname = \"edge-1\"\ndata_dir = \"{}\"\nadmin = \"127.0.0.1:0\"\ngateways = [\"{gateway}\"]\n\
         tls = {{ cert = \"{}\", key = \"{}\", ca = \"{}\" }}\n\n[[agent.files]]\ninclude = [\"{}\"]\n",
        text(&scene.path("agent-data"))?,
        pki("cert.pem")?,
        pki("key.pem")?,
        pki("ca.pem")?,
        text(&scene.logs().join("*.log*"))?
    );
    scene.write("agent.toml", &config)
}

fn start_agent(scene: &Scene, config: &Path, run: u64) -> Result<Process> {
    let words = [binary::named("logmesh-agent")?.into(), OsString::from("--config"), config.into()];
    Process::spawn(&words, &[], &scene.path(&format!("agent-{run}")))
}
