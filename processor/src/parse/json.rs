//! JSON, one object a line, read in one pass without building a tree.
//!
//! Strict (RFC 8259): the whole line is one object, numbers and escapes are well-formed, surrogates come in pairs, control
//! bytes are escaped, and nothing is nested deeper than [`DEPTH_MAX`]. The members of the outermost object are noted as
//! places in the line; what is nested is validated and walked again by whoever wants it. UTF-8 is the caller's matter.

use super::keys::{Kind, Member, Value};
use super::{Detail, Format, Input, MEMBERS_MAX, Parsed, keys};

/// Deepest nesting that is taken for JSON; a line that goes deeper is text.
const DEPTH_MAX: u32 = 64;

pub(super) fn parse<'a>(input: &mut Input<'a, '_>) -> Option<Parsed<'a>> {
    let line = input.line;
    u32::try_from(line.len()).ok()?;
    let scratch = &mut *input.scratch;
    scratch.members.clear();
    scratch.overflow = false;
    let mut scan = Scan::new(line);
    if scan.open()? != b'{' {
        return None;
    }
    while let Some((key, value)) = scan.member()? {
        if scratch.members.len() < MEMBERS_MAX {
            scratch.members.push(Member::new(line, key, value));
        } else {
            scratch.overflow = true;
        }
    }
    if !scan.at_end() {
        return None;
    }
    let parsed = Parsed { detail: Detail::Members { base: line }, ..Parsed::new(Format::Json) };
    Some(keys::recognise(parsed, line, scratch, input.observed_unix_nano))
}

/// Number of leading bytes that stand in a JSON string as they are: no quote, no backslash, no control byte.
#[inline]
pub(crate) fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut chunks = bytes.chunks_exact(8);
    let mut at = 0;
    for chunk in chunks.by_ref() {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        // The lowest marked byte is exact; marks above it may be carries, which do not matter.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let quote = zero(word ^ (ONES * 0x22));
        let backslash = zero(word ^ (ONES * 0x5c));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let marks = (quote | backslash | control) & HIGHS;
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..=0x1f);
    at + chunks.remainder().iter().take_while(plain).count()
}

/// A walk through JSON text. Each step validates what it passes, and gives None where the text is not JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    /// The next member or element is the first of its container.
    first: bool,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, first: true }
    }

    /// Enters the object or array that the text begins with.
    pub(crate) fn open(&mut self) -> Option<u8> {
        self.blanks();
        let bracket = *self.text.get(self.at).filter(|byte| matches!(byte, b'{' | b'['))?;
        self.at += 1;
        self.first = true;
        Some(bracket)
    }

    /// The next member of the object that was entered, or `Some(None)` at its end.
    pub(crate) fn member(&mut self) -> Option<Option<(&'a [u8], Value<'a>)>> {
        match self.key()? {
            Some(key) => Some(Some((key, self.value()?))),
            None => Some(None),
        }
    }

    /// The next key of the object that was entered, or `Some(None)` at its end, which is passed. The value comes next:
    /// [`Self::value`] passes it, [`Self::open`] enters it.
    pub(crate) fn key(&mut self) -> Option<Option<&'a [u8]>> {
        if self.ends(b'}')? {
            return Some(None);
        }
        let key = self.string()?;
        self.blanks();
        self.byte(b':')?;
        self.blanks();
        Some(Some(key))
    }

    /// Whether another element of the array that was entered comes next; its end is passed.
    pub(crate) fn element(&mut self) -> Option<bool> {
        Some(!self.ends(b']')?)
    }

    /// What the value that comes next begins with.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Only blanks are left.
    fn at_end(&mut self) -> bool {
        self.blanks();
        self.at == self.text.len()
    }

    /// Passes the container's end, or the comma before its next part.
    fn ends(&mut self, bracket: u8) -> Option<bool> {
        self.blanks();
        let byte = *self.text.get(self.at)?;
        if byte == bracket {
            self.at += 1;
            self.first = false;
            return Some(true);
        }
        if !self.first {
            self.byte(b',')?;
            self.blanks();
        }
        self.first = false;
        Some(false)
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        (self.text.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// Passes the value that comes next, with all that is in it.
    pub(crate) fn value(&mut self) -> Option<Value<'a>> {
        let start = self.at;
        let kind = match *self.text.get(self.at)? {
            b'"' => return Some(Value { kind: Kind::String, text: self.string()? }),
            b'{' => {
                self.nested()?;
                Kind::Object
            }
            b'[' => {
                self.nested()?;
                Kind::Array
            }
            _ => self.scalar()?,
        };
        Some(Value { kind, text: &self.text[start..self.at] })
    }

    /// A number, true, false or null.
    fn scalar(&mut self) -> Option<Kind> {
        let rest = &self.text[self.at..];
        let (kind, length) = match rest.first()? {
            b't' => (Kind::Literal, rest.starts_with(b"true").then_some(4)?),
            b'f' => (Kind::Literal, rest.starts_with(b"false").then_some(5)?),
            b'n' => (Kind::Literal, rest.starts_with(b"null").then_some(4)?),
            _ => (Kind::Number, number(rest)?),
        };
        self.at += length;
        Some(kind)
    }

    /// Passes an object or array with all that is in it, without recursion: one bit for each level says which it is.
    fn nested(&mut self) -> Option<()> {
        let (mut objects, mut depth) = (0_u64, 0_u32);
        loop {
            // Here stands a value.
            match *self.text.get(self.at)? {
                bracket @ (b'{' | b'[') => {
                    if depth == DEPTH_MAX {
                        return None;
                    }
                    objects = (objects << 1) | u64::from(bracket == b'{');
                    depth += 1;
                    self.at += 1;
                    self.first = true;
                }
                b'"' => {
                    self.string()?;
                }
                _ => {
                    self.scalar()?;
                }
            }
            // Here stands a comma or an end, and after ends perhaps another.
            loop {
                let object = objects & 1 == 1;
                if !self.ends(if object { b'}' } else { b']' })? {
                    if object {
                        self.string()?;
                        self.blanks();
                        self.byte(b':')?;
                        self.blanks();
                    }
                    break;
                }
                objects >>= 1;
                depth -= 1;
                if depth == 0 {
                    return Some(());
                }
            }
        }
    }

    /// The inside of a string.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.byte(b'"')?;
        let start = self.at;
        loop {
            self.at += plain_prefix(&self.text[self.at..]);
            match *self.text.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.text[start..self.at - 1]);
                }
                b'\\' => self.at += escape(&self.text[self.at..])?,
                _ => return None,
            }
        }
    }
}

/// Length of the escape that the text begins with.
pub(crate) fn escape(text: &[u8]) -> Option<usize> {
    match text.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => match code_unit(text.get(2..6)?)? {
            0xd800..=0xdbff => {
                let low = text.get(6..12).filter(|low| low.starts_with(b"\\u"))?;
                (0xdc00..=0xdfff).contains(&code_unit(&low[2..])?).then_some(12)
            }
            0xdc00..=0xdfff => None,
            _ => Some(6),
        },
        _ => None,
    }
}

/// Four hexadecimal digits.
pub(crate) fn code_unit(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |unit: u16, byte| {
        let digit = char::from(*byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok())?;
        Some((unit << 4) | digit)
    })
}

/// Length of the number that the text begins with.
fn number(text: &[u8]) -> Option<usize> {
    let digits = |at: usize| text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let places = digits(at + 1);
        if places == 0 {
            return None;
        }
        at += 1 + places;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = text.get(at..).map_or(0, |_| digits(at));
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    Some(at)
}
