//! How text is written in a file. Bodies leave as UTF-8; offsets and lengths stay those of the file.

use std::borrow::Cow;

/// Encoding of the files of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, or bytes of any kind: they leave as they are.
    #[default]
    Utf8,
    /// UTF-16, little endian.
    Utf16Le,
    /// UTF-16, big endian.
    Utf16Be,
    /// UTF-16, as the byte order mark at the beginning of the file says; little endian without one.
    Utf16,
    /// ISO 8859-1.
    Latin1,
}

impl Encoding {
    /// Every encoding with the name by which settings know it.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("utf-8", Self::Utf8),
        ("utf-16", Self::Utf16),
        ("utf-16le", Self::Utf16Le),
        ("utf-16be", Self::Utf16Be),
        ("latin-1", Self::Latin1),
    ];

    /// The encoding of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, encoding)| *encoding)
    }

    /// Which UTF-16 it is, by the first bytes of a file.
    pub(super) fn resolved(self, first: [u8; 2]) -> Self {
        match self {
            Self::Utf16 if first == [0xfe, 0xff] => Self::Utf16Be,
            Self::Utf16 => Self::Utf16Le,
            Self::Utf8 | Self::Utf16Le | Self::Utf16Be | Self::Latin1 => self,
        }
    }

    /// Bytes of a code unit.
    pub(super) fn unit(self) -> usize {
        match self {
            Self::Utf8 | Self::Latin1 => 1,
            Self::Utf16 | Self::Utf16Le | Self::Utf16Be => 2,
        }
    }

    /// So many source bytes never become a body longer than `body_max`.
    pub(super) fn source_bytes(self, body_max: usize) -> usize {
        match self {
            Self::Utf8 => body_max,
            Self::Latin1 => body_max / 2,
            // A code unit becomes three bytes at most.
            Self::Utf16 | Self::Utf16Le | Self::Utf16Be => body_max / 3 * 2,
        }
    }

    /// The longest body that so many source bytes become.
    pub(super) fn body_bytes(self, source: usize) -> usize {
        match self {
            Self::Utf8 => source,
            Self::Latin1 => source * 2,
            Self::Utf16 | Self::Utf16Le | Self::Utf16Be => source.div_ceil(2) * 3,
        }
    }

    /// Bytes before the first record that are no text: a byte order mark, or a byte out of step.
    pub(super) fn lead(self, block: &[u8], offset: u64) -> usize {
        let mark: &[u8] = match self {
            Self::Utf8 | Self::Latin1 => return 0,
            Self::Utf16 | Self::Utf16Le => b"\xff\xfe",
            Self::Utf16Be => b"\xfe\xff",
        };
        match offset {
            0 if block.starts_with(mark) => 2,
            // The file was read in another encoding before.
            _ => usize::from(offset % 2 == 1 && !block.is_empty()),
        }
    }

    /// Bytes at the end of a piece of text that begin a character which goes on behind it.
    pub(super) fn parted(self, piece: &[u8]) -> usize {
        let from_unit: fn([u8; 2]) -> u16 = match self {
            Self::Latin1 => return 0,
            Self::Utf8 => return parted_utf8(piece),
            Self::Utf16 | Self::Utf16Le => u16::from_le_bytes,
            Self::Utf16Be => u16::from_be_bytes,
        };
        let is_lead = |last: &[u8; 2]| (0xd800..0xdc00).contains(&from_unit(*last));
        if piece.last_chunk().is_some_and(is_lead) { 2 } else { 0 }
    }

    /// How much of a piece that is as long as a record may be goes into one, so that no character is parted.
    pub(super) fn whole(self, piece: &[u8]) -> usize {
        match piece.len() - self.parted(piece) {
            // It has no room for a character.
            0 => piece.len(),
            whole => whole,
        }
    }

    /// Text as it stands in a file.
    pub(super) fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.into(),
            Self::Latin1 => text.chars().map(|letter| u8::try_from(letter).unwrap_or(b'?')).collect(),
            Self::Utf16 | Self::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Self::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }

    /// Bytes of a file as UTF-8, and how many code units were no text and became U+FFFD.
    pub(super) fn decode(self, bytes: &[u8]) -> (Cow<'_, [u8]>, usize) {
        let from_unit: fn([u8; 2]) -> u16 = match self {
            Self::Utf8 => return (Cow::Borrowed(bytes), 0),
            Self::Latin1 if bytes.is_ascii() => return (Cow::Borrowed(bytes), 0),
            Self::Latin1 => {
                let text: String = bytes.iter().copied().map(char::from).collect();
                return (Cow::Owned(text.into_bytes()), 0);
            }
            Self::Utf16 | Self::Utf16Le => u16::from_le_bytes,
            Self::Utf16Be => u16::from_be_bytes,
        };
        let (units, odd) = bytes.as_chunks::<2>();
        let mut replaced = 0;
        let mut text = String::with_capacity(bytes.len());
        for letter in char::decode_utf16(units.iter().map(|unit| from_unit(*unit))) {
            replaced += usize::from(letter.is_err());
            text.push(letter.unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if !odd.is_empty() {
            replaced += 1;
            text.push(char::REPLACEMENT_CHARACTER);
        }
        (Cow::Owned(text.into_bytes()), replaced)
    }
}

fn parted_utf8(piece: &[u8]) -> usize {
    // A character has four bytes at most, and only its first is none of those that go on.
    let last = &piece[piece.len().saturating_sub(3)..];
    let Some(first) = last.iter().rposition(|byte| byte & 0xc0 != 0x80) else { return 0 };
    let character = &last[first..];
    match str::from_utf8(character) {
        Err(error) if error.error_len().is_none() => character.len(),
        Ok(_) | Err(_) => 0,
    }
}
