//! Times as people and programs write them: RFC 3339, dates, milliseconds since 1970, or relative to now.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};

const SECOND: i64 = 1_000_000_000;

/// A span of time that a text names, half open, in nanoseconds since 1970-01-01 UTC: a date is a day, a time to the
/// second is a second, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) begin: i64,
    pub(crate) end: i64,
}

/// Nanoseconds since 1970-01-01 UTC.
pub(crate) fn now_unix_nano(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// Reads a time; `now` in nanoseconds since 1970-01-01 UTC. `None` for what is no time.
///
/// Known are `now`, `now-15m`, `-15m` (s, m, h, d, w), milliseconds since 1970 (10 digits or fewer: seconds),
/// `2026-11-23`, `2026-11-23T10:05`, `2026-11-23 10:05:03.25` (UTC where no zone is given), and RFC 3339.
pub(crate) fn parse(text: &str, now: i64) -> Option<Moment> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("now").or_else(|| text.starts_with('-').then_some(text)) {
        let begin = now.checked_add(offset(rest)?)?;
        return Some(Moment { begin, end: begin.checked_add(1)? });
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let unit = if text.len() <= 10 { SECOND } else { 1_000_000 };
        let begin = text.parse::<i64>().ok()?.checked_mul(unit)?;
        return Some(Moment { begin, end: begin.checked_add(unit)? });
    }
    if let Some(date) = Some(text).filter(|text| text.len() == 10).and_then(|text| text.parse::<Date>().ok()) {
        let begin = in_utc(date.to_datetime(jiff::civil::Time::midnight()))?;
        return Some(Moment { begin, end: begin.checked_add(86_400 * SECOND)? });
    }
    let begin = match text.parse::<Timestamp>() {
        Ok(time) => i64::try_from(time.as_nanosecond()).ok()?,
        Err(_) => in_utc(text.parse::<DateTime>().ok().filter(|_| text.len() > 10)?)?,
    };
    Some(Moment { begin, end: begin.checked_add(precision(text))? })
}

fn in_utc(time: DateTime) -> Option<i64> {
    let time = time.to_zoned(TimeZone::UTC).ok()?.timestamp();
    i64::try_from(time.as_nanosecond()).ok()
}

/// `-15m` in nanoseconds; nothing is no offset.
fn offset(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("-", rest) => (-1, rest),
        ("+", rest) => (1, rest),
        _ => return None,
    };
    let (number, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit)?.checked_mul(SECOND * sign)
}

/// How much time the last digit of a written time stands for.
fn precision(text: &str) -> i64 {
    let time = text.get(11..).unwrap_or_default();
    let clock = time.find(['Z', 'z', '+', '-', '[']).map_or(time, |zone| &time[..zone]);
    match clock.trim().split_once(['.', ',']) {
        Some((_, fraction)) => 10_i64.pow(9_u32.saturating_sub(fraction.len().min(9) as u32)),
        None if clock.matches(':').count() >= 2 => SECOND,
        None => 60 * SECOND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        let now = 1_795_428_303_000_000_000;
        let day = 1_795_392_000 * SECOND;
        let span = |begin: i64, length: i64| Some(Moment { begin, end: begin + length });
        let table = [
            ("now", span(now, 1)),
            ("now-15m", span(now - 900 * SECOND, 1)),
            ("-2h", span(now - 7200 * SECOND, 1)),
            ("now+1w", span(now + 604_800 * SECOND, 1)),
            ("1795392000", span(day, SECOND)),
            ("1795392000123", span(day + 123_000_000, 1_000_000)),
            ("2026-11-23", span(day, 86_400 * SECOND)),
            ("2026-11-23T10:05", span(day + 36_300 * SECOND, 60 * SECOND)),
            ("2026-11-23 10:05:03", span(day + 36_303 * SECOND, SECOND)),
            ("2026-11-23T10:05:03Z", span(day + 36_303 * SECOND, SECOND)),
            ("2026-11-23T10:05:03.25+02:00", span(day + 29_103 * SECOND + 250_000_000, 10_000_000)),
            ("2026-11-23T10:05:03.123456789Z", span(day + 36_303 * SECOND + 123_456_789, 1)),
            ("yesterday", None),
            ("", None),
            ("-15", None),
            ("-15y", None),
            ("now15m", None),
            ("2026-13-01", None),
            ("99999999999999999999", None),
            ("-9999999999999999w", None),
            ("-ä", None),
        ];
        for (text, moment) in table {
            assert_eq!(parse(text, now), moment, "{text}");
        }
    }
}
