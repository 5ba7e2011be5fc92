//! Files that are deleted while no gateway takes what they hold, and what is kept of them for how much.

use std::{collections::BTreeMap, fs};

use crate::rig::{Line, Process, Scene, Status, WITHIN, Writer, either, poll};

/// A scene in which a file stays and others are deleted, and the budget for those.
async fn scene(budget: &str) -> Scene {
    let mut scene = Scene::new(&["*.log"]).await;
    scene.files.push_str(&format!("[agent.spool]\ndeleted_bytes_max = {budget:?}\n"));
    scene
}

/// Files that begin, with a line each that is delivered.
fn begin(scene: &Scene, agent: &Process, names: &[&str]) -> Vec<Writer> {
    let mut writers: Vec<_> = names.iter().map(|name| Writer::create(&scene.log(format!("{name}.log")))).collect();
    writers.iter_mut().for_each(|writer| writer.write(1));
    scene.wait_for_count(writers.len());
    Scene::wait_for(agent, "the agent is at rest", Status::is_at_rest);
    writers
}

/// Appends lines that no codec makes much smaller than half.
fn write_noise(writer: &mut Writer, bytes: usize) {
    let end = writer.offset() + bytes as u64;
    while writer.offset() < end {
        let noise: [u64; 32] = rand::random();
        let words: Vec<String> = noise.iter().map(|word| format!("{word:016x}")).collect();
        writer.write_line(words.concat().as_bytes(), b"\n");
    }
}

/// Deletes files after their last line, and returns the lines.
fn delete(writers: Vec<Writer>) -> Vec<Line> {
    writers.iter().for_each(|writer| fs::remove_file(writer.path()).unwrap());
    writers.into_iter().flat_map(|writer| writer.lines).collect()
}

/// Files that the agent holds open although they are deleted.
fn deleted_and_open(agent: &Process, scene: &Scene) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", agent.pid().as_raw_nonzero())).unwrap();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.starts_with(scene.logs()) && link.to_string_lossy().ends_with(" (deleted)")).count()
}

/// Waits until the agent holds no deleted file any more, and what it spooled of them is on disk.
fn wait_until_released(agent: &Process, scene: &Scene) -> Status {
    let released = poll(WITHIN, || deleted_and_open(agent, scene) == 0);
    assert!(released, "deleted files are held open\n{}", agent.said());
    Scene::wait_for(agent, "the spool is written", |status| {
        status.found() == 1 && status.spool("deleted", "unwritten_bytes") == 0
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deleted_file_still_holds_gives_its_descriptor_back_and_survives_a_kill() {
    let scene = scene("unlimited").await;
    let agent = scene.start();
    let mut writers = begin(&scene, &agent, &["stays", "goes", "goes-too"]);
    let stays = writers.remove(0);
    scene.gateway.go_down();
    writers.iter_mut().for_each(|writer| writer.write(either(4_000, 40_000)));
    let lines = [stays.lines, delete(writers)].concat();
    let status = wait_until_released(&agent, &scene);
    assert!(status.spool("deleted", "stored_bytes") > 0, "{:#}", status.0);
    agent.kill();
    let agent = scene.start();
    scene.gateway.come_back();
    scene.finish(agent, &lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stops_spools_what_deleted_files_still_hold_at_once() {
    let scene = scene("1 GiB").await;
    let agent = scene.start();
    let mut writers = begin(&scene, &agent, &["stays", "goes"]);
    let stays = writers.remove(0);
    scene.gateway.go_down();
    writers[0].write(either(4_000, 40_000));
    let lines = [stays.lines, delete(writers)].concat();
    let (code, said) = agent.terminate();
    assert_eq!(code, Some(0), "{said}");
    scene.gateway.come_back();
    scene.finish(scene.start(), &lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_budget_the_oldest_goes_and_exactly_that_is_counted_by_file() {
    let scene = scene("1 MiB").await;
    let agent = scene.start();
    let mut writers = begin(&scene, &agent, &["stays", "first", "second", "third"]);
    let stays = writers.remove(0);
    scene.gateway.go_down();
    for writer in &mut writers {
        write_noise(writer, either(2 << 20, 20 << 20));
    }
    let lines = [stays.lines, delete(writers)].concat();
    let status = wait_until_released(&agent, &scene);
    scene.gateway.come_back();
    let delivered = |status: &Status| {
        status.spool("deleted", "stored_bytes") == 0 && status.spool("deleted", "in_flight_batches") == 0
    };
    Scene::wait_for(&agent, "the spool is delivered", delivered);
    let verdict = scene.judge(&lines);
    verdict.require_once(&agent.said());
    assert!(!verdict.missing.is_empty() && verdict.missing.len() < lines.len() - 10, "{verdict}");
    assert_eq!(status.lost("spool_full").0, verdict.missing_bytes(), "{verdict}\n{:#}\n{}", status.0, agent.said());
    let mut missing = BTreeMap::<_, u64>::new();
    for line in &verdict.missing {
        let path = scene.log(format!("{}.log", line.generation.0)).display().to_string();
        *missing.entry(path).or_default() += line.bytes.len() as u64 + 1;
    }
    let mut counted = BTreeMap::<_, u64>::new();
    for (path, bytes, _) in status.losses() {
        *counted.entry(path).or_default() += bytes.unwrap();
    }
    assert_eq!(counted, missing, "{:#}", status.0);
    assert_eq!(agent.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_budget_what_is_unread_of_a_deleted_file_is_given_up_and_counted() {
    let mut scene = scene("0 B").await;
    // More is written than may be under way.
    scene.settings.push_str("memory = \"2 MiB\"\n");
    let agent = scene.start();
    let mut writers = begin(&scene, &agent, &["stays", "goes"]);
    let stays = writers.remove(0);
    scene.gateway.go_down();
    write_noise(&mut writers[0], 8 << 20);
    let lines = [stays.lines, delete(writers)].concat();
    Scene::wait_for(&agent, "the rest is given up", |status| status.lost("spool_full").1 > 0);
    assert_eq!(deleted_and_open(&agent, &scene), 0, "{}", agent.said());
    scene.gateway.come_back();
    let status = Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    let verdict = scene.judge(&lines);
    verdict.require_once(&agent.said());
    assert!(!verdict.missing.is_empty() && verdict.missing.len() < lines.len() - 10, "{verdict}");
    assert_eq!(status.lost("spool_full").0, verdict.missing_bytes(), "{verdict}\n{:#}", status.0);
    assert_eq!(agent.terminate().0, Some(0));
}
