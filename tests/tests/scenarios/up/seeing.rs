//! Seeing into it: metrics that add up, liveness, readiness and status; and a collector that hangs and changes nothing.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use logmesh_tests::api::Api;
use logmesh_tests::process::SHUTDOWN_GRACE;
use logmesh_tests::scene::scenario;
use logmesh_tests::wait::{Look, wait_until};
use logmesh_tests::writer::{Stamp, Writer};

/// For some thousand lines.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn metrics_count_each_record_once_at_each_hop_and_by_level() {
    scenario(async |scene| {
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
        writer.write(2_000)?;
        let up = scene.up("*.log").start().await?;
        let api = up.api()?;
        api.wait_for_count("", 2_000, FOUND_WITHIN).await?;
        let name = "logmesh_processor_records_by_level_total";
        wait_until("the levels add up", FOUND_WITHIN, async || {
            let metrics = metrics(api).await?;
            let (info, none) = (sum(&metrics, name, "level=\"info\""), sum(&metrics, name, "level=\"none\""));
            Ok(if (info, none) == (1_000.0, 1_000.0) {
                Look::Holds(())
            } else {
                Look::NotYet(format!("{info} with level info, {none} without one"))
            })
        })
        .await?;
        let metrics = metrics(api).await?;
        for name in ["logmesh_agent_records", "logmesh_gateway_records", "logmesh_processor_records_received"] {
            let total = sum(&metrics, name, "");
            ensure!(total == 2_000.0, "{name}… is {total} in:\n{}", lines_of(&metrics, name));
        }
        ensure!(!metrics.contains("app.log"), "a label is made of a file's name");
        ensure!(sum(&metrics, "logmesh_process_resident_memory_bytes", "") > 1e6, "no process metrics");
        Ok(())
    })
    .await;
}

async fn metrics(api: Api) -> Result<String> {
    let answer = api.fetch("/metrics").await?;
    ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
    Ok(answer.text())
}

fn samples<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    metrics.lines().filter(move |line| line.starts_with(name))
}

fn lines_of(metrics: &str, name: &str) -> String {
    samples(metrics, name).collect::<Vec<_>>().join("\n")
}

/// Sum of the samples whose name begins like this and whose labels hold that.
fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let values = samples(metrics, name).filter(|line| line.contains(label));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn the_admin_address_says_that_it_lives_is_ready_and_what_it_does() {
    scenario(async |scene| {
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
        writer.write(100)?;
        let up = scene.up("*.log").start().await?;
        let api = up.api()?;
        api.wait_for_count("", 100, FOUND_WITHIN).await?;
        ensure!(api.fetch("/livez").await?.status == StatusCode::OK, "not alive");
        let ready = api.json("/readyz").await?;
        ensure!(ready.is_object(), "{ready}");
        let status = api.json("/status").await?;
        let parts = status.as_object().context("a status that is no object")?;
        for part in ["agent", "gateway", "processor"] {
            ensure!(parts.keys().any(|key| key.contains(part)), "no {part} in {status}");
        }
        ensure!(api.fetch("/nowhere").await?.status == StatusCode::NOT_FOUND, "an unknown page is found");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_collector_that_hangs_changes_nothing() {
    scenario(async |scene| {
        // Connections are taken by the kernel and never answered.
        let collector = TcpListener::bind("127.0.0.1:0")?;
        let text = format!("[telemetry]\notlp = \"http://{}\"\notlp_interval = \"1s\"\n", collector.local_addr()?);
        let config = scene.write("logmesh.toml", &text)?;
        let up = scene.up("*.log").config(&config).start().await?;
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
        writer.write(5_000)?;
        up.api()?.wait_for_count("", 5_000, FOUND_WITHIN).await?;
        let ended = up.terminate().await?;
        ensure!(ended.code() == Some(0), "{}\n{}", ended.status, ended.stderr);
        ensure!(ended.took < SHUTDOWN_GRACE, "took {:?}", ended.took);
        Ok(())
    })
    .await;
}
