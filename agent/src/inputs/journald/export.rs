//! The journal export format (<https://systemd.io/JOURNAL_EXPORT_FORMATS/>).
//!
//! A field is a line `KEY=value`; or, where its value may hold anything, a line `KEY`, the value's length as 64 bits in
//! little endian, the value, and a line feed. An empty line ends an entry.
//!
//! Pure: bytes in, entries out, the same entries however the bytes were cut into reads. Of the values of one entry
//! [`ENTRY_BYTES_MAX`] bytes are kept (a core dump in the journal has hundreds of megabytes); how many more a value had is
//! counted with it. An entry whose end did not come is none: its cursor is not passed on, so that it is read again.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::{memchr, memchr2};
use thiserror::Error;

/// What is kept of the values of one entry.
pub(super) const ENTRY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longer names are none: systemd allows 64 bytes.
const NAME_BYTES_MAX: usize = 256;
/// systemd allows 1024 fields.
const FIELDS_MAX: usize = 4096;

/// One entry of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its fields, in order; a name may be there more than once. Never the cursor.
    pub(super) fields: Vec<Field>,
    /// Where it stands.
    pub(super) cursor: Option<Bytes>,
}

/// One field of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    /// Its value, or the beginning of it.
    pub(super) value: Vec<u8>,
    /// How many bytes of the value are not kept.
    pub(super) omitted: u64,
}

/// What came is no journal in the export format.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum ExportError {
    #[error("a field has no name, or one longer than {NAME_BYTES_MAX} bytes")]
    Name,
    #[error("no line feed behind a value with a length")]
    ValueEnd,
    #[error("an entry has more than {FIELDS_MAX} fields")]
    Fields,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// What was read and is not parsed yet.
    pub(super) buffer: BytesMut,
    within: Within,
    entry: Entry,
    kept: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    /// Where a field or the end of the entry begins.
    #[default]
    Name,
    /// A value that ends with its line.
    Line,
    /// The length of a value.
    Length,
    /// A value of which so many bytes are to come.
    Value(u64),
    /// The line feed behind such a value.
    ValueEnd,
}

impl Parser {
    /// The next entry; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ExportError> {
        loop {
            let advanced = match self.within {
                Within::Name => match self.name()? {
                    Some(Ended::Entry) if self.entry == Entry::default() => true,
                    Some(Ended::Entry) => {
                        self.kept = 0;
                        return Ok(Some(std::mem::take(&mut self.entry)));
                    }
                    Some(Ended::Name) => true,
                    None => false,
                },
                Within::Line => self.line(),
                Within::Length => self.length(),
                Within::Value(left) => self.value(left),
                Within::ValueEnd => self.value_end()?,
            };
            if !advanced {
                return Ok(None);
            }
        }
    }

    fn name(&mut self) -> Result<Option<Ended>, ExportError> {
        let window = &self.buffer[..self.buffer.len().min(NAME_BYTES_MAX + 1)];
        let Some(end) = memchr2(b'=', b'\n', window) else {
            return if window.len() > NAME_BYTES_MAX { Err(ExportError::Name) } else { Ok(None) };
        };
        let by_line = window[end] == b'=';
        if end == 0 {
            self.buffer.advance(1);
            return if by_line { Err(ExportError::Name) } else { Ok(Some(Ended::Entry)) };
        }
        if self.entry.fields.len() >= FIELDS_MAX {
            return Err(ExportError::Fields);
        }
        let name = String::from_utf8_lossy(&window[..end]).into_owned();
        self.buffer.advance(end + 1);
        self.entry.fields.push(Field { name, value: Vec::new(), omitted: 0 });
        self.within = if by_line { Within::Line } else { Within::Length };
        Ok(Some(Ended::Name))
    }

    fn line(&mut self) -> bool {
        let end = memchr(b'\n', &self.buffer);
        self.keep(end.unwrap_or(self.buffer.len()));
        if end.is_none() {
            return false;
        }
        self.buffer.advance(1);
        self.end_field();
        true
    }

    fn length(&mut self) -> bool {
        if self.buffer.len() < 8 {
            return false;
        }
        self.within = Within::Value(self.buffer.get_u64_le());
        true
    }

    fn value(&mut self, left: u64) -> bool {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
        self.keep(here);
        let left = left - here as u64;
        self.within = if left == 0 { Within::ValueEnd } else { Within::Value(left) };
        left == 0
    }

    fn value_end(&mut self) -> Result<bool, ExportError> {
        match self.buffer.first() {
            None => return Ok(false),
            Some(b'\n') => self.buffer.advance(1),
            Some(_) => return Err(ExportError::ValueEnd),
        }
        self.end_field();
        Ok(true)
    }

    /// Moves bytes of the value from the buffer to the field.
    fn keep(&mut self, length: usize) {
        let room = length.min(ENTRY_BYTES_MAX - self.kept);
        if let Some(field) = self.entry.fields.last_mut() {
            field.value.extend_from_slice(&self.buffer[..room]);
            field.omitted += (length - room) as u64;
        }
        self.kept += room;
        self.buffer.advance(length);
    }

    fn end_field(&mut self) {
        self.within = Within::Name;
        if self.entry.fields.last().is_some_and(|field| field.name == "__CURSOR")
            && let Some(field) = self.entry.fields.pop()
        {
            self.entry.cursor = Some(field.value.into());
        }
    }
}

