//! A share of all records, chosen by where they stand.

use std::str::FromStr;

const MILLION: u32 = 1_000_000;

/// A share, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// Whether the record at this offset of this stream belongs to it: always the same answer.
    pub(super) fn keeps(self, stream: u64, offset: u64) -> bool {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&offset.to_le_bytes(), stream);
        // The upper half of the product is a number below a million, each as likely as the next.
        (u128::from(hash) * u128::from(MILLION)) >> 64 < u128::from(self.0)
    }
}

impl FromStr for Share {
    type Err = String;

    /// Reads `"10%"` or `"0.25%"`, of at most four digits behind the point.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || format!("\"{text}\" is no share");
        let number = text.trim().strip_suffix('%').ok_or_else(fault)?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 4 {
            return Err(fault());
        }
        let whole: u32 = whole.parse().map_err(|_| fault())?;
        let part: u32 = format!("{part:0<4}").parse().map_err(|_| fault())?;
        let millionths = whole.checked_mul(MILLION / 100).and_then(|whole| whole.checked_add(part));
        millionths.filter(|share| *share <= MILLION).map(Self).ok_or_else(|| format!("{text} is more than all"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_written_in_percent() {
        for (text, millionths) in [("10%", 100_000), ("0.25 %", 2500), ("100%", MILLION), ("0%", 0), ("0.0001%", 1)] {
            assert_eq!(text.parse(), Ok(Share(millionths)), "{text}");
        }
        for text in ["", "10", "%", "-1%", "101%", "100.0001%", "1.23456%", "1.%", "ten%", "99999999999%", "1e1%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_kept_to_and_hangs_on_stream_and_offset_alone() {
        let tenth: Share = "10%".parse().unwrap();
        let kept = |stream: u64| (0..100_000).filter(|line| tenth.keeps(stream, line * 80)).collect::<Vec<u64>>();
        let (one, other) = (kept(1), kept(2));
        // Four times the standard deviation of a fair choice is 380.
        for count in [one.len(), other.len()] {
            assert!((9600..=10_400).contains(&count), "{count} of 100,000");
        }
        assert_eq!(one, kept(1));
        assert_ne!(one, other);
        let all =
            ["0%", "100%"].map(|text| (0..1000).filter(|at| text.parse::<Share>().unwrap().keeps(3, *at)).count());
        assert_eq!(all, [0, 1000]);
    }
}
