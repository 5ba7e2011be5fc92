//! Where a page ended: opaque to clients, and enough to give the next page without any state here.
//!
//! A cursor holds the sort key of the last hit, the view's sequence bound and the times as they were resolved for the
//! first page: a document that was written later is on no page, and `now-15m` does not move from page to page. So a
//! sequence of pages yields no hit twice and misses none while indexing goes on. (A document replaced in between
//! counts as written later.)
//!
//! Format: base64url of version (1 byte), order (1 byte), seven numbers of 8 bytes each, little endian (time and sequence
//! of the last hit, sequence bounds, from, to, XXH3-64 of the query), and their XXH3-64.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use xxhash_rust::xxh3::xxh3_64;

use super::run::{Order, Rank, Window};

const VERSION: u8 = 1;
const BYTES: usize = 2 + 7 * 8 + 8;

/// Where a page ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) order: Order,
    pub(crate) last: Rank,
    pub(crate) window: Window,
    query: u64,
}

impl Cursor {
    pub(crate) fn new(order: Order, last: Rank, window: Window, query: &str) -> Self {
        Self { order, last, window, query: xxh3_64(query.as_bytes()) }
    }

    pub(crate) fn is_of(&self, query: &str) -> bool {
        self.query == xxh3_64(query.as_bytes())
    }

    pub(crate) fn encode(&self) -> String {
        let descending = matches!(self.order, Order::NewestFirst);
        let mut bytes = vec![VERSION, u8::from(descending)];
        let window = &self.window;
        for number in [
            self.last.time as u64,
            self.last.sequence,
            window.since,
            window.sequence_end,
            window.from as u64,
            window.to as u64,
            self.query,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let hash = xxh3_64(&bytes);
        bytes.extend_from_slice(&hash.to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor; `None` for anything that no page gave.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let bytes: [u8; BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        if bytes[0] != VERSION || xxh3_64(&bytes[..BYTES - 8]) != number(BYTES - 8) {
            return None;
        }
        let order = if bytes[1] == 1 { Order::NewestFirst } else { Order::OldestFirst };
        let last = Rank { time: number(2) as i64, sequence: number(10) };
        let (from, to) = (number(34) as i64, number(42) as i64);
        let window = Window { since: number(18), sequence_end: number(26), from, to };
        Some(Self { order, last, window, query: number(50) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_any_other_text_is_refused() {
        let window = Window { from: -5, to: i64::MAX, since: 3, sequence_end: 99 };
        let cursor = Cursor::new(Order::NewestFirst, Rank { time: -1, sequence: 7 }, window, "level:error");
        let text = cursor.encode();
        assert_eq!(Cursor::decode(&text), Some(cursor));
        assert!(cursor.is_of("level:error") && !cursor.is_of("level:warn"));
        assert_eq!(Cursor::decode(""), None);
        assert_eq!(Cursor::decode("%%%"), None);
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(Cursor::decode(std::str::from_utf8(&changed).unwrap()), None);
        }
    }
}
