//! The configuration as it came out: every key that was asked for, its value and where that came from.

use super::fault::Place;
use super::value::bare_or_quoted;

/// What kind of value a key takes: its notation and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A list of strings.
    Texts,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer {
        /// The least allowed.
        min: u64,
        /// The greatest allowed.
        max: u64,
    },
    /// Bytes, as `"16 MiB"`.
    Size {
        /// The least allowed, in bytes.
        min: u64,
        /// The greatest allowed, in bytes.
        max: u64,
    },
    /// Bytes per second, as `"50 MiB/s"`.
    Rate,
    /// A time span, as `"10s"`.
    Duration {
        /// The least allowed, in milliseconds.
        min_ms: u128,
        /// The greatest allowed, in milliseconds.
        max_ms: u128,
    },
    /// A path, relative to the directory the process runs in.
    Path,
    /// An IP address and port.
    Address,
    /// One of these words.
    Choice(Vec<String>),
    /// A table of strings.
    Map,
    /// `{ file = "…" }` or `{ env = "…" }`.
    Secret,
    /// A table, or a list of tables, with keys of its own.
    Table,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The file: its name, with line and column.
    File(String),
    /// An environment variable, by name.
    Environment(String),
    /// A flag of the command line, by name.
    Flag(String),
}

/// One key that a service asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The table it stands in, `agent.tls` or `agent.files[0]`.
    pub section: String,
    /// Its name in that table.
    pub key: String,
    /// What it takes.
    pub kind: Kind,
    /// What it came to, written as TOML, secrets as references; none where nothing was set and nothing is the default.
    pub value: Option<String>,
    /// Where that came from.
    pub source: Source,
}

/// Everything that was asked for, in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub(super) entries: Vec<Entry>,
    pub(super) sections: Vec<Opened>,
}

/// A table that a service opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) path: String,
    pub(super) parent: String,
    /// Its heading, in brackets.
    pub(super) heading: String,
}

impl Source {
    pub(super) fn file(place: &Place) -> Source {
        Source::File(place.to_string())
    }

    fn words(&self) -> &str {
        match self {
            Source::Default => "default",
            Source::File(place) => place,
            Source::Environment(name) | Source::Flag(name) => name,
        }
    }
}

impl Resolved {
    /// The keys in the order in which they were asked for.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// A TOML document that resolves to the same configuration. Each line ends in a comment that says where its value
    /// came from; a key without a value is a comment.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        self.write_children("", &mut out);
        out
    }

    /// Depth first, so that a table of a list's element stands below that element.
    fn write_children(&self, parent: &str, out: &mut String) {
        for section in self.sections.iter().filter(|section| section.parent == parent) {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&section.heading);
            out.push('\n');
            self.write_entries(&section.path, out);
            self.write_children(&section.path, out);
        }
    }

    fn write_entries(&self, section: &str, out: &mut String) {
        for entry in self.entries.iter().filter(|entry| entry.section == section) {
            let key = bare_or_quoted(&entry.key);
            let line = match &entry.value {
                Some(value) => format!("{key} = {value}  # {}\n", entry.source.words()),
                None => format!("# {key} is not set\n"),
            };
            out.push_str(&line);
        }
    }
}
