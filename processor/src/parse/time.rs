//! Times as logs write them, turned into nanoseconds since 1970-01-01 UTC.
//!
//! A time without a zone is UTC. A time without a year gets the latest year that puts it no more than a day after the
//! time at which the record was read. A time outside what 64 bits of nanoseconds hold (1677 to 2262) saturates, which
//! the document then treats as implausible. Each scanner reads one notation at the start of a line and says how many
//! bytes it took; nothing in it depends on the clock.

use super::cursor::decimal;

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;
/// Nanoseconds in a day.
pub(crate) const DAY: i64 = 86_400 * SECOND;

/// A time and the number of bytes it stood in.
pub(super) type Scanned = (i64, usize);

/// Days from 1970-01-01 to a date of the Gregorian calendar (Howard Hinnant's algorithm).
pub(crate) fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = i64::from((month + 9) % 12);
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01: the inverse of [`days_from_civil`].
pub(crate) fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// A date, already checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Date {
    year: i64,
    month: u32,
    day: u32,
}

impl Date {
    pub(super) fn new(year: u32, month: u32, day: u32) -> Option<Self> {
        let date = Self { year: i64::from(year), month, day };
        date.exists().then_some(date)
    }

    fn exists(self) -> bool {
        let days = match self.month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if is_leap(self.year) => 29,
            2 => 28,
            _ => return false,
        };
        (1..=days).contains(&self.day)
    }

    fn unix_nano(self, clock: Clock) -> i64 {
        let days = days_from_civil(self.year, self.month, self.day);
        let seconds = days * 86_400 + i64::from(clock.seconds);
        seconds.saturating_mul(SECOND).saturating_add(i64::from(clock.nanos))
    }
}

/// A time of day in UTC or in a zone that is subtracted already; a leap second counts as the next minute's first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    seconds: i32,
    nanos: u32,
}

impl Clock {
    fn new(hour: u32, minute: u32, second: u32) -> Option<Self> {
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let seconds = i32::try_from(hour * 3600 + minute * 60 + second).ok()?;
        Some(Self { seconds, nanos: 0 })
    }
}

