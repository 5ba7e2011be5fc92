//! Finding files: in large trees, on network file systems, with and without hints.

use super::rig::{Rig, SECOND, bodies, lines};
use crate::{discovery::Hint, filesystem::fake::Asked};

const NFS: u64 = 0x6969;

fn rig(polling: bool) -> Rig {
    let mut rig = Rig::new();
    rig.kill();
    rig.include = vec!["/logs/**/*.log".to_owned()];
    rig.polling = polling;
    rig
}

/// A tree of a million names of which ten are files to tail, walked until it is known.
fn in_a_tree_of_a_million(polling: bool) -> Rig {
    let mut rig = rig(polling);
    (0..1000).for_each(|number| rig.files.fill(&format!("/logs/d{number}"), 1000));
    for number in 0..10 {
        rig.files.append(&format!("/logs/d{}/a.log", number * 100), lines(&format!("a{number}"), 0..2).as_bytes());
    }
    rig.start();
    rig.run(30 * SECOND);
    assert_eq!(rig.kept.len(), 20);
    rig.files.take_asked();
    rig
}

#[test]
fn in_a_tree_of_a_million_names_at_rest_nothing_is_listed_and_directories_are_looked_at_now_and_then() {
    for (polling, walks) in [(false, 6), (true, 30)] {
        let mut rig = in_a_tree_of_a_million(polling);
        rig.run(60 * SECOND);
        let Asked { stats, lists, names, .. } = rig.files.take_asked();
        assert_eq!((lists, names), (0, 0), "polling: {polling}");
        assert!((1_000..=(walks + 1) * 1_011).contains(&stats), "polling: {polling}: {stats} stats");
    }
}

#[test]
fn in_a_tree_of_a_million_names_a_new_file_is_found_by_its_hint_within_2_s_and_without_one_within_10_s() {
    for (polling, time) in [(false, 2 * SECOND), (true, 10 * SECOND)] {
        let mut rig = in_a_tree_of_a_million(polling);
        rig.files.append("/logs/d555/new.log", lines("new", 0..2).as_bytes());
        if !polling {
            rig.turn(vec![Hint::Appeared("/logs/d555/new.log".into())]);
        }
        rig.run(time);
        assert_eq!(rig.kept.len(), 22, "polling: {polling}");
        let Asked { stats, lists, names, .. } = rig.files.take_asked();
        assert!(lists <= 1 && names <= 1_001, "polling: {polling}: {lists} lists of {names} names");
        assert!(stats <= 6 * 1_020, "polling: {polling}: {stats} stats");
    }
}

#[test]
fn a_new_directory_is_looked_into_at_once_and_no_other_one_for_it() {
    let mut rig = in_a_tree_of_a_million(false);
    rig.files.append("/logs/d1/new/deep/a.log", lines("new", 0..2).as_bytes());
    rig.turn(vec![Hint::Appeared("/logs/d1/new".into())]);
    rig.run(SECOND);
    assert_eq!(rig.kept.len(), 22);
    let asked = rig.files.take_asked();
    assert!(asked.lists == 2 && asked.stats < 100, "{asked:?}");
}

#[test]
fn a_tree_that_takes_longer_than_the_interval_to_walk_keeps_nobody_waiting() {
    let mut rig = rig(false);
    // Some 60,000 stats a walk, of which a calm one makes 20,000 a second.
    (0..60_000).for_each(|number| rig.files.fill(&format!("/logs/d{}/e{number}", number % 100), 0));
    rig.files.append("/logs/a.log", lines("a", 0..2).as_bytes());
    rig.start();
    for _ in 0..20_000 {
        rig.turn(Vec::new());
    }
    rig.run(SECOND);
    assert!(rig.tailer.as_ref().unwrap().has_walked());
    rig.files.take_asked();
    let mut walks = rig.tailer.as_ref().unwrap().walk.number;
    for second in 0..40 {
        rig.files.append("/logs/a.log", lines("a", 2 + second..3 + second).as_bytes());
        for _ in 0..100 {
            rig.turn(Vec::new());
            std::mem::take(&mut rig.waiting).iter().for_each(|parcel| rig.acknowledge(parcel));
            rig.pass(SECOND / 100);
        }
        assert!(rig.kept.len() >= 2 + second, "reading goes on beside the walk");
    }
    walks = rig.tailer.as_ref().unwrap().walk.number - walks;
    let asked = rig.files.take_asked();
    assert!(walks >= 2, "walks come to their ends: {walks}");
    assert!(asked.stats <= 40 * 20_000 * 5 / 4, "{asked:?}");
}

