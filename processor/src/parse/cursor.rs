//! A place in one line, moving only forward: what the hand-written parsers are made of.
//!
//! Every step is linear in the bytes it passes, and none copies. A step that fails leaves the cursor where it was.

use memchr::{memchr, memchr2};

/// The part of a line that is still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(line: &'a [u8]) -> Self {
        Self { rest: line }
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn peek(self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Passes `count` bytes, or all that are left.
    pub(super) fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.skip(1);
        }
        found
    }

    pub(super) fn literal(&mut self, text: &[u8]) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Passes spaces and tabs.
    pub(super) fn blanks(&mut self) {
        let blanks = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.skip(blanks);
    }

    /// What stands before `delimiter`, which is passed too.
    pub(super) fn until(&mut self, delimiter: u8) -> Option<&'a [u8]> {
        let at = memchr(delimiter, self.rest)?;
        let (before, after) = self.rest.split_at(at);
        self.rest = &after[1..];
        Some(before)
    }

    /// A token that is not empty and ends with a space, which is passed too.
    pub(super) fn token(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let token = ahead.until(b' ').filter(|token| !token.is_empty())?;
        *self = ahead;
        Some(token)
    }

    /// What stands between double quotes, still escaped; both quotes are passed. A backslash protects what follows it.
    pub(super) fn quoted(&mut self) -> Option<&'a [u8]> {
        let body = self.rest.strip_prefix(b"\"")?;
        let mut at = 0;
        loop {
            at += memchr2(b'"', b'\\', &body[at..])?;
            if body[at] == b'"' {
                break;
            }
            at += 2;
            if at > body.len() {
                return None;
            }
        }
        self.rest = &body[at + 1..];
        Some(&body[..at])
    }

    /// What stands in square brackets, inner brackets balanced; both are passed.
    pub(super) fn bracketed(&mut self) -> Option<&'a [u8]> {
        let body = self.rest.strip_prefix(b"[")?;
        let (mut depth, mut at) = (1_u32, 0);
        while depth > 0 {
            at += memchr2(b'[', b']', &body[at..])? + 1;
            depth = if body[at - 1] == b'[' { depth + 1 } else { depth - 1 };
        }
        self.rest = &body[at..];
        Some(&body[..at - 1])
    }

    /// One or more decimal digits, at most `most` of them: a longer run is no match.
    pub(super) fn digits(&mut self, most: usize) -> Option<&'a [u8]> {
        let count = self.rest.iter().take(most + 1).take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 || count > most {
            return None;
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        Some(digits)
    }
}

/// The value of decimal digits; None where one is no digit, or where there are none or more than eighteen.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |value, byte| match byte {
        b'0'..=b'9' => Some(value * 10 + u64::from(byte - b'0')),
        _ => None,
    })
}
