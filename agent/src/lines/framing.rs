//! What a record is in the files of one group: as it is configured, and ready to be cut by.

use std::{sync::Arc, time::Duration};

use thiserror::Error;

use super::{
    delimiter::{DELIMITER_BYTES_MAX, Delimiter},
    encoding::Encoding,
    joining::{Joining, Rule},
    presets::{self, Preset},
    rules::Rules,
};

/// Longest record in lines, unless the configuration says otherwise.
pub const LINES_MAX: usize = 1000;

/// What a record is, as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FramingConfig {
    /// Encoding of the files.
    pub encoding: Encoding,
    /// What ends a line; LF, with or without CR, where it is `None`.
    pub delimiter: Option<String>,
    /// By what lines are joined.
    pub multiline: Option<Multiline>,
    /// Longest record in lines where lines are joined; `None` for [`LINES_MAX`].
    pub lines_max: Option<usize>,
    /// How long a record waits for its next line since the file last grew; `None` for the agent's `partial_flush`.
    pub timeout: Option<Duration>,
    /// Whether lines are written by container runtimes, with long ones in pieces.
    pub cri: bool,
}

/// By what lines are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Multiline {
    /// Stack traces of a language.
    Preset(Preset),
    /// What begins with a blank or a tab goes on.
    Indent,
    /// What matches begins a record, and everything else goes on.
    Start(String),
    /// What matches goes on, and everything else begins a record.
    Continuation(String),
}

/// Why records cannot be cut so.
#[derive(Debug, Error)]
pub enum FramingError {
    /// A pattern cannot be read.
    #[error("`{pattern}` is no pattern: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A delimiter is empty or too long.
    #[error("a delimiter has 1 to {DELIMITER_BYTES_MAX} bytes, this one has {0}")]
    Delimiter(usize),
    /// A delimiter has a letter that the encoding has not.
    #[error("the delimiter cannot be written in this encoding")]
    Unwritable,
    /// Container runtimes write lines that end in LF.
    #[error("lines of container runtimes end in LF")]
    CriDelimiter,
}

/// What a record is, ready to be cut by. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Framing {
    /// `None` for plain lines.
    rules: Option<Arc<Rules>>,
    timeout: Option<Duration>,
}

impl Framing {
    /// Makes it ready.
    ///
    /// # Errors
    /// See [`FramingError`].
    pub fn new(config: &FramingConfig) -> Result<Self, FramingError> {
        let FramingConfig { encoding, delimiter, multiline, lines_max, timeout, cri } = config;
        if let Some(delimiter) = delimiter {
            check_delimiter(delimiter, *encoding, *cri)?;
        }
        let rule = multiline.as_ref().map(compile).transpose()?;
        let joins = rule.is_some() || *cri;
        let joining = joins.then(|| Joining { cri: *cri, rule, lines_max: lines_max.unwrap_or(LINES_MAX) });
        let is_plain = joining.is_none() && delimiter.is_none() && *encoding == Encoding::Utf8;
        let rules = (!is_plain).then(|| Rules {
            encoding: *encoding,
            delimiter: Delimiter::new(delimiter.as_deref(), *encoding),
            padding: !delimiter.as_ref().is_some_and(|delimiter| delimiter.contains('\0')),
            joining,
        });
        Ok(Self { rules: rules.map(Arc::new), timeout: *timeout })
    }

    /// The same for what has no holes and no room that was reserved, such as a pipe: NUL is a byte like others.
    #[must_use]
    pub fn without_padding(&self) -> Self {
        let encoding = Encoding::Utf8;
        let plain = || Rules { encoding, delimiter: Delimiter::new(None, encoding), padding: false, joining: None };
        let rules = self.rules().map_or_else(plain, |rules| Rules { padding: false, ..rules.clone() });
        Self { rules: Some(Arc::new(rules)), timeout: self.timeout }
    }

    pub(super) fn rules(&self) -> Option<&Rules> {
        self.rules.as_deref()
    }

