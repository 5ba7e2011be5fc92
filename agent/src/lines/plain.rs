//! Plain lines: LF or CRLF, bytes as they are.

use logmesh_proto::RecordsBuilder;
use memchr::memchr;

use super::{At, Beginning, Cutter, Encoding, Flush, Piece, Start};

/// See the module.
pub(super) struct Plain;

impl Cutter for Plain {
    fn begin(&self, block: &[u8], at: &At, _record_bytes_max: usize) -> Option<Beginning> {
        let skipped = match (at.start, block) {
            // Whole lines are all that was ever joined: what follows begins a record where nothing is joined any more.
            (Start::Fresh | Start::Joined, _) => {
                return Some(Beginning { skipped: 0, after: Start::Fresh, continued: false });
            }
            (_, [b'\n', ..]) => 1,
            (_, [b'\r', b'\n', ..]) => 2,
            (_, [b'\r']) if at.flush == Flush::End => 1,
            // A lone CR: with the next byte it will be clear whether it is half a terminator.
            (_, [b'\r']) => return None,
            _ => 0,
        };
        let after = if skipped > 0 { Start::Fresh } else { at.start };
        Some(Beginning { skipped, after, continued: skipped == 0 })
    }

    fn next(&self, rest: &[u8], _continued: bool, flush: Flush, record_bytes_max: usize) -> Option<Piece> {
        let too_long = || {
            let body = Encoding::Utf8.whole(&rest[..record_bytes_max]);
            Some(Piece { body, source: body, end: Start::Split, split: true })
        };
        // A body of the greatest length and CRLF: whatever has no LF in there is too long for one record.
        let window = &rest[..rest.len().min(record_bytes_max + 2)];
        if let Some(length) = memchr(b'\n', window) {
            let body = length - usize::from(length > 0 && window[length - 1] == b'\r');
            if body <= record_bytes_max {
                return Some(Piece { body, source: length + 1, end: Start::Fresh, split: false });
            }
            return too_long();
        }
        if window.len() == record_bytes_max + 2 {
            return too_long();
        }
        if flush == Flush::Wait || rest.is_empty() {
            return None;
        }
        // A CR at the end is half a terminator, most likely: it is left where it is, to be swallowed with its LF. So is half
        // a character, as a writer leaves it that writes whenever its buffer is full.
        let half = match (flush, rest) {
            (Flush::Idle, [.., b'\r']) => 1,
            (Flush::Idle, _) => Encoding::Utf8.parted(rest),
            (Flush::Wait | Flush::End, _) => 0,
        };
        let body = rest.len() - half;
        if body > record_bytes_max {
            return too_long();
        }
        (body > 0).then_some(Piece { body, source: body, end: Start::Unterminated, split: false })
    }

    fn body_bytes(&self, source: usize) -> usize {
        source
    }

    fn is_padding(&self, rest: &[u8]) -> bool {
        rest.first() == Some(&0)
    }

    fn push(&self, body: &[u8], source: usize, records: &mut RecordsBuilder) -> usize {
        records.push(body, u32::try_from(source).unwrap_or(u32::MAX));
        0
    }

    fn split_body<'a>(&self, range: &'a [u8]) -> &'a [u8] {
        range
    }
}
