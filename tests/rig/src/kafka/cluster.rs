//! Three brokers.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::broker::Broker;
use super::{READY_WITHIN, ReadRecord, START_TRIES, classes, client};
use crate::ports;
use crate::scratch::Scratch;
use crate::server::port_was_taken;

const PROPERTIES: &str = include_str!("../../files/kafka/cluster.properties");
const BROKERS: usize = 3;
const QUORUM: usize = 2;

/// Three brokers, each a controller too: three replicas, of which two have to be in sync. They are counted from 0.
/// Dropped, they are killed and their directories removed.
#[derive(Debug)]
pub struct KafkaCluster {
    ports: Vec<u16>,
    brokers: Vec<Broker>,
    running: AtomicUsize,
    /// After the brokers: dropped in this order.
    _scratch: Scratch,
}

impl KafkaCluster {
    /// Starts three brokers, with properties beside or instead of the usual ones, and waits for the first record that all
    /// have.
    ///
    /// # Errors
    ///
    /// When they cannot be fetched or started, with the last words of one.
    pub fn start(settings: &[(&str, &str)]) -> Result<KafkaCluster> {
        let mut tries = START_TRIES;
        loop {
            tries -= 1;
            let cluster = KafkaCluster::prepare(settings)?;
            match cluster.start_all() {
                Ok(()) => return Ok(cluster),
                Err(_) if tries > 0 && cluster.brokers.iter().any(|broker| port_was_taken(&broker.log())) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn prepare(settings: &[(&str, &str)]) -> Result<KafkaCluster> {
        let scratch = Scratch::new("kafka-cluster")?;
        let mut ports = ports::free(2 * BROKERS)?;
        let controllers = ports.split_off(BROKERS);
        let voters: Vec<String> =
            controllers.iter().zip(1..).map(|(port, node)| format!("{node}@127.0.0.1:{port}")).collect();
        let mut brokers = Vec::new();
        for (index, (port, controller)) in ports.iter().zip(&controllers).enumerate() {
            let node = node_of(index);
            let mut properties = format!(
                "{PROPERTIES}broker.rack=rack{node}\ncontroller.quorum.voters={}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n",
                voters.join(",")
            );
            for (key, value) in settings {
                writeln!(properties, "{key}={value}")?;
            }
            let directory = scratch.path().join(format!("broker-{index}"));
            brokers.push(Broker::prepare(directory, node, &[], &properties, classes::options())?);
        }
        Ok(KafkaCluster { ports, brokers, running: AtomicUsize::new(0), _scratch: scratch })
    }

    fn start_all(&self) -> Result<()> {
        for broker in &self.brokers {
            broker.spawn()?;
            self.running.fetch_add(1, Ordering::AcqRel);
        }
        let bootstrap = self.bootstrap();
        for broker in &self.brokers {
            // Whichever is looked at ended, its last words tell why.
            broker.wait_ready(READY_WITHIN, || client::ready(&bootstrap, 3))?;
        }
        (0..BROKERS).try_for_each(|index| self.wait_in_sync(index))
    }

    /// Where all three listen. The same after each start.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        addresses.join(",")
    }

    /// Where one listens.
    ///
    /// # Panics
    ///
    /// When there is no such broker.
    #[must_use]
    pub fn address(&self, index: usize) -> String {
        format!("127.0.0.1:{}", self.ports[index])
    }

    /// Creates a topic with three replicas of each partition, and waits until it has leaders.
    ///
    /// # Errors
    ///
    /// When the brokers refuse it or do not answer.
    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
        client::create_topic(&self.bootstrap(), name, partitions, 3, config)
    }

    /// All records that a topic holds now, by partition and offset.
    ///
    /// # Errors
    ///
    /// When they cannot be read within two minutes.
    pub fn read_all(&self, topic: &str) -> Result<Vec<ReadRecord>> {
        client::read_all(&self.bootstrap(), topic)
    }

    /// The offsets that a group has committed, by partition; those where it has none are left out.
    ///
    /// # Errors
    ///
    /// When the coordinator does not answer.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Vec<(i32, i64)>> {
        client::committed(&self.bootstrap(), group, topic)
    }

    /// The broker that leads a partition now.
    ///
    /// # Errors
    ///
    /// When none does.
    pub fn leader_of(&self, topic: &str, partition: i32) -> Result<usize> {
        index_of(client::partition(&self.bootstrap(), topic, partition)?.leader)
    }

    /// The brokers whose replica of a partition is in sync.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub fn in_sync(&self, topic: &str, partition: i32) -> Result<Vec<usize>> {
        client::partition(&self.bootstrap(), topic, partition)?.in_sync.into_iter().map(index_of).collect()
    }

    /// Kills one with SIGKILL; its directory stays.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn kill(&self, index: usize) -> Result<()> {
        self.broker(index)?.kill()?;
        self.running.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    }

    /// Stops one with SIGTERM, after 30 s with SIGKILL; its directory stays.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn stop(&self, index: usize) -> Result<()> {
        self.broker(index)?.stop()?;
        self.running.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    }

    /// Starts one anew, on the same port and directory, and waits until its replicas are in sync again; for as long as
    /// only one runs, no longer than until its process is there, since nothing works then.
    ///
    /// # Errors
    ///
    /// When it runs, or does not get in sync, with its last words.
    pub fn start_again(&self, index: usize) -> Result<()> {
        self.broker(index)?.spawn()?;
        let running = self.running.fetch_add(1, Ordering::AcqRel) + 1;
        if running < QUORUM { Ok(()) } else { self.wait_in_sync(index) }
    }

    /// Stops one's clock with SIGSTOP: connections stay, nothing is answered.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn pause(&self, index: usize) -> Result<()> {
        self.broker(index)?.signal(Signal::STOP)
    }

    /// Lets one run on after a pause.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn resume(&self, index: usize) -> Result<()> {
        self.broker(index)?.signal(Signal::CONT)
    }

    fn wait_in_sync(&self, index: usize) -> Result<()> {
        let bootstrap = self.bootstrap();
        self.broker(index)?.wait_ready(READY_WITHIN, || {
            let state = client::partition(&bootstrap, client::READY_TOPIC, 0)?;
            ensure!(state.in_sync.contains(&i32::try_from(node_of(index))?), "broker {index} is not in sync");
            Ok(())
        })
    }

    fn broker(&self, index: usize) -> Result<&Broker> {
        self.brokers.get(index).with_context(|| format!("there is no broker {index}"))
    }
}

/// Kafka's number of a broker.
fn node_of(index: usize) -> usize {
    index + 1
}

fn index_of(node: i32) -> Result<usize> {
    usize::try_from(node - 1).context("no broker leads it")
}