    /// How long a rest waits since the file last grew.
    #[must_use]
    pub fn patience(&self, partial_flush: Duration) -> Duration {
        self.timeout.unwrap_or(partial_flush)
    }

    /// Whether records end only where the next one begins.
    #[must_use]
    pub fn joins(&self) -> bool {
        self.rules().is_some_and(|rules| rules.joining.is_some())
    }

    /// Whether the byte order mark of a file says how it is to be read.
    #[must_use]
    pub fn needs_byte_order(&self) -> bool {
        self.rules().is_some_and(|rules| rules.encoding == Encoding::Utf16)
    }

    /// The same for a file that begins with these bytes.
    #[must_use]
    pub fn for_file(&self, first: [u8; 2]) -> Self {
        let Some(rules) = self.rules().filter(|rules| rules.encoding == Encoding::Utf16) else { return self.clone() };
        let encoding = rules.encoding.resolved(first);
        let delimiter = rules.delimiter.in_encoding(encoding);
        Self { rules: Some(Arc::new(Rules { encoding, delimiter, ..rules.clone() })), timeout: self.timeout }
    }

    /// So many bytes are enough to cut a record from, whatever they are.
    #[must_use]
    pub fn lookahead_bytes(&self, record_bytes_max: usize) -> usize {
        let Some(rules) = self.rules() else { return record_bytes_max + 2 };
        let line = record_bytes_max + rules.delimiter.bytes_max() + self.skipped_bytes_max();
        // The record, and the line that shows its end.
        if rules.joining.is_some() { 2 * line } else { line }
    }

    /// Most bytes that are skipped between two records: a byte out of step or a byte order mark, and a terminator.
    #[must_use]
    pub fn skipped_bytes_max(&self) -> usize {
        match self.rules() {
            None => 2,
            Some(rules) if rules.encoding.unit() == 1 => rules.delimiter.bytes_max(),
            Some(rules) => rules.delimiter.bytes_max() + 2,
        }
    }

    /// The bytes of the source from which a record was made, `source` in number; `None` where they cannot be told from
    /// its body.
    #[must_use]
    pub fn source_of(&self, body: &[u8], source: usize) -> Option<Vec<u8>> {
        let Some(rules) = self.rules() else { return Delimiter::new(None, Encoding::Utf8).whole(body, source) };
        if rules.encoding == Encoding::Utf8 {
            return rules.delimiter.whole(body, source);
        }
        rules.delimiter.whole(&rules.encoding.encode(std::str::from_utf8(body).ok()?), source)
    }

    /// Bytes of a unit of padding; 0 where NUL has a meaning.
    pub(super) fn padding_unit(&self) -> usize {
        self.rules().map_or(1, |rules| if rules.padding { rules.encoding.unit() } else { 0 })
    }
}

fn check_delimiter(delimiter: &str, encoding: Encoding, cri: bool) -> Result<(), FramingError> {
    if delimiter.is_empty() || delimiter.len() > DELIMITER_BYTES_MAX {
        return Err(FramingError::Delimiter(delimiter.len()));
    }
    if cri {
        return Err(FramingError::CriDelimiter);
    }
    let latin = delimiter.chars().all(|letter| u32::from(letter) < 256);
    if encoding == Encoding::Latin1 && !latin { Err(FramingError::Unwritable) } else { Ok(()) }
}

fn compile(multiline: &Multiline) -> Result<Rule, FramingError> {
    let pattern = |text: &String| {
        presets::pattern(text).map_err(|error| FramingError::Pattern {
            pattern: text.clone(),
            // The message of a syntax error is several lines with the pattern in them; its last line says what is wrong.
            reason: error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        })
    };
    Ok(match multiline {
        Multiline::Preset(preset) => Rule::Preset(preset.compiled()),
        Multiline::Indent => Rule::Indented,
        Multiline::Start(text) => Rule::Start(pattern(text)?),
        Multiline::Continuation(text) => Rule::Continuation(pattern(text)?),
    })
}
