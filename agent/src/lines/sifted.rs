//! Cutting where some records are dropped at the source.
//!
//! A dropped record belongs to the record before it, as a terminator does: the source length of that one reaches over
//! it, so that offsets stay what they are and intervals of bytes stay whole. Dropped records with no kept one before
//! them in the block are a cut of their own without any record. So a cut begins with a kept record, or has none.
//!
//! What is part of a record that was parted is kept unasked, for its other parts are in other cuts.

use logmesh_proto::{Flags, RecordsBuilder};

use super::{At, CutLimits, Cutter, Cutting, Piece, Pieces, Start, flags};
use crate::sift::{Reason, Sifter};

/// A kept record whose source length may still grow.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// Where in the block it begins.
    begin: usize,
    body: usize,
    source: usize,
}

impl Kept {
    fn push(self, cutter: &impl Cutter, block: &[u8], records: &mut RecordsBuilder) -> usize {
        cutter.push(&block[self.begin..self.begin + self.body], self.source, records)
    }
}

/// As the cut without a sifter, with what was dropped.
pub(super) fn cut_by(
    cutter: &impl Cutter,
    block: &[u8],
    at: At,
    limits: &CutLimits,
    sifter: &Sifter<'_>,
    records: &mut RecordsBuilder,
) -> Cutting {
    let nothing = Cutting { after: at.start, ..Cutting::default() };
    let Some(begin) = cutter.begin(block, &at, limits.record_bytes_max) else { return nothing };
    let mut cutting = Cutting { skipped: begin.skipped, consumed: begin.skipped, after: begin.after, ..nothing };
    let mut last: Option<Kept> = None;
    let (mut count, mut bytes, mut split) = (0, 0, false);
    loop {
        let from = cutting.consumed;
        let is_first = from == begin.skipped;
        let rest = &block[from..];
        if (!is_first || begin.skipped > 0) && cutter.is_padding(rest) {
            break;
        }
        let continued = is_first && begin.continued;
        let Some(piece) = cutter.next(rest, continued, at.flush, limits.record_bytes_max) else { break };
        let dropped = judge(cutter, sifter, &rest[..piece.body], piece, continued, at.offset + from as u64);
        match (dropped, &mut last) {
            (Some(reason), kept) => {
                cutting.dropped.note(reason, piece.source);
                if let Some(kept) = kept {
                    kept.source += piece.source;
                }
            }
            // What was dropped so far is a cut of its own.
            (None, None) if !is_first => break,
            (None, kept) => {
                let body_bytes = cutter.body_bytes(piece.body);
                let full = count >= limits.batch_records_max || bytes + body_bytes > limits.batch_bytes_max;
                // A record that was split is alone in its batch.
                if count > 0 && (full || piece.split) {
                    break;
                }
                let before = kept.replace(Kept { begin: from, body: piece.body, source: piece.source });
                cutting.replaced += before.map_or(0, |before| before.push(cutter, block, records));
                (count, bytes, split) = (count + 1, bytes + body_bytes, piece.split);
            }
        }
        cutting.consumed += piece.source;
        cutting.after = piece.end;
        if piece.end != Start::Fresh {
            break;
        }
    }
    if let Some(last) = last {
        cutting.replaced += last.push(cutter, block, records);
        cutting.flags = flags(begin.continued, cutting.after, split).bits();
    }
    cutting
}

/// Cuts a range again that was cut before at `offset`.
pub(super) fn recut_by(
    cutter: &impl Cutter,
    range: &[u8],
    flags: Flags,
    sifter: &Sifter<'_>,
    offset: u64,
    records: &mut RecordsBuilder,
) {
    let mut last: Option<Kept> = None;
    for (begin, piece, is_kept) in verdicts(cutter, range, flags, sifter, offset) {
        if is_kept {
            let kept = Kept { begin, body: piece.body, source: piece.source };
            if let Some(before) = last.replace(kept) {
                before.push(cutter, range, records);
            }
        } else if let Some(kept) = &mut last {
            kept.source += piece.source;
        }
    }
    if let Some(last) = last {
        last.push(cutter, range, records);
    }
}

/// Where the kept record with this index begins.
pub(super) fn boundary_by(
    cutter: &impl Cutter,
    range: &[u8],
    flags: Flags,
    sifter: &Sifter<'_>,
    offset: u64,
    index: usize,
) -> Option<usize> {
    let kept = verdicts(cutter, range, flags, sifter, offset).filter(|(_, _, is_kept)| *is_kept);
    kept.map(|(begin, ..)| begin).nth(index)
}

/// The records of a range that was cut before, each with where it begins and whether it is kept. The first one always
/// is: it was, and a batch that is built again begins where it began, whatever the rules say by now.
fn verdicts<'a, C: Cutter>(
    cutter: &'a C,
    range: &'a [u8],
    flags: Flags,
    sifter: &'a Sifter<'_>,
    offset: u64,
) -> impl Iterator<Item = (usize, Piece, bool)> + 'a {
    Pieces::new(cutter, range, flags).map(move |(begin, piece)| {
        let body = &range[begin..begin + piece.body];
        let is_kept = begin == 0 || judge(cutter, sifter, body, piece, false, offset + begin as u64).is_none();
        (begin, piece, is_kept)
    })
}

fn judge(
    cutter: &impl Cutter,
    sifter: &Sifter<'_>,
    body: &[u8],
    piece: Piece,
    continued: bool,
    offset: u64,
) -> Option<Reason> {
    let is_parted = continued || piece.split || matches!(piece.end, Start::Unterminated | Start::Split);
    if is_parted {
        return None;
    }
    cutter.with_text(body, |text| sifter.judge(text, offset))
}
