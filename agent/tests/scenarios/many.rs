//! Many tiny files, and a large backlog.

use std::{fs, time::Duration};

use logmesh_proto::Flags;

use crate::rig::{Line, Scene, Status, Writer, either};

/// Files of 0 to 30 bytes, growing by some bytes at a time, in no order, over kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tiny_files_that_grow_byte_by_byte_lose_nothing_and_double_nothing() {
    let scene = Scene::new(&["*.log"]).await;
    let count = either(200, 1000);
    let paths: Vec<_> = (0..count).map(|at| scene.log(format!("{at}.log"))).collect();
    let mut growing: Vec<(Writer, Vec<u8>, usize)> = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        let content = format!("{at} a\n{at} bcd\n\n{at} {}\n", "e".repeat(at % 12));
        growing.push((Writer::create(path), content.into_bytes(), 0));
    }
    let mut agent = scene.start();
    let mut round = 0;
    while growing.iter().any(|(_, content, written)| *written < content.len()) {
        round += 1;
        for (at, (writer, content, written)) in growing.iter_mut().enumerate() {
            // One, two or three bytes, or none in this round.
            let next = (*written + (at + round) % 4).min(content.len());
            writer.append(&content[*written..next]);
            *written = next;
        }
        if round % 8 == 0 {
            agent.kill();
            agent = scene.start();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let expected: usize = growing.iter().map(|(_, content, _)| memchr::memchr_iter(b'\n', content).count()).sum();
    scene.wait_for_count(expected);
    Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    let (code, said) = agent.terminate();
    assert_eq!(code, Some(0), "{said}");
    // Empty lines are all alike: by path and offset.
    let paths_of = scene.gateway.paths();
    let identified = scene.gateway.arrived().into_iter().map(|record| {
        let path = paths_of[&record.stream].first().unwrap().clone();
        assert_eq!(paths_of[&record.stream].len(), 1);
        (path, record.offset, record.body, record.flags.bits() & !Flags::RESEND.bits())
    });
    let mut arrived: Vec<_> = identified.collect();
    arrived.sort();
    let mut written = Vec::new();
    for (path, (_, content, _)) in paths.iter().zip(&growing) {
        let mut offset = 0;
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            written.push((path.display().to_string(), offset, line[..line.len() - 1].to_vec(), 0));
            offset += line.len() as u64;
        }
    }
    written.sort();
    assert!(arrived == written, "{} of {} records, or others", arrived.len(), written.len());
}

/// Megabytes in all, in some files.
const BACKLOG_FILES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_read_at_full_speed_over_a_gateway_that_goes_and_comes_back() {
    let scene = Scene::new(&["*.log"]).await;
    let bytes = either(512, 2048) << 20;
    let mut lines: Vec<Line> = Vec::new();
    for at in 0..BACKLOG_FILES {
        let mut writer = Writer::create(&scene.log(format!("backlog{at}.log")));
        writer.width = Some(1000);
        while writer.offset() < bytes / BACKLOG_FILES as u64 {
            writer.write(500);
        }
        lines.append(&mut writer.lines);
    }
    let agent = scene.start();
    scene.wait_for_count(lines.len() / 3);
    scene.gateway.go_down();
    let before = scene.gateway.sessions();
    let is_away = |status: &Status| status.0["agent"]["link"]["session"].is_null();
    Scene::wait_for(&agent, "it has noticed that the gateway is gone", is_away);
    scene.gateway.come_back();
    scene.wait_for_count(lines.len());
    assert!(scene.gateway.sessions() > before, "the gateway was away after the backlog was read");
    let status = Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    assert_eq!(status.tally("read_bytes"), fs_bytes(&scene), "read once, whatever was sent again");
    scene.finish(agent, &lines);
}

fn fs_bytes(scene: &Scene) -> u64 {
    fs::read_dir(scene.logs()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}
