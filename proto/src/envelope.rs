//! The envelope: what a bus record says beside its value.
//!
//! The value of a bus record is the encoded `Batch` exactly as it reached the gateway. Its headers say what the gateway
//! knew: who sent it, for whom, and the whole `StreamInfo`, so that any processor can start at any record. Numbers are
//! decimal text and ids hexadecimal, so that a person reads them with any Kafka tool.

use std::{borrow::Cow, str::FromStr};

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use crate::{Flags, StreamKey, v1};

/// One header of a bus record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name; the ones that an [`Envelope`] uses are in its documentation.
    pub name: Cow<'static, str>,
    /// Value, free bytes.
    pub value: Bytes,
}

/// What a gateway notes on a batch. Headers that an envelope does not know are skipped.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// `logmesh-tenant`: the tenant that the policy gave the identity.
    pub tenant: String,
    /// `logmesh-identity`: the identity in the client's certificate.
    pub identity: String,
    /// `logmesh-stream-key`: identity and stream together, 32 hexadecimal digits.
    pub stream_key: StreamKey,
    /// `logmesh-first-offset`: `Batch.first_offset`, bytes.
    pub first_offset: u64,
    /// `logmesh-end-offset`: `Batch.end_offset`, bytes.
    pub end_offset: u64,
    /// `logmesh-record-count`: `Batch.record_count`.
    pub record_count: u32,
    /// `logmesh-codec`: `Batch.codec`, its number.
    pub codec: v1::Codec,
    /// `logmesh-flags`: `Batch.flags`.
    pub flags: Flags,
    /// `logmesh-received`: when the gateway received the batch, nanoseconds since 1970-01-01 UTC.
    pub received_unix_nano: u64,
    /// `logmesh-topic`: the topic that the batch was admitted to, without its tenant.
    pub topic: String,
    /// `logmesh-stream-info`: the encoded `StreamInfo` of the stream.
    pub info: v1::StreamInfo,
}

/// Why headers are no envelope.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// A header is not there.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header's value cannot be read.
    #[error("header {0} cannot be read")]
    Unreadable(&'static str),
}

const TENANT: &str = "logmesh-tenant";
const IDENTITY: &str = "logmesh-identity";
const STREAM_KEY: &str = "logmesh-stream-key";
const FIRST_OFFSET: &str = "logmesh-first-offset";
const END_OFFSET: &str = "logmesh-end-offset";
const RECORD_COUNT: &str = "logmesh-record-count";
const CODEC: &str = "logmesh-codec";
const FLAGS: &str = "logmesh-flags";
const RECEIVED: &str = "logmesh-received";
const TOPIC: &str = "logmesh-topic";
const STREAM_INFO: &str = "logmesh-stream-info";

impl Envelope {
    /// Writes the envelope as headers.
    #[must_use]
    pub fn to_headers(&self) -> Vec<Header> {
        let text = |name: &'static str, value: String| Header { name: Cow::Borrowed(name), value: value.into() };
        vec![
            text(TENANT, self.tenant.clone()),
            text(IDENTITY, self.identity.clone()),
            text(STREAM_KEY, self.stream_key.to_string()),
            text(FIRST_OFFSET, self.first_offset.to_string()),
            text(END_OFFSET, self.end_offset.to_string()),
            text(RECORD_COUNT, self.record_count.to_string()),
            text(CODEC, i32::from(self.codec).to_string()),
            text(FLAGS, self.flags.bits().to_string()),
            text(RECEIVED, self.received_unix_nano.to_string()),
            text(TOPIC, self.topic.clone()),
            Header { name: Cow::Borrowed(STREAM_INFO), value: self.info.encode_to_vec().into() },
        ]
    }

    /// Reads the envelope out of headers, in whatever order they come.
    ///
    /// # Errors
    /// A header is missing or cannot be read.
    pub fn from_headers(headers: &[Header]) -> Result<Self, EnvelopeError> {
        Ok(Self {
            tenant: parse(headers, TENANT)?,
            identity: parse(headers, IDENTITY)?,
            stream_key: parse(headers, STREAM_KEY)?,
            first_offset: parse(headers, FIRST_OFFSET)?,
            end_offset: parse(headers, END_OFFSET)?,
            record_count: parse(headers, RECORD_COUNT)?,
            codec: v1::Codec::try_from(parse::<i32>(headers, CODEC)?).map_err(|_| EnvelopeError::Unreadable(CODEC))?,
            flags: Flags::from_bits(parse(headers, FLAGS)?),
            received_unix_nano: parse(headers, RECEIVED)?,
            topic: parse(headers, TOPIC)?,
            info: v1::StreamInfo::decode(value(headers, STREAM_INFO)?.clone())
                .map_err(|_| EnvelopeError::Unreadable(STREAM_INFO))?,
        })
    }
}

fn value<'a>(headers: &'a [Header], name: &'static str) -> Result<&'a Bytes, EnvelopeError> {
    headers.iter().find(|header| header.name == name).map(|header| &header.value).ok_or(EnvelopeError::Missing(name))
}

fn parse<T: FromStr>(headers: &[Header], name: &'static str) -> Result<T, EnvelopeError> {
    std::str::from_utf8(value(headers, name)?)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(EnvelopeError::Unreadable(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Envelope {
        Envelope {
            tenant: "default".into(),
            identity: "spiffe://mesh/agent/edge-1".into(),
            stream_key: StreamKey::from_bytes([7; 16]),
            first_offset: 1,
            end_offset: u64::MAX,
            record_count: 3,
            codec: v1::Codec::Zstd,
            flags: Flags::RESEND,
            received_unix_nano: 5,
            topic: "logs".into(),
            info: v1::StreamInfo { path: "/var/log/a.log".into(), ..Default::default() },
        }
    }

    #[test]
    fn headers_read_back_in_any_order_and_beside_unknown_ones() {
        let mut headers = sample().to_headers();
        headers.reverse();
        headers.insert(3, Header { name: "later".into(), value: Bytes::from_static(b"?") });
        assert_eq!(Envelope::from_headers(&headers), Ok(sample()));
    }

    #[test]
    fn a_missing_or_unreadable_header_is_named() {
        for dropped in 0..sample().to_headers().len() {
            let mut headers = sample().to_headers();
            let name = headers.remove(dropped).name;
            let error = Envelope::from_headers(&headers).expect_err("a header is missing");
            assert!(error.to_string().contains(&*name), "{error}");
        }
        let mut headers = sample().to_headers();
        headers[3].value = Bytes::from_static(b"-1");
        assert_eq!(Envelope::from_headers(&headers), Err(EnvelopeError::Unreadable(FIRST_OFFSET)));
    }
}
