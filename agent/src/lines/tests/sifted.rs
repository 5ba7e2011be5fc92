//! Records of which some are dropped at the source.

use super::*;
use crate::sift::{Reason, Sift, SiftConfig};

const WIDE: CutLimits = CutLimits { batch_bytes_max: 200, batch_records_max: 7, record_bytes_max: 100 };

fn without(pattern: &str) -> Sift {
    Sift::new(&SiftConfig { exclude_lines: vec![pattern.into()], ..SiftConfig::default() }).unwrap()
}

/// What came of a content: the records that were kept, and what was dropped.
#[derive(Debug, Default, PartialEq)]
struct Sifted {
    arrived: Vec<Arrived>,
    dropped: Dropped,
    /// Where cuts begin and end, and how many records are in them.
    cuts: Vec<(usize, usize, usize)>,
    /// Offsets of records that were parted.
    parted: Vec<u64>,
}

fn run_sifted(framing: &Framing, sift: &Sift, content: &[u8], sizes: &[(usize, Flush)]) -> Sifted {
    let (mut position, mut start, mut out) = (0, Start::Fresh, Sifted::default());
    let sifter = sift.sifter(7).unwrap();
    let mut records = RecordsBuilder::new();
    for &(size, flush) in sizes {
        loop {
            records.clear();
            let at = At { offset: position as u64, start, flush, written_behind: false };
            let cutting = cut_sifted(&content[position..size], at, &WIDE, framing, Some(&sifter), &mut records);
            if cutting.consumed == 0 {
                break;
            }
            let (first, end) = (position + cutting.skipped, position + cutting.consumed);
            out.dropped.add(&cutting.dropped);
            if first < end {
                out.cuts.push((first, end, records.len()));
            }
            if !records.is_empty() {
                assert_eq!(records.source_bytes() as usize, end - first, "intervals are whole");
                let flags = Flags::from_bits(cutting.flags);
                let arrived = open(&mut records, first as u64);
                assert_eq!(arrived[0].0, first as u64);
                cut_again(framing, sift, &content[first..end], flags, first as u64, &arrived);
                out.parted.extend(flags.contains(Flags::FIRST_CONTINUED).then_some(first as u64));
                let is_open = flags.contains(Flags::LAST_PARTIAL) || flags.contains(Flags::LAST_SPLIT);
                out.parted.extend(arrived.last().filter(|_| is_open).map(|(offset, _)| *offset));
                out.arrived.extend(arrived);
            }
            position = end;
            start = cutting.after;
        }
    }
    out
}

/// The same range gives the same records again, in one and in halves at every boundary.
fn cut_again(framing: &Framing, sift: &Sift, range: &[u8], flags: Flags, first: u64, arrived: &[Arrived]) {
    let sifter = sift.sifter(7);
    let again = |range: &[u8], flags: Flags, first: u64| {
        let mut records = RecordsBuilder::new();
        recut_sifted(range, flags, framing, sifter.as_ref(), first, &mut records);
        assert_eq!(records.source_bytes() as usize, range.len());
        open(&mut records, first)
    };
    assert_eq!(again(range, flags, first), arrived);
    let middle = |index| boundary_sifted(range, flags, framing, sifter.as_ref(), first, index);
    for half in 1..arrived.len() {
        let middle = middle(half).unwrap();
        let early = Flags::from_bits(flags.bits() & Flags::FIRST_CONTINUED.bits());
        let late = Flags::from_bits(flags.bits() & !Flags::FIRST_CONTINUED.bits());
        let mut both = again(&range[..middle], early, first);
        both.extend(again(&range[middle..], late, first + middle as u64));
        assert_eq!((both.len(), &both[..]), (arrived.len(), arrived), "halves at {middle}");
    }
    assert_eq!(middle(arrived.len()), None);
}

#[test]
fn dropped_records_belong_to_the_one_before_and_leading_ones_are_a_cut_of_their_own() {
    let content = b"no 1\nno 2\nyes 3\nno 4\nyes 5\nno 6\n";
    let sifted = run_sifted(&Framing::default(), &without("^no"), content, &[(content.len(), Flush::Wait)]);
    assert_eq!(sifted.arrived, [(10, b"yes 3".to_vec()), (21, b"yes 5".to_vec())]);
    assert_eq!(sifted.cuts, [(0, 10, 0), (10, 32, 2)]);
    assert_eq!((sifted.dropped.of(Reason::Excluded).records, sifted.dropped.of(Reason::Excluded).bytes), (4, 20));
}

