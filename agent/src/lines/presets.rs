//! What stack traces look like, language by language.
//!
//! A preset is a small machine: a line goes on if some rule allows it in the state that the lines before left, and the
//! rule says which state comes next. The first rule that holds counts. Everything else begins a record; the rules from
//! [`FIRST`] say what a record's first line was.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

/// Before a record's first line.
const FIRST: u8 = 1;
/// Behind a line of no special kind.
const LOG: u8 = 1 << 1;
/// Behind the line that says what went wrong.
const HEAD: u8 = 1 << 2;
/// Within a trace.
const TRACE: u8 = 1 << 3;
/// Behind the line that ends a trace, though another one may be chained to it.
const END: u8 = 1 << 4;
/// Behind an empty line within all that.
const GAP: u8 = 1 << 5;
/// The lines before are out of sight: only what cannot be anything else goes on.
pub(super) const UNKNOWN: u8 = 1 << 7;

/// Any state within a record.
const ANY: u8 = LOG | HEAD | TRACE | END | GAP | UNKNOWN;

/// From any of these states, a line like this, to that state.
type Row = (u8, &'static str, u8);

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Java and what else runs on its machine.
    Java,
    /// Python.
    Python,
    /// Go.
    Go,
    /// Rust.
    Rust,
    /// .NET.
    Dotnet,
    /// JSON over several lines.
    Json,
}

const JAVA: &[Row] = &[
    (FIRST, r"^(?:Exception in thread |(?:[A-Za-z_$][\w$]*\.)+[\w$]*(?:Exception|Error|Throwable|Failure)\b)", TRACE),
    (LOG, r"^(?:[A-Za-z_$][\w$]*\.)+[\w$]*(?:Exception|Error|Throwable|Failure)(?::|\s|$)", TRACE),
    (ANY, r"^(?:Caused by|Suppressed|Wrapped by): ", TRACE),
    (ANY, r"^[ \t]+(?:at |\.\.\. \d+ |\[CIRCULAR REFERENCE|Suppressed: |Caused by: )", TRACE),
    (LOG, r"^[ \t]", LOG),
    (HEAD | TRACE | UNKNOWN, r"^[ \t]", TRACE),
];

const PYTHON: &[Row] = &[
    (FIRST | LOG | GAP, r"^Traceback \(most recent call last\):", TRACE),
    (TRACE, r"^[ \t]", TRACE),
    (TRACE, r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?::|$)", END),
    (END | GAP | UNKNOWN, r"^(?:During handling of the above exception|The above exception was the direct cause)", GAP),
    (END | GAP, r"^$", GAP),
    (LOG | END, r"^[ \t]", LOG),
    (UNKNOWN, r"^[ \t]", TRACE),
];

const GO: &[Row] = &[
    (FIRST, r"^(?:panic: |fatal error: |unexpected fault address |SIG[A-Z]+: )", HEAD),
    (FIRST | ANY, r"^goroutine \d+ .*\[[^\]]+\]:$", TRACE),
    (HEAD, r"^(?:\[signal |[ \t]|PC=)", HEAD),
    (HEAD | TRACE | GAP, r"^$", GAP),
    (TRACE, r"^(?:[^\s(]\S*\(.*\)$|\.\.\.)", TRACE),
    (TRACE | UNKNOWN, r"^created by ", TRACE),
    (TRACE | UNKNOWN, r"^[ \t]", TRACE),
    (GAP | END, r"^(?:r\w+|[efcdgs]\w{1,5}) +0x[0-9a-f]+$", END),
    (TRACE | GAP | END, r"^exit status \d+$", END),
    (LOG, r"^[ \t]", LOG),
];

