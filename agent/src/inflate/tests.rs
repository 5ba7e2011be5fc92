//! Archives made in place, read back in every way.

use std::io::Write;

use proptest::prelude::*;

use super::{stream::INPUT_BYTES, *};
use crate::{
    filesystem::{Filesystem, Handle, fake::FakeFilesystem, fake::FakeHandle},
    identity::{MARK_BYTES_MAX, Mark},
    parcel::StreamNumber,
};

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new()
        .filename("a.log.1")
        .comment("kept by nobody")
        .extra(vec![7; 9])
        .write(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(content, 1).unwrap()
}

fn opened(archive: &[u8]) -> FakeHandle {
    let files = FakeFilesystem::new();
    files.append("/x", archive);
    files.open("/x".as_ref()).unwrap()
}

fn begun(archive: &[u8], codec: Codec) -> Result<Pass<FakeHandle>, Fault> {
    let mut pass = Pass::new(opened(archive), codec)?;
    while !pass.begin(1)? {}
    Ok(pass)
}

fn pass(archive: &[u8], codec: Codec) -> Result<Pass<FakeHandle>, Fault> {
    let mut pass = begun(archive, codec)?;
    while !pass.step(1)? {}
    Ok(pass)
}

/// The codec of an archive, and the archive of a content in two parts, which are members or frames.
fn archives(content: &[u8], at: usize) -> [(Codec, Vec<u8>); 2] {
    let (one, other) = content.split_at(at);
    [(Codec::Gzip, [gzip(one), gzip(other)].concat()), (Codec::Zstd, [zstd(one), zstd(other)].concat())]
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 & 0x3f).collect()
}

#[test]
fn archives_are_known_by_their_first_bytes() {
    assert_eq!(Looks::of(&gzip(b"a")[..MAGIC_BYTES]), Looks::Archive(Codec::Gzip));
    assert_eq!(Looks::of(&zstd(b"a")[..MAGIC_BYTES]), Looks::Archive(Codec::Zstd));
    assert_eq!((Looks::of(b"BZh91A"), Looks::of(b"\xfd7zXZ\0")), (Looks::Foreign, Looks::Foreign));
    for plain in [&b""[..], b"\x1f", b"\x1f\x8b", b"(abc", b"BZh is no archive", b"2026-01-01"] {
        assert_eq!(Looks::of(plain), Looks::Plain, "{plain:?}");
    }
    for (name, named) in [("/a.log.gz", true), ("/a.ZST", true), ("/a.xz", true), ("/gz", false), ("/a.log", false)] {
        assert_eq!(is_named_as_archive(name.as_ref()), named, "{name}");
    }
}

#[test]
fn all_members_and_frames_are_read_and_what_is_sought_is_found() {
    let content = content(300_000);
    for (codec, archive) in archives(&content, 100_000) {
        let mut pass = begun(&archive, codec).unwrap();
        assert_eq!(pass.head(), &content[..MARK_BYTES_MAX]);
        for (number, offset) in [(1, 300), (2, 65_536 + 1024), (3, 250_000), (4, 300_000), (5, 300_001)] {
            pass.seek(StreamNumber(number), offset, Mark::anchor(&content[..content.len().min(offset as usize)]));
        }
        pass.seek(StreamNumber(6), 200_000, Mark::anchor(&content[..200_001]));
        while !pass.step(1000).unwrap() {}
        assert_eq!((pass.size(), pass.tail()), (300_000, &content[300_000 - MARK_BYTES_MAX..]));
        assert_eq!(pass.found(), [4, 3, 2, 1].map(StreamNumber));
    }
}

#[test]
fn an_archive_that_ends_anywhere_but_at_its_end_is_incomplete() {
    let content = content(3000);
    for (codec, archive) in archives(&content, 1000) {
        let first = if codec == Codec::Gzip { gzip(&content[..1000]) } else { zstd(&content[..1000]) }.len();
        for end in 0..archive.len() {
            let outcome = pass(&archive[..end], codec).map(|pass| pass.size());
            match outcome {
                Ok(size) => assert_eq!((end, size), (first, 1000), "the first part is an archive by itself"),
                Err(Fault::Incomplete) => assert_ne!(end, first),
                Err(other) => panic!("{codec:?} cut at {end}: {other}"),
            }
        }
        assert_eq!(pass(&archive, codec).unwrap().size(), 3000);
    }
}

#[test]
fn a_damaged_archive_is_no_archive_and_padding_is_none_of_it() {
    let content = content(3000);
    let mut damaged = gzip(&content);
    let at = damaged.len() - 3;
    damaged[at] ^= 1;
    assert!(matches!(pass(&damaged, Codec::Gzip), Err(Fault::Damaged(_))), "its size");
    damaged[at] ^= 1;
    damaged[at - 4] ^= 1;
    assert!(matches!(pass(&damaged, Codec::Gzip), Err(Fault::Damaged(_))), "its checksum");
    let padded = [gzip(&content), vec![0; 700]].concat();
    assert_eq!(pass(&padded, Codec::Gzip).unwrap().size(), 3000);
    for (codec, archive) in [(Codec::Gzip, gzip(&content)), (Codec::Zstd, zstd(&content))] {
        let followed = [&archive[..], b"garbage behind it"].concat();
        assert!(matches!(pass(&followed, codec), Err(Fault::Damaged(_))), "{codec:?}");
    }
}

#[test]
fn an_archive_for_a_larger_window_is_refused_with_the_reason() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(24).unwrap();
    encoder.write_all(&content(3000)).unwrap();
    let refused = pass(&encoder.finish().unwrap(), Codec::Zstd).map(drop).unwrap_err().to_string();
    assert!(refused.contains("8 MiB"), "{refused}");
}

