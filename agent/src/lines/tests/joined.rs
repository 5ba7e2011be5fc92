//! Records of several lines.

use std::time::Duration;

use super::*;

const WIDE: CutLimits = CutLimits { batch_bytes_max: 4000, batch_records_max: 50, record_bytes_max: 1000 };

fn by(multiline: Multiline) -> Framing {
    Framing::new(&FramingConfig { multiline: Some(multiline), ..FramingConfig::default() }).unwrap()
}

fn start() -> Framing {
    by(Multiline::Start("^[0-9]".into()))
}

fn cri(multiline: Option<Multiline>) -> Framing {
    Framing::new(&FramingConfig { cri: true, multiline, ..FramingConfig::default() }).unwrap()
}

fn texts(arrived: Vec<Arrived>) -> Vec<String> {
    arrived.into_iter().map(|(_, body)| String::from_utf8(body).unwrap()).collect()
}

#[test]
fn a_record_goes_on_up_to_the_next_line_that_begins_one() {
    let content = b"1 one\n  more\r\n\n2 two\n3 three\nmore\n";
    let expected = ["1 one\n  more\r\n", "2 two", "3 three\nmore"];
    let (arrived, marks) = run_by(&start(), &WIDE, content, &[(content.len(), Flush::End)]);
    assert_eq!(arrived.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 15, 21]);
    assert_eq!((texts(arrived), marks), (expected.map(str::to_owned).to_vec(), vec![(0, Flags::NONE)]));
}

#[test]
fn the_last_record_waits_until_its_end_is_seen_or_it_is_flushed() {
    let content = b"1 one\n more\n2 two\n";
    let upto = |sizes: &[(usize, Flush)]| texts(run_by(&start(), &WIDE, content, sizes).0);
    assert!(upto(&[(12, Flush::Wait)]).is_empty(), "more may come");
    assert!(upto(&[(17, Flush::Wait)]).is_empty(), "the line that shows its end is not whole");
    assert_eq!(upto(&[(18, Flush::Wait)]), ["1 one\n more"]);
    assert_eq!(upto(&[(12, Flush::Idle)]), ["1 one\n more"]);
}

#[test]
fn what_goes_on_behind_a_flush_is_continued_and_what_begins_is_not() {
    for (content, flushed, second, flags) in [
        (&b"1 one\n more\n"[..], 6, " more", Flags::FIRST_CONTINUED),
        (b"1 one\n2 two\n", 6, "2 two", Flags::NONE),
        (b"1 one\n more\n", 9, "re", Flags::FIRST_CONTINUED),
        (b"1 one\n2 two\n", 5, "2 two", Flags::NONE),
        (b"1 one\r\n more\n", 6, " more", Flags::FIRST_CONTINUED),
    ] {
        let sizes = [(flushed, Flush::Idle), (content.len(), Flush::Idle)];
        let (arrived, marks) = run_by(&start(), &WIDE, content, &sizes);
        assert_eq!((arrived.len(), texts(arrived)[1].as_str()), (2, second), "{flushed}");
        assert_eq!(marks[1].1, flags, "{flushed}");
        let whole_line = content[..flushed].ends_with(b"\n");
        assert_eq!(marks[0].1, if whole_line { Flags::NONE } else { Flags::LAST_PARTIAL }, "{flushed}");
    }
}

#[test]
fn a_generation_that_begins_in_the_middle_of_a_record_is_continued() {
    let content = b" cut off by rotation\n1 one\n";
    let (arrived, marks) = run_by(&start(), &WIDE, content, &[(content.len(), Flush::End)]);
    assert_eq!(texts(arrived), [" cut off by rotation", "1 one"]);
    assert_eq!(marks, [(0, Flags::FIRST_CONTINUED)]);
}

#[test]
fn a_record_that_is_too_long_is_split_between_lines_where_it_can_be() {
    let content = b"1 one\n more\n and more\n and this line is too long\n2\n";
    let (arrived, marks) = run_by(&start(), &LIMITS, content, &[(content.len(), Flush::End)]);
    let bodies = ["1 one\n more", " and more", " and this line i", "s too long", "2"];
    assert_eq!(texts(arrived), bodies);
    let (split, continued) = (Flags::LAST_SPLIT, Flags::FIRST_CONTINUED);
    let both = split.union(continued);
    assert_eq!(marks, [(0, split), (12, both), (22, both), (38, continued)]);
}

