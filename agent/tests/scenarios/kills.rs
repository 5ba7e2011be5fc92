//! SIGKILL at random moments, under load and rotation.

use std::time::Duration;

use crate::rig::{Paced, Rhythm, Scene, Writer, either};

/// Longest life of an agent between two kills, in milliseconds; the shortest is none at all.
const LIFE_MILLIS_MAX: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_under_rotation_lose_nothing_and_double_nothing() {
    let scene = Scene::new(&["*.log", "*.log.*"]).await;
    let writers = ["one", "two", "three"].map(|name| Writer::create(&scene.log(format!("{name}.log"))));
    let rhythm = Rhythm { every: Duration::from_millis(3), lines: 4, rotation: Duration::from_millis(300), kept: 1000 };
    let paced = Paced::start(writers.into(), rhythm);
    let mut agent = scene.start();
    for _ in 0..either(10, 100) {
        std::thread::sleep(Duration::from_millis(rand::random_range(0..LIFE_MILLIS_MAX)));
        agent.kill();
        agent = scene.start();
    }
    let lines: Vec<_> = paced.finish().into_iter().flat_map(|writer| writer.lines).collect();
    scene.finish(agent, &lines);
}
