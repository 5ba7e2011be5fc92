//! Which records of a group are worth sending: lines by pattern, records by level, a share of all.
//!
//! Owns the rules and the verdict with its reason; knows no file and counts nothing by itself. Off unless configured:
//! no default drops anything. Pure: a verdict hangs on the record's text, its stream and its offset alone, never on
//! when or how often it is asked for, so that a range that is cut again after a restart keeps the same records.
//!
//! What cannot be told is kept: a record without a level, and what goes on from a record that was parted before its end
//! was known (`crate::lines` does not ask about those).

mod config;
mod level;
mod sample;

use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::Serialize;
use thiserror::Error;

pub use config::SiftConfig;
pub use level::Level;
pub use sample::Share;

/// Bytes that a set of compiled patterns may take.
const PATTERNS_BYTES_MAX: usize = 4 << 20;

/// A pattern that cannot be read.
#[derive(Debug, Error)]
#[error("`{pattern}` is no pattern: {reason}")]
pub struct SiftError {
    /// The key it is under.
    pub key: &'static str,
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a record was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No pattern of `include_lines` matches it.
    NotIncluded,
    /// A pattern of `exclude_lines` matches it.
    Excluded,
    /// It is less severe than `level_min`.
    Level,
    /// It is not in the share that is kept.
    Sampled,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::NotIncluded, Self::Excluded, Self::Level, Self::Sampled];

    /// As it is called in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotIncluded => "not_included",
            Self::Excluded => "excluded",
            Self::Level => "level",
            Self::Sampled => "sampled",
        }
    }
}

/// Records dropped for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many.
    pub records: u64,
    /// Their bytes in the source.
    pub bytes: u64,
}

/// Records dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// See [`Reason::NotIncluded`].
    pub not_included: Count,
    /// See [`Reason::Excluded`].
    pub excluded: Count,
    /// See [`Reason::Level`].
    pub level: Count,
    /// See [`Reason::Sampled`].
    pub sampled: Count,
}

impl Dropped {
    /// Counts one record of `bytes` source bytes.
    pub fn note(&mut self, reason: Reason, bytes: usize) {
        let count = self.of_mut(reason);
        count.records += 1;
        count.bytes += bytes as u64;
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        for reason in Reason::ALL {
            let (more, count) = (other.of(reason), self.of_mut(reason));
            count.records += more.records;
            count.bytes += more.bytes;
        }
    }

    /// The count of one reason.
    #[must_use]
    pub fn of(&self, reason: Reason) -> Count {
        match reason {
            Reason::NotIncluded => self.not_included,
            Reason::Excluded => self.excluded,
            Reason::Level => self.level,
            Reason::Sampled => self.sampled,
        }
    }

    fn of_mut(&mut self, reason: Reason) -> &mut Count {
        match reason {
            Reason::NotIncluded => &mut self.not_included,
            Reason::Excluded => &mut self.excluded,
            Reason::Level => &mut self.level,
            Reason::Sampled => &mut self.sampled,
        }
    }
}

/// What is kept, ready to be asked. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sift {
    /// `None` where everything is kept.
    rules: Option<Arc<Rules>>,
}

#[derive(Debug)]
struct Rules {
    include: Option<RegexSet>,
    exclude: Option<RegexSet>,
    level_min: Option<Level>,
    sample: Option<Share>,
}

impl Sift {
    /// Makes it ready.
    ///
    /// # Errors
    /// The first pattern that cannot be read.
    pub fn new(config: &SiftConfig) -> Result<Self, SiftError> {
        if *config == SiftConfig::default() {
            return Ok(Self::default());
        }
        let rules = Rules {
            include: compile("include_lines", &config.include_lines)?,
            exclude: compile("exclude_lines", &config.exclude_lines)?,
            level_min: config.level_min,
            sample: config.sample,
        };
        Ok(Self { rules: Some(Arc::new(rules)) })
    }