/// Two digits at `at`.
#[inline]
fn two(text: &[u8], at: usize) -> Option<u32> {
    let pair: [u8; 2] = text.get(at..at + 2)?.try_into().ok()?;
    let (tens, ones) = (pair[0].wrapping_sub(b'0'), pair[1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u32::from(tens) * 10 + u32::from(ones))
}

#[inline]
fn four(text: &[u8], at: usize) -> Option<u32> {
    Some(two(text, at)? * 100 + two(text, at + 2)?)
}

/// Number of a month from its English abbreviation.
#[inline]
fn month(text: &[u8], at: usize) -> Option<u32> {
    let name: [u8; 3] = text.get(at..at + 3)?.try_into().ok()?;
    Some(match &name {
        b"Jan" => 1,
        b"Feb" => 2,
        b"Mar" => 3,
        b"Apr" => 4,
        b"May" => 5,
        b"Jun" => 6,
        b"Jul" => 7,
        b"Aug" => 8,
        b"Sep" => 9,
        b"Oct" => 10,
        b"Nov" => 11,
        b"Dec" => 12,
        _ => return None,
    })
}

/// `hh:mm:ss`, then perhaps a fraction after a point or comma.
fn clock(text: &[u8], at: usize) -> Option<(Clock, usize)> {
    if text.get(at + 2) != Some(&b':') || text.get(at + 5) != Some(&b':') {
        return None;
    }
    let mut clock = Clock::new(two(text, at)?, two(text, at + 3)?, two(text, at + 6)?)?;
    let mut end = at + 8;
    if text.get(end).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    if let Some(b'.' | b',') = text.get(end) {
        let (nanos, digits) = fraction(&text[end + 1..]);
        if digits > 0 {
            clock.nanos = nanos;
            end += 1 + digits;
        }
    }
    Some((clock, end))
}

/// Nanoseconds of the digits after a decimal point, and their number; what is finer than a nanosecond is passed over.
fn fraction(text: &[u8]) -> (u32, usize) {
    let (mut nanos, mut scale, mut digits) = (0, 100_000_000, 0);
    for byte in text.iter().take(18).take_while(|byte| byte.is_ascii_digit()) {
        nanos += u32::from(byte - b'0') * scale;
        scale /= 10;
        digits += 1;
    }
    (nanos, digits)
}

/// `Z`, `+hh:mm`, `+hhmm`, `+hh`, each perhaps after a space, and ` UTC` or ` GMT`: seconds east of Greenwich.
fn zone(text: &[u8], at: usize) -> Option<(i32, usize)> {
    let spaced = text.get(at) == Some(&b' ');
    let at = at + usize::from(spaced);
    match *text.get(at)? {
        b'Z' | b'z' if !spaced => Some((0, at + 1)),
        b'U' | b'G' if spaced => {
            let name = text.get(at..at + 3)?;
            let ends = text.get(at + 3).is_none_or(|byte| !byte.is_ascii_alphanumeric());
            (ends && (name == b"UTC" || name == b"GMT")).then_some((0, at + 3))
        }
        sign @ (b'+' | b'-') => {
            let hours = two(text, at + 1)?;
            let (minutes, end) = match text.get(at + 3) {
                Some(b':') => (two(text, at + 4)?, at + 6),
                Some(byte) if byte.is_ascii_digit() => (two(text, at + 3)?, at + 5),
                _ if spaced => return None,
                _ => (0, at + 3),
            };
            if hours > 18 || minutes > 59 || text.get(end).is_some_and(u8::is_ascii_digit) {
                return None;
            }
            let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
            Some((if sign == b'-' { -seconds } else { seconds }, end))
        }
        _ => None,
    }
}

/// A clock with what follows it, if that is a zone.
fn zoned_clock(text: &[u8], at: usize) -> Option<(Clock, usize)> {
    let (mut clock, mut end) = clock(text, at)?;
    if let Some((east, after)) = zone(text, end) {
        clock.seconds -= east;
        end = after;
    }
    Some((clock, end))
}

/// `2015-05-17T10:05:03.000Z`, `2015-05-17 10:05:03,000`, `2015-05-17 10:05:03 +0000`; with `/` for `-` too.
pub(super) fn iso(text: &[u8]) -> Option<Scanned> {
    let separator = *text.get(4)?;
    if !matches!(separator, b'-' | b'/') || text.get(7) != Some(&separator) {
        return None;
    }
    if !matches!(text.get(10)?, b'T' | b't' | b' ') {
        return None;
    }
    let date = Date::new(four(text, 0)?, two(text, 5)?, two(text, 8)?)?;
    let (clock, end) = zoned_clock(text, 11)?;
    Some((date.unix_nano(clock), end))
}

/// `17/06/09 20:10:40`: year of this century, month, day.
pub(super) fn short_year(text: &[u8]) -> Option<Scanned> {
    if text.get(2) != Some(&b'/') || text.get(5) != Some(&b'/') || text.get(8) != Some(&b' ') {
        return None;
    }
    let date = Date::new(2000 + two(text, 0)?, two(text, 3)?, two(text, 6)?)?;
    let (clock, end) = zoned_clock(text, 9)?;
    Some((date.unix_nano(clock), end))
}

/// `081109 203615`: year of this century, month, day, and a clock, without separators.
pub(super) fn compact(text: &[u8]) -> Option<Scanned> {
    if text.get(6) != Some(&b' ') || text.get(13).is_some_and(|byte| *byte != b' ') {
        return None;
    }
    let date = Date::new(2000 + two(text, 0)?, two(text, 2)?, two(text, 4)?)?;
    let clock = Clock::new(two(text, 7)?, two(text, 9)?, two(text, 11)?)?;
    Some((date.unix_nano(clock), 13))
}

/// `17/May/2015:10:05:03 +0000`, as access logs write it; with a space for the first colon, and without a zone, too.
#[inline]
pub(super) fn clf(text: &[u8]) -> Option<Scanned> {
    let separator = *text.get(2)?;
    if !matches!(separator, b'/' | b'-') || text.get(6) != Some(&separator) || !matches!(text.get(11)?, b':' | b' ') {
        return None;
    }
    let date = Date::new(four(text, 7)?, month(text, 3)?, two(text, 0)?)?;
    let (clock, end) = zoned_clock(text, 12)?;
    Some((date.unix_nano(clock), end))
}

/// `Sun Dec 04 04:47:44 2005` and `Sun Dec  4 04:47:44.123456 2005`, as asctime(3) and Apache's error log write it.
pub(super) fn asctime(text: &[u8]) -> Option<Scanned> {
    let weekday = text.get(..3)?;
    if !matches!(weekday, b"Mon" | b"Tue" | b"Wed" | b"Thu" | b"Fri" | b"Sat" | b"Sun") || text.get(3) != Some(&b' ') {
        return None;
    }
    let (month, day, clock, end) = month_day_clock(&text[4..])?;
    let end = 4 + end;
    let year = text.get(end).filter(|byte| **byte == b' ').and_then(|_| four(text, end + 1))?;
    Some((Date::new(year, month, day)?.unix_nano(clock), end + 5))
}

/// `Jun 14 15:16:01` and `Jun  4 15:16:01`, with a year before or after the clock if there is one (Cisco); without one
/// it comes from when the record was read.
pub(super) fn month_first(text: &[u8], observed_unix_nano: i64) -> Option<Scanned> {
    if let Some((month, day, clock, end)) = month_day_clock(text) {
        let unix_nano = nearest_year(month, day, clock, observed_unix_nano)?;
        return Some((unix_nano, end));
    }
    let (month, day) = (month(text, 0)?, padded_day(text, 4)?);
    if text.get(3) != Some(&b' ') || text.get(6) != Some(&b' ') || text.get(11) != Some(&b' ') {
        return None;
    }
    let (clock, end) = zoned_clock(text, 12)?;
    Some((Date::new(four(text, 7)?, month, day)?.unix_nano(clock), end))
}

/// `I0102 15:04:05.000000`, glog's: the letter is passed over, the year comes from when the record was read.
pub(super) fn glog(text: &[u8], observed_unix_nano: i64) -> Option<Scanned> {
    if !text.first()?.is_ascii_uppercase() || text.get(5) != Some(&b' ') || text.get(14) != Some(&b'.') {
        return None;
    }
    let (clock, end) = clock(text, 6)?;
    let unix_nano = nearest_year(two(text, 1)?, two(text, 3)?, clock, observed_unix_nano)?;
    Some((unix_nano, end))
}

fn padded_day(text: &[u8], at: usize) -> Option<u32> {
    match text.get(at)? {
        b' ' => decimal(text.get(at + 1..at + 2)?).and_then(|day| u32::try_from(day).ok()),
        _ => two(text, at),
    }
}

fn month_day_clock(text: &[u8]) -> Option<(u32, u32, Clock, usize)> {
    if text.get(3) != Some(&b' ') || text.get(6) != Some(&b' ') {
        return None;
    }
    let (month, day) = (month(text, 0)?, padded_day(text, 4)?);
    let (clock, end) = clock(text, 7)?;
    Some((month, day, clock, end))
}

/// The latest year in which the date exists and lies no more than a day after the observed time.
fn nearest_year(month: u32, day: u32, clock: Clock, observed_unix_nano: i64) -> Option<i64> {
    let latest = observed_unix_nano.saturating_add(DAY);
    let (year, _, _) = civil_from_days(latest.div_euclid(DAY));
    // 29 February is at most eight years back (1896 to 1904, 2096 to 2104).
    (year - 8..=year).rev().find_map(|year| {
        let date = Date { year, month, day };
        let unix_nano = date.unix_nano(clock);
        (date.exists() && unix_nano <= latest).then_some(unix_nano)
    })
}

/// Seconds since 1970 with a fraction at the start of a line (`1286536309.586`, Squid's).
pub(super) fn epoch_fraction(text: &[u8]) -> Option<Scanned> {
    if text.get(10) != Some(&b'.') {
        return None;
    }
    let seconds = i64::try_from(decimal(text.get(..10)?)?).ok()?;
    let (nanos, digits) = fraction(&text[11..]);
    (3..=9).contains(&digits).then(|| (seconds * SECOND + i64::from(nanos), 11 + digits))
}

/// A number of seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by its size. Numbers that would
/// mean a time before 2000 in seconds are none: they are durations, counters and the like.
pub(super) fn epoch(text: &[u8]) -> Option<i64> {
    let (whole, rest) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &[][..]),
    };
    if whole.len() > 19 || !rest.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (head, tail) = whole.split_at(whole.len().min(18));
    let mut value = i64::try_from(decimal(head)?).ok()?;
    if let [last @ b'0'..=b'9'] = tail {
        value = value.checked_mul(10)?.checked_add(i64::from(last - b'0'))?;
    }
    let (nanos, _) = fraction(rest);
    let (scale, below) = match value {
        946_684_800..100_000_000_000 => (SECOND, i64::from(nanos)),
        100_000_000_000..100_000_000_000_000 => (1_000_000, i64::from(nanos / 1000)),
        100_000_000_000_000..100_000_000_000_000_000 => (1000, i64::from(nanos / 1_000_000)),
        100_000_000_000_000_000.. => (1, 0),
        _ => return None,
    };
    Some(value.saturating_mul(scale).saturating_add(below))
}

/// A whole text that is one time in any notation, as found under a key.
pub(super) fn any(text: &[u8], observed_unix_nano: i64) -> Option<i64> {
    let whole = |(unix_nano, end): Scanned| (end == text.len()).then_some(unix_nano);
    match text.first()? {
        b'0'..=b'9' => iso(text)
            .or_else(|| clf(text))
            .or_else(|| short_year(text))
            .or_else(|| compact(text))
            .and_then(whole)
            .or_else(|| epoch(text)),
        _ => asctime(text).or_else(|| month_first(text, observed_unix_nano)).and_then(whole),
    }
}
