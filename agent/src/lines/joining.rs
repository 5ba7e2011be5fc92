//! Which line belongs to the record before it.
//!
//! Decided line by line, from the line itself and from what the lines before it in the same record were; never from
//! what follows.

use regex::bytes::Regex;

use super::{
    cri::{self, CriMark},
    presets::{self, Compiled},
};

/// Joins lines.
#[derive(Clone, Debug)]
pub(super) struct Joining {
    /// Whether lines are what container runtimes write: pieces are joined, and the rule sees the message alone.
    pub(super) cri: bool,
    pub(super) rule: Option<Rule>,
    /// Longest record in lines.
    pub(super) lines_max: usize,
}

/// By what lines are joined.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// What matches begins a record, and everything else goes on.
    Start(Regex),
    /// What matches goes on, and everything else begins a record.
    Continuation(Regex),
    /// What begins with a blank or a tab goes on.
    Indented,
    /// By what stack traces of a language look like.
    Preset(&'static Compiled),
}

/// What is known of a record so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trail {
    state: u8,
    /// Of its last line; `None` where no runtime wrote it.
    mark: Option<CriMark>,
}

impl Joining {
    /// A record begins with this line; `continued` says that it goes on from one that is out of sight.
    pub(super) fn begin(&self, text: &[u8], continued: bool) -> Trail {
        let (mark, message) = self.message(text);
        let state = match (&self.rule, continued) {
            (Some(Rule::Preset(preset)), false) => preset.first(message),
            (Some(Rule::Preset(preset)), true) => preset.next(presets::UNKNOWN, message).unwrap_or(presets::UNKNOWN),
            (Some(Rule::Start(_) | Rule::Continuation(_) | Rule::Indented) | None, _) => presets::UNKNOWN,
        };
        Trail { state, mark }
    }

    /// Whether no line can follow in the same record.
    pub(super) fn is_complete(&self, trail: Trail) -> bool {
        self.cri && trail.mark.is_none_or(|mark| self.rule.is_none() && !mark.is_piece)
    }

    /// The record with this line, if it belongs to it.
    pub(super) fn follow(&self, trail: Trail, text: &[u8]) -> Option<Trail> {
        let (mark, message) = self.message(text);
        if self.cri {
            let (before, now) = (trail.mark?, mark?);
            if !before.same_stream(now) {
                return None;
            }
            if before.is_piece {
                return Some(Trail { mark, ..trail });
            }
        }
        let state = self.rule.as_ref()?.next(trail.state, message)?;
        Some(Trail { state, mark })
    }

    /// Whether a line goes on from a record that is out of sight.
    pub(super) fn is_continuation(&self, text: &[u8]) -> bool {
        let (mark, message) = self.message(text);
        match &self.rule {
            Some(rule) => (!self.cri || mark.is_some()) && rule.next(presets::UNKNOWN, message).is_some(),
            None => false,
        }
    }

    fn message<'a>(&self, text: &'a [u8]) -> (Option<CriMark>, &'a [u8]) {
        match cri::read(text).filter(|_| self.cri) {
            Some(line) => (Some(line.mark), line.message),
            None => (None, text),
        }
    }
}

impl Rule {
    fn next(&self, state: u8, line: &[u8]) -> Option<u8> {
        let goes_on = match self {
            Self::Start(pattern) => !pattern.is_match(line),
            Self::Continuation(pattern) => pattern.is_match(line),
            Self::Indented => matches!(line.first(), Some(b' ' | b'\t')),
            Self::Preset(preset) => return preset.next(state, line),
        };
        goes_on.then_some(state)
    }
}
