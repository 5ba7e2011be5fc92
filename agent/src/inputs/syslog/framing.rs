//! Where a syslog message ends in a stream (RFC 6587): octet counting (`MSG-LEN SP MSG`) or a line feed, told apart for
//! each message by how it begins.
//!
//! Pure: bytes in, messages out, the same messages however the bytes were cut into reads. A counted message is handed on
//! byte by byte as it came; of the other kind the LF, with or without CR, is no part of it, and empty ones are none.
//! Messages longer than `record_bytes_max` come in pieces of that length, marked as such, so that the bytes held are
//! bounded; shorter ones do where there is no room for what has come of them.
//!
//! Senders that count are known to put a line end behind a counted message that they did not count; it is skipped. What
//! else follows a counted message and begins no other (neither a count nor `<`) means that sender and receiver disagree
//! about where messages end: a [`FramingError`], and the connection cannot be gone on with. Without a counted message
//! before it, whatever does not begin with a count is a line.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;
use thiserror::Error;

use crate::inputs::outlet::Piece;

/// A count has no more digits.
const COUNT_DIGITS_MAX: usize = 7;

/// See the module.
#[derive(Debug)]
pub(super) struct Framer {
    /// What was read and is not a message yet.
    pub(super) buffer: BytesMut,
    within: Within,
    /// Whether a counted message came before.
    counts: bool,
    /// Bytes of the buffer that are known to hold no LF.
    scanned: usize,
    /// Whether the last piece was not the last of its message.
    split: bool,
    record_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// Between two messages.
    Nothing,
    /// A message that ends in LF.
    Line,
    /// A counted one, of which so many bytes are to come.
    Counted(usize),
}

/// Sender and receiver disagree about where messages end.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a counted message is followed by what begins no message; does its sender count characters instead of bytes?")]
pub(super) struct FramingError;

/// How a message begins.
enum Head {
    Count {
        octets: usize,
        digits: usize,
    },
    Line,
    /// More bytes are needed.
    Unclear,
}

impl Framer {
    pub(super) fn new(record_bytes_max: usize) -> Self {
        let (buffer, within) = (BytesMut::new(), Within::Nothing);
        Self { buffer, within, counts: false, scanned: 0, split: false, record_bytes_max }
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_within(&self) -> bool {
        self.within != Within::Nothing || !self.buffer.is_empty()
    }

    /// The next message or piece of one; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, FramingError> {
        loop {
            match self.within {
                Within::Nothing => {
                    if !self.begin()? {
                        return Ok(None);
                    }
                }
                Within::Counted(0) => self.within = Within::Nothing,
                Within::Counted(left) => {
                    let piece = left.min(self.record_bytes_max);
                    if self.buffer.len() < piece {
                        return Ok(None);
                    }
                    self.within = Within::Counted(left - piece);
                    return Ok(Some(self.take(piece, piece < left)));
                }
                Within::Line => match self.line() {
                    Some(line) if line.body.is_empty() => {}
                    line => return Ok(line),
                },
            }
        }
    }

    /// What has come of a message whose end has not, as a piece of it: all but its last byte, so that no piece is empty.
    pub(super) fn spill(&mut self) -> Option<Piece> {
        // A CR may belong to the end of the line.
        let kept = if self.within == Within::Line && self.buffer.ends_with(b"\r") { 2 } else { 1 };
        let length = self.buffer.len().checked_sub(kept).filter(|length| *length > 0)?;
        match &mut self.within {
            Within::Nothing => return None,
            Within::Line => {}
            Within::Counted(left) => *left -= length,
        }
        Some(self.take(length, true))
    }

    /// At the end of the stream: what is left of a message whose end did not come, and whether its end was owed.
    pub(super) fn end(&mut self) -> (Vec<Piece>, bool) {
        let owed = matches!(self.within, Within::Counted(1..));
        let mut rest = Vec::new();
        while !self.buffer.is_empty() {
            let length = self.buffer.len().min(self.record_bytes_max);
            rest.push(self.take(length, length < self.buffer.len()));
        }
        self.within = Within::Nothing;
        (rest, owed)
    }

    /// Finds out how the next message is framed; `false` when more bytes are needed.
    fn begin(&mut self) -> Result<bool, FramingError> {
        let between = |byte: &u8| *byte == b'\n' || (self.counts && matches!(byte, b'\r' | b'\0'));
        let skipped = self.buffer.iter().take_while(|byte| between(byte)).count();
        self.buffer.advance(skipped);
        match head(&self.buffer) {
            Head::Unclear => return Ok(false),
            Head::Count { octets, digits } => {
                self.buffer.advance(digits + 1);
                self.within = Within::Counted(octets);
                self.counts = true;
            }
            Head::Line if self.counts && self.buffer[0] != b'<' => return Err(FramingError),
            Head::Line => {
                self.within = Within::Line;
                self.scanned = 0;
            }
        }
        Ok(true)
    }

