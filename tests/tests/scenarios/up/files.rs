//! Files at their edges: unfinished, empty, binary, truncated to the same length, and read by an agent that lost its
//! memory.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use logmesh_tests::ledger::Ledger;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::writer::{Stamp, Writer};

/// For some thousand lines.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

/// Where the agent of `up` keeps its state, below the data directory.
const AGENT_STATE: &str = "agent";

#[tokio::test]
async fn both_generations_of_a_file_truncated_and_rewritten_with_the_same_length_are_found() {
    scenario(async |scene| {
        let path = scene.logs().join("app.log");
        let mut ledger = Ledger::default();
        let mut up = scene.up("*.log").start().await?;
        for generation in 0..2 {
            write_generation(&path, generation, &mut ledger)?;
            up.api()?.wait_for_count("", ledger.len(), FOUND_WITHIN).await?;
        }
        // Once more behind the back of a process that is dead, and once of one that is stopped in order.
        up.kill().await?;
        write_generation(&path, 2, &mut ledger)?;
        up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("", ledger.len(), FOUND_WITHIN).await?;
        up.terminate().await?;
        write_generation(&path, 3, &mut ledger)?;
        up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("", ledger.len(), FOUND_WITHIN).await?;
        ledger.balance_by_content(&up.api()?.export("").await?).require_exact()
    })
    .await;
}

/// Replaces what the file holds, in place, by as many bytes of other lines.
fn write_generation(path: &Path, generation: u32, ledger: &mut Ledger) -> Result<()> {
    let mut bytes = Vec::new();
    for number in 0..100 {
        let line = format!("generation {generation} line {number:04} of the same length");
        ledger.wrote(path, bytes.len() as u64, line.as_bytes());
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    // `write` truncates and keeps the inode.
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[tokio::test]
async fn patterns_that_cover_the_data_directory_do_not_read_what_logmesh_writes() {
    scenario(async |scene| {
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
        std::fs::create_dir(scene.data())?;
        std::os::unix::fs::symlink(scene.data().join("bus"), scene.logs().join("link"))?;
        let mut setup = scene.up("**/*");
        setup.patterns.push(scene.data().join("**/*").into());
        for _ in 0..2 {
            let up = setup.start().await?;
            // What is written for these lines would be read, and written for, and read.
            for _ in 0..4 {
                writer.write(500)?;
                up.api()?.wait_for_count("", writer.written(), FOUND_WITHIN).await?;
            }
            up.terminate().await?;
        }
        let up = setup.start().await?;
        writer.ledger().balance_by_content(&up.api()?.export("").await?).require_exact()
    })
    .await;
}

#[tokio::test]
async fn an_agent_without_its_state_finds_everything_again_and_doubles_nothing() {
    scenario(async |scene| {
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
        writer.write(2_000)?;
        writer.rotate()?;
        writer.write(1_000)?;
        let mut up = scene.up("*.log*").start().await?;
        up.api()?.wait_for_count("", writer.written(), FOUND_WITHIN).await?;
        up.terminate().await?;
        let state = scene.data().join(AGENT_STATE);
        std::fs::remove_dir_all(&state).with_context(|| format!("no agent state at {}", state.display()))?;
        writer.write(500)?;
        up = scene.up("*.log*").start().await?;
        up.api()?.wait_for_count("", writer.written(), FOUND_WITHIN).await?;
        writer.ledger().balance_by_content(&up.api()?.export("").await?).require_exact()
    })
    .await;
}

#[tokio::test]
async fn garbage_in_every_state_file_of_the_agent_loses_nothing() {
    scenario(async |scene| {
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Mixed)?;
        writer.write(2_000)?;
        let mut up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("", writer.written(), FOUND_WITHIN).await?;
        up.terminate().await?;
        let spoilt = spoil_files_below(&scene.data().join(AGENT_STATE))?;
        ensure!(spoilt > 0, "the agent keeps no state");
        writer.write(500)?;
        up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("", writer.written(), FOUND_WITHIN).await?;
        writer.ledger().balance_by_content(&up.api()?.export("").await?).require_exact()?;
        up.says(&["damaged", "checkpoint"], FOUND_WITHIN).await?;
        Ok(())
    })
    .await;
}

fn spoil_files_below(directory: &Path) -> Result<u32> {
    let mut spoilt = 0;
    for entry in std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            spoilt += spoil_files_below(&path)?;
        } else if path.is_file() {
            std::fs::write(&path, b"\0\xff garbage, not what was here")?;
            spoilt += 1;
        }
    }
    Ok(spoilt)
}

