use logmesh_proto::{BatchMeta, Flags, Limits, Opener, RecordsBuilder, Sealer, v1};
use proptest::prelude::*;

use super::*;

mod joined;
mod padded;
mod presets;
mod sifted;
mod written;

const LIMITS: CutLimits = CutLimits { batch_bytes_max: 64, batch_records_max: 5, record_bytes_max: 16 };

/// A record as it would arrive: offset, body, and the marks of its batch where it is first or last.
type Arrived = (u64, Vec<u8>);

fn open(records: &mut RecordsBuilder, first: u64) -> Vec<Arrived> {
    let meta = BatchMeta {
        stream_id: bytes::Bytes::from_static(b"s"),
        first_offset: first,
        end_offset: first + records.source_bytes(),
        observed_unix_nano: 1,
        flags: Flags::NONE,
    };
    let batch = Sealer::new(v1::Codec::None).unwrap().seal(meta, records).unwrap();
    let opened = Opener::new(Limits::default()).open(&batch).unwrap();
    opened.records().map(|record| (record.offset, record.body.to_vec())).collect()
}

fn plain(block: &[u8], start: Start, flush: Flush, records: &mut RecordsBuilder) -> Cutting {
    cut(block, At { offset: 100, start, flush, written_behind: false }, &LIMITS, &Framing::default(), records)
}

/// Cuts `content` as it grows to each of `sizes`, with `flushes` saying where an idle flush falls.
fn run(content: &[u8], sizes: &[(usize, Flush)]) -> Vec<Arrived> {
    run_by(&Framing::default(), &LIMITS, content, sizes).0
}

/// The same by any rules. Returns the flags of the batches too, by the offset of their first records.
fn run_by(
    framing: &Framing,
    limits: &CutLimits,
    content: &[u8],
    sizes: &[(usize, Flush)],
) -> (Vec<Arrived>, Vec<(u64, Flags)>) {
    let (mut position, mut start, mut out, mut marks) = (0, Start::Fresh, Vec::new(), Vec::new());
    let mut records = RecordsBuilder::new();
    for &(size, flush) in sizes {
        loop {
            records.clear();
            let at = At { offset: position as u64, start, flush, written_behind: false };
            let cutting = cut(&content[position..size], at, limits, framing, &mut records);
            if cutting.consumed == 0 {
                break;
            }
            let first = position + cutting.skipped;
            if !records.is_empty() {
                assert_eq!(records.source_bytes() as usize, cutting.consumed - cutting.skipped);
                let range = &content[first..position + cutting.consumed];
                let flags = Flags::from_bits(cutting.flags);
                let arrived = open(&mut records, first as u64);
                check_again(framing, range, flags, first as u64, &arrived);
                marks.push((first as u64, flags));
                out.extend(arrived);
            }
            position += cutting.consumed;
            start = cutting.after;
        }
    }
    let rest = content[position..].iter().all(|byte| *byte == 0);
    assert!(rest || sizes.last().is_some_and(|last| last.1 != Flush::End));
    (out, marks)
}

/// The same range gives the same records again, in one and in halves at every boundary.
fn check_again(framing: &Framing, range: &[u8], flags: Flags, first: u64, arrived: &[Arrived]) {
    let again = |range: &[u8], flags: Flags, first: u64| {
        let mut records = RecordsBuilder::new();
        recut(range, flags, framing, &mut records);
        open(&mut records, first)
    };
    assert_eq!(again(range, flags, first), arrived, "the same cut gives the same records");
    for half in 1..arrived.len() {
        let middle = boundary(range, flags, framing, half).unwrap();
        let early = Flags::from_bits(flags.bits() & Flags::FIRST_CONTINUED.bits());
        let late = Flags::from_bits(flags.bits() & !Flags::FIRST_CONTINUED.bits());
        let mut both = again(&range[..middle], early, first);
        both.extend(again(&range[middle..], late, first + middle as u64));
        assert_eq!((both.len(), &both[..]), (arrived.len(), arrived), "halves at {middle}");
    }
    assert_eq!(boundary(range, flags, framing, arrived.len()), None);
}

fn bodies(content: &[u8], sizes: &[(usize, Flush)]) -> Vec<Vec<u8>> {
    run(content, sizes).into_iter().map(|(_, body)| body).collect()
}

#[test]
fn lines_lose_their_terminators_and_empty_ones_count() {
    let content = b"one\r\n\ntwo\n\r\nlast";
    let expected: Vec<&[u8]> = vec![b"one", b"", b"two", b"", b"last"];
    assert_eq!(bodies(content, &[(content.len(), Flush::End)]), expected);
}