    /// The line at the beginning of the buffer without its end, or a piece of it.
    fn line(&mut self) -> Option<Piece> {
        let window = &self.buffer[..self.buffer.len().min(self.record_bytes_max + 2)];
        if let Some(found) = memchr(b'\n', &window[self.scanned..]) {
            let end = self.scanned + found;
            let body = end - usize::from(end > 0 && window[end - 1] == b'\r');
            if body <= self.record_bytes_max {
                let line = self.take(body, false);
                self.buffer.advance(end + 1 - body);
                self.within = Within::Nothing;
                return Some(line);
            }
        } else if window.len() < self.record_bytes_max + 2 {
            self.scanned = window.len();
            return None;
        }
        Some(self.take(self.record_bytes_max, true))
    }

    /// A copy, so that a short message does not hold on to the room that it was read into. `split` says that its message
    /// goes on.
    fn take(&mut self, length: usize, split: bool) -> Piece {
        let body = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        self.scanned = 0;
        Piece { body, continued: std::mem::replace(&mut self.split, split), split }
    }
}

fn head(buffer: &[u8]) -> Head {
    let digits = buffer.iter().take(COUNT_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    match (buffer.first(), buffer.get(digits)) {
        (None, _) => Head::Unclear,
        // A count does not begin with zero.
        (Some(b'1'..=b'9'), None) if digits <= COUNT_DIGITS_MAX => Head::Unclear,
        (Some(b'1'..=b'9'), Some(b' ')) if digits <= COUNT_DIGITS_MAX => {
            let octets = buffer[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            Head::Count { octets, digits }
        }
        _ => Head::Line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 32;

    /// What a stream comes to, cut into reads of these sizes in turn.
    fn messages(stream: &[u8], reads: &[usize]) -> (Vec<Piece>, Option<FramingError>, bool) {
        let mut framer = Framer::new(MAX);
        let (mut found, mut rest, mut sizes) = (Vec::new(), stream, reads.iter().cycle());
        while !rest.is_empty() {
            let size = (*sizes.next().unwrap()).clamp(1, rest.len());
            framer.buffer.extend_from_slice(&rest[..size]);
            rest = &rest[size..];
            loop {
                match framer.next() {
                    Ok(Some(message)) => found.push(message),
                    Ok(None) => break,
                    Err(error) => {
                        // What is left differs with the reads: the connection ends here.
                        return (found, Some(error), false);
                    }
                }
            }
        }
        let (rest, owed) = framer.end();
        found.extend(rest);
        (found, None, owed)
    }

    fn whole(stream: &str) -> Vec<String> {
        let (found, error, _) = messages(stream.as_bytes(), &[usize::MAX]);
        assert_eq!(error, None);
        found.iter().map(|piece| String::from_utf8_lossy(&piece.body).into_owned()).collect()
    }

    #[test]
    fn each_message_is_framed_by_how_it_begins() {
        assert_eq!(
            whole("<13>a\n<14>b\r\n8 <15>c\nd <16>e\n6 <17>fg"),
            ["<13>a", "<14>b", "<15>c\nd ", "<16>e", "<17>fg"]
        );
        assert_eq!(whole("6 <15>ab\n6 <15>cd\r\n<16>e"), ["<15>ab", "<15>cd", "<16>e"], "an uncounted line end");
        assert_eq!(whole("\n\n<13>a\n\n\r\n<13>b\n"), ["<13>a", "<13>b"], "an empty line is no message");
        assert_eq!(whole("2024-01-01 text\n12345678 text\n0 text\n"), ["2024-01-01 text", "12345678 text", "0 text"]);
        assert_eq!(whole("<13>no end"), ["<13>no end"]);
    }

    #[test]
    fn what_is_too_long_comes_in_pieces() {
        let long = "x".repeat(MAX);
        assert_eq!(whole(&format!("<1>{long}\n<2>b\n")), [format!("<1>{}", &long[3..]), "xxx".into(), "<2>b".into()]);
        assert_eq!(whole(&format!("{long}\r\n<2>b\n")), [long.clone(), "<2>b".into()]);
        assert_eq!(whole(&format!("{} {long}7 y<2>b\n", MAX + 3)), [long.clone(), "7 y".into(), "<2>b".into()]);
        assert_eq!(
            whole(&format!("{long}9 <1>abc\n")),
            [long.clone(), "9 <1>abc".into()],
            "its rest is no new message"
        );
    }

    #[test]
    fn a_sender_that_miscounts_is_found_out_and_a_cut_message_is_owed() {
        assert_eq!(messages(b"5 <15>abc6 <15>de", &[100]).1, Some(FramingError));
        let (found, error, owed) = messages(b"9 <15>abc", &[100]);
        assert_eq!((found, error, owed), (vec![Piece::whole(Bytes::from_static(b"<15>abc"))], None, true));
    }

    #[test]
    fn each_piece_says_whether_its_message_began_before_it_and_whether_it_goes_on() {
        let long = "x".repeat(2 * MAX + 1);
        let marks = |stream: String| -> Vec<_> {
            let (found, _, _) = messages(stream.as_bytes(), &[usize::MAX]);
            found.iter().map(|piece| (piece.body.len(), piece.continued, piece.split)).collect()
        };
        let pieces = [(MAX, false, true), (MAX, true, true), (1, true, false), (4, false, false)];
        assert_eq!(marks(format!("{long}\n<2>b\n")), pieces);
        assert_eq!(marks(format!("{} {long}<2>b\n", long.len())), pieces);
        assert_eq!(marks(format!("{} {}<2>b\n", 2 * MAX, &long[1..])), [pieces[0], (MAX, true, false), pieces[3]]);
        assert_eq!(marks(format!("100 {long}")), pieces[..3], "what came of a message whose end did not");
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let body =
            prop::collection::vec(prop_oneof![Just(b'<'), Just(b'\r'), Just(b' '), Just(b'7'), any::<u8>()], 0..80);
        let message = (body, any::<bool>(), any::<bool>()).prop_map(|(mut body, counted, garbled)| {
            if !counted {
                body.retain(|byte| *byte != b'\n');
            }
            if !garbled {
                body.splice(0..0, *b"<13>");
            }
            match counted {
                true => [format!("{} ", body.len()).into_bytes(), body].concat(),
                false => [body, b"\n".to_vec()].concat(),
            }
        });
        prop::collection::vec(message, 0..8).prop_map(|messages| messages.concat())
    }

    proptest! {
        #[test]
        fn the_same_messages_come_out_however_the_stream_is_cut(
            stream in stream(), reads in prop::collection::vec(1usize..20, 1..20),
        ) {
            prop_assert_eq!(messages(&stream, &[usize::MAX]), messages(&stream, &reads));
        }

        #[test]
        fn well_framed_messages_come_out_as_they_went_in(
            bodies in prop::collection::vec((any::<bool>(), "[a-z 0-9é]{0,20}"), 0..20),
            reads in prop::collection::vec(1usize..20, 1..20),
        ) {
            let bodies: Vec<_> = bodies.iter().map(|(counted, text)| (*counted, format!("<1>{text}"))).collect();
            let stream: String = bodies.iter().map(|(counted, text)| match counted {
                true => format!("{} {text}", text.len()),
                false => format!("{text}\n"),
            }).collect();
            let (found, error, owed) = messages(stream.as_bytes(), &reads);
            prop_assert_eq!((error, owed), (None, false));
            let pieces = bodies.iter().flat_map(|(_, text)| text.as_bytes().chunks(MAX));
            prop_assert!(found.iter().map(|piece| &piece.body[..]).eq(pieces), "{:?} of {:?}", found, bodies);
        }

        #[test]
        fn the_pieces_of_a_message_for_which_there_is_no_room_add_up_to_it(
            stream in stream(), reads in prop::collection::vec((1usize..20, any::<bool>()), 1..20),
        ) {
            let joined = |pieces: Vec<Piece>| -> Vec<Vec<u8>> {
                pieces.into_iter().fold(Vec::new(), |mut messages, piece| {
                    match messages.last_mut().filter(|_| piece.continued) {
                        Some(last) => last.extend_from_slice(&piece.body),
                        None => messages.push(piece.body.to_vec()),
                    }
                    messages
                })
            };
            let (mut framer, mut found, mut rest) = (Framer::new(MAX), Vec::new(), &stream[..]);
            for (size, spills) in reads.iter().cycle() {
                let (read, behind) = rest.split_at((*size).min(rest.len()));
                if read.is_empty() {
                    break;
                }
                framer.buffer.extend_from_slice(read);
                rest = behind;
                loop {
                    match framer.next() {
                        Ok(Some(piece)) => found.push(piece),
                        Ok(None) => break,
                        Err(FramingError) => return Ok(()),
                    }
                }
                if *spills {
                    found.extend(framer.spill());
                }
            }
            found.extend(framer.end().0);
            prop_assert!(found.iter().all(|piece| !piece.body.is_empty() && piece.body.len() <= MAX));
            prop_assert!(found.windows(2).all(|pair| pair[0].split == pair[1].continued), "{:?}", found);
            prop_assert_eq!(joined(found), joined(messages(&stream, &[usize::MAX]).0));
        }

        #[test]
        fn no_stream_makes_it_hold_more_than_a_record(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut framer = Framer::new(MAX);
            for byte in bytes {
                framer.buffer.extend_from_slice(&[byte]);
                loop {
                    match framer.next() {
                        Ok(Some(piece)) => prop_assert!(piece.body.len() <= MAX),
                        Ok(None) => break,
                        Err(FramingError) => return Ok(()),
                    }
                }
                prop_assert!(framer.buffer.len() < MAX + 2);
            }
        }
    }
}
