//! SIGKILL at random moments: no line missing, none twice, serving again by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use logmesh_tests::api::Found;
use logmesh_tests::counts::{Row, either};
use logmesh_tests::faults::{Faults, VARIABLE};
use logmesh_tests::ledger::Ledger;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::up::{SERVING_WITHIN, Setup, Up};
use logmesh_tests::wait::SLACK;
use logmesh_tests::writer::{Pace, Stamp, Writer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// For what is still under way when the writers have finished.
const REST_FOUND_WITHIN: Duration = Duration::from_secs(120);

/// A run of kills.
struct Plan {
    scenario: &'static str,
    /// Two writers share these lines.
    lines: u64,
    per_second: u64,
    kills: u32,
    faults: Option<Faults>,
}

/// What a run of kills found.
struct Outcome {
    ledger: Ledger,
    found: Vec<Found>,
    row: Row,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_under_rename_rotation_lose_no_line_and_double_none() {
    scenario(async |scene| {
        let plan = Plan {
            scenario: "kills under rotation",
            lines: either(60_000, 300_000),
            per_second: 3_000,
            kills: either(8, 30),
            faults: None,
        };
        let outcome = killed_at_random(scene, plan).await?;
        balanced(&outcome)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_around_midnight_lose_no_line_and_double_none() {
    scenario(async |scene| {
        let mut faults = Faults::none(scene.path("faults.json"))?;
        faults.agent_clock(until_just_before_midnight()?)?;
        let plan = Plan {
            scenario: "kills across UTC midnight",
            lines: either(20_000, 60_000),
            per_second: either(2_000, 4_000),
            kills: either(4, 10),
            faults: Some(faults),
        };
        let outcome = killed_at_random(scene, plan).await?;
        days_of_untimed_lines_are_two(&outcome.found)?;
        balanced(&outcome)
    })
    .await;
}

/// Milliseconds to add to now, so that midnight comes five seconds later.
fn until_just_before_midnight() -> Result<i64> {
    let now = Timestamp::now();
    let midnight = now.to_zoned(TimeZone::UTC).tomorrow()?.start_of_day()?.timestamp();
    Ok(midnight.checked_sub(5.seconds())?.as_millisecond() - now.as_millisecond())
}

/// Lines without a time take their day from when they were read: some before midnight, some after.
fn days_of_untimed_lines_are_two(found: &[Found]) -> Result<()> {
    let days: BTreeSet<&str> = found
        .iter()
        .filter(|document| document.line.starts_with(b"silent"))
        .map(|document| document.index.as_str())
        .collect();
    ensure!(days.len() == 2, "lines without a time are in {days:?}");
    Ok(())
}

fn balanced(outcome: &Outcome) -> Result<()> {
    let balance = outcome.ledger.balance_by_content(&outcome.found);
    let row = Row { missing: balance.missing, twice: balance.twice, ..outcome.row.clone() };
    row.print();
    balance.require_exact()?;
    ensure!(
        row.longest_return <= SERVING_WITHIN * SLACK,
        "serving again took {:?} once, promised are {SERVING_WITHIN:?}",
        row.longest_return
    );
    Ok(())
}

async fn killed_at_random(scene: &Scene, plan: Plan) -> Result<Outcome> {
    let seed = rand::random();
    println!("{}: seed {seed}", plan.scenario);
    let mut random = StdRng::seed_from_u64(seed);
    let mut writers = JoinSet::new();
    let (progress, mut written) = watch::channel(0);
    let pace = Pace { lines: plan.lines / 2, per_second: plan.per_second / 2, rotate_every: plan.lines / 50 };
    for (name, stamp, progress) in [("timed", Stamp::Mixed, progress), ("silent", Stamp::Never, watch::channel(0).0)] {
        writers.spawn(Writer::create(&scene.logs(), name, stamp)?.run(pace, progress));
    }
    let mut up = start(scene, &plan)?;
    let mut longest_return = up.serving().await?;
    for kill in 0..plan.kills {
        let share = pace.lines / u64::from(plan.kills + 1);
        let at = share * u64::from(kill) + random.random_range(0..share);
        written.wait_for(|written| *written >= at).await?;
        up.kill().await?;
        up = start(scene, &plan)?;
        if kill % 4 == 3 {
            // Killed again at once, perhaps before it could serve.
            let soon = *written.borrow() + random.random_range(0..plan.per_second / 2);
            written.wait_for(|written| *written >= soon.min(pace.lines)).await?;
            up.kill().await?;
            up = start(scene, &plan)?;
        }
        longest_return = longest_return.max(up.serving().await?);
    }
    let ledger = finish(&mut writers).await?;
    let found = all_found(scene, &plan, up, ledger.len()).await.with_context(|| format!("seed {seed}"))?;
    let row = Row { scenario: plan.scenario, lines: plan.lines, faults: plan.kills, longest_return, ..Row::default() };
    Ok(Outcome { ledger, found, row })
}

fn start(scene: &Scene, plan: &Plan) -> Result<Up> {
    let setup: Setup = scene.up("*.log*");
    match &plan.faults {
        Some(faults) => setup.env(VARIABLE, faults.file()).spawn(),
        None => setup.spawn(),
    }
}

async fn finish(writers: &mut JoinSet<Result<Writer>>) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    while let Some(writer) = writers.join_next().await {
        ledger.absorb(writer??.into_ledger());
    }
    Ok(ledger)
}

/// Waits until as many are found as were written, and reads them after one more start in order.
async fn all_found(scene: &Scene, plan: &Plan, up: Up, count: u64) -> Result<Vec<Found>> {
    let waited = up.api()?.wait_for_count("", count, REST_FOUND_WITHIN).await;
    if let Err(error) = waited {
        // The ledger says which lines; the count only how many.
        println!("{error:#}");
        return up.api()?.export("").await;
    }
    let ended = up.terminate().await?;
    ensure!(ended.code() == Some(0), "ended with {}:\n{}", ended.status, ended.stderr);
    let mut up = start(scene, plan)?;
    up.serving().await?;
    up.api()?.export("").await
}
