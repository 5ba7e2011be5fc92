//! Kubernetes' layout: a link in `containers` to a link in `pods` to the runtime's file, swapped and rotated.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::rig::{Line, Scene, Writer, either, poll};

/// Promised is half of it; a walk would take longer.
const PICKED_UP: Duration = Duration::from_secs(4);

/// One container's logs; every restart of it is another file.
struct Container<'a> {
    scene: &'a Scene,
    restarts: u32,
    writer: Writer,
    lines: Vec<Line>,
}

impl<'a> Container<'a> {
    fn new(scene: &'a Scene) -> Self {
        for directory in ["containers", "pods/shop_web_1234/web", "runtime"] {
            fs::create_dir_all(scene.log(directory)).unwrap();
        }
        let writer = Writer::create(&scene.log("runtime/web-0.log"));
        let container = Self { scene, restarts: 0, writer, lines: Vec::new() };
        container.link();
        container
    }

    fn pod(&self) -> PathBuf {
        self.scene.log(format!("pods/shop_web_1234/web/{}.log", self.restarts))
    }

    /// Points both links at the present file, the outer one by an atomic swap.
    fn link(&self) {
        symlink(self.writer.path(), self.pod()).unwrap();
        swap(&self.pod(), &self.scene.log("containers/web.log"));
    }

    /// The container is started anew: another file, another inner link, and the outer one is swapped.
    fn restart(&mut self) {
        self.restarts += 1;
        let next = Writer::create(&self.scene.log(format!("runtime/web-{}.log", self.restarts)));
        let old = std::mem::replace(&mut self.writer, next);
        self.lines.extend(old.lines);
        self.link();
    }

    fn lines(&self) -> Vec<Line> {
        self.lines.iter().chain(&self.writer.lines).cloned().collect()
    }
}

/// Puts a link in the place of another, which is never missing.
fn swap(target: &Path, link: &Path) {
    let next = link.with_extension("next");
    symlink(target, &next).unwrap();
    fs::rename(&next, link).unwrap();
}

async fn swapped_and_rotated(names: &[&str]) -> (Scene, Vec<Line>) {
    let scene = Scene::new(names).await;
    let mut container = Container::new(&scene);
    container.writer.write(50);
    let mut agent = scene.start();
    scene.wait_until_ready(&agent);
    for round in 0..either(6, 40) {
        container.writer.write(60);
        // What is swapped or rotated away before anybody saw it is out of reach.
        let count = container.lines().len();
        assert!(poll(PICKED_UP, || scene.gateway.count() >= count), "not picked up in {PICKED_UP:?}\n{}", agent.said());
        match round % 3 {
            // The runtime rotates the file under both links.
            0 => container.writer.rotate(2),
            1 => container.restart(),
            // Both while the agent is down, which has what was there before.
            _ => {
                assert_eq!(agent.terminate().0, Some(0));
                container.restart();
                container.writer.write(30);
                agent = scene.start();
                scene.wait_until_ready(&agent);
            }
        }
        container.writer.write(30);
    }
    let lines = container.lines();
    drop(container);
    scene.finish(agent, &lines);
    (scene, lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_are_swapped_and_targets_that_are_rotated_lose_nothing() {
    let (scene, _) = swapped_and_rotated(&["containers/*.log"]).await;
    let told: Vec<_> = scene.gateway.paths().into_values().flatten().collect();
    let outer = scene.log("containers/web.log").display().to_string();
    assert!(told.contains(&outer), "the path is the one that was asked for: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_scope_under_both_its_links_is_read_once() {
    swapped_and_rotated(&["containers/*.log", "pods/*/*/*.log"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_scope_under_its_own_name_and_its_links_is_read_once() {
    swapped_and_rotated(&["containers/*.log", "pods/*/*/*.log", "runtime/*"]).await;
}
