//! Lines at a steady pace into a cluster, and how long each is under way until the index has it.
//!
//! A line's id is computed as the product does: of its stream key, which the bus has as the key of its records, its offset
//! and its bytes. So a real-time get can ask for it, with no search and no refresh in between.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use logmesh_proto::{RecordId, StreamKey};
use logmesh_rig::{Kafka, SearchServer};
use logmesh_tests::cluster::{Cluster, Service, metric};
use logmesh_tests::wait::{Look, wait_until};
use tokio::task::block_in_place;
use tokio::time::MissedTickBehavior;

use crate::asking::Asking;
use crate::clock::cpu_of;
use crate::table::Row;

/// Lines written in a second.
const RATE: u64 = 10_000;

/// Time between two writes, and between two questions.
const EVERY: Duration = Duration::from_millis(5);

/// Written before anything counts, for the servers to get warm.
const WARMING: Duration = Duration::from_secs(15);

/// How long lines are written that count.
const WRITING: Duration = Duration::from_secs(20);

/// One line is looked for of so many writes: 1,000 in all.
const SAMPLED_OF: u64 = 4;

/// Documents asked for at a time: the oldest, for they come about in their order.
const ASKED_MAX: usize = 20;

/// Longest wait for the last line.
const PATIENCE: Duration = Duration::from_secs(60);

/// What 99 of 100 lines take at most.
const P99_CEILING: Duration = Duration::from_millis(500);

/// A line that is not found yet.
struct Sample {
    index: String,
    id: String,
    written: Instant,
    counts: bool,
}

/// What looking came to.
struct Looked {
    /// Of the lines that count, least first.
    delays: Vec<Duration>,
    /// Longest time for one answer of the server, while it counts: no delay is known better than that.
    longest_ask: Duration,
}

/// The log.
struct Log {
    file: File,
    offset: u64,
    number: u64,
}

/// Runs all services of a cluster, measures, and prints the row.
pub(crate) async fn measure(cluster: &Cluster, server: &SearchServer) -> Result<()> {
    let services = cluster.start_all().await?;
    let mut log = Log { file: File::create(cluster.logs(0).join("paced.log"))?, offset: 0, number: 0 };
    log.write(1)?;
    let key = stream_key(cluster).await?;
    let asking = Asking::connect(server).await?;
    let (unseen, done) = (RefCell::new(VecDeque::new()), Cell::new(false));
    let begun = Instant::now();
    let before = cpu(&services)?;
    let tenant = cluster.tenant();
    let ((), Looked { delays, longest_ask }) = tokio::try_join!(
        async {
            let written = write(log, key, tenant, &unseen).await;
            done.set(true);
            written
        },
        look(asking, &unseen, &done)
    )?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(!delays.is_empty(), "nothing was written");
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
    let figure = format!("p50 {} ms, p99 {} ms", at(0.5).as_millis(), at(0.99).as_millis());
    let floor = Some(("p99 below 500 ms", at(0.99) < P99_CEILING));
    Row { name: "cluster: write to indexed at 10,000 lines/s", figure, floor, ..Row::default() }.print();
    let [sum, batches] = ["sum", "count"].map(|what| format!("logmesh_processor_read_to_indexed_seconds_{what}"));
    let own = metric(&services[0], &sum).await? as f64 / metric(&services[0], &batches).await? as f64;
    println!(
        "  {} lines were looked for, the slowest took {} ms; the longest question {} ms; the processor says {:.0} ms on average",
        delays.len(),
        at(1.0).as_millis(),
        longest_ask.as_millis(),
        own * 1e3
    );
    print!("  of a core:");
    for (service, (after, before)) in services.iter().zip(cpu(&services)?.into_iter().zip(before)) {
        print!(" {} {:.1} %", service.role().name(), (after - before).as_secs_f64() / seconds * 100.0);
    }
    println!();
    for service in services.into_iter().rev() {
        service.terminate().await?;
    }
    Ok(())
}

