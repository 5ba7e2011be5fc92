//! logrotate itself, in the modes that people use.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use crate::rig::{Scene, Status, Writer, either};

/// Where Debian has it; it is on nobody's path but root's.
const LOGROTATE: &str = "/usr/sbin/logrotate";

/// Lines that a daemon writes to the old file before it hears of a rotation.
const BELATED_LINES: usize = 5;

struct Rotation {
    directives: &'static str,
    copies: bool,
    scene: Scene,
    config: PathBuf,
}

impl Rotation {
    async fn new(directives: &'static str) -> Self {
        let mut scene = Scene::new(&["*.log", "*.log.*"]).await;
        scene.files.push_str("exclude = [\"**/*.gz\"]\n");
        let config = scene.path("logrotate.conf");
        let text = format!("{:?} {{\n  rotate 100\n  {directives}\n}}\n", scene.log("*.log"));
        fs::write(&config, text).unwrap();
        Self { directives, copies: directives.contains("copytruncate"), scene, config }
    }

    fn rotate(&self) {
        let state = self.scene.path("logrotate.state");
        let ran = Command::new(LOGROTATE).arg("-f").arg("-s").arg(state).arg(&self.config).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{}: {said}", self.directives);
    }

    /// Rotates under an agent that has read more or less of what was written.
    fn run(self, all_read: bool) {
        let mut writer = Writer::create(&self.scene.log("a.log"));
        let agent = self.scene.start();
        self.scene.wait_until_ready(&agent);
        for _ in 0..either(5, 30) {
            for _ in 0..10 {
                writer.write(20);
                std::thread::sleep(Duration::from_millis(5));
            }
            if all_read {
                self.scene.wait_for_count(writer.count());
            }
            self.rotate();
            if self.copies {
                writer.begun_anew();
            } else {
                writer.write(BELATED_LINES);
                writer.reopen();
            }
        }
        writer.write(20);
        let status = Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
        assert_eq!(status.lost("deleted"), (0, 0), "{:#}", status.0);
        self.scene.finish(agent, &writer.lines);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logrotate_create_loses_nothing_and_doubles_nothing() {
    Rotation::new("create").await.run(false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logrotate_copytruncate_loses_nothing_and_doubles_nothing() {
    Rotation::new("copytruncate").await.run(false);
}

/// What is compressed is deleted under the agent, which has it open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logrotate_compress_loses_nothing_and_doubles_nothing() {
    Rotation::new("create\n  compress").await.run(true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logrotate_delaycompress_loses_nothing_and_doubles_nothing() {
    Rotation::new("create\n  compress\n  delaycompress").await.run(false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logrotate_copytruncate_with_delaycompress_loses_nothing_and_doubles_nothing() {
    Rotation::new("copytruncate\n  compress\n  delaycompress").await.run(false);
}
