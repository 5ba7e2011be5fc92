//! Generations and cuts as bytes, and back without trusting them.

use std::{
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use super::{CutRecord, Fact, GenerationRecord};
use crate::{
    identity::{Mark, StreamId},
    lines::Start,
};

const KIND_GENERATION: u8 = 1;
const KIND_CUT: u8 = 2;
const KIND_FORGOTTEN: u8 = 3;

/// Appends one log entry: length, CRC, kind, payload.
pub(super) fn put_entry(out: &mut Vec<u8>, fact: &Fact) {
    let begin = out.len();
    out.extend_from_slice(&[0; 8]);
    match fact {
        Fact::Generation(generation) => {
            out.push(KIND_GENERATION);
            put_generation(out, generation);
        }
        Fact::Cut(stream_id, cut) => {
            out.push(KIND_CUT);
            out.extend_from_slice(&stream_id.0);
            put_cut(out, cut);
        }
        Fact::Forgotten(stream_id) => {
            out.push(KIND_FORGOTTEN);
            out.extend_from_slice(&stream_id.0);
        }
    }
    let length = u32::try_from(out.len() - begin - 8).unwrap_or(u32::MAX);
    let crc = crc32c::crc32c(&out[begin + 8..]);
    out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
    out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Takes the next entry; `None` where the rest is no whole, sound entry.
pub(super) fn take_entry(input: &mut Input<'_>) -> Option<Fact> {
    let mut ahead = Input(input.0);
    let length = usize::try_from(ahead.u32()?).ok()?;
    let crc = ahead.u32()?;
    let body = ahead.take(length)?;
    if crc32c::crc32c(body) != crc {
        return None;
    }
    let mut payload = Input(body);
    let fact = match payload.u8()? {
        KIND_GENERATION => Fact::Generation(payload.generation()?),
        KIND_CUT => Fact::Cut(StreamId(payload.array()?), payload.cut()?),
        KIND_FORGOTTEN => Fact::Forgotten(StreamId(payload.array()?)),
        _ => return None,
    };
    *input = ahead;
    Some(fact)
}

pub(super) fn put_generation(out: &mut Vec<u8>, generation: &GenerationRecord) {
    out.extend_from_slice(&generation.stream_id.0);
    out.extend_from_slice(&generation.inode.to_le_bytes());
    // The least value stands for "none": no file was born then.
    out.extend_from_slice(&generation.birth_nano.unwrap_or(i64::MIN).to_le_bytes());
    out.extend_from_slice(&generation.epoch.to_le_bytes());
    put_mark(out, generation.head);
    out.extend_from_slice(&generation.acked.to_le_bytes());
    out.push(start_code(generation.after));
    put_mark(out, generation.anchor);
    out.push(u8::from(generation.resend));
    let path = generation.path.as_os_str().as_bytes();
    out.extend_from_slice(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(path);
}

fn put_cut(out: &mut Vec<u8>, cut: &CutRecord) {
    for number in [cut.first, cut.end, cut.observed_unix_nano, cut.hash] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&cut.flags.to_le_bytes());
    out.push(start_code(cut.after));
    put_mark(out, cut.anchor);
}

pub(super) fn put_mark(out: &mut Vec<u8>, mark: Mark) {
    out.extend_from_slice(&mark.length.to_le_bytes());
    out.extend_from_slice(&mark.hash.to_le_bytes());
}

fn start_code(start: Start) -> u8 {
    match start {
        Start::Fresh => 0,
        Start::Unterminated => 1,
        Start::Split => 2,
        Start::Joined => 3,
    }
}

/// Bytes to be read from the front; every read says `None` beyond the end.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn mark(&mut self) -> Option<Mark> {
        Some(Mark { length: self.u16()?, hash: self.u64()? })
    }

    fn start(&mut self) -> Option<Start> {
        match self.u8()? {
            0 => Some(Start::Fresh),
            1 => Some(Start::Unterminated),
            2 => Some(Start::Split),
            3 => Some(Start::Joined),
            _ => None,
        }
    }

    pub(super) fn generation(&mut self) -> Option<GenerationRecord> {
        Some(GenerationRecord {
            stream_id: StreamId(self.array()?),
            inode: self.u64()?,
            birth_nano: Some(i64::from_le_bytes(self.array()?)).filter(|nanos| *nanos != i64::MIN),
            epoch: self.u64()?,
            head: self.mark()?,
            acked: self.u64()?,
            after: self.start()?,
            anchor: self.mark()?,
            resend: self.u8()? != 0,
            path: self.path()?,
        })
    }

    fn path(&mut self) -> Option<PathBuf> {
        let length = usize::try_from(self.u32()?).ok()?;
        let bytes = self.take(length)?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(OsStr::from_bytes(bytes).as_bytes().to_vec())))
    }

    fn cut(&mut self) -> Option<CutRecord> {
        let (first, end, observed_unix_nano, hash) = (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        let (flags, after, anchor) = (self.u32()?, self.start()?, self.mark()?);
        (first < end).then_some(CutRecord { first, end, observed_unix_nano, flags, hash, after, anchor })
    }
}