fn cpu(services: &[Service]) -> Result<Vec<Duration>> {
    services.iter().map(|service| cpu_of(service.pid())).collect()
}

/// The key of the only stream, once its first line has reached Kafka.
async fn stream_key(cluster: &Cluster) -> Result<StreamKey> {
    wait_until("the first line is in Kafka", PATIENCE, async || {
        let records = block_in_place(|| Kafka::shared().read_all(&cluster.topic()))?;
        let Some(record) = records.first() else { return Ok(Look::NotYet(String::from("no record"))) };
        let key: [u8; 16] = record.key.as_slice().try_into().context("a key that is no stream key")?;
        Ok(Look::Holds(StreamKey::from_bytes(key)))
    })
    .await
}

impl Log {
    /// Appends lines in one write. Answers the last one, with its offset.
    fn write(&mut self, count: u64) -> Result<(u64, Vec<u8>)> {
        let time = Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
        let (mut block, mut last) = (Vec::new(), 0);
        for _ in 0..count {
            last = block.len();
            writeln!(
                block,
                "192.0.2.{} - - [{time}] \"GET /articles/{:09}/index.html HTTP/1.1\" 200 {} \"https://example.com/articles/\" \
                 \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\"",
                self.number % 250,
                self.number,
                self.number * 7919 % 100_000,
            )?;
            self.number += 1;
        }
        self.file.write_all(&block)?;
        let line = (self.offset + last as u64, block[last..block.len() - 1].to_vec());
        self.offset += block.len() as u64;
        Ok(line)
    }
}

async fn write(mut log: Log, key: StreamKey, tenant: &str, unseen: &RefCell<VecDeque<Sample>>) -> Result<()> {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let every = u64::try_from(EVERY.as_millis())?;
    let [warming, all] = [WARMING, WARMING + WRITING].map(|time| time.as_millis() as u64 / every);
    for tick in 0..all {
        ticks.tick().await;
        let (offset, line) = log.write(RATE * every / 1000)?;
        let written = Instant::now();
        if tick % SAMPLED_OF == 0 {
            let index = format!("logmesh-{tenant}-{}", Timestamp::now().strftime("%Y.%m.%d"));
            let id = RecordId::derive(key, offset, &line).to_string();
            unseen.borrow_mut().push_back(Sample { index, id, written, counts: tick >= warming });
        }
    }
    Ok(())
}

/// Asks until everything that was written was found; answers the delays of those that count.
async fn look(mut asking: Asking, unseen: &RefCell<VecDeque<Sample>>, done: &Cell<bool>) -> Result<Looked> {
    let (begun, mut delays, mut longest_ask) = (Instant::now(), Vec::new(), Duration::ZERO);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !done.get() || !unseen.borrow().is_empty() {
        ticks.tick().await;
        ensure!(begun.elapsed() < WARMING + WRITING + PATIENCE, "{} lines are not found", unseen.borrow().len());
        let documents: Vec<(String, String)> = {
            let unseen = unseen.borrow();
            unseen.iter().take(ASKED_MAX).map(|sample| (sample.index.clone(), sample.id.clone())).collect()
        };
        if documents.is_empty() {
            continue;
        }
        let asked = Instant::now();
        let there = asking.are_there(&documents).await?;
        let found = Instant::now();
        if begun.elapsed() > WARMING {
            longest_ask = longest_ask.max(found - asked);
        }
        if there.iter().all(|there| *there) {
            // More may be there: no pause before the next question.
            ticks.reset_immediately();
        }
        let mut there = there.into_iter();
        // Those behind the ones asked for were not answered.
        unseen.borrow_mut().retain(|sample| {
            let there = there.next().unwrap_or(false);
            if there && sample.counts {
                delays.push(found - sample.written);
            }
            !there
        });
    }
    delays.sort();
    Ok(Looked { delays, longest_ask })
}
