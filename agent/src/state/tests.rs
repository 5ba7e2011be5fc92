use std::fs;

use super::*;

fn generation(number: u64, acked: u64) -> GenerationRecord {
    GenerationRecord {
        stream_id: StreamId::born(number, 5, 0),
        inode: number,
        birth_nano: Some(5),
        epoch: 0,
        head: Mark::head(b"head"),
        acked,
        after: Start::Unterminated,
        anchor: Mark::anchor(b"anchor"),
        resend: number % 2 == 1,
        path: format!("/logs/{number}.log").into(),
    }
}

fn cut(first: u64, end: u64) -> CutRecord {
    let anchor = Mark::anchor(b"x");
    CutRecord { first, end, observed_unix_nano: 9, flags: 3, hash: first ^ end, after: Start::Split, anchor }
}

fn learn(store: &mut Store, number: u64, cuts: &[(u64, u64)]) {
    let mut facts = vec![Fact::Generation(generation(number, 0))];
    facts.extend(cuts.iter().map(|&(first, end)| Fact::Cut(generation(number, 0).stream_id, cut(first, end))));
    store.append(&facts).unwrap();
}

fn reopen(directory: &std::path::Path) -> Recovered {
    Store::open(directory).unwrap().1
}

fn cuts_of(recovered: &Recovered, number: u64) -> Vec<(u64, u64)> {
    let stream_id = generation(number, 0).stream_id;
    let known = recovered.generations.iter().find(|known| known.generation.stream_id == stream_id);
    known.map(|known| known.cuts.iter().map(|cut| (cut.first, cut.end)).collect()).unwrap_or_default()
}

#[test]
fn what_was_logged_is_known_after_a_kill_and_a_missing_checkpoint_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, recovered) = Store::open(directory.path()).unwrap();
    assert_eq!((recovered.trust, recovered.generations.len()), (Trust::Lost, 0));
    store.checkpoint(&[], false).unwrap();
    learn(&mut store, 1, &[(0, 10), (10, 20)]);
    drop(store);
    let recovered = reopen(directory.path());
    assert_eq!((recovered.trust, recovered.notes.len()), (Trust::Whole, 0));
    assert_eq!(recovered.generations[0].generation, generation(1, 0));
    assert_eq!(cuts_of(&recovered, 1), [(0, 10), (10, 20)]);
}

#[test]
fn a_look_sees_what_a_running_agent_has_written_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path()).unwrap();
    store.checkpoint(&[], false).unwrap();
    learn(&mut store, 1, &[(0, 10), (10, 20)]);
    let looked = Store::look(directory.path()).unwrap();
    assert_eq!((looked.trust, looked.notes.len()), (Trust::Whole, 0));
    assert_eq!(cuts_of(&looked, 1), [(0, 10), (10, 20)]);
    let checkpoint = directory.path().join("checkpoint");
    fs::write(&checkpoint, b"damaged").unwrap();
    let looked = Store::look(directory.path()).unwrap();
    assert!(looked.notes[0].contains("is damaged"), "{:?}", looked.notes);
    assert_eq!(fs::read(&checkpoint).unwrap(), b"damaged", "it is the agent that sets it aside");
    assert!(Store::look(&directory.path().join("nowhere")).is_err());
}

#[test]
fn a_checkpoint_trims_what_is_acknowledged_and_the_older_log_does_not_take_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path()).unwrap();
    store.checkpoint(&[], false).unwrap();
    learn(&mut store, 1, &[(0, 10), (10, 20)]);
    let known = Remembered { generation: generation(1, 10), cuts: vec![cut(10, 20)] };
    store.checkpoint(std::slice::from_ref(&known), false).unwrap();
    drop(store);
    for _ in 0..3 {
        let recovered = reopen(directory.path());
        assert_eq!(recovered.generations, std::slice::from_ref(&known));
    }
}

#[test]
fn smaller_cuts_take_the_place_of_the_one_they_overlap() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path()).unwrap();
    learn(&mut store, 1, &[(0, 10), (10, 20), (10, 14), (14, 20), (20, 30)]);
    drop(store);
    assert_eq!(cuts_of(&reopen(directory.path()), 1), [(0, 10), (10, 14), (14, 20), (20, 30)]);
}

