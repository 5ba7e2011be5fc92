//! Inodes that are used again, by files that begin alike.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt};

use crate::rig::{Line, Scene, Status, Writer, either};

/// Files that are replaced at once, so that they take each other's inodes, too.
const FILES: usize = 10;

/// Bytes in which all files are alike, more than the head by which files are told from each other.
const ALIKE: usize = 1100;

/// While the agent runs it holds its files open, and no inode is used again; so they are replaced while it is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inode_that_is_used_again_by_a_file_that_begins_alike_is_another_file() {
    let scene = Scene::new(&["*.log"]).await;
    let paths: Vec<_> = (0..FILES).map(|at| scene.log(format!("f{at}.log"))).collect();
    let mut lines: Vec<Line> = Vec::new();
    let (mut reused, mut life) = (0, 0_u32);
    while reused < either(50, 300) {
        let inodes: BTreeSet<u64> = paths.iter().filter_map(|path| Some(fs::metadata(path).ok()?.ino())).collect();
        paths.iter().for_each(|path| drop(fs::remove_file(path)));
        for path in &paths {
            let mut writer = Writer::create(path);
            let unlike = format!("{} life {life}", path.display());
            writer.write_line(&["=".repeat(ALIKE).as_bytes(), unlike.as_bytes()].concat(), b"\n");
            // Longer or shorter than the one before, of which more or less was read.
            for number in 0..(life * 7) % 40 {
                writer.write_line(format!("{unlike} line {number}").as_bytes(), b"\n");
            }
            reused += usize::from(inodes.contains(&fs::metadata(path).unwrap().ino()));
            lines.extend(writer.lines.drain(..).map(|line| Line { generation: (line.generation.0, life), ..line }));
        }
        life += 1;
        assert!(life < 1000, "this file system does not use inodes again: {reused} in {life} lives");
        let agent = scene.start();
        scene.wait_for_count(lines.len());
        let status = Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
        assert_eq!(status.lost_in_all(), (0, 0), "{:#}", status.0);
        // A kill would take away acknowledgements since the last checkpoint, and with the files gone nothing is left to
        // send again: they would count as lost.
        assert_eq!(agent.terminate().0, Some(0));
    }
    scene.finish(scene.start(), &lines);
}