#[tokio::test]
async fn lines_of_any_bytes_are_found_with_those_bytes() {
    scenario(async |scene| {
        let lines: [&[u8]; 9] = [
            b"plain",
            b"",
            b"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\xa6\x80",
            b"\xff\xfe not text \x80",
            b"tab\tand \"quotes\" and \\ and nul \0 and escape \x1b[31m",
            b" blanks around ",
            b"a\rb",
            b"{\"level\":\"warn\",\"message\":\"from json\",\"nested\":{\"log\":{\"offset\":1}}}",
            b"the last one has no end",
        ];
        let path = scene.logs().join("any.log");
        let (mut bytes, mut ledger) = (Vec::new(), Ledger::default());
        for (number, line) in lines.into_iter().enumerate() {
            ledger.wrote(&path, bytes.len() as u64, line);
            bytes.extend_from_slice(line);
            let end: &[u8] = if number == lines.len() - 1 {
                b""
            } else if number % 3 == 0 {
                b"\r\n"
            } else {
                b"\n"
            };
            bytes.extend_from_slice(end);
        }
        std::fs::write(&path, bytes)?;
        let up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("", ledger.len(), FOUND_WITHIN).await?;
        ledger.balance_by_place(&up.api()?.export("").await?).require_exact()
    })
    .await;
}

#[tokio::test]
async fn a_line_longer_than_the_limit_is_found_in_pieces_that_join_to_it() {
    scenario(async |scene| {
        let long: Vec<u8> = (0..1_300_000_u32).map(|place| b'a' + u8::try_from(place % 26).unwrap_or(0)).collect();
        let mut bytes = long.clone();
        bytes.extend_from_slice(b"\nafter it\n");
        std::fs::write(scene.logs().join("long.log"), &bytes)?;
        let up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("\"after it\"", 1, FOUND_WITHIN).await?;
        let mut found = up.api()?.export("").await?;
        found.sort_by_key(|document| document.offset);
        let last = found.pop().context("nothing found")?;
        ensure!(last.line == b"after it", "{last}");
        let joined: Vec<u8> = found.iter().flat_map(|document| document.line.clone()).collect();
        ensure!(joined == long, "{} pieces of {} bytes in all", found.len(), joined.len());
        ensure!(found.len() == 3, "{} pieces", found.len());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_unfinished_line_is_delivered_after_a_while_and_its_rest_follows() {
    scenario(async |scene: &Scene| {
        let path = scene.logs().join("slow.log");
        std::fs::write(&path, "whole\nhalf a l")?;
        let up = scene.up("*.log").start().await?;
        let api = up.api()?;
        api.wait_for_count("", 2, FOUND_WITHIN).await?;
        let partial = api.export("tags:partial").await?;
        ensure!(partial.len() == 1 && partial[0].line == b"half a l", "{partial:?}");
        append(&path, "ine\nnext\nlone")?;
        api.wait_for_count("", 5, FOUND_WITHIN).await?;
        let continued = api.export("tags:continued").await?;
        ensure!(continued.len() == 1 && continued[0].line == b"ine", "{continued:?}");
        // A terminator alone is no record.
        append(&path, "\nlast\n")?;
        api.wait_for_count("last", 1, FOUND_WITHIN).await?;
        ensure!(api.count("").await? == 6, "{} documents", api.count("").await?);
        Ok(())
    })
    .await;
}

fn append(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