#[test]
fn files_on_a_network_file_system_are_polled_and_the_others_wait_for_hints() {
    let mut rig = rig(false);
    rig.files.mount("/logs/nfs", NFS);
    rig.files.append("/logs/nfs/deep/old.log", lines("old", 0..10).as_bytes());
    rig.files.append("/logs/local/old.log", lines("local", 0..10).as_bytes());
    rig.start();
    rig.run(60 * SECOND);
    let tailer = rig.tailer.as_mut().unwrap();
    assert_eq!(tailer.networks(), [("/logs/nfs".into(), "NFS")]);
    let (directories, _) = tailer.take_directories();
    assert_eq!(
        directories.into_iter().collect::<Vec<_>>(),
        ["/logs".into(), "/logs/local".into()] as [std::path::PathBuf; 2]
    );
    // Nobody says anything of these.
    while rig.tailer.as_ref().unwrap().walk.finished_at + SECOND < rig.now.mono {
        rig.run(SECOND / 4);
    }
    let walk = rig.tailer.as_ref().unwrap().walk.number;
    rig.files.append("/logs/nfs/deep/old.log", lines("old", 10..20).as_bytes());
    rig.files.append("/logs/nfs/deeper/still/new.log", lines("new", 0..10).as_bytes());
    rig.files.append("/logs/local/new.log", lines("unsaid", 0..10).as_bytes());
    rig.run(5 * SECOND);
    assert_eq!(rig.tailer.as_ref().unwrap().walk.number, walk, "no walk over everything came between");
    assert_eq!(rig.bodies(), bodies(&[("old", 0..20), ("local", 0..10), ("new", 0..10)]));
    rig.run(10 * SECOND);
    assert_eq!(rig.kept.len(), 50, "the walk over everything finds the rest");
}

#[test]
fn a_directory_that_changes_within_a_tick_of_the_clock_is_listed_again() {
    let mut rig = rig(true);
    let now = rig.now.unix_nano;
    rig.files.set_clock(i64::try_from(now).unwrap(), true);
    rig.files.append("/logs/a.log", lines("a", 0..2).as_bytes());
    rig.start();
    rig.run(SECOND);
    // The directory shows the time that it showed when it was listed.
    rig.files.append("/logs/b.log", lines("b", 0..2).as_bytes());
    rig.run(10 * SECOND);
    assert_eq!(rig.kept.len(), 4);
}

#[test]
fn lost_hints_are_made_up_for_at_once() {
    let mut rig = rig(false);
    rig.files.append("/logs/a.log", lines("a", 0..2).as_bytes());
    rig.start();
    rig.run(SECOND);
    rig.files.append("/logs/b.log", lines("b", 0..2).as_bytes());
    let now = rig.now;
    rig.tailer.as_mut().unwrap().walk_soon(now);
    rig.run(SECOND);
    assert_eq!(rig.kept.len(), 4);
}

#[test]
fn what_the_agent_writes_itself_is_not_read_whatever_the_patterns_say() {
    for polling in [false, true] {
        let mut rig = rig(polling);
        rig.files.append("/logs/own/spool/a.log", lines("own", 0..2).as_bytes());
        rig.files.append("/logs/own.log", lines("own", 0..2).as_bytes());
        rig.files.append("/logs/a.log", lines("a", 0..2).as_bytes());
        rig.start();
        rig.run(30 * SECOND);
        rig.files.append("/logs/own/spool/b.log", lines("own", 2..4).as_bytes());
        let hints = ["/logs/own.log", "/logs/own", "/logs/own/spool"].map(|path| Hint::Appeared(path.into()));
        rig.turn(hints.to_vec());
        rig.run(30 * SECOND);
        assert_eq!(rig.bodies(), bodies(&[("a", 0..2)]), "polling: {polling}");
    }
}
