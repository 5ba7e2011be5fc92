//! What passes between the tailer and the shipper.

use std::{sync::Arc, time::Duration};

use logmesh_proto::v1;

/// Number of a generation within this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamNumber(pub u64);

/// A finished batch on its way.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Its generation.
    pub stream: StreamNumber,
    /// The batch, without sequence and stream info.
    pub batch: v1::Batch,
    /// What a session says of the stream with its first batch.
    pub info: Arc<v1::StreamInfo>,
    /// Encoded size in bytes, without stream info.
    pub encoded: usize,
}

/// Why a batch came back to be built again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// It was damaged on its way.
    Corrupt,
    /// It is larger than the lane takes.
    TooLarge {
        /// Largest encoded batch in bytes; 0 where the gateway did not say.
        limit: usize,
    },
    /// Its lane is held for so long at least.
    Held {
        /// How long.
        delay: Duration,
    },
    /// It was asked back.
    Recalled,
}

/// What the shipper is asked to do.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are the large one, and a box for each would be an allocation")]
pub enum Errand {
    /// Ship a batch.
    Ship(Parcel),
    /// Give back every batch of a stream.
    Recall {
        /// The stream.
        stream: StreamNumber,
        /// Also what is in flight; an answer that comes for it after all is not told. Otherwise that is answered.
        in_flight: bool,
    },
}

/// What the shipper tells the tailer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A batch is durable.
    Acked {
        /// Its generation.
        stream: StreamNumber,
        /// Its first offset.
        first: u64,
    },
    /// A batch came back.
    Returned(Box<Parcel>, Returned),
    /// A session began, with so many bytes of credit.
    Opened {
        /// Bytes that may be in flight.
        credit: u64,
        /// Largest encoded batch.
        encoded_bytes_max: usize,
        /// Most records in a batch.
        records_max: usize,
    },
    /// Another limit of bytes in flight.
    Credit(u64),
    /// The session is over.
    Closed,
}
