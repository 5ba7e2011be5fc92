//! Times in every notation.

use proptest::prelude::*;

use super::*;
use crate::parse::time;

#[test]
fn times_are_read_in_every_notation() {
    let cases = [
        ("2015-05-17T10:05:03Z", "2015-05-17T10:05:03Z"),
        ("2015-05-17T10:05:03.000Z", "2015-05-17T10:05:03Z"),
        ("2015-05-17t10:05:03.5z", "2015-05-17T10:05:03.5Z"),
        ("2015-05-17 10:05:03,747", "2015-05-17T10:05:03.747Z"),
        ("2015-05-17 10:05:03", "2015-05-17T10:05:03Z"),
        ("2015-05-17 10:05:03 UTC", "2015-05-17T10:05:03Z"),
        ("2015-05-17T10:05:03+02:00", "2015-05-17T08:05:03Z"),
        ("2015-05-17 10:05:03 +0200", "2015-05-17T08:05:03Z"),
        ("2015-05-17T01:05:03.123456789+0530", "2015-05-16T19:35:03.123456789Z"),
        ("2015-05-17T23:05:03-08", "2015-05-18T07:05:03Z"),
        ("2015/05/17 10:05:03", "2015-05-17T10:05:03Z"),
        ("17/May/2015:10:05:03 +0000", "2015-05-17T10:05:03Z"),
        ("17/May/2015:10:05:03 -0700", "2015-05-17T17:05:03Z"),
        ("17-May-2015 10:05:03.123", "2015-05-17T10:05:03.123Z"),
        ("17/06/09 20:10:40", "2017-06-09T20:10:40Z"),
        ("081109 203615", "2008-11-09T20:36:15Z"),
        ("Sun Dec 04 04:47:44 2005", "2005-12-04T04:47:44Z"),
        ("Sun Dec  4 04:47:44.123456 2005", "2005-12-04T04:47:44.123456Z"),
        ("Jun 14 15:16:01", "2026-06-14T15:16:01Z"),
        ("Jun  4 15:16:01", "2026-06-04T15:16:01Z"),
        ("Jun 14 2019 15:16:01", "2019-06-14T15:16:01Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-02-29T00:00:00Z", "2016-02-29T00:00:00Z"),
        ("1446249499", "2015-10-30T23:58:19Z"),
        ("1446249499.322", "2015-10-30T23:58:19.322Z"),
        ("1446249499322", "2015-10-30T23:58:19.322Z"),
        ("1446249499322.5", "2015-10-30T23:58:19.3225Z"),
        ("1446249499322123", "2015-10-30T23:58:19.322123Z"),
        ("1446249499322123456", "2015-10-30T23:58:19.322123456Z"),
    ];
    for (text, expected) in cases {
        assert_eq!(time::any(text.as_bytes(), OBSERVED).map(timestamp).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn what_is_no_time_is_not_read_as_one() {
    for text in [
        "",
        "-",
        "yesterday",
        "2015-05-17",
        "2015-13-01T00:00:00Z",
        "2015-02-29T00:00:00Z",
        "2015-05-17T24:00:00Z",
        "2015-05-17T10:05:3Z",
        "2015-05-17T10:05:03Zulu",
        "2015-05-17T10:05:03+99:00",
        "2015-05-17T10:05:03 tail",
        "2015-05/17 10:05:03",
        "31/Feb/2015:10:05:03 +0000",
        "17/Mai/2015:10:05:03 +0000",
        "081399 203615",
        "Sun Foo 04 04:47:44 2005",
        "Jun 31 15:16:01",
        "12.5",
        "0",
        "-1446249499",
        "1e9",
        "1446249499.32x",
        "99999999999999999999",
    ] {
        assert_eq!(time::any(text.as_bytes(), OBSERVED), None, "{text}");
    }
}

/// The year that a time without one gets, read at `observed`.
fn at(observed: &str, text: &str) -> Option<String> {
    let observed: jiff::Timestamp = observed.parse().unwrap();
    let observed = i64::try_from(observed.as_nanosecond()).unwrap();
    time::month_first(text.as_bytes(), observed).map(|(unix_nano, _)| timestamp(unix_nano))
}

#[test]
fn a_time_without_a_year_is_the_latest_that_is_at_most_a_day_ahead() {
    for (observed, text, expected) in [
        ("2026-11-23T03:00:00Z", "Nov 23 02:59:59", "2026-11-23T02:59:59Z"),
        ("2026-11-23T03:00:00Z", "Nov 24 03:00:00", "2026-11-24T03:00:00Z"),
        ("2026-11-23T03:00:00Z", "Nov 24 03:00:01", "2025-11-24T03:00:01Z"),
        ("2027-01-01T00:00:05Z", "Dec 31 23:59:59", "2026-12-31T23:59:59Z"),
        ("2026-12-31T23:59:59Z", "Jan  1 00:00:03", "2027-01-01T00:00:03Z"),
        ("2026-03-01T00:00:00Z", "Feb 29 12:00:00", "2024-02-29T12:00:00Z"),
        ("2103-03-01T00:00:00Z", "Feb 29 12:00:00", "2096-02-29T12:00:00Z"),
    ] {
        assert_eq!(at(observed, text).as_deref(), Some(expected), "{text} read at {observed}");
    }
}

#[test]
fn times_beyond_64_bits_saturate() {
    for (text, expected) in [("0001-01-01T00:00:00Z", i64::MIN), ("9999-12-31T23:59:59Z", i64::MAX)] {
        assert_eq!(time::any(text.as_bytes(), OBSERVED), Some(expected), "{text}");
    }
}

proptest! {
    #[test]
    fn dates_agree_with_a_calendar(days in -1_000_000_i64..1_000_000) {
        let (year, month, day) = time::civil_from_days(days);
        prop_assert_eq!(time::days_from_civil(year, month, day), days);
        let civil = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(days)).unwrap();
        let civil = (i64::from(civil.year()), civil.month().unsigned_abs().into(), civil.day().unsigned_abs().into());
        prop_assert_eq!((year, month, day), civil);
    }

    #[test]
    fn times_written_by_a_calendar_are_read_back(unix_nano in 946_684_800_000_000_000_i64..4_000_000_000_000_000_000) {
        let written = timestamp(unix_nano);
        prop_assert_eq!(time::any(written.as_bytes(), OBSERVED), Some(unix_nano), "{}", written);
    }
}
