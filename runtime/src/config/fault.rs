//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::sync::Arc;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, environment variable or flag at fault.
    pub origin: String,
    /// Where in the file; none for a variable, a flag, or what is missing altogether.
    pub position: Option<Position>,
    /// The key's full path, `agent.tls.cert`; empty where there is none (a syntax error).
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it; may be empty where `what` says it.
    pub cure: String,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counted from one.
    pub line: u32,
    /// In characters, counted from one.
    pub column: u32,
}

/// Everything that is wrong, in the order of the file; never empty where it is an error. Displays one fault per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

/// Where a value stands: what a fault about it will say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) origin: Arc<str>,
    pub(super) position: Option<Position>,
}

impl Place {
    pub(super) fn of(origin: &Arc<str>) -> Place {
        Place { origin: Arc::clone(origin), position: None }
    }

    pub(super) fn at(origin: &Arc<str>, text: &str, byte: usize) -> Place {
        Place { origin: Arc::clone(origin), position: Some(Position::of(text, byte)) }
    }
}

impl Position {
    /// The place of a byte offset in `text`.
    pub(super) fn of(text: &str, byte: usize) -> Position {
        let mut byte = byte.min(text.len());
        while !text.is_char_boundary(byte) {
            byte -= 1;
        }
        let before = &text[..byte];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
        Position { line: count(before.matches('\n').count()), column: count(before[line_start..].chars().count()) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.origin)?;
        match self.position {
            Some(Position { line, column }) => write!(formatter, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.origin)?;
        if let Some(Position { line, column }) = self.position {
            write!(formatter, ":{line}:{column}")?;
        }
        if !self.key.is_empty() && self.key != self.origin {
            write!(formatter, ": {}", self.key)?;
        }
        write!(formatter, ": {}", self.what)?;
        if self.cure.is_empty() { Ok(()) } else { write!(formatter, "; {}", self.cure) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            fault.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The known name nearest to `name`, if one is near enough to have been meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR: usize = 3;
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        // A name that shares nothing with what was written is no help, however short both are.
        .filter(|(distance, candidate)| *distance <= NEAR && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}
