//! The commit file: which groups there are, what they read, and how far they are.
//!
//! ```text
//! commits             the last one written
//! commits.previous    the one before
//! commits.temporary   one that is being written
//!
//!  0   8  magic "LMCOMMIT"
//!  8   4  format version, 1
//! 12   4  length of the body, B
//! 16   4  CRC-32C of bytes 0..16 and of the body
//! 20   B  body: 4 number of groups, for each:
//!           2 length of the name, name
//!           2 number of topics and patterns, for each: 2 length, text
//!           4 number of commits, for each: 2 length of the topic, topic, 4 partition, 8 next offset
//! ```
//!
//! It is replaced whole: written under the temporary name, synced, the last one renamed to previous, the temporary one
//! to its place, the directory synced. Crash cases: before the first rename the last one stands; between the two there is only the previous
//! one, which is read then; after the second the new one stands. A damaged file is set aside (`.damaged`): the previous one is used (older commits: records
//! are delivered again, none is missed), and if both are gone every group begins with the earliest record kept, which is said as
//! a warning. Such a group is unknown until it subscribes, or is named in the options.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::TopicPartition;

const MAGIC: [u8; 8] = *b"LMCOMMIT";
const VERSION: u32 = 1;
const HEADER: usize = 20;
/// Most bytes that are read of a commit file.
const BYTES_MAX: u64 = 256 << 20;

/// What is kept of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) topics: Vec<String>,
    pub(super) commits: BTreeMap<TopicPartition, u64>,
}

/// All groups by name.
pub(super) type Groups = BTreeMap<String, Kept>;

/// The commit file of one directory.
#[derive(Debug)]
pub(super) struct CommitFile {
    directory: PathBuf,
}

impl CommitFile {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// What was written last, or before that; nothing when there was never anything, or nothing of it is sound.
    pub(super) fn load(&self) -> Groups {
        let mut found = false;
        for name in ["commits", "commits.previous"] {
            let path = self.directory.join(name);
            match read(&path) {
                Ok(bytes) => match decode(bytes) {
                    Some(groups) => return groups,
                    None => self.set_aside(name, &path),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => tracing::warn!(path = %path.display(), %error, "the commit file cannot be read"),
            }
            found = true;
        }
        if found {
            let directory = self.directory.display();
            tracing::warn!(%directory, "no sound commit file is left: every group reads again from the earliest record kept");
        }
        Groups::new()
    }

    /// Keeps a damaged file for whoever wants to look at it, and out of the way of the next replacement.
    fn set_aside(&self, name: &str, path: &Path) {
        let aside = self.directory.join(format!("{name}.damaged"));
        let path = path.display();
        match std::fs::rename(self.directory.join(name), &aside) {
            Ok(()) => tracing::warn!(%path, aside = %aside.display(), "the commit file is damaged, it was set aside"),
            Err(error) => tracing::warn!(%path, %error, "the commit file is damaged and cannot be set aside"),
        }
    }

    /// Replaces the file; durable once this returns `Ok`.
    pub(super) fn replace(&self, groups: &Groups) -> io::Result<()> {
        let temporary = self.directory.join("commits.temporary");
        let path = self.directory.join("commits");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&encode(groups))?;
        file.sync_data()?;
        match std::fs::rename(&path, self.directory.join("commits.previous")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        std::fs::rename(&temporary, &path)?;
        File::open(&self.directory)?.sync_all()
    }
}

fn read(path: &Path) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn encode(groups: &Groups) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&count_u32(groups.len()));
    for (name, kept) in groups {
        push_text(name, &mut body);
        body.extend_from_slice(&u16::try_from(kept.topics.len()).unwrap_or(u16::MAX).to_le_bytes());
        for topic in &kept.topics {
            push_text(topic, &mut body);
        }
        body.extend_from_slice(&count_u32(kept.commits.len()));
        for (partition, next) in &kept.commits {
            push_text(&partition.topic, &mut body);
            body.extend_from_slice(&partition.partition.to_le_bytes());
            body.extend_from_slice(&next.to_le_bytes());
        }
    }
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&count_u32(body.len()));
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &body);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.append(&mut body);
    bytes
}

fn decode(mut bytes: Bytes) -> Option<Groups> {
    if bytes.len() < HEADER {
        return None;
    }
    let header = bytes.split_to(HEADER);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..16]), &bytes);
    let mut fields = header.slice(8..);
    let (version, length, expected) = (fields.get_u32_le(), fields.get_u32_le(), fields.get_u32_le());
    if header[..8] != MAGIC || version != VERSION || length as usize != bytes.len() || crc != expected {
        return None;
    }
    let mut groups = Groups::new();
    for _ in 0..bytes.try_get_u32_le().ok()? {
        let name = take_text(&mut bytes)?;
        let mut kept = Kept::default();
        for _ in 0..bytes.try_get_u16_le().ok()? {
            kept.topics.push(take_text(&mut bytes)?);
        }
        let mut topic: Arc<str> = "".into();
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let name = take_text(&mut bytes)?;
            if *topic != *name {
                topic = name.into();
            }
            let partition = bytes.try_get_u32_le().ok()?;
            kept.commits.insert(TopicPartition { topic: topic.clone(), partition }, bytes.try_get_u64_le().ok()?);
        }
        groups.insert(name, kept);
    }
    Some(groups)
}

fn count_u32(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes()
}

/// Names and patterns are checked where they come in: 249 bytes at most.
fn push_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take_text(bytes: &mut Bytes) -> Option<String> {
    let length = usize::from(bytes.try_get_u16_le().ok()?);
    let text = (length <= bytes.len()).then(|| bytes.split_to(length))?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests;