#[test]
fn a_record_has_no_more_lines_than_it_may() {
    let config = FramingConfig { multiline: Some(Multiline::Indent), lines_max: Some(3), ..FramingConfig::default() };
    let framing = Framing::new(&config).unwrap();
    let content = b"0\n 1\n 2\n 3\n 4\n 5\n6\n";
    let (arrived, marks) = run_by(&framing, &WIDE, content, &[(content.len(), Flush::End)]);
    assert_eq!(texts(arrived), ["0\n 1\n 2", " 3\n 4\n 5", "6"]);
    assert_eq!(marks, [(0, Flags::LAST_SPLIT), (8, Flags::FIRST_CONTINUED)]);
}

#[test]
fn continuation_and_indentation_join_what_matches() {
    let content = b"a\n\tb\n c\nd\n";
    let expected = ["a\n\tb\n c", "d"];
    for framing in [by(Multiline::Indent), by(Multiline::Continuation("^[ \\t]".into()))] {
        assert_eq!(texts(run_by(&framing, &WIDE, content, &[(content.len(), Flush::End)]).0), expected);
    }
}

#[test]
fn pieces_of_a_line_that_a_runtime_split_become_one_line() {
    let content = b"2024-01-01T00:00:00.000000001Z stdout P one \n\
                    2024-01-01T00:00:00.000000002Z stdout P two \n\
                    2024-01-01T00:00:00.000000003Z stdout F three\n\
                    2024-01-01T00:00:00.000000004Z stderr F whole\n";
    let expected =
        ["2024-01-01T00:00:00.000000001Z stdout F one two three", "2024-01-01T00:00:00.000000004Z stderr F whole"];
    let (arrived, marks) = run_by(&cri(None), &WIDE, content, &[(content.len(), Flush::Wait)]);
    assert_eq!(arrived[1].0, 136, "the place of a record stays that of its first piece");
    assert_eq!((texts(arrived), marks.len()), (expected.map(str::to_owned).to_vec(), 1), "a whole line never waits");
}

#[test]
fn pieces_of_two_streams_are_never_mixed() {
    let content = b"2024-01-01T00:00:00Z stdout P out, \n2024-01-01T00:00:00Z stderr F err\n\
                    2024-01-01T00:00:00Z stdout F and more\nno runtime wrote this\n";
    let expected = [
        "2024-01-01T00:00:00Z stdout P out, ",
        "2024-01-01T00:00:00Z stderr F err",
        "2024-01-01T00:00:00Z stdout F and more",
        "no runtime wrote this",
    ];
    assert_eq!(texts(run_by(&cri(None), &WIDE, content, &[(content.len(), Flush::Wait)]).0), expected);
}

#[test]
fn pieces_that_stay_pieces_keep_their_mark() {
    let content = b"2024-01-01T00:00:00Z stdout P one \n2024-01-01T00:00:00Z stdout P two\n";
    let expected = ["2024-01-01T00:00:00Z stdout P one two"];
    assert_eq!(texts(run_by(&cri(None), &WIDE, content, &[(content.len(), Flush::Idle)]).0), expected);
}

#[test]
fn a_stack_trace_within_what_a_runtime_writes_is_joined_by_its_messages() {
    let content = b"2024-01-01T00:00:00Z stdout F ERROR it failed\n\
                    2024-01-01T00:00:00Z stdout F java.lang.IllegalStateException: boom\n\
                    2024-01-01T00:00:00Z stdout P \tat com.example.\n\
                    2024-01-01T00:00:00Z stdout F Main.main(Main.java:1)\n\
                    2024-01-01T00:00:00Z stdout F INFO next\n";
    let expected = [
        "2024-01-01T00:00:00Z stdout F ERROR it failed\njava.lang.IllegalStateException: boom\n\
         \tat com.example.Main.main(Main.java:1)",
        "2024-01-01T00:00:00Z stdout F INFO next",
    ];
    let framing = cri(Some(Multiline::Preset(Preset::Java)));
    assert_eq!(texts(run_by(&framing, &WIDE, content, &[(content.len(), Flush::End)]).0), expected);
}

