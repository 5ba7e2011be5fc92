//! Directories that links lead to, and names that cannot be looked at.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags, mkdirat, openat};

use crate::rig::{Line, Scene, Writer, poll};

/// Promised is a fifth of it; a walk alone would take as long only by chance.
const PICKED_UP: Duration = Duration::from_secs(10);
/// New files that must each be noticed by a hint: walks, ten seconds apart, would take longer for all of them.
const NEW: usize = 6;

/// Files that appear one after the other are picked up by hints alone.
fn require_hints(scene: &Scene, directory: &str, lines: &mut Vec<Line>) {
    let begun = Instant::now();
    for at in 0..NEW {
        let mut writer = Writer::create(&scene.log(format!("{directory}/new{at}.log")));
        writer.write(10);
        lines.extend(writer.lines);
        assert!(poll(PICKED_UP * 3, || scene.gateway.count() >= lines.len()), "file {at} is not picked up");
    }
    assert!(begun.elapsed() < PICKED_UP * 2, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_below_a_link_to_a_directory_are_picked_up_and_followed_by_hints() {
    let scene = Scene::new(&["current/*.log"]).await;
    fs::create_dir(scene.path("elsewhere")).unwrap();
    symlink(scene.path("elsewhere"), scene.log("current")).unwrap();
    let mut writer = Writer::create(&scene.log("current/old.log"));
    writer.write(10);
    let agent = scene.start();
    scene.wait_for_count(10);
    let mut lines = Vec::new();
    lines.append(&mut writer.lines);
    require_hints(&scene, "current", &mut lines);
    // Out of scope between two looks, and another file in its place.
    for number in 0..5 {
        writer.write(10);
        fs::rename(scene.log("current/old.log"), scene.log(format!("current/old.{number}"))).unwrap();
        writer.reopen();
        writer.write(10);
        lines.append(&mut writer.lines);
    }
    scene.finish(agent, &lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_scope_is_read_although_links_out_of_scope_lead_to_it() {
    let scene = Scene::new(&["*/logs/*.log"]).await;
    let mut lines = Vec::new();
    for app in ["one", "two"] {
        fs::create_dir_all(scene.log(format!("{app}/logs"))).unwrap();
        // In the order of names, of inodes, and of creation one before the other and one behind it.
        for link in ["a", "z"] {
            symlink("logs", scene.log(format!("{app}/{link}"))).unwrap();
        }
        // And in a circle.
        symlink("..", scene.log(format!("{app}/logs/up"))).unwrap();
        let mut writer = Writer::create(&scene.log(format!("{app}/logs/{app}.log")));
        writer.write(10);
        lines.extend(writer.lines);
    }
    let agent = scene.start();
    scene.wait_for_count(lines.len());
    require_hints(&scene, "one/logs", &mut lines);
    scene.finish(agent, &lines);
}

/// Makes directories below one another, further than any path reaches; the first lies in `above`.
fn make_deep(above: &Path, levels: usize) {
    let name = "d".repeat(200);
    let mut directory = File::open(above).unwrap();
    for _ in 0..levels {
        mkdirat(&directory, name.as_str(), Mode::RWXU).unwrap();
        directory =
            openat(&directory, name.as_str(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap().into();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_is_read_as_deep_as_paths_reach_and_what_lies_deeper_is_told() {
    let scene = Scene::new(&["**/*.log"]).await;
    let deep = "d/".repeat(500);
    fs::create_dir_all(scene.log(&deep)).unwrap();
    make_deep(&scene.log("."), 30);
    let mut lines = Vec::new();
    for path in [format!("{deep}deep.log"), "z.log".to_owned()] {
        let mut writer = Writer::create(&scene.log(path));
        writer.write(10);
        lines.extend(writer.lines);
    }
    let agent = scene.start();
    scene.wait_for_count(lines.len());
    let status = Scene::wait_for(&agent, "what is too deep is told", |status| !status.unreadable().is_empty());
    assert!(status.0.to_string().contains("File name too long"), "{:#}", status.0);
    require_hints(&scene, &deep, &mut lines);
    scene.finish(agent, &lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_can_never_be_looked_at_does_not_hide_that_another_file_is_gone() {
    let scene = Scene::new(&["*.log"]).await;
    symlink("loop.log", scene.log("loop.log")).unwrap();
    let [mut stays, mut goes] = ["stays", "goes"].map(|name| Writer::create(&scene.log(format!("{name}.log"))));
    stays.write(10);
    goes.write(10);
    let agent = scene.start();
    scene.wait_for_count(20);
    let status = Scene::wait_for(&agent, "the loop is told", |status| !status.unreadable().is_empty());
    assert!(status.unreadable()[0].ends_with("loop.log"), "{:#}", status.0);
    // Known to the agent, and never sent.
    scene.gateway.hold_acks(true);
    goes.write(10);
    scene.wait_for_count(30);
    agent.kill();
    fs::remove_file(goes.path()).unwrap();
    scene.gateway.hold_acks(false);
    let agent = scene.start();
    // It is kept for a while, in case that it turns up elsewhere, and then counted as lost.
    Scene::wait_for(&agent, "the file is known to be gone", |status| status.0.to_string().contains("vanished"));
    assert_eq!(agent.terminate().0, Some(3), "what is gone was never acknowledged");
}