#[test]
fn content_is_approached_in_steps_and_begins_again_when_it_was_let_go() {
    let content = content(3_000_000);
    let inflated = Inflated::new(opened(&gzip(&content)), Codec::Gzip, content.len() as u64);
    let mut steps = 0;
    while !inflated.approach(2_900_000, 200_000).unwrap() {
        steps += 1;
    }
    assert!(steps >= 9, "{steps}");
    let mut buffer = [0; 1000];
    for released in [false, true] {
        if released {
            inflated.release();
        }
        assert_eq!(inflated.read_full_at(&mut buffer, 2_900_000).unwrap(), 1000);
        assert_eq!(&buffer[..], &content[2_900_000..2_901_000]);
    }
}

/// Bytes of an archive in a row that hold no content.
const GAP_BYTES: usize = 400_000;

/// Archives of the content `ab` with a long part that holds none of it.
fn with_gaps() -> [(&'static str, Codec, Vec<u8>); 5] {
    let builder = flate2::GzBuilder::new().filename(vec![b'x'; GAP_BYTES]);
    let mut named = builder.write(Vec::new(), flate2::Compression::fast());
    named.write_all(b"ab").unwrap();
    let empty = gzip(b"");
    let empties = empty.repeat(GAP_BYTES / empty.len());
    // RFC 8878, 3.1.2: a magic number, a length, and whatever a user puts there.
    let magic = [0x50_u8, 0x2a, 0x4d, 0x18];
    let skippable = |bytes: usize| [&magic[..], &(bytes as u32).to_le_bytes()[..], &vec![7_u8; bytes][..]].concat();
    let (one, many) = (skippable(GAP_BYTES), skippable(100).repeat(GAP_BYTES / 100));
    [
        ("a name", Codec::Gzip, named.finish().unwrap()),
        ("padding", Codec::Gzip, [gzip(b"ab"), vec![0; GAP_BYTES]].concat()),
        ("empty members", Codec::Gzip, [gzip(b"a"), empties, gzip(b"b")].concat()),
        ("a frame to be skipped", Codec::Zstd, [zstd(b"a"), one, zstd(b"b")].concat()),
        ("frames to be skipped", Codec::Zstd, [zstd(b"a"), many, zstd(b"b")].concat()),
    ]
}

#[test]
fn no_step_takes_more_than_a_piece_of_an_archive_where_it_holds_no_content() {
    for (what, codec, archive) in with_gaps() {
        let files = FakeFilesystem::new();
        files.append("/x", &archive);
        let open = || files.open("/x".as_ref()).unwrap();
        let bounded = |step: &mut dyn FnMut() -> bool| {
            let mut over = false;
            while !over {
                let before = files.bytes_read();
                over = step();
                assert!(files.bytes_read() - before <= INPUT_BYTES, "{what}");
            }
        };
        let mut pass = Pass::new(open(), codec).unwrap();
        bounded(&mut || pass.begin(1).unwrap());
        bounded(&mut || pass.step(1).unwrap());
        assert_eq!((pass.head(), pass.size()), (&b"ab"[..], 2), "{what}");
        let inflated = Inflated::new(open(), codec, 2);
        bounded(&mut || inflated.approach(0, 1).unwrap());
        let (before, mut buffer) = (files.bytes_read(), [0; 2]);
        assert_eq!(inflated.read_full_at(&mut buffer, 0).unwrap(), 2);
        assert_eq!((&buffer, files.bytes_read()), (b"ab", before), "{what}: it was inflated ahead of the read");
    }
}

#[test]
fn what_holds_no_content_is_charged_as_content_is() {
    let (_, codec, archive) = with_gaps().into_iter().next().unwrap();
    let mut pass = Pass::new(opened(&archive), codec).unwrap();
    let mut turns = 1;
    while !pass.begin(2 * INPUT_BYTES).unwrap() {
        turns += 1;
    }
    let expected = GAP_BYTES / (2 * INPUT_BYTES);
    assert!((expected..expected + 3).contains(&turns), "{turns}");
}

#[test]
fn an_archive_that_holds_less_than_before_is_told_on_the_way_as_where_it_is_read() {
    let content = content(200_000);
    for (codec, archive) in archives(&content, 100_000) {
        let inflated = Inflated::new(opened(&archive), codec, 3_000_000);
        let approaching = (0..100).find_map(|_| inflated.approach(2_000_000, 100_000).err());
        let reading = inflated.read_at(&mut [0; 10], 2_000_000).err();
        for error in [approaching, reading] {
            assert_eq!(error.map(|error| error.kind()), Some(io::ErrorKind::InvalidData), "{codec:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn reads_at_any_offset_are_what_was_compressed(
        size in 1usize..2_600_000,
        at in 0.0f64..1.0,
        reads in prop::collection::vec((0.0f64..1.1, 1usize..300_000), 1..12),
    ) {
        let content = content(size);
        for (codec, archive) in archives(&content, (size as f64 * at) as usize) {
            let inflated = Inflated::new(opened(&archive), codec, size as u64);
            prop_assert_eq!(inflated.stat().unwrap().size, size as u64);
            for (offset, length) in &reads {
                let offset = (size as f64 * offset) as usize;
                let mut buffer = vec![0; *length];
                let count = inflated.read_full_at(&mut buffer, offset as u64).unwrap();
                let expected = &content[offset.min(size)..size.min(offset + length)];
                prop_assert!(&buffer[..count] == expected, "{codec:?} at {offset} for {length}");
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        content in prop::collection::vec(any::<u8>(), 0..2000),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for (codec, mut archive) in archives(&content, content.len() / 2) {
            for (at, byte) in &flips {
                let at = at.index(archive.len());
                archive[at] = *byte;
            }
            let _ = pass(&archive, codec);
        }
    }
}
