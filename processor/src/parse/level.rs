//! Levels: how much a record matters, in one set of names for all formats.
//!
//! | level   | words (any case)                                                        | syslog severity | pino, bunyan |
//! |---------|-------------------------------------------------------------------------|-----------------|--------------|
//! | `trace` | trace, trc, finest, finer, verbose                                      |                 | 10           |
//! | `debug` | debug, dbg, fine                                                        | 7               | 20           |
//! | `info`  | info, inf, information, informational, notice, note                     | 5, 6            | 30           |
//! | `warn`  | warn, warning, wrn                                                      | 4               | 40           |
//! | `error` | error, err, eror, severe                                                | 3               | 50           |
//! | `fatal` | fatal, ftl, critical, crit, alert, emerg, emergency, panic              | 0, 1, 2         | 60           |

/// Level of a record, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Finest detail.
    Trace,
    /// For the developer.
    Debug,
    /// Normal course of things; syslog's notice too.
    Info,
    /// Unusual, but handled.
    Warn,
    /// Something failed.
    Error,
    /// The program or the system cannot go on; syslog's critical, alert and emergency too.
    Fatal,
}

impl Level {
    /// Name as it stands in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// The level's place in a table of all, least first, from 0.
    pub(crate) fn place(self) -> usize {
        match self {
            Self::Trace => 0,
            Self::Debug => 1,
            Self::Info => 2,
            Self::Warn => 3,
            Self::Error => 4,
            Self::Fatal => 5,
        }
    }

    /// The level that a word names (see the module's table).
    pub fn from_word(word: &[u8]) -> Option<Self> {
        let mut lower = [0; 13];
        let lower = lower.get_mut(..word.len())?;
        lower.copy_from_slice(word);
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"info" | b"inf" | b"information" | b"informational" | b"notice" | b"note" => Self::Info,
            b"warn" | b"warning" | b"wrn" => Self::Warn,
            b"error" | b"err" | b"eror" | b"severe" => Self::Error,
            b"debug" | b"dbg" | b"fine" => Self::Debug,
            b"trace" | b"trc" | b"finest" | b"finer" | b"verbose" => Self::Trace,
            b"fatal" | b"ftl" | b"critical" | b"crit" | b"alert" | b"emerg" | b"emergency" | b"panic" => Self::Fatal,
            _ => return None,
        })
    }

    /// The level of a single letter, as glog and many mobile logs write it.
    pub(super) fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter.to_ascii_uppercase() {
            b'T' | b'V' => Self::Trace,
            b'D' => Self::Debug,
            b'I' => Self::Info,
            b'W' => Self::Warn,
            b'E' => Self::Error,
            b'F' | b'C' => Self::Fatal,
            _ => return None,
        })
    }

    /// The level of a syslog severity (RFC 5424, section 6.2.1): 0 to 7.
    pub(super) fn from_severity(severity: u8) -> Self {
        match severity {
            0..=2 => Self::Fatal,
            3 => Self::Error,
            4 => Self::Warn,
            5 | 6 => Self::Info,
            _ => Self::Debug,
        }
    }

    /// The level of a number under a level's key: pino's and bunyan's tens, or a syslog severity as GELF has it.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0..=7 => Self::from_severity(u8::try_from(number).ok()?),
            10 => Self::Trace,
            20 => Self::Debug,
            30 => Self::Info,
            40 => Self::Warn,
            50 => Self::Error,
            60 => Self::Fatal,
            _ => return None,
        })
    }
}
