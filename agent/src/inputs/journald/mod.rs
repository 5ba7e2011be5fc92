//! The systemd journal, read by `journalctl`.
//!
//! journalctl knows every version of the journal's files, and is a process of its own, so that a damaged journal cannot
//! harm the agent. It writes entries in the export format ([`export`]); each becomes a record ([`document`]).
//!
//! The cursor of the last entry of an arrival goes with it, and is kept with what was made durable. A start from a cursor
//! asks for the entry at the cursor, too: where that entry comes first it is left out, so that nothing comes twice. A
//! cursor whose entry the journal does not have any more (rotated away, or a journal that was removed) is told, and
//! reading begins with the oldest entry that is there: twice beats lost.

mod document;
mod export;
#[cfg(test)]
mod tests;

use std::{io, process::ExitStatus, time::Duration};

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    child::{Child, last_words},
    config::JournaldConfig,
    intake::Closed,
    outlet::{ARRIVAL_BYTES_MAX, ARRIVAL_RECORDS_MAX, Outlet, Piece},
    standing::{Pace, Part},
};
use export::{Entry, ExportError, Parser};

const READ_BYTES: usize = 64 * 1024;
/// How long journalctl may look for a cursor's entry.
const LOOK: Duration = Duration::from_secs(60);
/// A reader that ran so long has worked: the next pause is a short one.
const WORKED: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct JournaldInput {
    pub(super) config: JournaldConfig,
    /// Whether records are to say their service: the configuration does not.
    pub(super) names_service: bool,
    /// Where to go on.
    pub(super) cursor: Option<Bytes>,
    pub(super) outlet: Outlet,
    pub(super) part: Part,
    pub(super) stop: CancellationToken,
}

