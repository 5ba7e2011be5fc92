//! No server and no directory stays behind, whatever the end of the process that started it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const WITHIN: Duration = Duration::from_secs(60);

/// The word that follows another.
fn after<'a>(line: &'a str, word: &str) -> Result<&'a str> {
    let mut words = line.split_whitespace().skip_while(|each| *each != word);
    words.nth(1).with_context(|| format!("no {word} in {line:?}"))
}

/// Whether any process, or its parent's group, is the server's: it leads a group of its own.
fn lives(group: &str) -> bool {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok()).any(|stat| {
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().collect();
        fields.get(2) == Some(&group) && fields.first() != Some(&"Z")
    })
}

#[test]
fn a_server_with_its_children_and_its_directory_is_gone_when_its_process_was_killed() -> Result<()> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_logmesh-rig"))
        .arg("elasticsearch")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(process.stdout.take().context("no stdout")?).read_line(&mut line)?;
    let (pid, ca) = (after(&line, "pid")?, Path::new(after(&line, "ca")?));
    assert!(lives(pid), "{line}");
    assert!(ca.exists(), "{line}");
    process.kill()?;
    process.wait()?;
    let deadline = Instant::now() + WITHIN;
    while lives(pid) || ca.exists() {
        assert!(Instant::now() < deadline, "still there: {line}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
