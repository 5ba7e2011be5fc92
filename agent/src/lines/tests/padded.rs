//! Room that is not written yet.

use super::*;

fn at(flush: Flush, written_behind: bool) -> At {
    At { offset: 100, start: Start::Fresh, flush, written_behind }
}

fn cut_at(block: &[u8], at: At) -> (Cutting, Vec<Arrived>) {
    let mut records = RecordsBuilder::new();
    let cutting = cut(block, at, &LIMITS, &Framing::default(), &mut records);
    let arrived = if records.is_empty() { vec![] } else { open(&mut records, 100 + cutting.skipped as u64) };
    (cutting, arrived)
}

#[test]
fn padding_at_the_end_is_never_flushed() {
    for flush in [Flush::Wait, Flush::Idle, Flush::End] {
        assert_eq!(cut_at(&[0; 50], at(flush, false)).0.consumed, 0, "{flush:?}");
        let (cutting, arrived) = cut_at(b"one\n\0\0\0", at(flush, false));
        assert_eq!((cutting.consumed, arrived), (4, vec![(100, b"one".to_vec())]));
    }
    let (cutting, arrived) = cut_at(b"par\0\0", at(Flush::Idle, false));
    assert_eq!((cutting.consumed, cutting.after, arrived), (3, Start::Unterminated, vec![(100, b"par".to_vec())]));
    assert_eq!(cut_at(b"par\0\0", at(Flush::Wait, false)).0.consumed, 0);
}

#[test]
fn padding_before_what_is_written_is_skipped_alone() {
    let (cutting, arrived) = cut_at(b"\0\0\0one\n", at(Flush::Wait, false));
    assert_eq!((cutting.consumed, cutting.skipped, cutting.padding, arrived.len()), (3, 3, true, 0));
    let (cutting, arrived) = cut_at(b"one\n\0\0two\n", at(Flush::Wait, false));
    assert_eq!((cutting.consumed, arrived.len()), (4, 1), "and begins no record in the middle of a batch");
    let (cutting, _) = cut_at(&[0; 50], at(Flush::Wait, true));
    assert_eq!((cutting.consumed, cutting.padding), (50, true));
}

#[test]
fn what_stands_before_padding_that_something_follows_will_not_grow() {
    let (cutting, arrived) = cut_at(b"par\0\0", at(Flush::Wait, true));
    assert_eq!((cutting.consumed, cutting.flags, arrived.len()), (3, Flags::LAST_PARTIAL.bits(), 1));
    for flush in [Flush::Wait, Flush::Idle] {
        for halves in [&b"par\xc3\0\0"[..], b"par\r\0\0", b"\xc3\0\0"] {
            let (cutting, arrived) = cut_at(halves, at(flush, true));
            let written = &halves[..halves.len() - 2];
            assert_eq!((cutting.consumed, arrived), (written.len(), vec![(100, written.to_vec())]), "{flush:?}");
        }
    }
}

#[test]
fn a_nul_within_a_line_is_part_of_it() {
    assert_eq!(bodies(b"a\0b\n", &[(4, Flush::Wait)]), [b"a\0b"]);
}

#[test]
fn where_nul_ends_lines_it_is_no_padding() {
    let config = FramingConfig { delimiter: Some("\0".into()), ..FramingConfig::default() };
    let framing = Framing::new(&config).unwrap();
    let mut records = RecordsBuilder::new();
    let cutting = cut(b"\0\0a\0", at(Flush::Wait, false), &LIMITS, &framing, &mut records);
    assert_eq!((cutting.consumed, records.len()), (4, 3));
}

#[test]
fn padding_of_utf_16_comes_in_whole_units() {
    let config = FramingConfig { encoding: Encoding::Utf16Le, ..FramingConfig::default() };
    let framing = Framing::new(&config).unwrap();
    assert_eq!(written_bytes(b"a\0\0\0\0\0", 4, &framing), 2);
    assert_eq!(written_bytes(b"a\0\0", 4, &framing), 2);
    assert_eq!(written_bytes(b"\0a\0\0\0", 5, &framing), 3);
    let mut records = RecordsBuilder::new();
    let cutting = cut(b"a\0\n\0\0\0\0\0b\0\n\0", at(Flush::Wait, false), &LIMITS, &framing, &mut records);
    assert_eq!((cutting.consumed, records.len()), (4, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn only_padding_and_terminators_are_left_out(
        content in prop::collection::vec(prop_oneof![3 => Just(b'x'), 2 => Just(b'\n'), 2 => Just(0u8)], 0..120),
        steps in prop::collection::vec((0usize..20, any::<bool>()), 0..20)
    ) {
        let mut expected = 0;
        for (offset, body) in run(&content, &sizes(&content, &steps)) {
            let offset = usize::try_from(offset).unwrap();
            prop_assert!(content[expected..offset].iter().all(|byte| matches!(byte, 0 | b'\n')));
            prop_assert!(body.first() != Some(&0));
            prop_assert_eq!(&content[offset..offset + body.len()], &body[..]);
            expected = offset + body.len();
        }
        prop_assert!(content[expected..].iter().all(|byte| matches!(byte, 0 | b'\n')));
    }
}
