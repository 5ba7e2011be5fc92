//! Sizes and durations as people write them: `"16 MiB"`, `"200ms"`.
//!
//! Both notations are read and written back in the same form; what is written reads as exactly the same value.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `"10s"`, `"1.5 h"`, `"200ms"`; the units are `ms`, `s`, `m`, `h` and `d`.
///
/// # Errors
/// What is wrong with `text`, in words, with an example.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = |what: &str| format!("{what}; write a duration as \"10s\", with a unit of ms, s, m, h or d");
    let nanoseconds = parse(text, &DURATIONS).map_err(|what| wrong(&what))?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Reads `"16 MiB"`, `"1.5GB"`, `"4096"` as bytes; the units are `B`, `KiB`, `MiB`, `GiB`, `KB`, `MB` and `GB`.
///
/// # Errors
/// What is wrong with `text`, in words, with an example.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        |what: &str| format!("{what}; write a size as \"16 MiB\", with a unit of B, KiB, MiB, GiB, KB, MB or GB");
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| wrong(&format!("\"{text}\" is too large")));
    }
    parse(text, &SIZES).map_err(|what| wrong(&what))
}

/// Writes a duration in the largest unit that states it exactly.
pub fn format_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let nanoseconds = duration.as_nanos();
    match DURATIONS.iter().find(|(_, unit)| nanoseconds.is_multiple_of(u128::from(*unit))) {
        Some((name, unit)) => format!("{}{name}", nanoseconds / u128::from(*unit)),
        None => {
            let fraction = format!("{:06}", nanoseconds % 1_000_000);
            format!("{}.{}ms", nanoseconds / 1_000_000, fraction.trim_end_matches('0'))
        }
    }
}

/// Writes bytes in the largest unit that states them exactly, binary ones first.
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0 B".to_owned();
    }
    // "B" divides everything, so the search cannot fail.
    let (name, unit) = SIZES.iter().find(|(_, unit)| bytes.is_multiple_of(*unit)).unwrap_or(&("B", 1));
    format!("{} {name}", bytes / unit)
}

/// `<number>[.<fraction>] <unit>` in whole base units, exactly: no floating point, which would not read back.
fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(format!("\"{text}\" does not begin with a number"));
    }
    if unit.is_empty() {
        return Err(format!("\"{text}\" has no unit"));
    }
    let Some((_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("\"{unit}\" is no unit known here"));
    };
    let large = || format!("\"{text}\" is too large");
    let whole: u64 = whole.parse().map_err(|_| large())?;
    // Below the ninth digit a fraction is under any base unit that matters here.
    let fraction = &fraction[..fraction.len().min(9)];
    let parts: u128 = fraction.parse().map_err(|_| large())?;
    let power = u32::try_from(fraction.len()).map_err(|_| large())?;
    let part = u64::try_from(u128::from(*scale) * parts / 10u128.pow(power)).map_err(|_| large())?;
    whole.checked_mul(*scale).and_then(|bytes| bytes.checked_add(part)).ok_or_else(large)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_with_and_without_fraction_and_blank() {
        for (text, nanoseconds) in [
            ("200ms", 200_000_000),
            ("10s", 10_000_000_000),
            ("1.5 h", 5_400_000_000_000),
            ("5m", 300_000_000_000),
            ("7d", 604_800_000_000_000),
            ("0s", 0),
            ("0.25ms", 250_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn a_duration_without_number_or_known_unit_says_which() {
        for (text, part) in [
            ("10", "no unit"),
            ("s", "number"),
            ("", "number"),
            ("1.s", "number"),
            ("-1s", "number"),
            ("10 sec", "\"sec\""),
            ("999999999999d", "too large"),
        ] {
            let message = parse_duration(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn sizes_read_in_binary_and_decimal_units() {
        for (text, bytes) in [
            ("16 MiB", 16 << 20),
            ("1.5GB", 1_500_000_000),
            ("4096", 4096),
            ("0.5 KiB", 512),
            ("7 B", 7),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert!(parse_size("16 MB/s").is_err_and(|message| message.contains("\"MB/s\"")));
        assert!(parse_size("99999999999999999999").is_err_and(|message| message.contains("too large")));
    }

    #[test]
    fn the_largest_exact_unit_is_written() {
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::from_secs(604_800)), "7d");
        assert_eq!(format_duration(Duration::from_micros(500)), "0.5ms");
        assert_eq!(format_size(16 << 20), "16 MiB");
        assert_eq!(format_size(5_000_000), "5 MB");
        assert_eq!(format_size(1025), "1025 B");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any::<u64>(), shift in 0u32..40) {
            let value = value >> shift;
            prop_assert_eq!(parse_size(&format_size(value)), Ok(value));
            let duration = Duration::from_nanos(value);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_answered_and_never_a_panic(text in ".{0,24}") {
            let _ = (parse_size(&text), parse_duration(&text));
        }
    }
}
