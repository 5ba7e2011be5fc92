//! Files that live: appended to, renamed away, truncated, new ones and new directories; found soon, each line once.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use logmesh_tests::api::Api;
use logmesh_tests::counts::either;
use logmesh_tests::ledger::Ledger;
use logmesh_tests::scene::scenario;
use logmesh_tests::wait::SLACK;
use logmesh_tests::writer::{Pace, Stamp, Writer};
use tokio::sync::watch;

/// Promised at the median, from the write to the first search that finds the line.
const SEARCHABLE_WITHIN: Duration = Duration::from_secs(1);

/// For a few lines while others flow.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn lines_of_living_files_are_found_once_and_within_a_second_at_the_median() {
    scenario(async |scene| {
        let up = scene.up("**/*.log*").start().await?;
        let api = up.api()?;
        let logs = scene.logs();
        let (first, second, truncated, fresh, (mut delays, mut ledger)) = futures_util::try_join!(
            renamed_every_second(&logs, "first"),
            renamed_every_second(&logs, "second"),
            truncated_when_read(&logs, api),
            in_new_directories(&logs, api),
            write_and_look(&logs, api),
        )?;
        [first, second, truncated, fresh].into_iter().for_each(|part| ledger.absorb(part));
        api.wait_for_count("", ledger.len(), FOUND_WITHIN).await?;
        ledger.balance_by_content(&api.export("").await?).require_exact()?;
        delays.sort();
        let (median, worst) = (delays[delays.len() / 2], delays[delays.len() - 1]);
        println!("write to searchable: median {median:?}, worst {worst:?} of {}", delays.len());
        ensure!(median <= SEARCHABLE_WITHIN * SLACK, "median {median:?}, promised are {SEARCHABLE_WITHIN:?}");
        Ok(())
    })
    .await;
}

async fn renamed_every_second(logs: &Path, name: &'static str) -> Result<Ledger> {
    let pace = Pace { lines: either(10_000, 60_000), per_second: 500, rotate_every: 500 };
    let writer = Writer::create(logs, name, Stamp::Mixed)?;
    Ok(writer.run(pace, watch::channel(0).0).await?.into_ledger())
}

/// What is truncated before it was read is lost to any reader: so each time all of it is found first.
async fn truncated_when_read(logs: &Path, api: Api) -> Result<Ledger> {
    let mut writer = Writer::create(logs, "truncated", Stamp::Never)?;
    for _ in 0..either(5, 20) {
        writer.write(200)?;
        api.wait_for_count("truncated", writer.written(), FOUND_WITHIN).await?;
        writer.truncate()?;
    }
    writer.write(10)?;
    Ok(writer.into_ledger())
}

async fn in_new_directories(logs: &Path, api: Api) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    for number in 0..either(10, 50) {
        let directory = logs.join(format!("new/{number}/deep"));
        std::fs::create_dir_all(&directory)?;
        let name = format!("fresh{number}");
        let mut writer = Writer::create(&directory, &name, Stamp::Always)?;
        writer.write(20)?;
        api.wait_for_count(&name, 20, FOUND_WITHIN).await?;
        ledger.absorb(writer.into_ledger());
    }
    Ok(ledger)
}

async fn write_and_look(logs: &Path, api: Api) -> Result<(Vec<Duration>, Ledger)> {
    let mut writer = Writer::create(logs, "watched", Stamp::Always)?;
    let mut delays = Vec::new();
    for number in 0..either(30, 100) {
        let begun = Instant::now();
        writer.write(1)?;
        api.wait_for_count(&format!("watched AND n{number:09}"), 1, FOUND_WITHIN).await?;
        delays.push(begun.elapsed());
    }
    Ok((delays, writer.into_ledger()))
}
