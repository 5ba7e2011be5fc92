//! The published wire contract of logmesh.
//!
//! Owns the `logmesh.v1` protocol (`proto/logmesh/v1/ingest.proto`), the ids that make a record the same record wherever
//! it turns up, the batch codec, and the envelope in which a batch travels over the bus. It does no I/O.
//!
//! - [`v1`]: messages and the client, generated from the proto;
//! - [`StreamKey`], [`RecordId`]: ids;
//! - [`RecordsBuilder`], [`Sealer`]: from lines to a batch; [`check`], [`Opener`]: from a batch back to records;
//! - [`ingest_server`]: the service for gateways, which keeps the bytes of each batch as they came ([`ClientFrame`]);
//! - [`Envelope`]: what a bus record says beside its value.

mod batch;
mod envelope;
mod frame;
mod ids;
pub mod ingest_server;

pub use batch::{
    BatchFault, BatchMeta, Flags, Limits, Marks, OpenBatch, Opener, RecordRef, RecordsBuilder, SealError, Sealer,
    check, crc,
};
pub use envelope::{Envelope, EnvelopeError, Header};
pub use frame::{ClientFrame, RawBatch};
pub use ids::{IdError, RecordId, StreamKey};

/// Version of the protocol that this crate speaks: `Hello.protocol_version`.
pub const PROTOCOL_VERSION: u32 = 1;

/// Messages and client of the package `logmesh.v1`, generated from the proto.
#[allow(missing_docs, clippy::all, unreachable_pub, reason = "generated code")]
#[allow(unused_qualifications, clippy::allow_attributes_without_reason, reason = "generated code")]
#[rustfmt::skip]
pub mod v1 {
    include!("generated/logmesh.v1.rs");
}