#[test]
fn a_timeout_of_its_own_takes_the_place_of_the_general_one() {
    let general = Duration::from_secs(5);
    let own = FramingConfig { timeout: Some(Duration::from_secs(1)), ..FramingConfig::default() };
    assert_eq!(Framing::new(&own).unwrap().patience(general), Duration::from_secs(1));
    assert_eq!(start().patience(general), general);
}

/// Lines that begin records, go on, are empty, too long, or end in odd ways.
fn joined_content() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        3 => Just("1 x"), 4 => Just(" y"), 1 => Just(""), 2 => Just("\tat a.b(C.java:1)"), 1 => Just("1 much too long for it"),
        1 => Just("a.b.CException: z"), 1 => Just(" goes on for more than it may"), 1 => Just("\r"),
        1 => Just("2024-01-01T00:00:00Z stdout P a"), 1 => Just("2024-01-01T00:00:00Z stdout F b"),
    ];
    let end = prop_oneof![6 => Just("\n"), 2 => Just("\r\n"), 1 => Just("")];
    let lines = prop::collection::vec((line, end), 0..24);
    lines.prop_map(|lines| lines.into_iter().flat_map(|(line, end)| [line, end]).collect::<String>().into_bytes())
}

fn framings() -> impl Strategy<Value = Framing> {
    let custom = FramingConfig { delimiter: Some("\r\n".into()), ..FramingConfig::default() };
    let two_lines =
        FramingConfig { multiline: Some(Multiline::Indent), lines_max: Some(2), ..FramingConfig::default() };
    prop_oneof![
        Just(start()),
        Just(by(Multiline::Indent)),
        Just(by(Multiline::Preset(Preset::Java))),
        Just(by(Multiline::Preset(Preset::Json))),
        Just(Framing::new(&custom).unwrap()),
        Just(Framing::new(&two_lines).unwrap()),
    ]
}

fn limits() -> impl Strategy<Value = CutLimits> {
    (1usize..6, 16usize..80).prop_map(|(batch_records_max, record_bytes_max)| CutLimits {
        batch_bytes_max: 64,
        batch_records_max,
        record_bytes_max,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn growth_in_steps_gives_the_joined_records_of_the_whole(
        content in joined_content(), framing in framings(), limits in limits(), steps in prop::collection::vec(0usize..40, 0..20)
    ) {
        let steps: Vec<_> = steps.into_iter().map(|step| (step, false)).collect();
        let whole = run_by(&framing, &limits, &content, &[(content.len(), Flush::End)]);
        prop_assert_eq!(run_by(&framing, &limits, &content, &sizes(&content, &steps)).0, whole.0);
    }

    #[test]
    fn every_byte_is_in_one_record_or_a_terminator_however_it_is_flushed(
        content in joined_content(), framing in framings(), limits in limits(),
        steps in prop::collection::vec((0usize..40, any::<bool>()), 0..20)
    ) {
        let mut expected = 0;
        for (offset, body) in run_by(&framing, &limits, &content, &sizes(&content, &steps)).0 {
            let offset = usize::try_from(offset).unwrap();
            let gap = &content[expected..offset];
            prop_assert!(matches!(gap, b"" | b"\n" | b"\r\n" | b"\r"), "skipped {gap:?}");
            prop_assert_eq!(&content[offset..offset + body.len()], &body[..]);
            prop_assert!(body.len() <= limits.record_bytes_max);
            expected = offset + body.len();
        }
        let rest = &content[expected..];
        prop_assert!(matches!(rest, b"" | b"\n" | b"\r\n" | b"\r"), "left {rest:?}");
    }

    #[test]
    fn runtime_lines_are_cut_the_same_way_again_and_cover_every_byte(
        content in joined_content(), java in any::<bool>(), limits in limits(),
        steps in prop::collection::vec((0usize..40, any::<bool>()), 0..20)
    ) {
        let framing = cri(java.then_some(Multiline::Preset(Preset::Java)));
        let (arrived, _) = run_by(&framing, &limits, &content, &sizes(&content, &steps));
        for text in [&b"much too"[..], b"CException", b"F b"] {
            let count = |bytes: &[u8]| memchr::memmem::find_iter(bytes, text).count();
            let found: usize = arrived.iter().map(|(_, body)| count(body)).sum();
            prop_assert!(found <= count(&content));
        }
        prop_assert!(arrived.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