#[test]
fn a_forgotten_generation_does_not_return_from_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path()).unwrap();
    learn(&mut store, 1, &[(0, 10)]);
    store.append(&[Fact::Forgotten(generation(1, 0).stream_id)]).unwrap();
    drop(store);
    assert_eq!(reopen(directory.path()).generations, []);
}

#[test]
fn a_log_cut_at_any_byte_keeps_its_whole_entries_and_says_that_it_is_torn() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path()).unwrap();
    store.checkpoint(&[], false).unwrap();
    learn(&mut store, 1, &[(0, 10), (10, 20)]);
    drop(store);
    let path = log::path(directory.path(), 2);
    let whole = fs::read(&path).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for length in 28..=whole.len() {
        let read = log::read(&whole[..length]);
        let sound: usize = length - read.damaged_bytes;
        seen.insert((read.facts.len(), sound));
        assert_eq!(log::read(&whole[..sound]).facts, read.facts);
    }
    assert_eq!(seen.len(), 4, "no entry, and one to three of them: {seen:?}");
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let recovered = reopen(directory.path());
    assert_eq!((recovered.trust, cuts_of(&recovered, 1)), (Trust::PowerCut, vec![(0, 10)]));
}

#[test]
fn a_damaged_checkpoint_is_set_aside_and_the_previous_one_with_its_logs_says_the_same() {
    for damage in [&b""[..], b"garbage", &[0; 4096]] {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(directory.path()).unwrap();
        store.checkpoint(&[], false).unwrap();
        learn(&mut store, 1, &[(0, 10)]);
        let known = Remembered { generation: generation(1, 0), cuts: vec![cut(0, 10)] };
        store.checkpoint(std::slice::from_ref(&known), false).unwrap();
        drop(store);
        fs::write(directory.path().join("checkpoint"), damage).unwrap();
        let recovered = reopen(directory.path());
        assert_eq!((recovered.trust, recovered.notes.len()), (Trust::Whole, 1), "{:?}", recovered.notes);
        assert_eq!(recovered.generations, [known]);
        assert!(directory.path().join("checkpoint.damaged").exists());
    }
}

#[test]
fn with_both_checkpoints_damaged_the_state_counts_as_lost_and_the_logs_still_help() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path()).unwrap();
    store.checkpoint(&[], false).unwrap();
    learn(&mut store, 1, &[(0, 10)]);
    store.checkpoint(&[Remembered { generation: generation(1, 10), cuts: vec![] }], false).unwrap();
    drop(store);
    fs::write(directory.path().join("checkpoint"), "x").unwrap();
    fs::write(directory.path().join("checkpoint.previous"), "x").unwrap();
    let recovered = reopen(directory.path());
    assert_eq!((recovered.trust, recovered.generations.len()), (Trust::Lost, 1));
}

#[test]
fn every_flipped_bit_of_a_checkpoint_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path()).unwrap();
    store.checkpoint(&[Remembered { generation: generation(1, 10), cuts: vec![] }], true).unwrap();
    drop(store);
    let path = directory.path().join("checkpoint");
    let whole = fs::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(reopen(directory.path()).trust, Trust::Lost, "bit {bit}");
    }
}

#[test]
fn logs_do_not_pile_up() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let (mut store, _) = Store::open(directory.path()).unwrap();
        store.checkpoint(&[], false).unwrap();
        for _ in 0..20 {
            let cuts: Vec<(u64, u64)> = (0..1000).map(|cut| (cut, cut + 1)).collect();
            learn(&mut store, 1, &cuts);
            store.checkpoint(&[], false).unwrap();
        }
    }
    let logs = fs::read_dir(directory.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().is_some_and(|name| name.ends_with(".log")));
    assert!(logs.count() <= 4);
}

#[test]
fn a_second_agent_is_refused_and_told_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Store::open(directory.path()).unwrap();
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
}