/// What the end of a name was.
enum Ended {
    Name,
    Entry,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8], reads: &[usize]) -> (Vec<Entry>, Option<ExportError>) {
        let (mut parser, mut found, mut rest) = (Parser::default(), Vec::new(), bytes);
        let mut sizes = reads.iter().cycle();
        while !rest.is_empty() {
            let size = (*sizes.next().unwrap()).clamp(1, rest.len());
            parser.buffer.extend_from_slice(&rest[..size]);
            rest = &rest[size..];
            loop {
                match parser.next() {
                    Ok(Some(entry)) => found.push(entry),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    }

    fn field(name: &str, value: &[u8]) -> Field {
        Field { name: name.into(), value: value.into(), omitted: 0 }
    }

    #[test]
    fn fields_by_line_and_by_length_are_read_and_half_an_entry_is_none() {
        let bytes = b"__CURSOR=s=1;i=2\nMESSAGE\n\x05\0\0\0\0\0\0\0a\n\n=\xff\nPRIORITY=6\n\n\nA==b=\n\nMESSAGE=half";
        let (entries, error) = parse(bytes, &[usize::MAX]);
        assert_eq!(error, None);
        let first = Entry {
            fields: vec![field("MESSAGE", b"a\n\n=\xff"), field("PRIORITY", b"6")],
            cursor: Some(Bytes::from_static(b"s=1;i=2")),
        };
        assert_eq!(entries, [first, Entry { fields: vec![field("A", b"=b=")], cursor: None }]);
    }

    #[test]
    fn what_is_no_export_is_told_apart() {
        assert_eq!(parse(b"=a\n", &[9]).1, Some(ExportError::Name));
        assert_eq!(parse(&[b'A'; 300], &[9]).1, Some(ExportError::Name));
        assert_eq!(parse(b"A\n\x01\0\0\0\0\0\0\0ab", &[9]).1, Some(ExportError::ValueEnd));
        assert_eq!(parse("A=\n".repeat(5000).as_bytes(), &[999]).1, Some(ExportError::Fields));
    }

    #[test]
    fn of_a_huge_value_a_part_is_kept_and_the_rest_counted() {
        let value = vec![b'x'; ENTRY_BYTES_MAX + 1000];
        for bytes in [
            [b"COREDUMP\n".as_slice(), &(value.len() as u64).to_le_bytes(), &value, b"\nA=b\n\nA=c\n\n"].concat(),
            [b"COREDUMP=".as_slice(), &value, b"\nA=b\n\nA=c\n\n"].concat(),
        ] {
            let (entries, error) = parse(&bytes, &[4096]);
            assert_eq!((entries.len(), error), (2, None));
            assert_eq!((entries[0].fields[0].value.len(), entries[0].fields[0].omitted), (ENTRY_BYTES_MAX, 1000));
            assert_eq!((entries[0].fields[1].omitted, &entries[1].fields[0]), (1, &field("A", b"c")));
        }
    }

    proptest! {
        #[test]
        fn entries_come_out_as_they_went_in_however_the_bytes_are_cut(
            entries in prop::collection::vec(
                prop::collection::vec(("[A-Z_]{1,9}", prop::collection::vec(any::<u8>(), 0..40)), 1..6), 0..6),
            reads in prop::collection::vec(1usize..20, 1..20),
        ) {
            let mut bytes = Vec::new();
            for entry in &entries {
                for (name, value) in entry {
                    if value.contains(&b'\n') {
                        bytes.extend([name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat());
                    } else {
                        bytes.extend([name.as_bytes(), b"=", value, b"\n"].concat());
                    }
                }
                bytes.push(b'\n');
            }
            let fields = |entry: &Vec<(String, Vec<u8>)>| entry.iter().map(|(name, value)| field(name, value)).collect();
            let expected: Vec<_> = entries.iter().map(|entry| Entry { fields: fields(entry), cursor: None }).collect();
            prop_assert_eq!(parse(&bytes, &reads), (expected, None));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'='), Just(0), any::<u8>()], 0..200)) {
            let whole = parse(&bytes, &[usize::MAX]);
            prop_assert_eq!(whole, parse(&bytes, &[1]));
        }
    }
}
