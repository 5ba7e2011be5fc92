//! The agent among several gateways, which are stubs: choosing, being refused, being asked to move.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::stub::{Mesh, StubGateway};
use logmesh_agent::{Agent, Config, FilesConfig};
use logmesh_runtime::{Context, shutdown::Exit};
use tempfile::TempDir;

/// Five times what anything here should take.
const WITHIN: Duration = Duration::from_secs(30);
/// No stream may pause for longer while it moves.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// An agent that runs, and the file that it tails.
struct Running {
    context: Context,
    task: tokio::task::JoinHandle<Exit>,
    file: PathBuf,
    written: usize,
    _directory: TempDir,
}

fn start(mesh: &Mesh, gateways: &[String]) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let (logs, data) = (directory.path().join("logs"), directory.path().join("data"));
    fs::create_dir(&logs).unwrap();
    let config = Config {
        data_dir: data,
        gateways: gateways.iter().map(|gateway| gateway.parse().unwrap()).collect(),
        tls: Some(mesh.agent_files()),
        files: vec![FilesConfig { include: vec![format!("{}/*.log", logs.display())], ..FilesConfig::default() }],
        shutdown_grace: Duration::from_secs(5),
        ..Config::default()
    };
    let context = Context::for_tests();
    let agent = Agent::new(config, mesh.agent(), context.clone()).unwrap();
    let task = tokio::spawn(agent.run());
    Running { context, task, file: logs.join("a.log"), written: 0, _directory: directory }
}

impl Running {
    /// Writes the next line.
    fn write(&mut self) {
        append(&self.file, &format!("line {:06}\n", self.written));
        self.written += 1;
    }

    fn last_error(&self) -> String {
        self.context.status.snapshot()["agent"]["link"]["last_error"].to_string()
    }

    async fn stop(self) {
        self.context.shutdown.begin();
        assert_eq!(self.task.await.unwrap(), Exit::Clean);
    }
}

