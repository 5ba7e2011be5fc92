//! Other delimiters and other encodings.

use super::*;

const WIDE: CutLimits = CutLimits { batch_bytes_max: 4000, batch_records_max: 50, record_bytes_max: 300 };

fn delimited(delimiter: &str, encoding: Encoding) -> Framing {
    let config = FramingConfig { delimiter: Some(delimiter.into()), encoding, ..FramingConfig::default() };
    Framing::new(&config).unwrap()
}

fn encoded(encoding: Encoding) -> Framing {
    Framing::new(&FramingConfig { encoding, ..FramingConfig::default() }).unwrap()
}

fn at_end(framing: &Framing, content: &[u8]) -> Vec<(u64, String)> {
    let arrived = run_by(framing, &WIDE, content, &[(content.len(), Flush::End)]).0;
    arrived.into_iter().map(|(offset, body)| (offset, String::from_utf8(body).unwrap())).collect()
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

#[test]
fn a_delimiter_of_ones_own_is_the_only_end_of_a_line() {
    let framing = delimited("\0", Encoding::Utf8);
    let expected = [(0, "a\nb"), (4, ""), (5, "c")].map(|(offset, text)| (offset, text.to_owned()));
    assert_eq!(at_end(&framing, b"a\nb\0\0c\0"), expected);
    let framing = delimited("<end>", Encoding::Utf8);
    assert_eq!(at_end(&framing, b"a<end>b<en<end>")[1], (6, "b<en".to_owned()));
}

#[test]
fn half_a_delimiter_is_not_flushed_and_swallowed_once_it_is_whole() {
    let framing = delimited("||", Encoding::Utf8);
    let content = b"one||two||three|";
    let sizes = [(4, Flush::Idle), (5, Flush::Wait), (9, Flush::Idle), (16, Flush::End)];
    let (arrived, marks) = run_by(&framing, &WIDE, content, &sizes);
    let expected = vec![(0, b"one".to_vec()), (5, b"two".to_vec()), (10, b"three|".to_vec())];
    assert_eq!(arrived, expected);
    assert_eq!(marks.iter().map(|mark| mark.1).collect::<Vec<_>>(), [Flags::LAST_PARTIAL; 3]);
}

#[test]
fn lines_of_utf_16_leave_as_utf_8_at_their_places_in_the_file() {
    for (encoding, big) in [(Encoding::Utf16Le, false), (Encoding::Utf16Be, true)] {
        for mark in ["", "\u{feff}"] {
            let content = utf16(&format!("{mark}Grüße\r\n\n☺ 🙂\nĊ\n"), big);
            let lead = if mark.is_empty() { 0 } else { 2 };
            let expected = [(lead, "Grüße"), (lead + 14, ""), (lead + 16, "☺ 🙂"), (lead + 26, "Ċ")];
            let expected = expected.map(|(offset, text)| (offset, text.to_owned()));
            assert_eq!(at_end(&encoded(encoding), &content), expected, "{encoding:?} {mark:?}");
        }
    }
}

#[test]
fn the_byte_order_mark_decides_where_it_is_asked() {
    let framing = encoded(Encoding::Utf16);
    assert!(framing.needs_byte_order());
    for big in [true, false] {
        let content = utf16("\u{feff}a\nb\n", big);
        let framing = framing.for_file([content[0], content[1]]);
        assert!(!framing.needs_byte_order());
        assert_eq!(at_end(&framing, &content), [(2, "a".to_owned()), (6, "b".to_owned())], "{big}");
    }
}

#[test]
fn what_is_no_text_is_replaced_and_counted() {
    let content = [utf16("a", false), vec![0x00, 0xd8], utf16("b\n", false), vec![0x63]].concat();
    let at = At { offset: 0, start: Start::Fresh, flush: Flush::End, written_behind: false };
    let mut records = RecordsBuilder::new();
    let cutting = cut(&content, at, &WIDE, &encoded(Encoding::Utf16Le), &mut records);
    assert_eq!((cutting.replaced, cutting.consumed), (2, content.len()));
    let texts: Vec<_> = open(&mut records, 0).into_iter().map(|(_, body)| String::from_utf8(body).unwrap()).collect();
    assert_eq!(texts, ["a\u{fffd}b", "\u{fffd}"]);
}

#[test]
fn a_split_parts_no_character_and_no_body_is_longer_than_it_may_be() {
    let text = format!("{}\n", "x🙂".repeat(100));
    for (encoding, content) in [(Encoding::Utf16Le, utf16(&text, false)), (Encoding::Utf8, text.clone().into_bytes())] {
        let limits = CutLimits { record_bytes_max: 21, ..WIDE };
        let (arrived, _) = run_by(&encoded(encoding), &limits, &content, &[(content.len(), Flush::End)]);
        let bodies: Vec<_> = arrived.into_iter().map(|(_, body)| String::from_utf8(body).unwrap()).collect();
        assert!(bodies.iter().all(|body| body.len() <= 21 && !body.contains('\u{fffd}')), "{bodies:?}");
        assert_eq!(bodies.concat(), "x🙂".repeat(100));
    }
}

#[test]
fn a_flush_leaves_half_a_character_where_it_is_until_nothing_more_can_come() {
    let content = "ab🙂\n".as_bytes();
    let whole = [(0, b"ab".to_vec()), (2, "🙂".into())];
    for half in 3..=5 {
        let (arrived, marks) = run_by(
            &Framing::default(),
            &WIDE,
            content,
            &[(half, Flush::Idle), (half, Flush::Idle), (content.len(), Flush::Wait)],
        );
        assert_eq!((&arrived[..], marks[1]), (&whole[..], (2, Flags::FIRST_CONTINUED)), "{half} bytes");
        let cut_off = run(&content[..half], &[(half, Flush::Idle), (half, Flush::End)]);
        assert_eq!(cut_off, [(0, b"ab".to_vec()), (2, content[2..half].into())], "{half} bytes");
    }
}

#[test]
fn what_is_no_utf_8_is_split_where_the_limit_is() {
    for content in [[0xff; 40], [0x80; 40]] {
        let lengths: Vec<_> = bodies(&content, &[(40, Flush::Idle)]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [16, 16, 8]);
    }
}

#[test]
fn latin_1_leaves_as_utf_8() {
    assert_eq!(
        at_end(&encoded(Encoding::Latin1), b"Gr\xfc\xdfe\nplain\n"),
        [(0, "Grüße".to_owned()), (6, "plain".to_owned())]
    );
}

#[test]
fn a_file_that_was_read_in_another_encoding_before_is_brought_into_step() {
    let content = utf16("ab\n", false);
    let at = At { offset: 7, start: Start::Fresh, flush: Flush::Wait, written_behind: false };
    let mut records = RecordsBuilder::new();
    let block = [&b"\0"[..], &content].concat();
    let framing = delimited("\n", Encoding::Utf16Le);
    let cutting = cut(&block[..], At { offset: 7, ..at }, &WIDE, &framing, &mut records);
    assert_eq!((cutting.skipped, cutting.consumed), (1, 7));
    assert_eq!(open(&mut records, 8), [(8, b"ab".to_vec())]);
}

#[test]
fn the_bytes_of_the_source_are_found_again_from_bodies() {
    let content = utf16("\u{feff}Grüße\r\n☺\nlast", true);
    let framing = encoded(Encoding::Utf16Be);
    let mut records = RecordsBuilder::new();
    let at = At { offset: 0, start: Start::Fresh, flush: Flush::End, written_behind: false };
    let cutting = cut(&content, at, &WIDE, &framing, &mut records);
    let arrived = open(&mut records, 2);
    let ends = arrived.iter().map(|(offset, _)| *offset).skip(1).chain([cutting.consumed as u64]);
    let lengths = ends.zip(&arrived).map(|(end, (offset, _))| usize::try_from(end - offset).unwrap());
    let source: Vec<u8> =
        arrived.iter().zip(lengths).flat_map(|((_, body), length)| framing.source_of(body, length).unwrap()).collect();
    assert_eq!(source, content[2..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn encoded_lines_are_the_same_however_they_grow(
        text in "[a-c☺Ċ🙂\r\n]{0,60}", big in any::<bool>(), mark in any::<bool>(), joined in any::<bool>(),
        steps in prop::collection::vec((0usize..30, any::<bool>()), 0..12)
    ) {
        let encoding = if big { Encoding::Utf16Be } else { Encoding::Utf16Le };
        let multiline = joined.then(|| Multiline::Start("^a".into()));
        let framing = Framing::new(&FramingConfig { encoding, multiline, ..FramingConfig::default() }).unwrap();
        let content = utf16(&format!("{}{text}", if mark { "\u{feff}" } else { "" }), big);
        let (arrived, _) = run_by(&framing, &WIDE, &content, &sizes(&content, &steps));
        let letters = |text: &str| text.replace(['\r', '\n'], "");
        let all: String = arrived.iter().map(|(_, body)| std::str::from_utf8(body).unwrap()).collect();
        prop_assert_eq!(letters(&all), letters(&text));
        if steps.iter().all(|(_, flush)| !flush) {
            let whole = run_by(&framing, &WIDE, &content, &[(content.len(), Flush::End)]);
            prop_assert_eq!(arrived, whole.0);
        }
    }

    #[test]
    fn text_is_cut_between_its_characters_however_it_grows(
        text in "[a-c☺Ċ🙂\r\n]{0,60}", joined in any::<bool>(),
        steps in prop::collection::vec((0usize..30, any::<bool>()), 0..12)
    ) {
        let multiline = joined.then(|| Multiline::Start("^a".into()));
        let framing = Framing::new(&FramingConfig { multiline, ..FramingConfig::default() }).unwrap();
        let (arrived, _) = run_by(&framing, &LIMITS, text.as_bytes(), &sizes(text.as_bytes(), &steps));
        let letters = |text: &str| text.replace(['\r', '\n'], "");
        let all: String = arrived.iter().map(|(_, body)| std::str::from_utf8(body).unwrap()).collect();
        prop_assert_eq!(letters(&all), letters(&text));
    }
}
