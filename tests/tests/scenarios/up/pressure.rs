//! Pressure: an index that fails or crawls, a disk without room, a budget without slack. Slow, never lost, never stuck.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use logmesh_tests::api::Api;
use logmesh_tests::counts::{Row, either};
use logmesh_tests::faults::IndexFault;
use logmesh_tests::ledger::Ledger;
use logmesh_tests::process::seen_by;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::up::Up;
use logmesh_tests::wait::{Look, holds_for, wait_until};
use logmesh_tests::writer::{Stamp, Writer};

/// For the whole of a scenario's data, once nothing hinders it any more.
const ALL_FOUND_WITHIN: Duration = Duration::from_secs(300);

/// For the process to notice something.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// Lines of one burst; some 40 bytes to 130 each.
const BURST_LINES: u64 = 20_000;

/// What the process takes beside the memory budget: code, allocator, mapped index files.
const BASE_BYTES: u64 = 128 << 20;

/// The budget of the scenarios that measure memory, in MiB.
const BUDGET_MIB: u64 = 96;

/// Looks in a row that find the same count of bytes read: then it is still.
const STILL_LOOKS: u32 = 50;

/// An index that misbehaves, and what may move meanwhile.
#[derive(Clone, Copy)]
struct Misbehaviour {
    fault: IndexFault,
    /// Source bytes that the index lets through in an outage.
    trickle_bytes: u64,
    /// Growth of memory that counts as none: a commit of what trickles through takes some.
    growth_bytes: u64,
}

/// Nothing passes.
const FAILS: Misbehaviour = Misbehaviour { fault: IndexFault::Fail, trickle_bytes: 0, growth_bytes: 32 << 20 };

/// Every bulk takes seconds.
const CRAWLS: Misbehaviour =
    Misbehaviour { fault: IndexFault::Crawl(Duration::from_secs(3)), trickle_bytes: 16 << 20, growth_bytes: 64 << 20 };

/// Size of the small disk, in MiB.
const DISK_MIB: u64 = 96;

/// How long the index misbehaves.
fn outage() -> Duration {
    either(Duration::from_secs(5), Duration::from_secs(20))
}