    /// Who judges the records of a stream; `None` where everything is kept.
    #[must_use]
    pub fn sifter(&self, stream: u64) -> Option<Sifter<'_>> {
        self.rules.as_deref().map(|rules| Sifter { rules, stream })
    }
}

/// Judges the records of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Sifter<'a> {
    rules: &'a Rules,
    /// A number that stands for the stream.
    stream: u64,
}

impl Sifter<'_> {
    /// Why the record that begins at `offset` is dropped; `None` for one that is kept.
    #[must_use]
    pub fn judge(&self, text: &[u8], offset: u64) -> Option<Reason> {
        let Rules { include, exclude, level_min, sample } = self.rules;
        if include.as_ref().is_some_and(|include| !include.is_match(text)) {
            return Some(Reason::NotIncluded);
        }
        if exclude.as_ref().is_some_and(|exclude| exclude.is_match(text)) {
            return Some(Reason::Excluded);
        }
        if level_min.is_some_and(|least| level::find(text).is_some_and(|level| level < least)) {
            return Some(Reason::Level);
        }
        sample.is_some_and(|share| !share.keeps(self.stream, offset)).then_some(Reason::Sampled)
    }
}

fn compile(key: &'static str, patterns: &[String]) -> Result<Option<RegexSet>, SiftError> {
    let fault = |pattern: &str, error: &regex::Error| SiftError {
        key,
        pattern: pattern.to_owned(),
        // The message of a syntax error is several lines with the pattern in them; its last line says what is wrong.
        reason: error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    // One by one first, for a set does not say which of its patterns is at fault.
    for pattern in patterns {
        let compiled: Result<Regex, _> =
            RegexBuilder::new(pattern).unicode(false).size_limit(PATTERNS_BYTES_MAX).build();
        compiled.map_err(|error| fault(pattern, &error))?;
    }
    let mut set = RegexSetBuilder::new(patterns);
    let set = set.unicode(false).size_limit(PATTERNS_BYTES_MAX).dfa_size_limit(PATTERNS_BYTES_MAX).build();
    let set = set.map_err(|error| fault(&patterns.join("`, `"), &error))?;
    Ok((!patterns.is_empty()).then_some(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(config: &SiftConfig, text: &str) -> Option<Reason> {
        Sift::new(config).unwrap().sifter(1).unwrap().judge(text.as_bytes(), 0)
    }

    #[test]
    fn without_rules_nobody_judges() {
        assert!(Sift::new(&SiftConfig::default()).unwrap().sifter(1).is_none());
        assert!(Sift::default().sifter(1).is_none());
    }

    #[test]
    fn patterns_come_first_then_the_level_then_the_share() {
        let config = SiftConfig {
            include_lines: vec!["^GET".into(), "^POST".into()],
            exclude_lines: vec!["/health".into(), r"\xff".into()],
            level_min: Some(Level::Info),
            sample: Some("0%".parse().unwrap()),
        };
        for (text, reason) in [
            ("PUT /health DEBUG", Reason::NotIncluded),
            ("GET /health DEBUG", Reason::Excluded),
            ("POST /orders DEBUG", Reason::Level),
            ("POST /orders ERROR", Reason::Sampled),
        ] {
            assert_eq!(verdict(&config, text), Some(reason), "{text}");
        }
        let config = SiftConfig { sample: None, ..config };
        assert_eq!(verdict(&config, "GET /orders INFO"), None);
        assert_eq!(verdict(&config, "GET /orders"), None, "what has no level is kept");
        let bytes = Sift::new(&config).unwrap().sifter(1).unwrap().judge(b"GET \xff", 0);
        assert_eq!(bytes, Some(Reason::Excluded), "a record need not be text");
    }

    #[test]
    fn the_pattern_at_fault_is_named_with_its_key() {
        let config = SiftConfig { exclude_lines: vec!["fine".into(), "(a".into()], ..SiftConfig::default() };
        let error = Sift::new(&config).unwrap_err();
        assert_eq!((error.key, error.to_string().as_str()), ("exclude_lines", "`(a` is no pattern: unclosed group"));
    }
}
