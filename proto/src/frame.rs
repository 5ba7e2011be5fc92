//! Client frames as a gateway reads them: decoded, with the bytes of each batch kept as they came.
//!
//! A gateway forwards what it received, not what it understood: encoding a decoded batch anew would drop the fields of
//! a newer client. Decoding copies nothing; the payload and the kept bytes are slices of the received message.

use bytes::{Buf, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType, decode_key, skip_field},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstCodec;

use crate::v1;

/// A batch and the bytes that it was decoded from.
#[derive(Clone, Debug, PartialEq)]
pub struct RawBatch {
    /// The fields that this version knows.
    pub batch: v1::Batch,
    /// The encoded `Batch` exactly as received: the value of the bus record.
    pub encoded: Bytes,
}

/// What a client sent.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly every frame is a batch; a box would cost each one an allocation")]
pub enum ClientFrame {
    /// Opens a session.
    Hello(v1::Hello),
    /// Records.
    Batch(RawBatch),
    /// Ends a session.
    Bye(v1::Bye),
    /// A member that this version does not know: to be skipped.
    Unknown,
}

impl ClientFrame {
    /// Decodes an encoded `ClientFrame`. Of several members the last one holds, as protobuf has it for a oneof.
    ///
    /// # Errors
    /// The bytes are no protobuf message of this kind.
    pub fn decode(mut message: Bytes) -> Result<Self, DecodeError> {
        let mut frame = Self::Unknown;
        while message.has_remaining() {
            let (field, wire) = decode_key(&mut message)?;
            if !(1..=3).contains(&field) || wire != WireType::LengthDelimited {
                skip_field(wire, field, &mut message, DecodeContext::default())?;
                continue;
            }
            let bytes = length_delimited(&mut message)?;
            frame = match field {
                1 => Self::Hello(v1::Hello::decode(bytes)?),
                2 => Self::Batch(RawBatch { batch: v1::Batch::decode(bytes.clone())?, encoded: bytes }),
                _ => Self::Bye(v1::Bye::decode(bytes)?),
            };
        }
        Ok(frame)
    }
}

/// Takes one length-delimited field out of a message, as a slice of it.
fn length_delimited(message: &mut Bytes) -> Result<Bytes, DecodeError> {
    let mut field = Bytes::new();
    encoding::bytes::merge(WireType::LengthDelimited, &mut field, message, DecodeContext::default())?;
    Ok(field)
}

/// The codec of `Ingest.Stream` on the gateway's side.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameCodec;

/// Decodes [`ClientFrame`]s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameDecoder;

impl Codec for FrameCodec {
    type Encode = v1::ServerFrame;
    type Decode = ClientFrame;
    type Encoder = <ProstCodec<v1::ServerFrame, v1::ClientFrame> as Codec>::Encoder;
    type Decoder = FrameDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<v1::ServerFrame, v1::ClientFrame>::default().encoder()
    }

    fn decoder(&mut self) -> FrameDecoder {
        FrameDecoder
    }
}

impl Decoder for FrameDecoder {
    type Item = ClientFrame;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<ClientFrame>, Status> {
        let message = source.copy_to_bytes(source.remaining());
        ClientFrame::decode(message)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("the frame is no logmesh.v1.ClientFrame: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> v1::Batch {
        v1::Batch {
            sequence: 4,
            stream_id: Bytes::from_static(b"s"),
            payload: Bytes::from_static(b"p"),
            ..Default::default()
        }
    }

    fn frame(member: v1::client_frame::Frame) -> Bytes {
        v1::ClientFrame { frame: Some(member) }.encode_to_vec().into()
    }

    #[test]
    fn a_batch_keeps_its_bytes_with_the_fields_of_a_newer_client() {
        let mut newer = batch().encode_to_vec();
        newer.extend_from_slice(&[0xa2, 0x06, 2, b'x', b'y']); // field 100, two bytes
        let mut message = vec![0x12, u8::try_from(newer.len()).expect("short")];
        message.extend_from_slice(&newer);
        let ClientFrame::Batch(raw) = ClientFrame::decode(message.into()).expect("decodes") else {
            panic!("not a batch");
        };
        assert_eq!(raw.batch, batch());
        assert_eq!(raw.encoded, newer);
    }

    #[test]
    fn each_member_is_read_and_an_unknown_one_is_skipped() {
        let hello = v1::Hello { software: "x/1".into(), ..Default::default() };
        let bye = v1::Bye { reason: "done".into() };
        let read = |member| ClientFrame::decode(frame(member)).expect("decodes");
        assert_eq!(read(v1::client_frame::Frame::Hello(hello.clone())), ClientFrame::Hello(hello));
        assert_eq!(read(v1::client_frame::Frame::Bye(bye.clone())), ClientFrame::Bye(bye));
        assert_eq!(ClientFrame::decode(Bytes::from_static(&[0x7a, 1, 0])).expect("decodes"), ClientFrame::Unknown);
    }

    #[test]
    fn a_cut_frame_is_an_error_wherever_it_is_cut() {
        let whole = frame(v1::client_frame::Frame::Batch(batch()));
        for end in 1..whole.len() {
            assert!(ClientFrame::decode(whole.slice(..end)).is_err(), "cut at {end}");
        }
    }
}