fn append(path: &Path, text: &str) {
    let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < WITHIN, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The one with the session, and the other one.
fn order(gateways: &[StubGateway; 2]) -> (&StubGateway, &StubGateway) {
    let [one, other] = gateways;
    if one.live_sessions() > 0 { (one, other) } else { (other, one) }
}

fn bodies(gateways: &[StubGateway]) -> Vec<String> {
    let mut bodies: Vec<String> = gateways.iter().flat_map(StubGateway::bodies).collect();
    bodies.sort();
    bodies
}

fn deliveries(gateways: &[StubGateway]) -> usize {
    gateways.iter().map(StubGateway::deliveries).sum()
}

fn longest_pause(gateways: &[StubGateway]) -> Duration {
    let mut arrivals: Vec<Instant> = gateways.iter().flat_map(StubGateway::arrivals).collect();
    arrivals.sort();
    arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_move_it_is_welcomed_elsewhere_before_it_leaves_and_sends_nothing_twice() {
    let mesh = Mesh::new();
    let gateways = [StubGateway::start(&mesh).await, StubGateway::start(&mesh).await];
    let mut agent = start(&mesh, &gateways.each_ref().map(StubGateway::endpoint));
    agent.write();
    until("the first line", || deliveries(&gateways) == 1).await;
    for round in 1..=6 {
        let (left, next) = order(&gateways);
        let sessions = next.sessions();
        left.drain(60_000, 6000);
        let moved = Instant::now();
        while next.sessions() == sessions || left.live_sessions() > 0 {
            agent.write();
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(moved.elapsed() < WITHIN, "it moves in round {round}");
        }
        let ended = left.life().last().copied().unwrap();
        let begun = next.life().last().copied().unwrap();
        assert_eq!((ended.0, begun.0), ("ended", "begun"));
        assert!(begun.1 <= ended.1, "welcomed before it left, in round {round}");
    }
    let written = agent.written;
    until("all lines", || bodies(&gateways).len() == written).await;
    assert_eq!(deliveries(&gateways), written, "none twice");
    assert!(longest_pause(&gateways) < PAUSE_MAX, "{:?}", longest_pause(&gateways));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_answered_before_it_leaves() {
    let mesh = Mesh::new();
    let gateways = [StubGateway::start(&mesh).await, StubGateway::start(&mesh).await];
    let mut agent = start(&mesh, &gateways.each_ref().map(StubGateway::endpoint));
    agent.write();
    until("the first line", || deliveries(&gateways) == 1).await;
    let (left, next) = order(&gateways);
    left.hold_acks(true);
    agent.write();
    until("the second line", || deliveries(&gateways) == 2).await;
    left.drain(60_000, 20_000);
    until("the other session", || next.live_sessions() == 1).await;
    // Whatever it would do wrong it could do now.
    for _ in 0..20 {
        agent.write();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((left.live_sessions(), next.deliveries()), (1, 0), "it waits for its answers");
    left.release_acks();
    let written = agent.written;
    until("all lines", || bodies(&gateways).len() == written).await;
    assert!(next.deliveries() > 0, "the next one has what was written while it moved");
    assert_eq!(deliveries(&gateways), written, "none twice");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_deadline_what_was_not_answered_goes_to_the_next_gateway() {
    let mesh = Mesh::new();
    let gateways = [StubGateway::start(&mesh).await, StubGateway::start(&mesh).await];
    let mut agent = start(&mesh, &gateways.each_ref().map(StubGateway::endpoint));
    agent.write();
    until("the first line", || deliveries(&gateways) == 1).await;
    let (left, next) = order(&gateways);
    left.hold_acks(true);
    agent.write();
    until("the second line", || deliveries(&gateways) == 2).await;
    left.drain(60_000, 300);
    until("the second line again", || next.bodies() == ["line 000001"]).await;
    agent.write();
    until("the third line", || next.deliveries() == 2).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_refuses_with_a_delay_is_left_alone_for_so_long() {
    let mesh = Mesh::new();
    let gateways = [StubGateway::start(&mesh).await, StubGateway::start(&mesh).await];
    gateways[0].refuse(Some(60_000));
    let mut agent = start(&mesh, &gateways.each_ref().map(StubGateway::endpoint));
    for round in 0..20 {
        agent.write();
        until("the line", || bodies(&gateways).len() == round + 1).await;
        let sessions = gateways[1].sessions();
        gateways[1].drain(1, 2000);
        until("another session", || gateways[1].sessions() > sessions).await;
    }
    // A search that is not over by the deadline of the drain begins anew, and what was asked meanwhile is not heard. Not
    // left alone, it would be asked first in every other round.
    assert!(gateways[0].refusals() <= 3, "asked {} times", gateways[0].refusals());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_and_silent_addresses_are_set_aside_and_cost_no_batch() {
    let mesh = Mesh::new();
    let gateway = StubGateway::start(&mesh).await;
    // Nobody listens at the first; the second accepts and says nothing, not even TLS.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_address = silent.local_addr().unwrap();
    let all = [dead.to_string(), silent_address.to_string(), gateway.endpoint()];
    let mut agent = start(&mesh, &all);
    let gateways = [gateway];
    agent.write();
    until("the first line", || deliveries(&gateways) == 1).await;
    for round in 2..12 {
        let sessions = gateways[0].sessions();
        gateways[0].drain(1, 6000);
        agent.write();
        until("another session", || gateways[0].sessions() > sessions).await;
        until("the line", || bodies(&gateways).len() == round).await;
    }
    assert_eq!(deliveries(&gateways), 11, "none twice: {}", agent.last_error());
    agent.stop().await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_gateway_is_come_back_to_however_it_asked_to_be_left() {
    let mesh = Mesh::new();
    let gateways = [StubGateway::start(&mesh).await];
    let mut agent = start(&mesh, &[gateways[0].endpoint()]);
    agent.write();
    until("the first line", || deliveries(&gateways) == 1).await;
    gateways[0].refuse(Some(300_000));
    gateways[0].drain(300_000, 500);
    until("a refusal", || gateways[0].refusals() > 0).await;
    gateways[0].refuse(None);
    agent.write();
    until("the second line", || bodies(&gateways).len() == 2).await;
    agent.stop().await;
}
