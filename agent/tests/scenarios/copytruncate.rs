//! Copytruncate: the copy in scope, out of scope, and made while the agent is down.

use std::{fs, time::Duration};

use crate::rig::{Scene, Status, Writer, either};

/// Copies the file and truncates it, with nothing written in between: what a writer adds there is lost to everybody.
fn copytruncate(writer: &mut Writer, copy: &std::path::Path) {
    fs::copy(writer.path(), copy).unwrap();
    writer.truncate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copytruncate_with_the_copy_in_scope_loses_nothing_and_doubles_nothing() {
    let scene = Scene::new(&["*.log", "*.log.*"]).await;
    let mut writer = Writer::create(&scene.log("a.log"));
    let agent = scene.start();
    scene.wait_until_ready(&agent);
    for copy in 0..either(12, 60) {
        for _ in 0..20 {
            writer.write(10);
            std::thread::sleep(Duration::from_millis(4));
        }
        // Some of it is not read yet, more or less, and sometimes all of it.
        if copy % 3 == 2 {
            agent.pause();
            writer.write(200);
        }
        copytruncate(&mut writer, &scene.log(format!("a.log.{copy}")));
        writer.write(10);
        if copy % 3 == 2 {
            agent.resume();
        }
    }
    scene.finish(agent, &writer.lines);
}

/// What nobody saw is an event without a number: the agent cannot know how much there was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copytruncate_with_the_copy_out_of_scope_loses_what_was_written_since_the_last_read_and_says_so() {
    let scene = Scene::new(&["*.log"]).await;
    let mut writer = Writer::create(&scene.log("a.log"));
    writer.write(500);
    let agent = scene.start();
    scene.wait_until_ready(&agent);
    scene.wait_for_count(500);
    Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    agent.pause();
    writer.write(100);
    copytruncate(&mut writer, &scene.log("a.log.1"));
    writer.write(50);
    agent.resume();
    let rounds = 600..650;
    scene.wait_for_count(550);
    let status = Scene::wait_for(&agent, "the loss is told", |status| status.lost("truncated").1 > 0);
    assert_eq!(status.lost_in_all(), (0, 1), "{:#}", status.0);
    let told = status.losses();
    assert_eq!(told, [(scene.log("a.log").display().to_string(), None, "truncated".to_owned())]);
    let verdict = scene.judge(&writer.lines);
    verdict.require_once(&agent.said());
    assert_eq!(verdict.missing, writer.lines[500..600], "{verdict}");
    let kept: Vec<_> = writer.lines[..500].iter().chain(&writer.lines[rounds]).cloned().collect();
    scene.finish(agent, &kept);
}

/// What was seen and not read, for want of a gateway, is counted to the byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_copytruncate_takes_that_was_seen_is_counted_to_the_byte() {
    let scene = Scene::new(&["*.log"]).await;
    let mut writer = Writer::create(&scene.log("a.log"));
    writer.write(500);
    let agent = scene.start();
    scene.wait_until_ready(&agent);
    scene.wait_for_count(500);
    scene.gateway.go_down();
    // Far more than is read ahead without a gateway.
    writer.width = Some(1000);
    writer.write(4000);
    let size = writer.offset();
    Scene::wait_for(&agent, "the agent has seen it all", |status| status.sizes().contains(&size));
    copytruncate(&mut writer, &scene.log("a.log.1"));
    writer.width = None;
    writer.write(50);
    let status = Scene::wait_for(&agent, "the loss is told", |status| status.lost("truncated").0 > 0);
    scene.gateway.come_back();
    let lost = status.lost_in_all();
    scene.wait_for_count(550);
    assert!(crate::rig::poll(crate::rig::WITHIN, || {
        let verdict = scene.judge(&writer.lines);
        verdict.missing_bytes() == lost.0
    }));
    let verdict = scene.judge(&writer.lines);
    verdict.require_once(&agent.said());
    assert_eq!(lost.1, 1, "{:#}", status.0);
    // The end of the old generation is what is missing.
    let last = verdict.missing.len();
    assert_eq!(verdict.missing, writer.lines[4500 - last..4500], "{verdict}");
    let kept: Vec<_> = writer.lines[..4500 - last].iter().chain(&writer.lines[4500..]).cloned().collect();
    scene.finish(agent, &kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copytruncate_while_the_agent_is_down_reads_only_the_unread_tail_of_the_copy() {
    let scene = Scene::new(&["*.log", "*.log.*"]).await;
    let mut writer = Writer::create(&scene.log("a.log"));
    writer.write(100);
    let mut agent = scene.start();
    for copy in 0..either(4, 20) {
        scene.wait_for_count(writer.count());
        if copy % 2 == 0 {
            agent.kill();
        } else {
            Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
            assert_eq!(agent.terminate().0, Some(0));
        }
        writer.write(50);
        copytruncate(&mut writer, &scene.log(format!("a.log.{copy}")));
        // The new content may be shorter or longer than what was read of the old one.
        writer.write(if copy < 2 { 20 } else { 400 });
        agent = scene.start();
    }
    scene.finish(agent, &writer.lines);
}
