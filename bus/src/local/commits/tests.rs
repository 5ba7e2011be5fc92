//! The commit file through crashes and damage.

use std::path::Path;

use super::{CommitFile, Groups, Kept};
use crate::TopicPartition;

fn groups(next: u64) -> Groups {
    let commits = (0..3).map(|number| (TopicPartition::new("logs.a", number), next + u64::from(number)));
    let kept = Kept { topics: vec!["logs.*".to_owned()], commits: commits.collect() };
    Groups::from([("one".to_owned(), kept), ("two".to_owned(), Kept::default())])
}

/// A directory in which 1 and then 2 were committed.
fn written() -> (tempfile::TempDir, CommitFile) {
    let directory = tempfile::tempdir().expect("makes a directory");
    let file = CommitFile::new(directory.path());
    assert_eq!(file.load(), Groups::new(), "nothing is there at first");
    file.replace(&groups(1)).expect("writes");
    file.replace(&groups(2)).expect("writes");
    (directory, file)
}

fn copy(from: &Path, to: &Path) {
    for name in ["commits", "commits.previous"] {
        std::fs::copy(from.join(name), to.join(name)).expect("copies");
    }
}

#[test]
fn the_last_one_written_is_read() {
    let (_directory, file) = written();
    assert_eq!(file.load(), groups(2));
}

#[test]
fn any_flip_or_cut_falls_back_to_the_one_before() {
    let (source, _) = written();
    let image = std::fs::read(source.path().join("commits")).expect("reads");
    let flips = (0..image.len() * 8).map(|bit| {
        let mut bytes = image.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let cuts = (0..image.len()).map(|length| image[..length].to_vec());
    let directory = tempfile::tempdir().expect("makes a directory");
    for damaged in flips.chain(cuts) {
        copy(source.path(), directory.path());
        std::fs::write(directory.path().join("commits"), &damaged).expect("damages");
        assert_eq!(CommitFile::new(directory.path()).load(), groups(1));
    }
}

#[test]
fn a_damaged_file_is_kept_aside_and_never_becomes_the_one_before() {
    let (directory, file) = written();
    std::fs::write(directory.path().join("commits"), b"garbage").expect("damages");
    assert_eq!(file.load(), groups(1));
    file.replace(&groups(3)).expect("writes");
    std::fs::remove_file(directory.path().join("commits")).expect("as if the crash came between the renames");
    assert_eq!(file.load(), groups(1), "the sound one is still the one before");
    assert_eq!(std::fs::read(directory.path().join("commits.damaged")).expect("is kept"), b"garbage");
}

#[test]
fn with_both_gone_nothing_is_known() {
    let (directory, file) = written();
    for name in ["commits", "commits.previous"] {
        std::fs::write(directory.path().join(name), b"garbage").expect("damages");
    }
    assert_eq!(file.load(), Groups::new());
}

#[test]
fn an_unfinished_replacement_changes_nothing() {
    let (directory, file) = written();
    std::fs::write(directory.path().join("commits.temporary"), b"half of it").expect("writes");
    assert_eq!(file.load(), groups(2));
    file.replace(&groups(3)).expect("writes over it");
    assert_eq!(file.load(), groups(3));
}