#[test]
fn an_unterminated_rest_waits_for_its_end() {
    let mut records = RecordsBuilder::new();
    assert_eq!(plain(b"abc", Start::Fresh, Flush::Wait, &mut records), Cutting::default());
}

#[test]
fn a_terminator_after_a_flush_is_swallowed_and_more_bytes_are_continued() {
    let mut records = RecordsBuilder::new();
    let cutting = plain(b"abc", Start::Fresh, Flush::Idle, &mut records);
    assert_eq!((cutting.flags, cutting.after), (Flags::LAST_PARTIAL.bits(), Start::Unterminated));
    for terminator in [&b"\n"[..], b"\r\n"] {
        records.clear();
        let cutting = plain(terminator, Start::Unterminated, Flush::Wait, &mut records);
        assert_eq!((cutting.consumed, cutting.after, records.len()), (terminator.len(), Start::Fresh, 0));
    }
    records.clear();
    let cutting = plain(b"def\n", Start::Unterminated, Flush::Wait, &mut records);
    assert_eq!((cutting.flags, records.len()), (Flags::FIRST_CONTINUED.bits(), 1));
}

#[test]
fn a_flush_leaves_half_a_terminator_where_it_is() {
    let content = b"abc\r\nd\n";
    let sizes = [(4, Flush::Idle), (4, Flush::Idle), (7, Flush::Wait)];
    assert_eq!(run(content, &sizes), vec![(0, b"abc".to_vec()), (5, b"d".to_vec())]);
}

#[test]
fn a_line_of_exactly_the_limit_is_whole_and_one_byte_more_is_split() {
    for terminator in [&b"\n"[..], b"\r\n"] {
        let whole = [&[b'x'; 16][..], terminator].concat();
        assert_eq!(bodies(&whole, &[(whole.len(), Flush::Wait)]), vec![vec![b'x'; 16]]);
        let longer = [&[b'x'; 17][..], terminator].concat();
        assert_eq!(bodies(&longer, &[(longer.len(), Flush::Wait)]), vec![vec![b'x'; 16], vec![b'x'; 1]]);
    }
}

#[test]
fn a_split_piece_is_alone_in_its_batch() {
    let mut records = RecordsBuilder::new();
    let content = [b"a\n".to_vec(), vec![b'x'; 40], b"\nb\n".to_vec()].concat();
    let (mut at, mut start, mut seen) = (0, Start::Fresh, Vec::new());
    while at < content.len() {
        records.clear();
        let cutting = plain(&content[at..], start, Flush::Wait, &mut records);
        seen.push((records.len(), cutting.flags));
        at += cutting.consumed;
        start = cutting.after;
    }
    let (split, continued) = (Flags::LAST_SPLIT.bits(), Flags::FIRST_CONTINUED.bits());
    assert_eq!(seen, vec![(1, 0), (1, split), (1, split | continued), (2, continued)]);
}

/// The sizes to which a file grows in these steps, with where an idle flush falls; it ends as `content`.
fn sizes(content: &[u8], steps: &[(usize, bool)]) -> Vec<(usize, Flush)> {
    let mut size = 0;
    let mut sizes: Vec<_> = steps
        .iter()
        .map(|(step, flush)| {
            size = content.len().min(size + step);
            (size, if *flush { Flush::Idle } else { Flush::Wait })
        })
        .collect();
    sizes.push((content.len(), Flush::End));
    sizes
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![6 => Just(b'x'), 2 => Just(b'\n'), 1 => Just(b'\r'), 1 => 1u8..];
    prop::collection::vec(byte, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn growth_in_steps_gives_the_records_of_the_whole(content in content(), steps in prop::collection::vec(0usize..40, 0..20)) {
        let whole = run(&content, &[(content.len(), Flush::End)]);
        let steps: Vec<_> = steps.into_iter().map(|step| (step, false)).collect();
        prop_assert_eq!(run(&content, &sizes(&content, &steps)), whole);
    }

    #[test]
    fn whatever_is_flushed_no_byte_of_a_body_is_lost_or_doubled(
        content in content(), steps in prop::collection::vec((0usize..40, any::<bool>()), 0..20)
    ) {
        let mut expected = 0;
        for (offset, body) in run(&content, &sizes(&content, &steps)) {
            let offset = usize::try_from(offset).unwrap();
            let gap = &content[expected..offset];
            prop_assert!(matches!(gap, b"" | b"\n" | b"\r\n" | b"\r"), "skipped {gap:?}");
            prop_assert_eq!(&content[offset..offset + body.len()], &body[..]);
            expected = offset + body.len();
        }
        let rest = &content[expected..];
        prop_assert!(matches!(rest, b"" | b"\n" | b"\r\n" | b"\r"), "left {rest:?}");
    }
}
