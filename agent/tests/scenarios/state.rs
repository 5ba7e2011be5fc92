//! Damage to the agent's state while there is something unread, and a volume that has no room for it.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use logmesh_proto::Flags;

use crate::rig::{Line, Process, Scene, Status, WITHIN, Writer, poll};

/// A way to spoil a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Zeroed,
    Cut,
    Empty,
    Garbage,
}

impl Damage {
    fn to(self, path: &Path) {
        let sound = fs::read(path).unwrap();
        let spoilt = match self {
            Self::Zeroed => vec![0; sound.len()],
            Self::Cut => sound[..sound.len() * 2 / 3].to_vec(),
            Self::Empty => Vec::new(),
            Self::Garbage => sound.iter().enumerate().map(|(at, byte)| byte ^ (at * 31 + 7) as u8).collect(),
        };
        fs::write(path, spoilt).unwrap();
    }
}

/// Files of the state with these names, or with names that begin with one that ends in a dash.
fn state_files(scene: &Scene, names: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(scene.data()).unwrap().map(|entry| entry.unwrap());
    let fits = |name: &str| {
        let is = |wanted: &&str| name == *wanted || (wanted.ends_with('-') && name.starts_with(*wanted));
        !name.ends_with(".damaged") && names.iter().any(is)
    };
    entries.filter(|entry| fits(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

/// Two files, one of them truncated once: its identity is nowhere but in the state.
struct Files {
    plain: Writer,
    truncated: Writer,
}

impl Files {
    fn create(scene: &Scene) -> Self {
        let [plain, truncated] = ["plain", "truncated"].map(|kind| scene.log(format!("{kind}.log")));
        Self { plain: Writer::create(&plain), truncated: Writer::create(&truncated) }
    }

    fn count(&self) -> usize {
        self.plain.count() + self.truncated.count()
    }

    fn write(&mut self) {
        self.plain.write(40);
        self.truncated.write(40);
    }
}

async fn damaged(names: &[&str]) {
    for damage in [Damage::Zeroed, Damage::Cut, Damage::Empty, Damage::Garbage] {
        damaged_so(names, damage).await;
    }
}

async fn damaged_so(names: &[&str], damage: Damage) {
    let scene = Scene::new(&["*.log"]).await;
    let mut files = Files::create(&scene);
    files.write();
    // A clean stop, so that there is a previous checkpoint.
    let agent = scene.start();
    scene.wait_for_count(files.count());
    Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    assert_eq!(agent.terminate().0, Some(0));
    let agent = scene.start();
    files.write();
    scene.wait_for_count(files.count());
    Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    files.truncated.truncate();
    files.write();
    scene.wait_for_count(files.count());
    // Sent and not acknowledged.
    scene.gateway.hold_acks(true);
    files.write();
    scene.wait_for_count(files.count());
    agent.kill();
    scene.gateway.hold_acks(false);
    files.write();
    let spoilt = state_files(&scene, names);
    assert!(!spoilt.is_empty());
    spoilt.iter().for_each(|path| damage.to(path));
    let agent = scene.start();
    scene.wait_until_ready(&agent);
    let lines: Vec<Line> = files.plain.lines.into_iter().chain(files.truncated.lines).collect();
    let (mut verdict, mut seen) = (scene.judge(&lines), 0);
    // What comes twice counts, too: only the oracle knows when all is there.
    while !verdict.missing.is_empty() && poll(WITHIN / 2, || scene.gateway.count() > seen) {
        seen = scene.gateway.count();
        verdict = scene.judge(&lines);
    }
    Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    require_nothing_lost(&scene, &agent, &lines, damage);
    let (code, said) = agent.terminate();
    assert_eq!(code, Some(0), "{damage:?}: {said}");
}

/// Every line is there; those of files whose identity was lost may be there again, marked as resends.
fn require_nothing_lost(scene: &Scene, agent: &Process, lines: &[Line], damage: Damage) {
    let verdict = scene.judge(lines);
    assert!(verdict.missing.is_empty() && verdict.foreign.is_empty(), "{damage:?} {verdict}\n{}", agent.said());
    let arrived = scene.gateway.arrived();
    for line in &verdict.twice {
        assert!(&*line.generation.0 == "truncated", "{damage:?} {verdict}\n{}", agent.said());
        let same = arrived.iter().filter(|record| record.body == line.bytes);
        let unmarked = same.filter(|record| !record.flags.contains(Flags::RESEND)).count();
        assert!(unmarked <= 1, "{damage:?}: twice, and not marked as a resend: {line:?}\n{}", agent.said());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_checkpoint_loses_nothing() {
    damaged(&["checkpoint"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_previous_checkpoint_loses_nothing() {
    damaged(&["checkpoint.previous"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_cut_log_loses_nothing() {
    damaged(&["cuts-"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_damaged_altogether_loses_nothing_and_marks_what_comes_again() {
    damaged(&["checkpoint", "checkpoint.previous", "cuts-"]).await;
}

/// Size of the volume.
const VOLUME_KIB: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_volume_stops_reading_says_so_and_everything_arrives_once_there_is_room() {
    let mut scene = Scene::new(&["*.log", "*.log.*"]).await;
    fs::create_dir(scene.data()).unwrap();
    let mount = format!("mount -t tmpfs -o size={VOLUME_KIB}k tmpfs '{}' && exec \"$@\"", scene.data().display());
    scene.wrapper = ["unshare", "-Urm", "sh", "-c", &mount, "sh"].map(Into::into).to_vec();
    let mut writer = Writer::create(&scene.log("a.log"));
    writer.write(100);
    let agent = scene.start();
    scene.wait_for_count(100);
    // A process with mounts of its own shows its files below `/proc/PID/root`.
    let root = PathBuf::from(format!("/proc/{}/root", agent.pid().as_raw_nonzero()));
    let filler = root.join(scene.data().strip_prefix("/").unwrap()).join("filler");
    for _ in 0..3 {
        fill(&filler);
        // Some cuts may still fit into what the log has already.
        writer.rotate(100);
        let told = || {
            writer.write(20);
            agent.ask("/readyz").contains("make room")
        };
        assert!(poll(WITHIN, told), "{}\n{}", agent.ask("/readyz"), agent.said());
        fs::remove_file(&filler).unwrap();
        scene.wait_for_count(writer.count());
        assert!(poll(WITHIN, || agent.ask("/readyz").contains("\"ready\":true")), "{}", agent.ask("/readyz"));
    }
    Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    let (code, said) = agent.terminate();
    assert_eq!(code, Some(0), "{said}");
    scene.judge(&writer.lines).require_exact(&said);
}

/// Takes all the room there is.
fn fill(filler: &Path) {
    let mut file = File::create(filler).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[0; 512]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}
