//! A storm of renames: many files, a rotation every moment, and an agent that is stopped over some of them.

use std::time::Duration;

use crate::rig::{Paced, Rhythm, Scene, Writer, either};

const FILES: usize = 20;

/// Between two rotations of a file, of which three are kept: a generation lives for four times as long.
const ROTATION: Duration = Duration::from_millis(200);

/// Half of the files have their rotations in scope, the others only their first names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_renames_over_an_agent_that_is_stopped_now_and_then_loses_nothing() {
    let scene = Scene::new(&["*.log", "all/*.log*"]).await;
    std::fs::create_dir(scene.log("all")).unwrap();
    let name = |at: usize| format!("{}storm{at:02}.log", if at.is_multiple_of(2) { "all/" } else { "" });
    let writers: Vec<_> = (0..FILES).map(|at| Writer::create(&scene.log(name(at)))).collect();
    let agent = scene.start();
    scene.wait_until_ready(&agent);
    let rhythm = Rhythm { every: Duration::from_millis(5), lines: 2, rotation: ROTATION, kept: 3 };
    let paced = Paced::start(writers, rhythm);
    for _ in 0..either(5, 30) {
        std::thread::sleep(ROTATION * 8);
        agent.pause();
        std::thread::sleep(ROTATION * 2);
        agent.resume();
    }
    let writers = paced.finish();
    let lines: Vec<_> = writers.into_iter().flat_map(|writer| writer.lines).collect();
    scene.wait_for_count(lines.len());
    let (verdict, status) = (scene.judge(&lines), Scene::status(&agent));
    verdict.require_exact(&agent.said());
    assert_eq!(status.lost_in_all(), (0, 0));
    scene.finish(agent, &lines);
}
