//! Lines and files as nobody wants them.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, PermissionsExt, chown},
    path::Path,
    process::Command,
};

use logmesh_proto::Flags;

use crate::{
    rig::{Process, Scene, Status, Writer, either},
    stub::Arrived,
};

/// A user that nobody is.
const STRANGER: u32 = 54_321;

/// Ends the agent, which must have nothing left to do.
fn stop(agent: Process) {
    Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    let (code, said) = agent.terminate();
    assert_eq!(code, Some(0), "{said}");
}

/// What arrived, in order, from a scene with one file: offset, body, marks but that of a resend, which all has that was
/// there before the agent's first start.
fn records(scene: &Scene) -> Vec<(u64, Vec<u8>, Flags)> {
    let arrived = scene.gateway.arrived();
    let streams: std::collections::BTreeSet<_> = arrived.iter().map(|record| &record.stream).collect();
    assert!(streams.len() <= 1, "one file is one stream");
    let marks = |flags: Flags| Flags::from_bits(flags.bits() & !Flags::RESEND.bits());
    arrived.into_iter().map(|Arrived { offset, body, flags, .. }| (offset, body, marks(flags))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_any_bytes_arrive_as_they_are() {
    /// Content, and the body that it becomes.
    const LINES: [(&[u8], &[u8]); 12] = [
        (b"\n", b""),
        (b"\r\n", b""),
        (b"plain\n", b"plain"),
        (b"dos\r\n", b"dos"),
        (b"two\r\r\n", b"two\r"),
        (b"lone\rcr\n", b"lone\rcr"),
        (b"\r lone cr first\n", b"\r lone cr first"),
        (b"nul\0in\0the middle\0\n", b"nul\0in\0the middle\0"),
        (b"\xff\xfe\x80 no UTF-8 \xc3\n", b"\xff\xfe\x80 no UTF-8 \xc3"),
        (b"\xe2\x80\xa8 line separator, \x0b\x0c\x1c\x85\n", b"\xe2\x80\xa8 line separator, \x0b\x0c\x1c\x85"),
        (b"\x1b[31mred\x1b[0m\n", b"\x1b[31mred\x1b[0m"),
        (b" \t \n", b" \t "),
    ];
    let scene = Scene::new(&["*.log"]).await;
    let file = scene.log("a.log");
    let (mut content, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..either(500, 5_000) {
        for (bytes, body) in LINES {
            expected.push((content.len() as u64, body.to_vec(), Flags::NONE));
            content.extend_from_slice(bytes);
        }
    }
    let (before, after) = content.split_at(content.len() / 3);
    fs::write(&file, before).unwrap();
    let agent = scene.start();
    scene.wait_until_ready(&agent);
    append(&file, after);
    scene.wait_for_count(expected.len());
    stop(agent);
    assert!(records(&scene) == expected, "{} of {}", records(&scene).len(), expected.len());
}

fn append(path: &Path, bytes: &[u8]) {
    std::io::Write::write_all(&mut File::options().append(true).create(true).open(path).unwrap(), bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_many_megabytes_arrives_in_pieces_that_join_to_it() {
    let scene = Scene::new(&["*.log"]).await;
    let file = scene.log("a.log");
    let length = either(8, 200) << 20;
    // Unlike at every place, so that pieces that are swapped or lost show.
    let long: Vec<u8> = (0_u64..).flat_map(|number| format!("{number:x} ").into_bytes()).take(length).collect();
    fs::write(&file, b"before\n").unwrap();
    let agent = scene.start();
    scene.wait_for_count(1);
    for part in long.chunks(1 << 20) {
        append(&file, part);
    }
    append(&file, b"\nafter\n");
    scene.wait_for_count(2 + length.div_ceil(512 << 10));
    Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    let peak = peak_mib(&agent);
    stop(agent);
    let records = records(&scene);
    assert_eq!((&records[0].1[..], &records.last().unwrap().1[..]), (&b"before"[..], &b"after"[..]));
    let pieces = &records[1..records.len() - 1];
    assert!(pieces.iter().flat_map(|(_, body, _)| body).eq(&long), "the pieces do not join to the line");
    for (at, (offset, body, flags)) in pieces.iter().enumerate() {
        assert!(body.len() <= 512 << 10);
        assert_eq!(*offset, 7 + pieces[..at].iter().map(|(_, body, _)| body.len() as u64).sum::<u64>());
        assert_eq!(flags.contains(Flags::FIRST_CONTINUED), at > 0, "piece {at}");
        assert_eq!(flags.contains(Flags::LAST_SPLIT), at + 1 < pieces.len(), "piece {at}");
    }
    assert!(peak < 128, "it took {peak} MiB");
}

/// Largest resident memory so far.
fn peak_mib(agent: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unterminated_line_is_sent_after_a_while_and_its_completion_is_continued() {
    let mut scene = Scene::new(&["*.log"]).await;
    scene.settings.push_str("partial_flush = \"300ms\"");
    let file = scene.log("a.log");
    append(&file, b"whole\nhalf");
    let mut agent = scene.start();
    let mut expected = vec![(0, b"whole".to_vec(), Flags::NONE), (6, b"half".to_vec(), Flags::LAST_PARTIAL)];
    scene.wait_for_count(2);
    for kill in [false, true] {
        // A terminator alone adds nothing, nor does it after a kill.
        if kill {
            agent.kill();
            agent = scene.start();
        }
        append(&file, b"\n");
        let at = fs::metadata(&file).unwrap().len();
        append(&file, b"next\nhalf");
        expected.push((at, b"next".to_vec(), Flags::NONE));
        expected.push((at + 5, b"half".to_vec(), Flags::LAST_PARTIAL));
        scene.wait_for_count(expected.len());
        // More of it is a record of its own.
        if kill {
            agent.kill();
            agent = scene.start();
        }
        append(&file, b" done\nhalf");
        expected.push((at + 9, b" done".to_vec(), Flags::FIRST_CONTINUED));
        expected.push((at + 15, b"half".to_vec(), Flags::LAST_PARTIAL));
        scene.wait_for_count(expected.len());
    }
    append(&file, b"\r\nend\n");
    expected.push((fs::metadata(&file).unwrap().len() - 4, b"end".to_vec(), Flags::NONE));
    scene.wait_for_count(expected.len());
    stop(agent);
    assert_eq!(records(&scene), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_allocated_before_it_is_written_is_read_as_it_is_written() {
    let scene = Scene::new(&["*.log"]).await;
    let path = scene.log("a.log");
    let made = Command::new("fallocate").args(["-l", "4MiB"]).arg(&path).status().unwrap();
    assert!(made.success());
    let file = File::options().write(true).open(&path).unwrap();
    let mut agent = scene.start();
    scene.wait_until_ready(&agent);
    let (mut at, mut expected) = (0, Vec::new());
    for number in 0..either(300, 3_000) {
        let line = format!("line {number} {}", "x".repeat(number * 37 % 1000));
        expected.push((at, line.clone().into_bytes(), Flags::NONE));
        let line = format!("{line}\n");
        // A line may be written in two parts.
        let (one, other) = line.as_bytes().split_at(line.len() * (number % 3) / 2);
        file.write_all_at(one, at).unwrap();
        file.write_all_at(other, at + one.len() as u64).unwrap();
        at += line.len() as u64;
        if number % 50 == 49 {
            scene.wait_for_count(expected.len());
        }
        if number % 100 == 99 {
            agent.kill();
            agent = scene.start();
        }
    }
    scene.wait_for_count(expected.len());
    stop_padded(&scene, agent);
    assert!(records(&scene) == expected, "{} of {}", records(&scene).len(), expected.len());
}

/// Ends an agent whose file has room that is not written.
fn stop_padded(scene: &Scene, agent: Process) {
    // It may have been started a moment ago.
    scene.wait_until_ready(&agent);
    Scene::wait_for(&agent, "all that was read is acknowledged", Status::is_acknowledged);
    let (code, said) = agent.terminate();
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_in_a_file_is_skipped_and_counted() {
    let scene = Scene::new(&["*.log"]).await;
    let file = File::create(scene.log("a.log")).unwrap();
    file.write_all_at(b"before\n", 0).unwrap();
    let agent = scene.start();
    scene.wait_for_count(1);
    let (mut expected, mut skipped) = (vec![(0, b"before".to_vec(), Flags::NONE)], 0);
    let mut at = 7;
    for hole in [1, 4096, 3 << 20, either(64 << 20, 2 << 30)] {
        at += hole;
        skipped += hole;
        let line = format!("behind {hole}");
        file.write_all_at(format!("{line}\n").as_bytes(), at).unwrap();
        expected.push((at, line.clone().into_bytes(), Flags::NONE));
        at += line.len() as u64 + 1;
        scene.wait_for_count(expected.len());
    }
    let status = Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    assert_eq!((status.tally("skipped_bytes"), status.lost_in_all()), (skipped, (0, 0)));
    stop(agent);
    assert_eq!(records(&scene), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_replaced_by_a_directory_and_back_is_read_and_harms_no_other() {
    let scene = Scene::new(&["*.log"]).await;
    let mut writer = Writer::create(&scene.log("a.log"));
    let mut other = Writer::create(&scene.log("b.log"));
    writer.write(50);
    let agent = scene.start();
    scene.wait_until_ready(&agent);
    for _ in 0..3 {
        writer.write(50);
        fs::remove_file(writer.path()).unwrap();
        fs::create_dir(writer.path()).unwrap();
        // To the deleted file: it is open in the agent.
        writer.write(10);
        other.write(50);
        scene.wait_for_count(writer.count() + other.count());
        fs::remove_dir(writer.path()).unwrap();
        writer.reopen();
        writer.write(50);
        scene.wait_for_count(writer.count() + other.count());
    }
    let lines: Vec<_> = writer.lines.into_iter().chain(other.lines).collect();
    scene.finish(agent, &lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_be_read_for_a_while_is_told_and_goes_on_where_it_was() {
    let mut scene = Scene::new(&["*.log"]).await;
    if rustix::process::getuid().is_root() {
        // Within a user namespace root has no power over the files of users that the namespace does not know.
        scene.wrapper = ["unshare", "-Ur"].map(Into::into).to_vec();
    }
    let mut writer = Writer::create(&scene.log("secret.log"));
    let mut other = Writer::create(&scene.log("open.log"));
    writer.write(100);
    let agent = scene.start();
    scene.wait_for_count(100);
    // One that is open stays readable.
    set_readable(writer.path(), false);
    writer.write(100);
    scene.wait_for_count(200);
    Scene::wait_for(&agent, "the agent is at rest", Status::is_at_rest);
    agent.kill();
    writer.write(100);
    other.write(100);
    let agent = scene.start();
    scene.wait_for_count(300);
    let path = writer.path().display().to_string();
    let told = Scene::wait_for(&agent, "it is told", |status| status.unreadable().contains(&path));
    assert_eq!(told.lost_in_all(), (0, 0), "{:#}", told.0);
    assert!(scene.judge(&other.lines).missing.is_empty(), "another file has to wait");
    set_readable(writer.path(), true);
    writer.write(100);
    let lines: Vec<_> = writer.lines.into_iter().chain(other.lines).collect();
    scene.wait_for_count(lines.len());
    Scene::wait_for(&agent, "it is told no more", |status| status.unreadable().is_empty());
    scene.finish(agent, &lines);
}

fn set_readable(path: &Path, readable: bool) {
    if rustix::process::getuid().is_root() {
        let owner = if readable { 0 } else { STRANGER };
        chown(path, Some(owner), Some(owner)).unwrap();
    }
    let mode = if readable { 0o644 } else { 0 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
