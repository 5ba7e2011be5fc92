//! The ten real logs, from file to search.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use logmesh_tests::api::{Api, Found};
use logmesh_tests::samples;
use logmesh_tests::scene::{Scene, scenario};

/// For 26,494 lines: promised is seconds.
const ALL_FOUND_WITHIN: Duration = Duration::from_secs(60);

/// For 68 event days at once; the budget is 768 MiB.
const PEAK_BYTES: u64 = 384 << 20;

#[tokio::test]
async fn every_line_of_ten_real_logs_is_found_exactly_once_and_a_restart_adds_none() {
    scenario(async |scene| {
        let ledger = samples::copy_into(&scene.logs())?;
        let mut up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("", ledger.len(), ALL_FOUND_WITHIN).await?;
        let found = up.api()?.export("").await?;
        ledger.balance_by_place(&found).require_exact()?;
        let peak = up.peak_memory()?;
        println!("peak memory: {} MiB", peak >> 20);
        ensure!(peak < PEAK_BYTES, "68 event days took {peak} bytes of memory");
        every_document_says_what_its_line_says(&found)?;
        days_are_those_of_the_events(&found)?;

        let ended = up.terminate().await?;
        ensure!(ended.code() == Some(0), "everything was delivered, and still: {}\n{}", ended.status, ended.stderr);
        up = scene.up("*.log").start().await?;
        nothing_more_arrives(&up.api()?, scene, ledger.len()).await?;
        ledger.balance_by_place(&up.api()?.export("NOT appendedafterrestart").await?).require_exact()
    })
    .await;
}

/// A line appended after the restart is behind everything that the restart could have sent again: once it is found, a
/// second copy of anything would be there too.
async fn nothing_more_arrives(api: &Api, scene: &Scene, before: u64) -> Result<()> {
    let mut file = OpenOptions::new().append(true).open(scene.logs().join("spark.log"))?;
    file.write_all(b"17/06/09 20:11:11 INFO after.Restart: appendedafterrestart\n")?;
    api.wait_for_count("appendedafterrestart", 1, ALL_FOUND_WITHIN).await?;
    let after = api.count("").await?;
    ensure!(after == before + 1, "{before} documents before the restart, {after} after it and one more line");
    Ok(())
}

fn every_document_says_what_its_line_says(found: &[Found]) -> Result<()> {
    let now = Timestamp::now();
    let mut levels: BTreeMap<(String, Option<String>), u32> = BTreeMap::new();
    for document in found {
        let name = document.path.file_name().and_then(|name| name.to_str()).context("a path without a name")?;
        let line = std::str::from_utf8(&document.line)?;
        let expected = samples::expected(name, line, now).with_context(|| format!("{document}"))?;
        ensure!(document.dataset.as_deref() == Some(expected.dataset), "dataset {:?}: {document}", document.dataset);
        if expected.level.is_some() {
            ensure!(document.level.as_deref() == expected.level, "level {:?}: {document}", document.level);
        }
        let time: Timestamp = document.timestamp.parse()?;
        ensure!(Some(time) == expected.time, "time {time}, not {:?}: {document}", expected.time);
        *levels.entry((name.to_owned(), document.level.clone())).or_default() += 1;
    }
    println!("levels found: {levels:?}");
    Ok(())
}

fn days_are_those_of_the_events(found: &[Found]) -> Result<()> {
    for document in found {
        let day = document.timestamp.get(..10).context("a short timestamp")?.replace('-', ".");
        ensure!(document.index == format!("logmesh-default-{day}"), "{} but {}", document.timestamp, document.index);
    }
    Ok(())
}
