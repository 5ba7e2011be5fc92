//! The agent over a real directory, real TLS and a gateway that is a stub: from appended lines to the checkpoint.

use std::{fs, io::Write, path::Path, time::Duration};

use crate::stub::{Mesh, StubGateway};
use logmesh_agent::{Agent, Config, FilesConfig};
use logmesh_runtime::{Context, shutdown::Exit};

fn config(mesh: &Mesh, gateway: &StubGateway, logs: &Path, data: &Path) -> Config {
    Config {
        data_dir: data.into(),
        gateways: vec![gateway.endpoint().parse().unwrap()],
        tls: Some(mesh.agent_files()),
        files: vec![FilesConfig { include: vec![format!("{}/**/*.log", logs.display())], ..FilesConfig::default() }],
        shutdown_grace: Duration::from_secs(5),
        ..Config::default()
    }
}

struct Running {
    context: Context,
    task: tokio::task::JoinHandle<Exit>,
}

fn start(mesh: &Mesh, gateway: &StubGateway, logs: &Path, data: &Path) -> Running {
    let context = Context::for_tests();
    let agent = Agent::new(config(mesh, gateway, logs, data), mesh.agent(), context.clone()).unwrap();
    Running { context, task: tokio::spawn(agent.run()) }
}

impl Running {
    async fn stop(self) -> Exit {
        self.context.shutdown.begin();
        self.task.await.unwrap()
    }
}

fn append(path: &Path, text: &str) {
    let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_arrive_once_over_rotation_truncation_and_restart() {
    let mesh = Mesh::new();
    let gateway = StubGateway::start(&mesh).await;
    let directory = tempfile::tempdir().unwrap();
    let (logs, data) = (directory.path().join("logs"), directory.path().join("data"));
    fs::create_dir(&logs).unwrap();
    let file = logs.join("a.log");
    append(&file, "one\ntwo\r\n\nfour\n");
    let agent = start(&mesh, &gateway, &logs, &data);
    gateway.wait_for(4).await;
    append(&file, "five\n");
    gateway.wait_for(5).await;
    fs::rename(&file, logs.join("a.log.1")).unwrap();
    append(&logs.join("a.log.1"), "six, after the rename\n");
    append(&file, "seven, in the new file\n");
    gateway.wait_for(7).await;
    fs::write(&file, "eight, truncated\n").unwrap();
    gateway.wait_for(8).await;
    fs::create_dir(logs.join("deep")).unwrap();
    append(&logs.join("deep/b.log"), "nine, in a new directory\n");
    gateway.wait_for(9).await;
    assert_eq!(agent.stop().await, Exit::Clean);
    append(&file, "ten, while it was down\n");
    let agent = start(&mesh, &gateway, &logs, &data);
    gateway.wait_for(10).await;
    assert_eq!(agent.stop().await, Exit::Clean);
    let bodies = gateway.bodies();
    let expected = [
        "",
        "eight, truncated",
        "five",
        "four",
        "nine, in a new directory",
        "one",
        "seven, in the new file",
        "six, after the rename",
        "ten, while it was down",
        "two",
    ];
    assert_eq!(bodies, expected, "each line once");
    assert_eq!(gateway.deliveries(), 10, "and no line was even sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_is_left_behind_and_sent_again_exactly_as_it_was() {
    let mesh = Mesh::new();
    let gateway = StubGateway::start(&mesh).await;
    let directory = tempfile::tempdir().unwrap();
    let (logs, data) = (directory.path().join("logs"), directory.path().join("data"));
    fs::create_dir(&logs).unwrap();
    gateway.hold_acks(true);
    append(&logs.join("a.log"), "one\ntwo\n");
    let agent = start(&mesh, &gateway, &logs, &data);
    gateway.wait_for(2).await;
    let first = gateway.batches();
    assert_eq!(agent.stop().await, Exit::Unacknowledged);
    append(&logs.join("a.log"), "three\n");
    gateway.hold_acks(false);
    let agent = start(&mesh, &gateway, &logs, &data);
    gateway.wait_for(3).await;
    assert_eq!(agent.stop().await, Exit::Clean);
    assert_eq!(&gateway.batches()[..first.len()], first, "same offsets, same observed time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_away_costs_nothing_but_time() {
    let mesh = Mesh::new();
    let gateway = StubGateway::start(&mesh).await;
    let directory = tempfile::tempdir().unwrap();
    let (logs, data) = (directory.path().join("logs"), directory.path().join("data"));
    fs::create_dir(&logs).unwrap();
    let lines: String = (0..20_000).map(|line| format!("line {line:08}\n")).collect();
    append(&logs.join("a.log"), &lines);
    gateway.cut_after(1);
    let agent = start(&mesh, &gateway, &logs, &data);
    gateway.wait_for(20_000).await;
    assert!(gateway.sessions() > 1, "it was cut off and came back");
    append(&logs.join("a.log"), "last\n");
    gateway.wait_for(20_001).await;
    assert_eq!(agent.stop().await, Exit::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_shipper_ended_ends_as_failed() {
    let mesh = Mesh::new();
    let gateway = StubGateway::start(&mesh).await;
    let directory = tempfile::tempdir().unwrap();
    let (logs, data) = (directory.path().join("logs"), directory.path().join("data"));
    fs::create_dir(&logs).unwrap();
    append(&logs.join("a.log"), "one\n");
    // A shipper without any gateway returns at once.
    let config = Config { gateways: Vec::new(), ..config(&mesh, &gateway, &logs, &data) };
    let agent = Agent::new(config, mesh.agent(), Context::for_tests()).unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(30), agent.run()).await;
    assert_eq!(exit.unwrap(), Exit::Failed, "and nobody asked it to stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_same_state_is_refused() {
    let mesh = Mesh::new();
    let gateway = StubGateway::start(&mesh).await;
    let directory = tempfile::tempdir().unwrap();
    let make =
        || Agent::new(config(&mesh, &gateway, directory.path(), directory.path()), mesh.agent(), Context::for_tests());
    let _first = make().unwrap();
    let error = make().unwrap_err().to_string();
    assert!(error.contains("in use by another agent"), "{error}");
}
