//! Lines of a pipe: read, cut into records as files are, handed over.
//!
//! Owns the bytes that are read and not cut yet: at most what one record can need. What a record is, is said by
//! [`crate::lines`], with one difference to files: NUL is a byte like others.

use std::{pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use logmesh_proto::{Flags, RecordsBuilder};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Instant, sleep_until},
};

use super::{
    intake::Closed,
    outlet::{ARRIVAL_BYTES_MAX, ARRIVAL_RECORDS_MAX, Outlet, Piece},
};
use crate::lines::{At, CutLimits, Flush, Framing, Start, cut};

const READ_BYTES: usize = 64 * 1024;

/// Cuts what a pipe brings.
#[derive(Debug)]
pub(super) struct Cutter {
    framing: Framing,
    limits: CutLimits,
    buffer: BytesMut,
    offset: u64,
    start: Start,
    records: RecordsBuilder,
}

/// Why reading ended before the pipe's end.
#[derive(Debug, Error)]
pub(super) enum PumpError {
    #[error("cannot read: {0}")]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl Cutter {
    pub(super) fn new(framing: &Framing, record_bytes_max: usize) -> Self {
        let (batch_bytes_max, batch_records_max) = (ARRIVAL_BYTES_MAX, ARRIVAL_RECORDS_MAX);
        Self {
            framing: framing.without_padding(),
            limits: CutLimits { batch_bytes_max, batch_records_max, record_bytes_max },
            buffer: BytesMut::new(),
            offset: 0,
            start: Start::Fresh,
            records: RecordsBuilder::new(),
        }
    }

    /// Whether a record may be complete that only a flush would show.
    fn may_wait(&self) -> bool {
        self.framing.joins() && !self.buffer.is_empty()
    }

    /// The next records in what was read; none when more is needed.
    fn cut(&mut self, flush: Flush) -> Vec<Piece> {
        if self.framing.needs_byte_order() && self.offset == 0 {
            match *self.buffer {
                [first, second, ..] => self.framing = self.framing.for_file([first, second]),
                _ if flush == Flush::Wait => return Vec::new(),
                _ => {}
            }
        }
        let at = At { offset: self.offset, start: self.start, flush, written_behind: false };
        self.records.clear();
        let cutting = cut(&self.buffer, at, &self.limits, &self.framing, &mut self.records);
        self.offset += cutting.consumed as u64;
        self.start = cutting.after;
        let pieces = self.pieces(Flags::from_bits(cutting.flags));
        bytes::Buf::advance(&mut self.buffer, cutting.consumed);
        pieces
    }

    /// What was cut; the marks are those of a batch.
    fn pieces(&self, flags: Flags) -> Vec<Piece> {
        let count = self.records.len();
        let piece = |(at, body): (usize, &[u8])| Piece {
            body: Bytes::copy_from_slice(body),
            continued: at == 0 && flags.contains(Flags::FIRST_CONTINUED),
            split: at + 1 == count && flags.contains(Flags::LAST_SPLIT),
        };
        self.records.bodies().enumerate().map(piece).collect()
    }

    /// Hands over every record that there is.
    async fn pass(&mut self, flush: Flush, outlet: &Outlet) -> Result<(), Closed> {
        loop {
            let before = self.buffer.len();
            let pieces = self.cut(flush);
            outlet.send(pieces, None).await?;
            if self.buffer.len() == before {
                return Ok(());
            }
        }
    }
}

/// Reads to the end; a last line without terminator is a record. `patience` is how long a record waits for its next line
/// where lines are joined.
pub(super) async fn pump(
    mut source: impl AsyncRead + Unpin,
    mut cutter: Cutter,
    outlet: &Outlet,
    patience: Duration,
) -> Result<(), PumpError> {
    let mut idle: Pin<Box<_>> = Box::pin(sleep_until(Instant::now()));
    let mut result = Ok(());
    loop {
        cutter.buffer.reserve(READ_BYTES);
        let read = tokio::select! {
            biased;
            read = source.read_buf(&mut cutter.buffer) => read,
            () = idle.as_mut(), if cutter.may_wait() => {
                cutter.pass(Flush::Idle, outlet).await?;
                idle.as_mut().reset(Instant::now() + patience);
                continue;
            }
        };
        match read {
            Ok(0) => break,
            Ok(_) => cutter.pass(Flush::Wait, outlet).await?,
            Err(error) => {
                result = Err(PumpError::Read(error));
                break;
            }
        }
        idle.as_mut().reset(Instant::now() + patience);
    }
    cutter.pass(Flush::End, outlet).await?;
    result
}