/// Why reading ended.
#[derive(Debug, Error)]
enum JournalError {
    #[error("`{program}` cannot be started: {error}; {cure}")]
    Start { program: String, error: io::Error, cure: &'static str },
    #[error("what journalctl writes cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("what journalctl writes is no export of a journal: {0}")]
    Export(#[from] ExportError),
    #[error("the journal has no entries, and had some when the agent last read it; it is looked at again")]
    Empty,
    #[error("journalctl ended with {status}{said}; it is started again")]
    Ended { status: ExitStatus, said: String },
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl JournalError {
    fn ended(status: ExitStatus, words: &str) -> Self {
        let said = if words.is_empty() { String::new() } else { format!(", saying: {words}") };
        Self::Ended { status, said }
    }
}

impl JournaldInput {
    /// Follows the journal until `stop`.
    pub(super) async fn run(mut self) {
        let mut pace = Pace::new();
        let stop = self.stop.clone();
        loop {
            let begun = Instant::now();
            let error = tokio::select! {
                result = self.follow() => match result {
                    Ok(()) | Err(JournalError::Closed(_)) => return,
                    Err(error) => error,
                },
                // What was handed over has its cursor with it, and the rest is still in the journal.
                () = stop.cancelled() => return,
            };
            if begun.elapsed() > WORKED {
                pace.reset();
            }
            self.part.fail(error.to_string());
            if !pace.wait(&stop).await {
                return;
            }
        }
    }

    /// Reads from the cursor on, as long as journalctl lives.
    async fn follow(&mut self) -> Result<(), JournalError> {
        if let Some(cursor) = self.cursor.clone()
            && !self.is_known(&cursor).await?
        {
            let cursor = String::from_utf8_lossy(&cursor).into_owned();
            tracing::warn!(cursor, "the journal does not know this place any more; it is read from its oldest entry");
            self.cursor = None;
        }
        // Following, journalctl keeps to the last boot, unless it is told to merge.
        let boots = if self.config.since_boot { "--boot" } else { "--merge" };
        let mode = ["--follow", "--no-tail", boots];
        let (mut child, stdout, stderr) = self.start(&self.arguments(&mode, self.cursor.as_ref(), true))?;
        self.part.well();
        let words = last_words(stderr);
        let (read, words) = tokio::join!(self.read(stdout), words);
        read?;
        Err(JournalError::ended(child.wait().await?, &words))
    }

    /// Whether the journal has the entry at the cursor, whatever units and matches are configured now.
    async fn is_known(&self, cursor: &Bytes) -> Result<bool, JournalError> {
        if let Some(entry) = self.first_entry(Some(cursor)).await? {
            return Ok(entry.cursor.as_ref() == Some(cursor));
        }
        // A journal that has nothing at all is away, more likely than not: a cursor is not given up for that.
        self.first_entry(None).await?.map(|_| false).ok_or(JournalError::Empty)
    }

    /// The entry at the cursor, or where that would be; any entry without one.
    async fn first_entry(&self, cursor: Option<&Bytes>) -> Result<Option<Entry>, JournalError> {
        let words = self.arguments(&["--merge", "--lines=1"], cursor, false);
        let (mut child, mut stdout, stderr) = self.start(&words)?;
        let first = async {
            let mut parser = Parser::default();
            loop {
                if let Some(entry) = parser.next()? {
                    return Ok::<_, JournalError>(Some(entry));
                }
                parser.buffer.reserve(READ_BYTES);
                if stdout.read_buf(&mut parser.buffer).await? == 0 {
                    return Ok(None);
                }
            }
        };
        let looking = async {
            let (first, words) = tokio::join!(first, last_words(stderr));
            if let Some(entry) = first? {
                return Ok(Some(entry));
            }
            let status = child.wait().await?;
            // A text that is no cursor at all is a place that the journal does not know, and no trouble of the journal.
            let is_trouble = !status.success() && !words.contains("seek to cursor");
            if is_trouble { Err(JournalError::ended(status, &words)) } else { Ok(None) }
        };
        timeout(LOOK, looking).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    fn start(
        &self,
        words: &[String],
    ) -> Result<(Child, tokio::process::ChildStdout, tokio::process::ChildStderr), JournalError> {
        Child::start(words).map_err(|error| JournalError::Start {
            program: self.config.journalctl.clone(),
            cure: cure(&error),
            error,
        })
    }

    fn arguments(&self, mode: &[&str], cursor: Option<&Bytes>, filters: bool) -> Vec<String> {
        let JournaldConfig { journalctl, directory, file, units, matches, .. } = &self.config;
        let mut words = vec![journalctl.clone(), "--output=export".into(), "--all".into(), "--no-pager".into()];
        words.extend(mode.iter().map(|word| (*word).to_owned()));
        words.extend(directory.iter().map(|path| format!("--directory={}", path.display())));
        words.extend(file.iter().map(|path| format!("--file={}", path.display())));
        words.extend(cursor.map(|cursor| format!("--cursor={}", String::from_utf8_lossy(cursor))));
        if filters {
            words.extend(units.iter().map(|unit| format!("--unit={unit}")));
            words.extend(matches.iter().cloned());
        }
        if directory.is_none() && file.is_none() {
            // `--merge` brings in what other machines have sent here.
            let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
            words.extend((!machine.trim().is_empty()).then(|| format!("_MACHINE_ID={}", machine.trim())));
        }
        words
    }

    /// Hands entries over until the end of the pipe.
    async fn read(&mut self, mut source: impl AsyncRead + Unpin) -> Result<(), JournalError> {
        let (mut parser, mut pending) = (Parser::default(), Pending::default());
        let mut left_out = self.cursor.clone();
        loop {
            while let Some(entry) = parser.next()? {
                let at_cursor = left_out.take().is_some_and(|cursor| entry.cursor == Some(cursor));
                if !at_cursor {
                    pending.add(&entry, self.names_service, self.outlet.record_bytes_max);
                }
                if pending.is_full() {
                    self.pass(&mut pending).await?;
                }
            }
            self.pass(&mut pending).await?;
            parser.buffer.reserve(READ_BYTES);
            if source.read_buf(&mut parser.buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn pass(&mut self, pending: &mut Pending) -> Result<(), JournalError> {
        let Pending { records, cursor, .. } = std::mem::take(pending);
        if records.is_empty() {
            return Ok(());
        }
        self.outlet.send(records, cursor.clone()).await?;
        self.cursor = cursor.or(self.cursor.take());
        Ok(())
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "kinds of errors are an open set")]
fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "install systemd, or set `journalctl` to where it is",
        io::ErrorKind::PermissionDenied => "the agent's user must be allowed to run it",
        _ => "it is tried again",
    }
}

/// Entries that are to be handed over together, whole.
#[derive(Debug, Default)]
struct Pending {
    /// Each whole: where a message has several, they are objects by themselves, and numbered.
    records: Vec<Piece>,
    bytes: usize,
    cursor: Option<Bytes>,
}

impl Pending {
    fn add(&mut self, entry: &Entry, names_service: bool, record_bytes_max: usize) {
        let records = document::records(entry, names_service, record_bytes_max);
        self.bytes += records.iter().map(Bytes::len).sum::<usize>();
        self.records.extend(records.into_iter().map(Piece::whole));
        self.cursor = entry.cursor.clone().or(self.cursor.take());
    }

    fn is_full(&self) -> bool {
        self.bytes >= ARRIVAL_BYTES_MAX || self.records.len() >= ARRIVAL_RECORDS_MAX
    }
}
