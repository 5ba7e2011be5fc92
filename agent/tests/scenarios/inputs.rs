//! Inputs that are no files, from where they come in to a gateway, over kills and while no gateway is there.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::rig::{Process, Scene, Status, WITHIN, either, poll};

/// Where Debian has the writer of journals.
const JOURNAL_WRITERS: [&str; 2] = ["/lib/systemd/systemd-journal-remote", "/usr/lib/systemd/systemd-journal-remote"];

/// A scene without files.
async fn scene(inputs: &str) -> Scene {
    let mut scene = Scene::new(&[]).await;
    scene.files = inputs.into();
    scene
}

/// Nothing that was taken is without answer.
fn is_delivered(status: &Status) -> bool {
    ["stored_bytes", "in_flight_batches", "unwritten_bytes"].iter().all(|what| status.spool("inputs", what) == 0)
}

/// What arrived, in order of their places.
fn bodies(scene: &Scene) -> Vec<String> {
    let arrived = scene.gateway.arrived().into_iter();
    arrived.map(|record| String::from_utf8(record.body).unwrap()).collect()
}

/// Where the first listener of the input `syslog` listens.
fn listener(agent: &Process) -> String {
    let mut address = None;
    assert!(
        poll(WITHIN, || {
            let status = Scene::status(agent);
            let shown = status.0["agent_inputs"]["syslog"]["listening"][0].as_str();
            address = shown.and_then(|shown| Some(shown.split_once("://")?.1.to_owned()));
            address.is_some()
        }),
        "{:#}\n{}",
        Scene::status(agent).0,
        agent.said()
    );
    address.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syslog_that_is_kept_while_no_gateway_is_there_survives_a_kill() {
    let scene = scene("[[agent.inputs]]\nkind = \"syslog\"\nlisten = [\"tcp://127.0.0.1:0\"]\n").await;
    scene.gateway.go_down();
    let agent = scene.start();
    let count = either(5_000, 50_000);
    let messages: Vec<String> =
        (0..count).map(|number| format!("<13>1 2026-11-26T10:00:00Z edge app - - - message {number:06}")).collect();
    let mut sender = TcpStream::connect(listener(&agent)).unwrap();
    sender.write_all((messages.join("\n") + "\n").as_bytes()).unwrap();
    Scene::wait_for(&agent, "all is on disk", |status| {
        status.0["agent"]["tail"]["input_records"] == count as u64
            && status.spool("inputs", "unwritten_bytes") == 0
            && status.spool("inputs", "stored_bytes") > 0
    });
    agent.kill();
    let agent = scene.start();
    scene.gateway.come_back();
    scene.wait_for_count(messages.len());
    Scene::wait_for(&agent, "all is delivered", is_delivered);
    assert_eq!(agent.terminate().0, Some(0));
    assert_eq!(bodies(&scene), messages);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_has_only_standard_input_ends_once_all_of_it_is_delivered() {
    let mut scene = scene("[[agent.inputs]]\nkind = \"stdin\"\n").await;
    let lines: Vec<String> = (0..either(20_000, 200_000)).map(|number| format!("line {number:07}")).collect();
    let input = scene.path("input");
    fs::write(&input, lines.join("\n")).unwrap();
    let redirected = format!("exec \"$@\" <'{}'", input.display());
    scene.wrapper = ["sh", "-c", &redirected, "sh"].map(Into::into).to_vec();
    let (code, said) = scene.start().wait();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(bodies(&scene), lines);
}

/// Adds entries to a journal.
fn write_journal(path: &Path, numbers: std::ops::Range<u64>) {
    let writer = JOURNAL_WRITERS.iter().find(|path| Path::new(path).exists());
    let writer = writer.expect("systemd-journal-remote is there: `make setup` installs it");
    let entry = |number: u64| {
        let time = 1_700_000_000_000_000 + number;
        format!(
            "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=0123456789abcdef0123456789abcdef\n\
             MESSAGE=entry {number}\nPRIORITY=6\n\n"
        )
    };
    let output = format!("--output={}", path.display());
    let mut process = Command::new(writer).args([&output, "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
    let process = process.as_mut().unwrap();
    process.stdin.take().unwrap().write_all(numbers.map(entry).collect::<String>().as_bytes()).unwrap();
    assert!(process.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_entry_of_the_journal_arrives_once_over_kills() {
    let mut scene = scene("").await;
    let journal = scene.path("journal");
    fs::create_dir(&journal).unwrap();
    scene.files = format!("[[agent.inputs]]\nkind = \"journald\"\ndirectory = {journal:?}\n");
    let mut agent = scene.start();
    let (kills, entries) = (either(10, 50), 300);
    for life in 0..kills {
        write_journal(&journal.join("a.journal"), life * entries + 1..(life + 1) * entries + 1);
        // Some are killed before they have begun to read, some in the middle, some after the end.
        std::thread::sleep(Duration::from_millis(rand::random_range(0..600)));
        agent.kill();
        agent = scene.start();
    }
    let all = kills * entries;
    scene.wait_for_count(usize::try_from(all).unwrap());
    Scene::wait_for(&agent, "all is delivered", is_delivered);
    let (code, said) = agent.terminate();
    assert_eq!(code, Some(0), "{said}");
    let number = |body: &String| {
        let entry: Value = serde_json::from_str(body).unwrap();
        entry["message"].as_str().unwrap().strip_prefix("entry ").unwrap().parse().unwrap()
    };
    // Each run of the agent is a stream of its own.
    let mut numbers: Vec<u64> = bodies(&scene).iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=all).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_says_arrives_line_by_line() {
    let scene =
        scene("[[agent.inputs]]\nkind = \"command\"\ncommand = [\"seq\", \"5000\"]\nrestart = \"never\"\n").await;
    let agent = scene.start();
    scene.wait_for_count(5000);
    Scene::wait_for(&agent, "all is delivered", is_delivered);
    assert_eq!(agent.terminate().0, Some(0));
    let numbers: Vec<u32> = bodies(&scene).iter().map(|body| body.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=5000).collect::<Vec<_>>());
}