#[test]
fn what_is_part_of_a_parted_line_is_kept_unasked() {
    let content = b"no 1 and its end\nno 2\n";
    let sizes = [(4, Flush::Idle), (content.len(), Flush::Wait)];
    let sifted = run_sifted(&Framing::default(), &without("^no|end"), content, &sizes);
    assert_eq!(sifted.arrived, [(0, b"no 1".to_vec()), (4, b" and its end".to_vec())]);
    assert_eq!(sifted.dropped.excluded.records, 1);
}

#[test]
fn joined_records_are_judged_whole_and_by_what_stands_behind_the_runtimes_mark() {
    let multiline = Some(Multiline::Start("^[A-Z]".into()));
    let framing = Framing::new(&FramingConfig { multiline, ..FramingConfig::default() }).unwrap();
    let content = b"A\n drop me\nB\n keep me\nC\n";
    let sifted = run_sifted(&framing, &without("drop"), content, &[(content.len(), Flush::End)]);
    assert_eq!(sifted.arrived, [(11, b"B\n keep me".to_vec()), (22, b"C".to_vec())]);
    let framing = Framing::new(&FramingConfig { cri: true, ..FramingConfig::default() }).unwrap();
    let at = "2016-10-06T00:17:09.669794202Z stdout";
    let content = format!("{at} P DE\n{at} F BUG x\n{at} F INFO y\n");
    let sifted = run_sifted(&framing, &without("^DEBUG"), content.as_bytes(), &[(content.len(), Flush::End)]);
    assert_eq!((sifted.arrived.len(), sifted.dropped.excluded.records), (1, 1));
}

#[test]
fn other_encodings_are_judged_by_their_text() {
    let config = FramingConfig { encoding: Encoding::Utf16Le, ..FramingConfig::default() };
    let content: Vec<u8> = "no\nyes\nno\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let framing = Framing::new(&config).unwrap();
    let sifted = run_sifted(&framing, &without("^no"), &content, &[(content.len(), Flush::End)]);
    assert_eq!((sifted.arrived, sifted.dropped.excluded.records), (vec![(6, b"yes".to_vec())], 2));
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => "[abn][a-c ]{0,20}\r?\n".prop_map(String::into_bytes),
        1 => Just(b"\n".to_vec()),
        1 => Just(b"\0\0\0".to_vec()),
        1 => (90usize..230).prop_map(|length| [vec![b'n'; length], b"\n".to_vec()].concat()),
    ];
    prop::collection::vec(line, 0..40).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_kept_is_what_would_have_arrived_less_what_is_dropped(
        content in line(),
        stops in prop::collection::vec((0usize..900, any::<bool>()), 0..6),
        joined in any::<bool>(),
    ) {
        let multiline = joined.then(|| Multiline::Start("^[an]".into()));
        let framing = Framing::new(&FramingConfig { multiline, ..FramingConfig::default() }).unwrap();
        let mut sizes: Vec<(usize, Flush)> = stops
            .into_iter()
            .map(|(size, idle)| (size.min(content.len()), if idle { Flush::Idle } else { Flush::Wait }))
            .collect();
        sizes.sort_by_key(|(size, _)| *size);
        sizes.push((content.len(), Flush::End));
        let sifted = run_sifted(&framing, &without("^n"), &content, &sizes);
        let (all, _) = run_by(&framing, &WIDE, &content, &sizes);
        // Cuts of a sifter reach further, which parts nothing: records are the same in both.
        let is_kept = |(offset, body): &&Arrived| !body.starts_with(b"n") || sifted.parted.contains(offset);
        let expected: Vec<Arrived> = all.iter().filter(is_kept).cloned().collect();
        prop_assert_eq!(&sifted.arrived, &expected);
        let dropped = sifted.dropped.of(Reason::Excluded);
        prop_assert_eq!(dropped.records as usize, all.len() - expected.len());
        let covered: usize = sifted.cuts.iter().map(|(first, end, _)| end - first).sum();
        prop_assert!(dropped.bytes as usize <= covered);
    }
}
