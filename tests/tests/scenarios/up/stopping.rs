//! Stopping: in order within the grace, with the status that says whether anything was left.

use std::time::Duration;

use anyhow::ensure;
use logmesh_tests::faults::IndexFault;
use logmesh_tests::process::SHUTDOWN_GRACE;
use logmesh_tests::scene::scenario;
use logmesh_tests::wait::{Look, wait_until};
use logmesh_tests::writer::{Pace, Stamp, Writer};
use rustix::process::Signal;
use tokio::sync::watch;

/// For some thousand lines.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

/// Over the grace by this much is measuring, not misbehaviour.
const TOLERANCE: Duration = Duration::from_secs(5);

/// More than the bus takes in the scenario of a held index.
const LINES: u64 = 200_000;

/// Everything read was acknowledged.
const CLEAN: i32 = 0;

/// Data was read and not acknowledged.
const UNACKNOWLEDGED: i32 = 3;

#[tokio::test]
async fn an_idle_pipeline_stops_at_once_with_status_zero() {
    scenario(async |scene| {
        for signal in [Signal::TERM, Signal::INT] {
            let up = scene.up("*.log").start().await?;
            up.signal(signal)?;
            let ended = up.ended().await?;
            ensure!(ended.code() == Some(CLEAN), "{signal:?}: {}\n{}", ended.status, ended.stderr);
            ensure!(ended.took < SHUTDOWN_GRACE, "{signal:?}: took {:?}", ended.took);
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_pipeline_stops_within_its_grace_and_goes_on_where_it_stopped() {
    scenario(async |scene| {
        let pace = Pace { lines: 12_000, per_second: 3_000, rotate_every: 1_000 };
        let (progress, mut written) = watch::channel(0);
        let writer = tokio::spawn(Writer::create(&scene.logs(), "app", Stamp::Mixed)?.run(pace, progress));
        for at in [3_000, 6_000, 9_000] {
            let up = scene.up("*.log*").start().await?;
            written.wait_for(|written| *written >= at).await?;
            let ended = up.terminate().await?;
            let code = ended.code();
            ensure!(code == Some(CLEAN) || code == Some(UNACKNOWLEDGED), "{}\n{}", ended.status, ended.stderr);
            ensure!(ended.took <= SHUTDOWN_GRACE + TOLERANCE, "took {:?}", ended.took);
        }
        let ledger = writer.await??.into_ledger();
        let up = scene.up("*.log*").start().await?;
        up.api()?.wait_for_count("", ledger.len(), FOUND_WITHIN).await?;
        ledger.balance_by_content(&up.api()?.export("").await?).require_exact()
    })
    .await;
}

#[tokio::test]
async fn a_held_index_does_not_keep_it_from_stopping_and_nothing_is_lost() {
    scenario(async |scene| {
        let (setup, mut faults) = scene.up_with_faults("*.log")?;
        faults.index(IndexFault::Fail)?;
        // The bus takes a part only, so that the agent is left with what it has read and nobody has acknowledged.
        let text = "[agent]\ncompression = \"none\"\n[bus]\nbacklog_max = \"8 MiB\"\n";
        let up = setup.config(&scene.write("logmesh.toml", text)?).start().await?;
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
        writer.write(LINES)?;
        let api = up.api()?;
        wait_until("the backlog is full", FOUND_WITHIN, async || {
            let answer = api.fetch("/readyz").await?;
            Ok(if answer.text().contains("its limit is") { Look::Holds(()) } else { Look::NotYet(answer.text()) })
        })
        .await?;
        let ended = up.terminate().await?;
        ensure!(ended.code() == Some(UNACKNOWLEDGED), "{}\n{}", ended.status, ended.stderr);
        ensure!(ended.took <= SHUTDOWN_GRACE + TOLERANCE, "took {:?}", ended.took);
        faults.index(IndexFault::None)?;
        let up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("", LINES, FOUND_WITHIN).await?;
        writer.ledger().balance_by_content(&up.api()?.export("").await?).require_exact()
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    scenario(async |scene| {
        let (setup, mut faults) = scene.up_with_faults("*.log")?;
        let up = setup.start().await?;
        faults.index(IndexFault::Crawl(Duration::from_secs(60)))?;
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
        writer.write(5_000)?;
        up.signal(Signal::TERM)?;
        up.says(&["stopping"], FOUND_WITHIN).await?;
        up.signal(Signal::TERM)?;
        let ended = up.ended().await?;
        ensure!(ended.took < SHUTDOWN_GRACE / 2, "took {:?}\n{}", ended.took, ended.stderr);
        faults.index(IndexFault::None)?;
        let up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("", 5_000, FOUND_WITHIN).await?;
        writer.ledger().balance_by_content(&up.api()?.export("").await?).require_exact()
    })
    .await;
}
