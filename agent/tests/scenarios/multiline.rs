//! Joined records under rotation and kills in the middle of a record.

use std::{fs, time::Duration};

use logmesh_proto::Flags;

use crate::rig::{Line, Scene, Status, Writer, either};

/// Lines of a stack trace, of which the first begins a record.
fn trace(number: usize, frames: usize) -> Vec<String> {
    let first = format!("ERROR {number:05} request failed");
    let cause = format!("java.lang.IllegalStateException: {number:05} boom");
    let frames = (0..frames).map(|frame| format!("\tat a.B{number}.c{frame}(B.java:{frame})"));
    [first, cause].into_iter().chain(frames).collect()
}

/// Appends lines as one record that the oracle expects.
fn write_record(writer: &mut Writer, lines: &[String]) {
    writer.write_line(lines.join("\n").as_bytes(), b"\n");
}

async fn scene() -> Scene {
    let mut scene = Scene::new(&["*.log", "*.log.*"]).await;
    scene.files.push_str("multiline = \"java\"\nmultiline_timeout = \"3s\"\n");
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_rotation_cuts_in_two_is_continued_and_nothing_is_lost() {
    let scene = scene().await;
    let mut writer = Writer::create(&scene.log("a.log"));
    let agent = scene.start();
    scene.wait_until_ready(&agent);
    let mut continued = Vec::new();
    for number in 0..either(30, 300) {
        let lines = trace(number, 1 + number % 20);
        if number % 3 == 0 {
            // The rest is at the beginning of the next file.
            let (one, other) = lines.split_at(2 + number % lines.len().saturating_sub(2).max(1));
            write_record(&mut writer, one);
            writer.rotate(1000);
            if !other.is_empty() {
                continued.push(other.join("\n").into_bytes());
                write_record(&mut writer, other);
            }
        } else {
            write_record(&mut writer, &lines);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // The last record is as whole as the others.
    scene.wait_for_count(writer.count());
    let marked = scene.gateway.arrived().into_iter().filter(|record| record.flags == Flags::FIRST_CONTINUED);
    let mut marked: Vec<_> = marked.map(|record| record.body).collect();
    marked.sort();
    continued.sort();
    assert_eq!(marked.len(), continued.len());
    assert!(marked == continued, "others are marked than those that were cut off");
    scene.finish(agent, &writer.lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_in_the_middle_of_a_record_neither_cut_nor_lose_nor_double_it() {
    let scene = scene().await;
    let mut writer = Writer::create(&scene.log("a.log"));
    let mut agent = scene.start();
    for kill in 0..either(10, 100) {
        for number in 0..20 {
            write_record(&mut writer, &trace(kill * 100 + number, number));
        }
        // A record that is under way while the agent is killed and comes back.
        let record = trace(kill * 100 + 99, 30);
        let (before, after) = record.split_at(1 + kill * 7 % 30);
        let text = |lines: &[String]| lines.iter().flat_map(|line| [line, "\n"]).collect::<String>();
        let line = Line { generation: ("a".into(), 0), offset: writer.offset(), bytes: record.join("\n").into_bytes() };
        writer.append(text(before).as_bytes());
        // All but the one that is under way.
        if kill % 2 == 0 {
            scene.wait_for_count(writer.count());
        }
        agent.kill();
        agent = scene.start();
        if kill % 3 == 0 {
            scene.wait_until_ready(&agent);
        }
        writer.append(text(after).as_bytes());
        writer.lines.push(line);
    }
    scene.wait_for_count(writer.count());
    let cut = Flags::LAST_PARTIAL.union(Flags::FIRST_CONTINUED).union(Flags::LAST_SPLIT).bits();
    assert!(scene.gateway.arrived().iter().all(|record| record.flags.bits() & cut == 0), "a record was cut");
    assert!(fs::metadata(writer.path()).unwrap().len() == writer.offset());
    Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    scene.finish(agent, &writer.lines);
}