const RUST: &[Row] = &[
    (FIRST, r"^thread '.*' .*panicked at '.*', \S+$", END),
    (FIRST, r"^thread '.*' .*panicked at .*:$", HEAD),
    (FIRST, r"^Error: ", END),
    (LOG | END | GAP, r"^(?:Caused by|Location|Stack backtrace):$", TRACE),
    (LOG | HEAD | END | TRACE | UNKNOWN, r"^stack backtrace:$", TRACE),
    (END | TRACE | UNKNOWN, r"^note: ", TRACE),
    (HEAD, r"^.+$", END),
    (END | TRACE | GAP, r"^$", GAP),
    (TRACE | GAP | UNKNOWN, r"^[ \t]", TRACE),
    (LOG | END, r"^[ \t]", END),
];

const DOTNET: &[Row] = &[
    (FIRST, r"^Unhandled exception", TRACE),
    (FIRST, r"^(?:[A-Za-z_]\w*\.)+\w*(?:Exception|Error)\b", TRACE),
    (LOG, r"^(?:[A-Za-z_]\w*\.)+\w*(?:Exception|Error)(?::|\s|$)", TRACE),
    (ANY, r"^[ \t]*--- End of ", TRACE),
    (ANY, r"^[ \t]+(?:at |---> )", TRACE),
    (LOG, r"^[ \t]", LOG),
    (TRACE | UNKNOWN, r"^[ \t]", TRACE),
];

const JSON: &[Row] = &[(ANY, r"^(?:[ \t]|[}\]])", LOG)];

impl Preset {
    /// Every preset with the name by which settings know it.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("java", Self::Java),
        ("python", Self::Python),
        ("go", Self::Go),
        ("rust", Self::Rust),
        ("dotnet", Self::Dotnet),
        ("json", Self::Json),
    ];

    pub(super) fn compiled(self) -> &'static Compiled {
        static ALL: [LazyLock<Compiled>; 6] = [
            LazyLock::new(|| Compiled::new(JAVA)),
            LazyLock::new(|| Compiled::new(PYTHON)),
            LazyLock::new(|| Compiled::new(GO)),
            LazyLock::new(|| Compiled::new(RUST)),
            LazyLock::new(|| Compiled::new(DOTNET)),
            LazyLock::new(|| Compiled::new(JSON)),
        ];
        let index = match self {
            Self::Java => 0,
            Self::Python => 1,
            Self::Go => 2,
            Self::Rust => 3,
            Self::Dotnet => 4,
            Self::Json => 5,
        };
        &ALL[index]
    }
}

/// A preset, ready to be asked.
#[derive(Debug)]
pub(super) struct Compiled(Vec<(u8, Regex, u8)>);

impl Compiled {
    fn new(rows: &[Row]) -> Self {
        // They are constants, and a test compiles every one of them.
        let compiled = rows.iter().filter_map(|(from, text, to)| Some((*from, pattern(text).ok()?, *to)));
        Self(compiled.collect())
    }

    /// The state behind a record's first line.
    pub(super) fn first(&self, line: &[u8]) -> u8 {
        self.next(FIRST, line).unwrap_or(LOG)
    }

    /// The state behind a line that goes on; `None` for one that does not.
    pub(super) fn next(&self, state: u8, line: &[u8]) -> Option<u8> {
        let row = self.0.iter().find(|(from, pattern, _)| from & state != 0 && pattern.is_match(line));
        row.map(|(_, _, to)| *to)
    }
}

/// Largest pattern, compiled, and as much again while it is asked, in bytes.
const PATTERN_BYTES_MAX: usize = 512 * 1024;

/// Compiles a pattern. Classes are those of ASCII: what they are asked about is bytes, and tables of Unicode would make
/// up much of the agent.
pub(super) fn pattern(text: &str) -> Result<Regex, regex::Error> {
    let mut builder = RegexBuilder::new(text);
    builder.unicode(false).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_every_preset_is_compiled() {
        let rows = [JAVA, PYTHON, GO, RUST, DOTNET, JSON];
        for ((name, preset), rows) in Preset::NAMES.into_iter().zip(rows) {
            for (_, text, _) in rows {
                pattern(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            assert_eq!(preset.compiled().0.len(), rows.len(), "{name}");
        }
    }
}
