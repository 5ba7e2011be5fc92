//! Records that are more than a line, or not written as one: from the file to the search.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use logmesh_tests::scene::{Scene, scenario};
use serde_json::Value;

/// For some lines.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

const TRACE: &str = "2026-11-23 09:00:01 ERROR payment failed\n\
                     java.lang.IllegalStateException: no connection\n\
                     \tat com.example.Pool.take(Pool.java:42)\n\
                     \tat com.example.Pay.run(Pay.java:7)\n\
                     Caused by: java.net.ConnectException: refused\n\
                     \t... 2 more\n";

#[tokio::test]
async fn joined_lines_container_pieces_and_wide_letters_are_found_as_what_was_meant() {
    scenario(async |scene| {
        write_logs(scene)?;
        let config = configure(scene)?;
        let mut setup = scene.up("none*.log");
        setup.arguments = vec!["--config".into(), config.into()];
        let up = setup.start().await?;
        let api = up.api()?;
        api.wait_for_count("", 6, FOUND_WITHIN).await?;

        let trace = only(api.search("payment", "").await?.hits)?;
        let message = trace["message"].as_str().context("a message")?;
        ensure!(message.ends_with("\t... 2 more") && message.lines().count() == 6, "{trace}");
        ensure!(trace["log"]["offset"] == 0, "{trace}");
        let next = only(api.search("recovered", "").await?.hits)?;
        ensure!(next["log"]["offset"] == TRACE.len(), "an offset is a place in the file: {next}");

        let pod = only(api.search("together", "").await?.hits)?;
        ensure!(pod["message"] == "what belongs together", "{pod}");
        ensure!(pod["@timestamp"].as_str().is_some_and(|time| time.starts_with("2026-11-23T09:00:00")), "{pod}");
        let other = only(api.search("aside", "").await?.hits)?;
        ensure!(other["message"] == "said aside", "the streams of a container are apart: {other}");

        let wide = only(api.search("message:Grüße", "").await?.hits)?;
        ensure!(wide["message"] == "Grüße aus Köln", "{wide}");
        ensure!(wide["log"]["offset"] == 2, "behind the byte order mark: {wide}");
        Ok(())
    })
    .await;
}

fn write_logs(scene: &Scene) -> Result<()> {
    let trace = format!("{TRACE}2026-11-23 09:00:02 INFO recovered\n2026-11-23 09:00:03 INFO and on\n");
    scene.write("logs/app.java.log", &trace)?;
    scene.write(
        "logs/pod.cri.log",
        "2026-11-23T09:00:00.1Z stdout P what belongs \n2026-11-23T09:00:00.2Z stdout F together\n\
         2026-11-23T09:00:00.3Z stderr F said aside\n",
    )?;
    let wide: Vec<u8> = "\u{feff}Grüße aus Köln\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    Ok(std::fs::write(scene.logs().join("wide.txt"), wide)?)
}

fn configure(scene: &Scene) -> Result<std::path::PathBuf> {
    let groups = [
        ("*.java.log", "multiline = \"java\"\nmultiline_timeout = \"100ms\""),
        ("*.cri.log", "format = \"cri\""),
        ("*.txt", "encoding = \"utf-16\""),
    ];
    let group = |(pattern, rest): (&str, &str)| {
        let include = scene.logs().join(pattern);
        format!("[[agent.files]]\ninclude = [{include:?}]\n{rest}\n")
    };
    scene.write("logmesh.toml", &groups.map(group).concat())
}

fn only(mut hits: Vec<Value>) -> Result<Value> {
    match (hits.pop(), hits.is_empty()) {
        (Some(only), true) => Ok(only),
        (last, _) => anyhow::bail!("one document expected, found {last:?} and {hits:?}"),
    }
}
