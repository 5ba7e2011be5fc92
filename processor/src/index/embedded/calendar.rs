//! Arrival days: the UTC day on which a gateway received a batch, which names the directory that holds its documents.

use std::{fmt, str::FromStr};

use jiff::civil::{Date, date};

const NANOS_PER_DAY: u64 = 86_400 * 1_000_000_000;

/// A day, as the number of days since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ArrivalDay(u32);

impl ArrivalDay {
    /// The day of a time, in nanoseconds since 1970-01-01 UTC.
    pub(crate) fn of(unix_nano: u64) -> Self {
        // 2^64 ns are fewer than 2^18 days.
        Self((unix_nano / NANOS_PER_DAY) as u32)
    }

    /// The day so many days before this one, or the first there is.
    pub(crate) fn minus(self, days: u32) -> Self {
        Self(self.0.saturating_sub(days))
    }

    /// The number of days since 1970-01-01 UTC.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for ArrivalDay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = date(1970, 1, 1).saturating_add(jiff::Span::new().days(i64::from(self.0)));
        write!(formatter, "{day}")
    }
}

impl FromStr for ArrivalDay {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let day: Date = text.parse().map_err(|_| ())?;
        let days = date(1970, 1, 1).until(day).map_err(|_| ())?.get_days();
        let day = u32::try_from(days).map(Self).map_err(|_| ())?;
        // Only the one way of writing it that is used.
        if day.to_string() == text { Ok(day) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_as_its_date_and_read_back() {
        let day = ArrivalDay::of(1_795_392_000_000_000_000);
        assert_eq!(day.to_string(), "2026-11-23");
        assert_eq!("2026-11-23".parse(), Ok(day));
        assert_eq!(day.minus(23).to_string(), "2026-10-31");
        assert_eq!(ArrivalDay::of(0).to_string(), "1970-01-01");
        assert_eq!(ArrivalDay::of(u64::MAX).to_string().parse(), Ok(ArrivalDay::of(u64::MAX)));
        assert!("20261123".parse::<ArrivalDay>().is_err());
        assert!("damaged".parse::<ArrivalDay>().is_err());
    }
}
