//! Reading entries in order, over all segments.

use bytes::Bytes;

use crate::format::SEGMENT_HEADER;
use crate::scan::Scan;
use crate::{Log, Position, ReadError};

/// Reads a journal from one place on, entry by entry; follows it as it grows.
///
/// Holds one window of 256 KiB, or one entry where that is larger. Damaged ground is stepped over and reported.
pub struct Reader {
    log: Log,
    /// Where the next entry is looked for; byte 0 = behind the segment's header.
    at: Position,
    scan: Option<Scan>,
}

/// What a [`Reader`] finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A sound entry.
    Entry {
        /// Its place.
        position: Position,
        /// Its content.
        payload: Bytes,
    },
    /// Bytes that are not what was written. Reading goes on behind them.
    Damage(Damage),
}

/// A stretch of a journal that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is damaged from {from} up to {to}: {what}")]
pub struct Damage {
    /// First damaged byte.
    pub from: Position,
    /// First byte behind that is sound, or the end of the segment.
    pub to: Position,
    /// How it shows.
    pub what: &'static str,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reader").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(log: Log, from: Position) -> Self {
        Self { log, at: from, scan: None }
    }

    /// Where the next entry is looked for.
    pub fn position(&self) -> Position {
        self.at
    }

    /// The next durable item, waiting for one to be appended. Cancel safe. Reads block (see [`Log`]). Pends for good once
    /// the journal is closed and read to its end.
    ///
    /// # Errors
    /// See [`ReadError`]; the reader stays where it is.
    pub async fn next(&mut self) -> Result<Item, ReadError> {
        let mut durable = self.log.durable();
        loop {
            durable.borrow_and_update();
            if let Some(item) = self.try_next()? {
                return Ok(item);
            }
            if durable.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The next durable item; `None` at the durable end.
    ///
    /// # Errors
    /// See [`ReadError`]; the reader stays where it is.
    pub fn try_next(&mut self) -> Result<Option<Item>, ReadError> {
        loop {
            let Some(info) = self.log.segment(self.at.segment) else {
                match self.leave_missing() {
                    Some(damage) => return Ok(Some(Item::Damage(damage))),
                    None if self.log.segment(self.at.segment).is_some() => continue,
                    None => return Ok(None),
                }
            };
            if self.at.byte == 0 {
                match self.enter(info.end)? {
                    Some(damage) => return Ok(Some(Item::Damage(damage))),
                    None => continue,
                }
            }
            if self.at.byte < info.end {
                return self.read(info.end).map(Some);
            }
            // The order matters: once a later segment exists, this one is sealed and its end is final.
            let Some(next) = self.log.segment_after(self.at.segment) else { return Ok(None) };
            if self.log.segment(self.at.segment).is_some_and(|info| info.end > self.at.byte) {
                continue;
            }
            if let Some(damage) = self.turn_to(next.number) {
                return Ok(Some(Item::Damage(damage)));
            }
        }
    }

    /// Goes on in segment `number`; says so when others should have come before it.
    fn turn_to(&mut self, number: u64) -> Option<Damage> {
        let from = Position { segment: self.at.segment + 1, byte: 0 };
        self.at = Position { segment: number, byte: 0 };
        self.scan = None;
        (from.segment < number).then_some(Damage { from, to: self.at, what: "segments are missing" })
    }

    /// The segment that this reader stands in is not there: before the first one of all, or removed.
    fn leave_missing(&mut self) -> Option<Damage> {
        let next = self.log.segment_after(self.at.segment)?;
        let from = self.at;
        self.at = Position { segment: next.number, byte: 0 };
        self.scan = None;
        (from != Position::default()).then_some(Damage { from, to: self.at, what: "segments were removed" })
    }

    /// Steps behind the header of a segment.
    fn enter(&mut self, end: u64) -> Result<Option<Damage>, ReadError> {
        let from = self.at;
        let first = self.scan(end, Scan::first)?;
        match first {
            Ok(byte) => {
                self.at.byte = byte;
                Ok(None)
            }
            Err(what) => {
                // Behind a damaged header entries are still sound, each by itself.
                let found = self.scan(end, |scan| scan.resync(SEGMENT_HEADER as u64))?;
                self.at.byte = found.unwrap_or(end).max(SEGMENT_HEADER as u64);
                Ok(Some(Damage { from, to: self.at, what }))
            }
        }
    }

    fn read(&mut self, end: u64) -> Result<Item, ReadError> {
        let position = self.at;
        let found = self.scan(end, |scan| {
            let entry = scan.entry(position.byte)?;
            Ok(entry.map(|(head, payload)| (head.size(), Bytes::copy_from_slice(payload))))
        })?;
        if let Some((size, payload)) = found {
            self.at.byte += size;
            return Ok(Item::Entry { position, payload });
        }
        let next = self.scan(end, |scan| scan.resync(position.byte + 1))?;
        self.at.byte = next.unwrap_or(end);
        Ok(Item::Damage(Damage { from: position, to: self.at, what: "no sound entry begins here" }))
    }

    fn scan<T>(&mut self, end: u64, look: impl FnOnce(&mut Scan) -> std::io::Result<T>) -> Result<T, ReadError> {
        let number = self.at.segment;
        let scan = match &mut self.scan {
            Some(scan) => scan,
            none => none.insert(Scan::new(self.log.file(number)?, number, end)),
        };
        scan.set_limit(end);
        look(scan).map_err(|source| ReadError::Io { path: self.log.path(number), source })
    }
}
