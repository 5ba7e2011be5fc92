//! The streams of one session: what was said of each, once, and where it stands.
//!
//! Bounded in number and in bytes: when there is no room, the stream that was idle longest is forgotten, and its next
//! batch is refused as UNKNOWN_STREAM, which makes the client introduce it again. A stream with batches in flight or
//! refused ones outstanding is never forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use logmesh_proto::{StreamKey, v1};
use prost::Message;

use crate::order::Order;
use crate::policy::Topic;

const STREAMS_MAX: usize = 4096;
/// One description: a path and labels, with room to spare.
const INFO_BYTES_MAX: usize = 16 << 10;
/// All descriptions of a session.
const INFO_BYTES_TOTAL_MAX: usize = 2 << 20;

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    pub(crate) info: Arc<v1::StreamInfo>,
    /// Where it goes; or why it may not.
    pub(crate) topic: Result<Topic, String>,
    pub(crate) order: Order,
    /// Whether a batch was inflated and checked whole in this session.
    pub(crate) checked: bool,
    pub(crate) batches_in_flight: u32,
    info_bytes: usize,
    used: u64,
}

/// All streams of a session.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: HashMap<Bytes, Stream>,
    info_bytes: usize,
    /// Counts uses, to tell which stream was idle longest.
    clock: u64,
}

/// Why a description is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StreamInfoFault {
    TooLarge { bytes: usize, limit: usize },
    Full,
}

impl Streams {
    /// Notes what a stream is. For a known one the new description holds from now on.
    pub(crate) fn introduce(
        &mut self,
        id: &Bytes,
        key: StreamKey,
        info: v1::StreamInfo,
        topic: Result<Topic, String>,
    ) -> Result<(), StreamInfoFault> {
        let info_bytes = info.encoded_len();
        if info_bytes > INFO_BYTES_MAX {
            return Err(StreamInfoFault::TooLarge { bytes: info_bytes, limit: INFO_BYTES_MAX });
        }
        self.clock += 1;
        if let Some(stream) = self.streams.get_mut(id) {
            self.info_bytes = self.info_bytes - stream.info_bytes + info_bytes;
            (stream.info, stream.topic, stream.info_bytes, stream.used) =
                (Arc::new(info), topic, info_bytes, self.clock);
            return Ok(());
        }
        while self.streams.len() >= STREAMS_MAX || self.info_bytes + info_bytes > INFO_BYTES_TOTAL_MAX {
            self.forget_one()?;
        }
        self.info_bytes += info_bytes;
        let stream = Stream {
            key,
            info: Arc::new(info),
            topic,
            order: Order::default(),
            checked: false,
            batches_in_flight: 0,
            info_bytes,
            used: self.clock,
        };
        // The id is a slice of a whole received frame, which must not be kept alive for it.
        self.streams.insert(Bytes::copy_from_slice(id), stream);
        Ok(())
    }

    /// A known stream.
    pub(crate) fn find(&mut self, id: &Bytes) -> Option<&mut Stream> {
        self.clock += 1;
        let stream = self.streams.get_mut(id)?;
        stream.used = self.clock;
        Some(stream)
    }

    /// Notes that a batch was refused and later ones must wait for it.
    pub(crate) fn refused(&mut self, id: &Bytes, first_offset: u64) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.order.refused(first_offset);
        }
    }

    /// Notes that the bus answered for a batch.
    pub(crate) fn left(&mut self, id: &Bytes) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.batches_in_flight = stream.batches_in_flight.saturating_sub(1);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    fn forget_one(&mut self) -> Result<(), StreamInfoFault> {
        let idle = |stream: &Stream| stream.batches_in_flight == 0 && stream.order.is_clear();
        let longest = self.streams.iter().filter(|(_, stream)| idle(stream)).min_by_key(|(_, stream)| stream.used);
        let id = longest.map(|(id, _)| id.clone()).ok_or(StreamInfoFault::Full)?;
        if let Some(stream) = self.streams.remove(&id) {
            self.info_bytes -= stream.info_bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Bytes {
        Bytes::from(number.to_le_bytes().to_vec())
    }

    fn introduce(streams: &mut Streams, number: usize, path: &str) -> Result<(), StreamInfoFault> {
        let info = v1::StreamInfo { path: path.to_owned(), ..Default::default() };
        let topic = Topic { name: "logs".into(), on_bus: "logs.default".into() };
        streams.introduce(&id(number), StreamKey::derive("me", &id(number)), info, Ok(topic))
    }

    #[test]
    fn the_stream_idle_longest_is_forgotten_and_one_in_flight_never() {
        let mut streams = Streams::default();
        for number in 0..STREAMS_MAX {
            introduce(&mut streams, number, "/a").unwrap();
        }
        streams.find(&id(0)).unwrap().batches_in_flight = 1;
        streams.refused(&id(1), 7);
        introduce(&mut streams, STREAMS_MAX, "/a").unwrap();
        assert_eq!(streams.len(), STREAMS_MAX);
        assert!(streams.find(&id(0)).is_some() && streams.find(&id(1)).is_some());
        assert!(streams.find(&id(2)).is_none(), "the longest idle one gave way");
        for stream in streams.streams.values_mut() {
            stream.batches_in_flight = 1;
        }
        assert_eq!(introduce(&mut streams, STREAMS_MAX + 1, "/a"), Err(StreamInfoFault::Full));
    }

    #[test]
    fn descriptions_are_bounded_one_by_one_and_together() {
        let mut streams = Streams::default();
        let fault = introduce(&mut streams, 0, &"x".repeat(INFO_BYTES_MAX + 1)).unwrap_err();
        assert!(matches!(fault, StreamInfoFault::TooLarge { .. }));
        for number in 0..1000 {
            introduce(&mut streams, number, &"x".repeat(INFO_BYTES_MAX - 10)).unwrap();
            assert!(streams.info_bytes <= INFO_BYTES_TOTAL_MAX);
        }
    }

    #[test]
    fn a_new_description_keeps_the_order() {
        let mut streams = Streams::default();
        introduce(&mut streams, 0, "/a").unwrap();
        streams.refused(&id(0), 10);
        introduce(&mut streams, 0, "/b").unwrap();
        let stream = streams.find(&id(0)).unwrap();
        assert_eq!(stream.info.path, "/b");
        assert!(!stream.order.allows(20));
    }
}
