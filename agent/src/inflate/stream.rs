//! An archive from front to back.

use zstd::{
    stream::raw::{DParameter, Decoder, Operation},
    zstd_safe,
};

use super::{Codec, Fault, Moved, WINDOW_LOG_MAX, gzip::Gzip};
use crate::filesystem::Handle;

/// Bytes of the archive that are read at once, and the most that one step takes.
pub(super) const INPUT_BYTES: usize = 64 * 1024;
/// What a step counts at least: many that bring little (small members) take their time, too.
const STEP_COST_MIN: usize = 4 * 1024;

/// What one step through an archive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes of the content, one at least.
    Content(usize),
    /// Nothing yet: what was taken of the archive holds no content.
    Nothing,
    /// The end of a whole archive.
    End,
}

impl Step {
    /// Bytes of the content that it brought.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Content(bytes) => *bytes,
            Self::Nothing | Self::End => 0,
        }
    }

    /// What it counts of a budget of content.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Content(bytes) => (*bytes).max(STEP_COST_MIN),
            Self::Nothing | Self::End => INPUT_BYTES,
        }
    }
}

enum Decoding {
    Gzip(Box<Gzip>),
    Zstd {
        decoder: Decoder<'static>,
        /// Whether a frame is under way, or none has begun.
        within: bool,
    },
}

impl Decoding {
    fn new(codec: Codec) -> Result<Self, Fault> {
        Ok(match codec {
            Codec::Gzip => Self::Gzip(Box::new(Gzip::new())),
            Codec::Zstd => {
                let mut decoder = Decoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
                Self::Zstd { decoder, within: true }
            }
        })
    }

    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Moved, Fault> {
        match self {
            Self::Gzip(gzip) => gzip.run(input, output),
            // Between frames nothing is asked of a decoder that would take it for the beginning of one.
            Self::Zstd { within: false, .. } if input.is_empty() => Ok(Moved::default()),
            Self::Zstd { decoder, within } => {
                let status = decoder.run_on_buffers(input, output).map_err(|error| told(&error))?;
                *within = status.remaining != 0;
                Ok(Moved { taken: status.bytes_read, put: status.bytes_written })
            }
        }
    }

    fn may_end(&self) -> bool {
        match self {
            Self::Gzip(gzip) => gzip.may_end(),
            Self::Zstd { within, .. } => !within,
        }
    }
}

/// What the decoder says, and what to do about the one fault that is none of the archive.
fn told(error: &std::io::Error) -> Fault {
    let mut text = error.to_string();
    let too_large = zstd_safe::get_error_name(zstd_window_code());
    if text == too_large {
        text = format!(
            "it was made for a window larger than {} MiB; compress with level 19 or less",
            1 << (WINDOW_LOG_MAX - 20)
        );
    }
    Fault::Damaged(text)
}

/// The code that the library answers when a frame wants a larger window than it may have.
fn zstd_window_code() -> usize {
    // ZSTD_error_frameParameter_windowTooLarge, as the library encodes errors.
    0usize.wrapping_sub(16)
}

/// See the module.
pub(super) struct Stream {
    decoding: Decoding,
    input: Vec<u8>,
    /// Where the rest of the input begins.
    taken: usize,
    /// Where the next input begins in the archive.
    offset: u64,
}

impl Stream {
    pub(super) fn new(codec: Codec) -> Result<Self, Fault> {
        Ok(Self { decoding: Decoding::new(codec)?, input: Vec::new(), taken: 0, offset: 0 })
    }

    /// One step: puts the next bytes of the content to `output`, which has room. It takes [`INPUT_BYTES`] of the
    /// archive at most, so that its work is bounded in long parts without content: names, padding, empty members,
    /// frames that are to be skipped.
    pub(super) fn read(&mut self, archive: &impl Handle, output: &mut [u8]) -> Result<Step, Fault> {
        let at_end = self.taken == self.input.len() && !self.refill(archive)?;
        let moved = self.decoding.run(&self.input[self.taken..], output)?;
        self.taken += moved.taken;
        match moved.put {
            0 if !at_end => Ok(Step::Nothing),
            0 if self.decoding.may_end() => Ok(Step::End),
            0 => Err(Fault::Incomplete),
            bytes => Ok(Step::Content(bytes)),
        }
    }

    /// Reads more of the archive. Returns whether there was more.
    fn refill(&mut self, archive: &impl Handle) -> Result<bool, Fault> {
        self.input.resize(INPUT_BYTES, 0);
        let count = archive.read_full_at(&mut self.input, self.offset)?;
        self.input.truncate(count);
        self.taken = 0;
        self.offset += count as u64;
        Ok(count > 0)
    }
}
