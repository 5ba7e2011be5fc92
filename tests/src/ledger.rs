//! The ledger: what was written against what is found. Each line exactly once, its bytes equal, or the first that are
//! not, by name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::api::Found;

/// How many examples of each fault a verdict names.
const EXAMPLES: usize = 5;

/// Where a line was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// File that it was written to, under the name that the file had then.
    pub path: PathBuf,
    /// Byte offset in that generation of the file.
    pub offset: u64,
}

/// Everything that writers wrote.
#[derive(Debug, Default)]
pub struct Ledger {
    lines: Vec<(Place, Vec<u8>)>,
}

/// How the ledger compares to what was found.
#[derive(Debug, Default)]
pub struct Balance {
    /// Lines written.
    pub written: u64,
    /// Documents found.
    pub found: u64,
    /// Lines that no document holds.
    pub missing: u64,
    /// Documents beyond the first for the same line.
    pub twice: u64,
    /// Documents that hold what nobody wrote.
    pub foreign: u64,
    /// The first faults of each kind, for people.
    pub examples: Vec<String>,
}

impl Ledger {
    /// Notes a line, without its terminator.
    pub fn wrote(&mut self, path: &Path, offset: u64, line: &[u8]) {
        self.lines.push((Place { path: path.to_path_buf(), offset }, line.to_vec()));
    }

    /// Takes over what another ledger holds.
    pub fn absorb(&mut self, other: Ledger) {
        self.lines.extend(other.lines);
    }

    /// Number of lines written.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.lines.len() as u64
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Compares by content: for files that are renamed, so that a document's path says little. Equal lines count as
    /// often as they were written.
    #[must_use]
    pub fn balance_by_content(&self, found: &[Found]) -> Balance {
        let mut owed: HashMap<&[u8], Owed<'_>> = HashMap::with_capacity(self.lines.len());
        for (place, line) in &self.lines {
            owed.entry(line).or_insert(Owed { place, written: 0, found: 0 }).written += 1;
        }
        let mut balance = self.begin(found);
        for document in found {
            match owed.get_mut(document.line.as_slice()) {
                Some(owed) => owed.count(document, &mut balance),
                None => balance.foreign(document),
            }
        }
        balance.close(owed.into_iter().map(|(line, owed)| (owed.place, line, owed.missing())));
        balance
    }

    /// Compares by file and offset, and the bytes there: for files that keep their names.
    #[must_use]
    pub fn balance_by_place(&self, found: &[Found]) -> Balance {
        let mut owed: HashMap<(&Path, u64), (Owed<'_>, &[u8])> = HashMap::with_capacity(self.lines.len());
        for (place, line) in &self.lines {
            owed.insert((&place.path, place.offset), (Owed { place, written: 1, found: 0 }, line));
        }
        let mut balance = self.begin(found);
        for document in found {
            match owed.get_mut(&(document.path.as_path(), document.offset)) {
                Some((owed, line)) if *line == document.line => owed.count(document, &mut balance),
                Some(_) | None => balance.foreign(document),
            }
        }
        balance.close(owed.into_values().map(|(owed, line)| (owed.place, line, owed.missing())));
        balance
    }

    fn begin(&self, found: &[Found]) -> Balance {
        Balance { written: self.len(), found: found.len() as u64, ..Balance::default() }
    }
}

/// What is owed for one line.
struct Owed<'a> {
    place: &'a Place,
    written: u64,
    found: u64,
}

impl Owed<'_> {
    fn count(&mut self, document: &Found, balance: &mut Balance) {
        self.found += 1;
        if self.found > self.written {
            balance.twice += 1;
            balance.example(balance.twice, || format!("twice: {document}; written at {}", self.place));
        }
    }

    fn missing(&self) -> u64 {
        self.written.saturating_sub(self.found)
    }
}

impl Balance {
    /// Whether each line was found exactly once and nothing else was.
    ///
    /// # Errors
    ///
    /// When not, with the counts and the first examples.
    pub fn require_exact(&self) -> Result<()> {
        if self.missing == 0 && self.twice == 0 && self.foreign == 0 {
            return Ok(());
        }
        bail!("the ledger does not balance: {self}")
    }

    /// Whether each line was found at least once, and nothing that nobody wrote.
    ///
    /// # Errors
    ///
    /// When not, with the counts and the first examples.
    pub fn require_complete(&self) -> Result<()> {
        if self.missing == 0 && self.foreign == 0 {
            return Ok(());
        }
        bail!("the ledger does not balance: {self}")
    }

    fn foreign(&mut self, document: &Found) {
        self.foreign += 1;
        self.example(self.foreign, || format!("nobody wrote: {document}"));
    }

    fn close<'a>(&mut self, lines: impl Iterator<Item = (&'a Place, &'a [u8], u64)>) {
        let mut missing: Vec<(&Place, &[u8], u64)> = lines.filter(|(_, _, count)| *count > 0).collect();
        missing.sort_by_key(|(place, _, _)| *place);
        self.missing = missing.iter().map(|(_, _, count)| count).sum();
        for (place, line, _) in missing.into_iter().take(EXAMPLES) {
            self.examples.push(format!("missing: {place} {:?}", shortened(line)));
        }
    }

    fn example(&mut self, nth: u64, text: impl FnOnce() -> String) {
        if nth <= EXAMPLES as u64 {
            self.examples.push(text());
        }
    }
}

impl std::fmt::Display for Balance {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} lines written, {} documents found, {} missing, {} twice, {} foreign",
            self.written, self.found, self.missing, self.twice, self.foreign
        )?;
        for example in &self.examples {
            write!(formatter, "\n  {example}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.path.display(), self.offset)
    }
}

/// The beginning of a line, as text for people.
#[must_use]
pub fn shortened(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, offset: u64, line: &str) -> Found {
        Found { path: path.into(), offset, line: line.into(), ..Found::default() }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.wrote(Path::new("a"), 0, b"one");
        ledger.wrote(Path::new("a"), 4, b"two");
        ledger.wrote(Path::new("b"), 0, b"two");
        ledger
    }

    #[test]
    fn a_ledger_with_each_line_found_once_balances() {
        let found = [found("a", 4, "two"), found("b", 0, "two"), found("a", 0, "one")];
        ledger().balance_by_content(&found).require_exact().unwrap();
        ledger().balance_by_place(&found).require_exact().unwrap();
    }

    #[test]
    fn a_missing_a_doubled_and_a_foreign_line_are_each_counted() {
        let found = [found("a", 0, "one"), found("a", 0, "one"), found("a", 4, "two"), found("c", 0, "three")];
        for balance in [ledger().balance_by_content(&found), ledger().balance_by_place(&found)] {
            assert_eq!((balance.missing, balance.twice, balance.foreign), (1, 1, 1), "{balance}");
            assert!(balance.require_exact().is_err());
            assert!(balance.require_complete().is_err());
        }
    }

    #[test]
    fn by_place_other_bytes_at_the_same_place_do_not_count() {
        let found = [found("a", 0, "two"), found("a", 4, "two"), found("b", 0, "two")];
        let balance = ledger().balance_by_place(&found);
        assert_eq!((balance.missing, balance.foreign), (1, 1), "{balance}");
    }
}