/// A memory budget, and room for little on the bus, so that its backlog soon reaches back to the files; nothing is
/// compressed, so that it does with megabytes.
fn small_budget(scene: &Scene) -> Result<std::path::PathBuf> {
    let up = format!("[up]\nmemory = \"{BUDGET_MIB} MiB\"\n");
    scene.write("logmesh.toml", &format!("{up}[agent]\ncompression = \"none\"\n[bus]\nbacklog_max = \"8 MiB\"\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_fails_for_a_while_stops_the_agent_and_loses_nothing() {
    scenario(async |scene| misbehaving_index(scene, "index fails", FAILS).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_crawls_for_a_while_stops_the_agent_and_loses_nothing() {
    scenario(async |scene| misbehaving_index(scene, "index crawls", CRAWLS).await).await;
}

async fn misbehaving_index(scene: &Scene, name: &'static str, index: Misbehaviour) -> Result<()> {
    let (setup, mut faults) = scene.up_with_faults("*.log*")?;
    let up = setup.config(&small_budget(scene)?).start().await?;
    let api = up.api()?;
    let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
    writer.write(1_000)?;
    api.wait_for_count("", 1_000, ALL_FOUND_WITHIN).await?;
    faults.index(index.fault)?;
    for _ in 0..either(15, 30) {
        writer.write(BURST_LINES)?;
    }
    let backlog = std::fs::metadata(writer.path())?.len();
    reading_stops(&up, index).await?;
    let read = agent_has_read(api).await?;
    ensure!(read < backlog, "the agent read all {read} of {backlog} bytes ahead of a dead index");
    faults.index(IndexFault::None)?;
    api.wait_for_count("", writer.written(), ALL_FOUND_WITHIN).await?;
    let balance = writer.ledger().balance_by_content(&api.export("").await?);
    Row {
        scenario: name,
        lines: writer.written(),
        faults: 1,
        missing: balance.missing,
        twice: balance.twice,
        ..Row::default()
    }
    .print();
    balance.require_exact()?;
    memory_stayed_under_the_budget(&up)
}

/// Nothing is read for as long as the outage lasts, once the pipeline is full.
async fn reading_stops(up: &Up, index: Misbehaviour) -> Result<()> {
    let api = up.api()?;
    let (mut last, mut still) = (0, 0);
    wait_until("the agent stops reading", NOTICED_WITHIN, async || {
        let read = agent_has_read(api).await?;
        still = if read == last { still + 1 } else { 0 };
        last = read;
        Ok(if still == STILL_LOOKS { Look::Holds(()) } else { Look::NotYet(format!("{read} bytes read")) })
    })
    .await?;
    let (from, memory) = (agent_has_read(api).await?, up.memory()?);
    holds_for("reading has stopped and memory is flat", outage(), async || {
        let (read, taken) = (agent_has_read(api).await? - from, up.memory()?);
        Ok(if read <= index.trickle_bytes && taken < memory + index.growth_bytes {
            Look::Holds(())
        } else {
            Look::NotYet(format!("{read} bytes were read, memory went from {memory} to {taken}"))
        })
    })
    .await
}

/// Source bytes that the agent has cut from files so far.
async fn agent_has_read(api: Api) -> Result<u64> {
    let metrics = api.fetch("/metrics").await?.text();
    let value =
        metrics.lines().find_map(|line| line.strip_prefix("logmesh_agent_bytes_read_total")?.split(' ').next_back());
    value.and_then(|value| value.parse::<u64>().ok()).with_context(|| format!("no count of bytes read in:\n{metrics}"))
}

fn memory_stayed_under_the_budget(up: &Up) -> Result<()> {
    let (peak, bound) = (up.peak_memory()?, (BUDGET_MIB << 20) + BASE_BYTES);
    println!("peak memory: {} MiB of {} MiB", peak >> 20, bound >> 20);
    ensure!(peak <= bound, "peak memory {peak} bytes, budget and base are {bound}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_backpressure_with_a_reason_and_heals_by_itself() {
    scenario(async |scene| {
        let up = on_a_small_disk(scene).await?;
        let api = up.api()?;
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
        writer.write(1_000)?;
        api.wait_for_count("", 1_000, ALL_FOUND_WITHIN).await?;
        let filler = seen_by(up.pid(), &scene.data())?.join("filler");
        fill(&filler)?;
        for _ in 0..5 {
            writer.write(BURST_LINES)?;
        }
        let reason = not_ready_because(api, "make room").await?;
        println!("while the disk is full: {reason}");
        holds_for("the process lives with a full disk", outage(), async || {
            Ok(if up.memory().is_ok() { Look::Holds(()) } else { Look::NotYet(String::from("it ended")) })
        })
        .await?;
        std::fs::remove_file(&filler)?;
        api.wait_for_count("", writer.written(), ALL_FOUND_WITHIN).await?;
        wait_until("it is ready again", NOTICED_WITHIN, async || api.ready().await).await?;
        writer.ledger().balance_by_content(&api.export("").await?).require_exact()
    })
    .await;
}

/// The data directory is a small tmpfs that only the process and its user namespace know.
async fn on_a_small_disk(scene: &Scene) -> Result<Up> {
    let data = scene.data();
    std::fs::create_dir(&data)?;
    let mut setup = scene.up("*.log");
    let mount = format!("mount -t tmpfs -o size={DISK_MIB}m tmpfs '{}' && exec \"$@\"", data.display());
    setup.wrapper = ["unshare", "-Urm", "sh", "-c", &mount, "sh"].map(Into::into).to_vec();
    setup.start().await.context("is `unshare -Urm` permitted here?")
}

/// Takes all the room there is.
fn fill(filler: &Path) -> Result<()> {
    let mut file = File::create(filler).with_context(|| format!("cannot create {}", filler.display()))?;
    let block = vec![0_u8; 64 << 10];
    let full = loop {
        if let Err(error) = file.write_all(&block) {
            break error;
        }
    };
    ensure!(full.kind() == std::io::ErrorKind::StorageFull, "cannot fill the disk: {full}");
    Ok(())
}

async fn not_ready_because(api: Api, word: &str) -> Result<String> {
    wait_until(&format!("a readiness reason that speaks of {word}"), NOTICED_WITHIN, async || {
        let answer = api.fetch("/readyz").await?;
        let text = answer.text();
        let told = answer.status == StatusCode::SERVICE_UNAVAILABLE && text.to_lowercase().contains(word);
        Ok(if told { Look::Holds(text) } else { Look::NotYet(format!("{} {text}", answer.status)) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_memory_is_slow_and_never_stuck() {
    scenario(async |scene| {
        let least = least_budget(scene).await?;
        let config = scene.write("logmesh.toml", &format!("[up]\nmemory = \"{least}\"\n"))?;
        let mut ledger = Ledger::default();
        let long = scene.logs().join("long.log");
        let mut bytes = Vec::new();
        for letter in b"abcdefgh" {
            let line = vec![*letter; 512 << 10];
            ledger.wrote(&long, bytes.len() as u64, &line);
            bytes.extend_from_slice(&line);
            bytes.push(b'\n');
        }
        std::fs::write(&long, bytes)?;
        for name in ["one", "two", "three"] {
            let mut writer = Writer::create(&scene.logs(), name, Stamp::Mixed)?;
            writer.write(BURST_LINES)?;
            ledger.absorb(writer.into_ledger());
        }
        let up = scene.up("*.log").config(&config).start().await?;
        up.api()?.wait_for_count("", ledger.len(), ALL_FOUND_WITHIN).await?;
        ledger.balance_by_content(&up.api()?.export("").await?).require_exact()
    })
    .await;
}

/// The refusal of a budget that is too small names the least one.
async fn least_budget(scene: &Scene) -> Result<String> {
    let config = scene.write("tiny.toml", "[up]\nmemory = \"1 B\"\n")?;
    let ended = scene.up("*.log").config(&config).refused().await?;
    ended.require(2, &["tiny.toml:2:", "up.memory"])?;
    let words: Vec<&str> = ended.stderr.split_whitespace().collect();
    words
        .windows(2)
        .find(|pair| pair[0].parse::<u64>().is_ok_and(|size| size > 1) && pair[1].starts_with("MiB"))
        .map(|pair| format!("{} MiB", pair[0]))
        .with_context(|| format!("no least size in:\n{}", ended.stderr))
}
