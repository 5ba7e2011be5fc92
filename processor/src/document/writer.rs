//! Writing JSON straight into a block of bytes.

use crate::parse::Text;
use crate::parse::json::{escape, plain_prefix};
use crate::parse::time::{DAY, civil_from_days};

/// Pairs of decimal digits, 00 to 99.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut at = 0;
    while at < 100 {
        #[allow(clippy::cast_possible_truncation, reason = "a digit")]
        {
            pairs[at] = [b'0' + (at / 10) as u8, b'0' + (at % 10) as u8];
        }
        at += 1;
    }
    pairs
};

/// Two digits of a number below 100.
#[inline]
pub(super) fn pair(number: u64) -> [u8; 2] {
    PAIRS.get(usize::try_from(number).unwrap_or(0)).copied().unwrap_or(*b"00")
}

/// A number in decimal digits.
pub(super) fn unsigned(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    while number >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&pair(number % 100));
        number /= 100;
    }
    if number > 0 || at == digits.len() {
        at -= 1;
        digits[at] = pair(number)[1];
    }
    out.extend_from_slice(&digits[at..]);
}

/// `2015-05-17` of a day since 1970-01-01, with `separator` between.
pub(super) fn date(days: i64, separator: u8) -> [u8; 10] {
    let (year, month, day) = civil_from_days(days);
    let year = u64::try_from(year).unwrap_or(0);
    let ([a, b], [c, d]) = (pair(year / 100), pair(year % 100));
    let ([e, f], [g, h]) = (pair(month.into()), pair(day.into()));
    [a, b, c, d, separator, e, f, separator, g, h]
}

/// `10:05:03.000Z` of nanoseconds into a day; finer than milliseconds only as far as needed.
pub(super) fn clock(out: &mut Vec<u8>, nanos_of_day: i64) {
    let nanos = u64::try_from(nanos_of_day).unwrap_or(0);
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let ([a, b], [c, d], [e, f]) = (pair(seconds / 3600), pair(seconds / 60 % 60), pair(seconds % 60));
    let ([_, g], [h, i]) = (pair(nanos / 100_000_000), pair(nanos / 1_000_000 % 100));
    out.extend_from_slice(&[a, b, b':', c, d, b':', e, f, b'.', g, h, i]);
    let below = nanos % 1_000_000;
    if below > 0 {
        let ([j, k], [l, m], [n, o]) = (pair(below / 10_000), pair(below / 100 % 100), pair(below % 100));
        let digits = [j, k, l, m, n, o];
        out.extend_from_slice(if below % 1000 == 0 { &digits[..3] } else { &digits });
    }
    out.push(b'Z');
}

/// RFC 3339 in UTC.
pub(super) fn time(out: &mut Vec<u8>, unix_nano: i64) {
    out.extend_from_slice(&date(unix_nano.div_euclid(DAY), b'-'));
    out.push(b'T');
    clock(out, unix_nano.rem_euclid(DAY));
}

/// Text as the inside of a JSON string.
pub(super) fn text(out: &mut Vec<u8>, text: Text<'_>) {
    match text {
        Text::Plain(bytes) => escaped(out, bytes),
        Text::Json(bytes) => out.extend_from_slice(bytes),
        Text::Backslashed(bytes) => backslashed(out, bytes),
    }
}

/// Bytes as the inside of a JSON string.
pub(super) fn escaped(out: &mut Vec<u8>, mut bytes: &[u8]) {
    loop {
        let (plain, rest) = bytes.split_at(plain_prefix(bytes));
        out.extend_from_slice(plain);
        let Some((odd, rest)) = rest.split_first() else {
            return;
        };
        escape_byte(out, *odd);
        bytes = rest;
    }
}

fn escape_byte(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// A string with backslash escapes that may or may not be JSON's: those that are stay, `\]` and `\'` lose the backslash
/// (RFC 5424 has the former), any other backslash stands for itself.
fn backslashed(out: &mut Vec<u8>, mut bytes: &[u8]) {
    loop {
        let (plain, rest) = bytes.split_at(plain_prefix(bytes));
        out.extend_from_slice(plain);
        bytes = match rest {
            [] => return,
            [b'\\', b']' | b'\'', ..] => {
                out.push(rest[1]);
                &rest[2..]
            }
            [b'\\', ..] => match escape(rest) {
                Some(length) => {
                    out.extend_from_slice(&rest[..length]);
                    &rest[length..]
                }
                None => {
                    out.extend_from_slice(b"\\\\");
                    &rest[1..]
                }
            },
            [odd, rest @ ..] => {
                escape_byte(out, *odd);
                rest
            }
        };
    }
}

/// `,"name":"text"`; `name` is written as it is.
pub(super) fn member(out: &mut Vec<u8>, name: &[u8], value: Text<'_>) {
    out.extend_from_slice(name);
    text(out, value);
    out.push(b'"');
}
