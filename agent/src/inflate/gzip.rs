//! Members of gzip, one after the other (RFC 1952).
//!
//! A push decoder: bytes in, content out, in pieces of any size. Header fields that mean nothing here (names, comments)
//! are stepped over, never kept. Zeros behind the last member are padding, as of tapes; anything else there is damage.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::{Fault, Moved};

const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;

/// Where in a member it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the ten bytes that each member begins with; at 0 between members.
    Fixed(usize),
    ExtraLength(usize),
    Extra(u16),
    Name,
    Comment,
    HeaderCrc(usize),
    Body,
    Trailer(usize),
    Padding,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gzip {
    place: Place,
    flags: u8,
    /// Bytes of the field that is being read.
    field: [u8; 8],
    /// Whether a member is behind.
    begun: bool,
    body: Decompress,
    crc: Crc,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Fixed(0),
            flags: 0,
            field: [0; 8],
            begun: false,
            body: Decompress::new(false),
            crc: Crc::new(),
        }
    }

    /// Whether the archive may end here.
    pub(super) fn may_end(&self) -> bool {
        self.begun && matches!(self.place, Place::Fixed(0) | Place::Padding)
    }

    /// Takes from `input` and puts to `output` until one of them does not last, or a member's body has ended.
    pub(super) fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Moved, Fault> {
        let mut taken = 0;
        while self.place != Place::Body {
            let Some(byte) = input.get(taken) else { return Ok(Moved { taken, put: 0 }) };
            self.step(*byte)?;
            taken += 1;
        }
        let (before_in, before_out) = (self.body.total_in(), self.body.total_out());
        let status = self
            .body
            .decompress(&input[taken..], output, FlushDecompress::None)
            .map_err(|error| Fault::Damaged(error.to_string()))?;
        taken += usize::try_from(self.body.total_in() - before_in).unwrap_or(usize::MAX);
        let put = usize::try_from(self.body.total_out() - before_out).unwrap_or(usize::MAX);
        self.crc.update(&output[..put]);
        if status == Status::StreamEnd {
            self.place = Place::Trailer(0);
        }
        Ok(Moved { taken, put })
    }

    /// Takes one byte outside of bodies.
    fn step(&mut self, byte: u8) -> Result<(), Fault> {
        self.place = match self.place {
            Place::Fixed(0) if self.begun && byte == 0 => Place::Padding,
            Place::Fixed(at) => return self.fixed(at, byte),
            Place::ExtraLength(at) => {
                self.field[at] = byte;
                let length = u16::from_le_bytes([self.field[0], self.field[1]]);
                match (at, length) {
                    (0, _) => Place::ExtraLength(1),
                    (_, 0) => self.behind(FLAG_EXTRA),
                    (_, length) => Place::Extra(length),
                }
            }
            Place::Extra(1) => self.behind(FLAG_EXTRA),
            Place::Extra(left) => Place::Extra(left - 1),
            Place::Name if byte == 0 => self.behind(FLAG_NAME),
            Place::Comment if byte == 0 => self.behind(FLAG_COMMENT),
            Place::HeaderCrc(0) => Place::HeaderCrc(1),
            Place::HeaderCrc(_) => self.begin_body(),
            Place::Trailer(at) => {
                self.field[at] = byte;
                if at == 7 { self.end_member()? } else { Place::Trailer(at + 1) }
            }
            Place::Padding if byte != 0 => return Err(damaged("there is no member behind its last one")),
            same @ (Place::Name | Place::Comment | Place::Padding | Place::Body) => same,
        };
        Ok(())
    }

    fn fixed(&mut self, at: usize, byte: u8) -> Result<(), Fault> {
        let is_sound = match at {
            0 => byte == 0x1f,
            1 => byte == 0x8b,
            2 => byte == 8,
            // Bits above the known ones are reserved.
            3 => byte < 32,
            _ => true,
        };
        if !is_sound {
            return Err(damaged("there is no gzip member where one must begin"));
        }
        if at == 3 {
            self.flags = byte;
        }
        self.place = if at == 9 { self.behind(0) } else { Place::Fixed(at + 1) };
        Ok(())
    }

    /// The next field behind the one of a flag.
    fn behind(&mut self, flag: u8) -> Place {
        let next = [FLAG_EXTRA, FLAG_NAME, FLAG_COMMENT, FLAG_HEADER_CRC];
        let from = next.iter().position(|other| *other == flag).map_or(0, |at| at + 1);
        match next[from..].iter().find(|flag| self.flags & **flag != 0) {
            Some(&FLAG_EXTRA) => Place::ExtraLength(0),
            Some(&FLAG_NAME) => Place::Name,
            Some(&FLAG_COMMENT) => Place::Comment,
            Some(_) => Place::HeaderCrc(0),
            None => self.begin_body(),
        }
    }

    fn begin_body(&mut self) -> Place {
        self.body.reset(false);
        self.crc.reset();
        Place::Body
    }

    fn end_member(&mut self) -> Result<Place, Fault> {
        let [a, b, c, d, e, f, g, h] = self.field;
        let (sum, size) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        if sum != self.crc.sum() || size != self.crc.amount() {
            return Err(damaged("its checksum or size is not that of its content"));
        }
        self.begun = true;
        Ok(Place::Fixed(0))
    }
}

fn damaged(what: &str) -> Fault {
    Fault::Damaged(what.to_owned())
}
