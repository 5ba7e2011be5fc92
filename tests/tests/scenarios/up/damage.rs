//! Damage on disk: whatever file of the data directory is garbage, empty or zeroed, the process says which, and either
//! serves or ends with a plain message; it never panics, never hangs, and never loses what the files still hold.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::up::Up;
use logmesh_tests::wait::{Look, wait_until};
use logmesh_tests::writer::{Stamp, Writer};

/// For some hundred lines, and for a process to serve or to end.
const WITHIN: Duration = Duration::from_secs(60);

/// Lines in the files before the damage.
const LINES: u64 = 300;

/// Lines written after it, which must be found wherever the process serves.
const LATER_LINES: u64 = 10;

/// Files that hold nothing that could be damaged: the lock is the kernel's, the addresses are written at each start.
const HARMLESS: [&str; 2] = ["lock", "addresses.json"];

/// A way to spoil a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Garbage,
    Empty,
    Zeroed,
}

/// What became of a process whose files were spoilt.
enum Outcome {
    Serves(Box<Up>),
    Ended(String),
}

#[tokio::test]
async fn damage_to_any_file_of_the_data_directory_is_said_and_never_a_panic() {
    scenario(async |scene| {
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
        writer.write(LINES)?;
        let up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("", LINES, WITHIN).await?;
        ensure!(up.terminate().await?.code() == Some(0), "the start was not clean");
        let sound = scene.path("sound");
        std::fs::rename(scene.data(), &sound)?;
        let mut files = Vec::new();
        list(&sound, &mut files)?;
        ensure!(files.len() > 10, "only {files:?}");
        for file in &files {
            for damage in [Damage::Garbage, Damage::Empty, Damage::Zeroed] {
                let relative = file.strip_prefix(&sound)?;
                restart(scene, &sound, relative, damage, &mut writer)
                    .await
                    .with_context(|| format!("{damage:?} in {}", relative.display()))?;
            }
        }
        Ok(())
    })
    .await;
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else if !HARMLESS.iter().any(|name| entry.file_name() == *name) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(())
}

/// Starts on a copy with one spoilt file; where it serves, what is written now must be found.
async fn restart(scene: &Scene, sound: &Path, file: &Path, damage: Damage, writer: &mut Writer) -> Result<()> {
    let data = scene.data();
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    copy(sound, &data)?;
    spoil(&data.join(file), damage)?;
    let outcome = outcome(scene).await?;
    let said = match &outcome {
        Outcome::Serves(up) => up.stderr(),
        Outcome::Ended(stderr) => stderr.clone(),
    };
    ensure!(!said.contains("panicked"), "it panicked:\n{said}");
    match outcome {
        Outcome::Serves(up) => {
            println!("{damage:?} in {}: serves", file.display());
            let before = writer.written();
            writer.write(LATER_LINES)?;
            let last = format!("app AND n{:09}", before + LATER_LINES - 1);
            up.api()?.wait_for_count(&last, 1, WITHIN).await?;
            ensure!(!up.stderr().contains("panicked"), "it panicked:\n{}", up.stderr());
            // Documents that the index itself held are gone with its files; anything else is found once, as before.
            if !file.starts_with("index") {
                up.api()?.wait_for_count("", writer.written(), WITHIN).await?;
                writer.ledger().balance_by_content(&up.api()?.export("").await?).require_exact()?;
            }
        }
        Outcome::Ended(said) => {
            println!("{damage:?} in {}: ends: {}", file.display(), said.trim());
            let name = file.file_name().and_then(|name| name.to_str()).context("a file without a name")?;
            ensure!(said.contains(name), "the message does not name {name}:\n{said}");
        }
    }
    Ok(())
}

async fn outcome(scene: &Scene) -> Result<Outcome> {
    let mut up = scene.up("*.log").spawn()?;
    let served = wait_until("it serves or ends", WITHIN, async || {
        if up.ended_by_itself()? {
            return Ok(Look::Holds(false));
        }
        Ok(match up.look().await? {
            Look::Holds(()) => Look::Holds(true),
            Look::NotYet(reason) => Look::NotYet(reason),
        })
    })
    .await
    .with_context(|| up.stderr())?;
    Ok(if served { Outcome::Serves(Box::new(up)) } else { Outcome::Ended(up.stderr()) })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn spoil(file: &Path, damage: Damage) -> Result<()> {
    let length = usize::try_from(std::fs::metadata(file)?.len())?.min(1 << 20);
    let bytes = match damage {
        Damage::Garbage => b"\0\xffgarbage, not what was here\n".repeat(length / 29 + 1)[..length].to_vec(),
        Damage::Empty => Vec::new(),
        Damage::Zeroed => vec![0; length],
    };
    std::fs::write(file, bytes).with_context(|| format!("cannot spoil {}", file.display()))
}
