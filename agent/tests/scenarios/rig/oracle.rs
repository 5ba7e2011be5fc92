//! The oracle: what writers wrote against what arrived.

use std::collections::{BTreeMap, BTreeSet};

use super::Line;
use crate::stub::Arrived;

/// How many of each kind are shown.
const SHOWN: usize = 5;

/// What does not agree.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) lines: usize,
    /// Lines that did not arrive.
    pub(crate) missing: Vec<Line>,
    /// Lines that arrived under two identities or more.
    pub(crate) twice: Vec<Line>,
    /// What arrived and nobody wrote.
    pub(crate) foreign: Vec<Arrived>,
    /// Lines that arrived at another offset than the one at which they were written.
    pub(crate) misplaced: Vec<(Line, u64)>,
    /// Generations that were split over streams, and streams that took two generations in.
    pub(crate) mixed: usize,
}

/// Compares; lines are unlike each other.
pub(crate) fn judge<'a>(lines: impl IntoIterator<Item = &'a Line>, arrived: &[Arrived]) -> Verdict {
    let mut by_body: BTreeMap<&[u8], Vec<&Arrived>> = BTreeMap::new();
    for record in arrived {
        by_body.entry(&record.body).or_default().push(record);
    }
    let mut verdict = Verdict::default();
    let (mut streams, mut generations) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
    for line in lines {
        verdict.lines += 1;
        let Some(found) = by_body.remove(&line.bytes[..]) else {
            verdict.missing.push(line.clone());
            continue;
        };
        if found.len() > 1 {
            verdict.twice.push(line.clone());
        }
        for record in found {
            if record.offset != line.offset {
                verdict.misplaced.push((line.clone(), record.offset));
            }
            streams.entry(&line.generation).or_default().insert(&record.stream);
            generations.entry(&record.stream).or_default().insert(&line.generation);
        }
    }
    verdict.foreign = by_body.into_values().flatten().cloned().collect();
    verdict.mixed = streams.values().filter(|of| of.len() > 1).count();
    verdict.mixed += generations.values().filter(|of| of.len() > 1).count();
    verdict
}

impl Verdict {
    /// Each line once, in its place, and nothing else.
    pub(crate) fn require_exact(&self, said: &str) {
        assert!(self.missing.is_empty(), "{self}\n{said}");
        self.require_once(said);
    }

    /// No line twice or elsewhere, and nothing that nobody wrote; what is missing is another matter.
    pub(crate) fn require_once(&self, said: &str) {
        let wrong = self.twice.len() + self.foreign.len() + self.misplaced.len() + self.mixed;
        assert!(wrong == 0, "{self}\n{said}");
    }

    /// Bytes of the lines that did not arrive, with their terminators.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.missing.iter().map(|line| line.bytes.len() as u64 + 1).sum()
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        writeln!(
            formatter,
            "of {} lines {} missing, {} twice, {} misplaced, {} that nobody wrote, {} streams or generations mixed",
            self.lines,
            self.missing.len(),
            self.twice.len(),
            self.misplaced.len(),
            self.foreign.len(),
            self.mixed
        )?;
        let place = |line: &Line| format!("{:?} at {}: {}", line.generation, line.offset, text(&line.bytes));
        for line in self.missing.iter().take(SHOWN).chain(self.missing.iter().rev().take(1)) {
            writeln!(formatter, "  missing {}", place(line))?;
        }
        for line in self.twice.iter().take(SHOWN) {
            writeln!(formatter, "  twice {}", place(line))?;
        }
        for (line, at) in self.misplaced.iter().take(SHOWN) {
            writeln!(formatter, "  arrived at {at}: {}", place(line))?;
        }
        for record in self.foreign.iter().take(SHOWN) {
            writeln!(formatter, "  nobody wrote, at {}: {}", record.offset, text(&record.body))?;
        }
        Ok(())
    }
}
