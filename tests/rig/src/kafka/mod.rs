//! Kafka 4 (`KRaft`) from its jars.

mod broker;
mod classes;
mod client;
mod cluster;
mod jars;
mod secure;
mod tokens;

use std::fmt::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use self::broker::Broker;
pub use self::client::ReadRecord;
pub use self::cluster::KafkaCluster;
pub use self::secure::SecureKafka;
pub use self::tokens::TokenEndpoint;
use crate::ports;
use crate::scratch::Scratch;
use crate::server::port_was_taken;

const SINGLE: &str = include_str!("../../files/kafka/single.properties");
/// A start takes 3 s on a quiet machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Starts with other ports when others took them.
const START_TRIES: usize = 4;

/// One broker, which is its own controller, without any security. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Kafka {
    port: u16,
    broker: Broker,
    /// After the broker: dropped in this order.
    scratch: Scratch,
}

/// What one broker has beyond its plain listener.
#[derive(Debug, Default)]
struct Layout {
    listeners: Vec<Listener>,
    properties: String,
    /// As Kafka's storage tool takes them.
    users: Vec<String>,
    jvm: Vec<String>,
}

#[derive(Debug)]
struct Listener {
    name: &'static str,
    protocol: &'static str,
    port: u16,
}

impl Kafka {
    /// The broker that all tests of this process share, started at first use. Tests use topics of their own
    /// ([`crate::unique`]).
    ///
    /// # Panics
    ///
    /// When it cannot be started, with its last words.
    #[must_use]
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Result<Kafka, String>> = OnceLock::new();
        // Nobody kills it, and a lone broker that its own controller gives up helps no one: on a busy machine its
        // heartbeats may wait for longer than the usual 9 s, and all partitions would lose their leader.
        let settings = [("broker.session.timeout.ms", "120000")];
        match SHARED.get_or_init(|| Kafka::start(&settings).map_err(|error| format!("{error:#}"))) {
            Ok(kafka) => kafka,
            Err(error) => panic!("the shared Kafka did not start: {error}"),
        }
    }

    /// Starts a broker, with properties beside or instead of the usual ones, and waits for its first acknowledged record.
    ///
    /// # Errors
    ///
    /// When it cannot be fetched or started, with its last words.
    pub fn start(settings: &[(&str, &str)]) -> Result<Kafka> {
        Ok(Kafka::launch(0, settings, |_, _| Ok(Layout::default()))?.0)
    }

    /// Starts a broker whose layout is made from its directory and so many more ports, which are returned.
    fn launch(
        more: usize,
        settings: &[(&str, &str)],
        layout: impl Fn(&Path, &[u16]) -> Result<Layout>,
    ) -> Result<(Kafka, Vec<u16>)> {
        let mut tries = START_TRIES;
        loop {
            tries -= 1;
            let scratch = Scratch::new("kafka")?;
            let mut ports = ports::free(2 + more)?;
            let more = ports.split_off(2);
            let layout = layout(scratch.path(), &more)?;
            let properties = properties(ports[0], ports[1], &layout, settings)?;
            let mut jvm = classes::options();
            jvm.extend(layout.jvm);
            let broker = Broker::prepare(scratch.path().join("broker"), 1, &layout.users, &properties, jvm)?;
            let kafka = Kafka { port: ports[0], broker, scratch };
            match kafka.start_again() {
                Ok(()) => return Ok((kafka, more)),
                Err(_) if tries > 0 && port_was_taken(&kafka.broker.log()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Where it listens, `127.0.0.1:PORT`. The same after each start.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Of its process, while it runs.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn pid(&self) -> Result<i32> {
        self.broker.pid()
    }

    /// Creates a topic, one replica of each partition, and waits until it can be written.
    ///
    /// # Errors
    ///
    /// When the broker refuses it or does not answer.
    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
        client::create_topic(&self.bootstrap(), name, partitions, 1, config)
    }

    /// Gives a topic these settings; all others fall back to the broker's.
    ///
    /// # Errors
    ///
    /// When the broker refuses it or does not answer.
    pub fn alter_topic(&self, name: &str, config: &[(&str, &str)]) -> Result<()> {
        client::alter_topic(&self.bootstrap(), name, config)
    }

    /// Deletes a topic.
    ///
    /// # Errors
    ///
    /// When the broker refuses it or does not answer.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        client::delete_topic(&self.bootstrap(), name)
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

    /// The offset that the next record of each partition of a topic gets.
    ///
    /// # Errors
    ///
    /// When the broker does not answer, or there is no such topic.
    pub fn ends(&self, topic: &str) -> Result<Vec<(i32, i64)>> {
        client::ends(&self.bootstrap(), topic)
    }

    /// Kills it with SIGKILL; its directory stays.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        self.broker.kill()
    }

    /// Stops it with SIGTERM, after 30 s with SIGKILL; its directory stays.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn stop(&self) -> Result<()> {
        self.broker.stop()
    }

    /// Starts it anew after a kill or stop, on the same port and directory, and waits for an acknowledged record.
    ///
    /// # Errors
    ///
    /// When it runs, or does not start, with its last words.
    pub fn start_again(&self) -> Result<()> {
        self.broker.spawn()?;
        let bootstrap = self.bootstrap();
        let ready = self.broker.wait_ready(READY_WITHIN, || client::ready(&bootstrap, 1));
        if ready.is_err() {
            // So that it can be tried once more.
            self.broker.kill().context("a broker that did not get ready")?;
        }
        ready
    }

    /// Stops its clock with SIGSTOP: connections stay, nothing is answered.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.broker.signal(Signal::STOP)
    }

    /// Lets it run on after a pause.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.broker.signal(Signal::CONT)
    }
}

fn properties(port: u16, controller: u16, layout: &Layout, settings: &[(&str, &str)]) -> Result<String> {
    let mut advertised = format!("PLAINTEXT://127.0.0.1:{port}");
    let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    for Listener { name, protocol, port } in &layout.listeners {
        write!(advertised, ",{name}://127.0.0.1:{port}")?;
        write!(protocols, ",{name}:{protocol}")?;
    }
    let mut properties = format!(
        "{SINGLE}{}controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners={advertised},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners={advertised}\n\
         listener.security.protocol.map={protocols}\ninter.broker.listener.name=PLAINTEXT\n",
        layout.properties
    );
    // The last of two of a name counts.
    for (key, value) in settings {
        writeln!(properties, "{key}={value}")?;
    }
    Ok(properties)
}
