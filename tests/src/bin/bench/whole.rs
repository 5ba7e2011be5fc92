//! The whole pipeline, as the real binary: from the write to the first search that finds it, and at rest.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use logmesh_tests::api::Api;
use logmesh_tests::up::{Setup, Up};
use logmesh_tests::writer::{Stamp, Writer};
use tokio::time::MissedTickBehavior;

use crate::clock::{cpu_of, running_of};
use crate::corpus::Corpus;
use crate::table::{Row, thousands};

/// Lines written in a second.
const RATE: u64 = 10_000;

/// Time between two writes, and between two searches.
const EVERY: Duration = Duration::from_millis(5);

/// How long lines are written.
const WRITING: Duration = Duration::from_secs(20);

/// Longest wait for the last line to be found.
const PATIENCE: Duration = Duration::from_secs(60);

/// Before rest is measured. An agent looks more often at files that grew, or were found, in the last 30 s.
pub(crate) const SETTLING: Duration = Duration::from_secs(40);

/// How long rest is measured: a dozen walks.
const RESTING: Duration = Duration::from_secs(120);

/// Most that a process may take at rest.
pub(crate) struct Ceiling {
    pub(crate) words: &'static str,
    pub(crate) percent: f64,
    pub(crate) mib: u64,
}

/// Measures and prints both.
pub(crate) fn measure(corpus: &Corpus) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let directory = corpus.scratch("whole")?;
        let logs = corpus.scratch("whole/logs")?;
        let up = setup(&directory, &logs).start().await?;
        tokio::time::sleep(SETTLING).await;
        at_rest("idle: logmesh up", up.pid(), None).await?.print();
        searchable(&up, &logs).await?.print();
        Ok(())
    })
}

fn setup(directory: &Path, logs: &Path) -> Setup {
    Setup {
        data: directory.join("data"),
        patterns: vec![logs.join("*.log").into()],
        arguments: Vec::new(),
        environment: Vec::new(),
        wrapper: Vec::new(),
        http: String::from("127.0.0.1:0"),
        ingest: String::from("127.0.0.1:0"),
        log_stem: directory.join("up"),
    }
}

/// What a process takes while nothing happens.
pub(crate) async fn at_rest(name: &'static str, pid: i32, ceiling: Option<Ceiling>) -> Result<Row> {
    let (begun, before) = (Instant::now(), running_of(pid)?);
    tokio::time::sleep(RESTING).await;
    let percent = (running_of(pid)? - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let mib = logmesh_tests::process::memory(pid)? >> 20;
    let floor =
        ceiling.map(|Ceiling { words, percent: most, mib: largest }| (words, percent <= most && mib <= largest));
    Ok(Row { name, figure: format!("{percent:.3} % of a core, {mib} MiB"), floor, ..Row::default() })
}

/// Writes at the rate while it looks for the newest line over and over. Lines are written and found in order, so a look
/// that finds line n has found all before it.
async fn searchable(up: &Up, logs: &Path) -> Result<Row> {
    let writer = Writer::create(logs, "paced", Stamp::Always)?;
    let cpu = cpu_of(up.pid())?;
    let unseen = RefCell::new(VecDeque::new());
    let done = Cell::new(false);
    let (lines, delays) = tokio::try_join!(
        async {
            let lines = write(writer, &unseen).await;
            done.set(true);
            lines
        },
        look(up.api()?, &unseen, &done)
    )?;
    let cpu = cpu_of(up.pid())? - cpu;
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize].as_millis();
    ensure!(!delays.is_empty(), "nothing was written");
    Ok(Row {
        name: "write to searchable at 10,000 lines/s",
        figure: format!("p50 {} ms, p99 {} ms", at(0.5), at(0.99)),
        per_core: Some(thousands(lines as f64 / cpu.as_secs_f64(), "lines")),
        ..Row::default()
    })
}

/// Lines that were written and not yet found: the last number of a write, and when it returned.
type Unseen = RefCell<VecDeque<(u64, Instant)>>;

async fn write(mut writer: Writer, unseen: &Unseen) -> Result<u64> {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let ticks_in_all = WRITING.as_millis() / EVERY.as_millis();
    for _ in 0..ticks_in_all {
        ticks.tick().await;
        writer.write(RATE * u64::try_from(EVERY.as_millis())? / 1000)?;
        unseen.borrow_mut().push_back((writer.written() - 1, Instant::now()));
    }
    Ok(writer.written())
}

/// Looks until everything written was found; returns the delay of each write, least first.
async fn look(api: Api, unseen: &Unseen, done: &Cell<bool>) -> Result<Vec<Duration>> {
    let (begun, mut delays) = (Instant::now(), Vec::new());
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !done.get() || !unseen.borrow().is_empty() {
        ticks.tick().await;
        ensure!(begun.elapsed() < WRITING + PATIENCE, "the last lines are not found");
        let Some(newest) = newest_line(api).await? else { continue };
        let found = Instant::now();
        let mut unseen = unseen.borrow_mut();
        while unseen.front().is_some_and(|(number, _)| *number <= newest) {
            delays.extend(unseen.pop_front().map(|(_, written)| found - written));
        }
    }
    delays.sort();
    Ok(delays)
}

async fn newest_line(api: Api) -> Result<Option<u64>> {
    let page = api.search("paced", "&limit=1").await?;
    let Some(hit) = page.hits.first() else { return Ok(None) };
    let message = hit["message"].as_str().context("a document without a message")?;
    let number = message.split_whitespace().find_map(|word| word.strip_prefix('n')?.parse().ok());
    ensure!(number.is_some(), "no number in {message:?}");
    Ok(number)
}
