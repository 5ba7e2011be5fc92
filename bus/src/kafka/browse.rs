//! Looking at what is there, without a group.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::lag::{Reader, Readers, at, partitions, refused, serve};
use super::words::{native, natural, number, received};
use crate::consumer::matches_pattern;
use crate::{BusError, Delivered, PartitionRange, TopicPartition};

/// How long one page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a question about a partition may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

impl Readers {
    /// Every partition of the topics that match, with what it holds.
    pub(super) async fn ranges(&self, topics: Vec<String>) -> Result<Vec<PartitionRange>, BusError> {
        let what = topics.join(", ");
        self.ask(self.own_group(), move |cluster, reader| {
            ranges(reader, &topics).map_err(|error| refused(cluster, &what, &error))
        })
        .await
    }

    /// A page of a partition.
    pub(super) async fn read(
        &self,
        partition: TopicPartition,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Delivered>, BusError> {
        self.ask(self.own_group(), move |cluster, reader| match page(reader, &partition, from, bytes_max) {
            Ok(Some(records)) => Ok(records),
            Ok(None) => Err(BusError::Invalid { reason: format!("there is no partition {partition}") }),
            Err(error) => Err(refused(cluster, &partition.to_string(), &error)),
        })
        .await
    }
}

fn ranges(reader: &Reader, topics: &[String]) -> KafkaResult<Vec<PartitionRange>> {
    let matches = |topic: &str| topics.iter().any(|pattern| matches_pattern(pattern, topic));
    let mut partitions = partitions(reader, &matches)?;
    partitions.sort();
    let begins = at(reader, &partitions, Offset::Beginning)?;
    let ends = at(reader, &partitions, Offset::End)?;
    let range = |partition: TopicPartition| {
        let (earliest, end) = (*begins.get(&partition)?, *ends.get(&partition)?);
        Some(PartitionRange { partition, earliest, end })
    };
    Ok(partitions.into_iter().filter_map(range).collect())
}

/// Records from `from` on; `None` = there is no such partition.
fn page(
    reader: &Reader,
    partition: &TopicPartition,
    from: u64,
    bytes_max: usize,
) -> KafkaResult<Option<Vec<Delivered>>> {
    let metadata = reader.fetch_metadata(Some(&partition.topic), ASK_TIMEOUT)?;
    let topic = metadata.topics().first().filter(|topic| topic.error().is_none());
    let known = topic.is_some_and(|topic| topic.partitions().iter().any(|known| known.id() == number(partition)));
    if !known {
        return Ok(None);
    }
    let (low, high) = match reader.fetch_watermarks(&partition.topic, number(partition), ASK_TIMEOUT) {
        Ok((low, high)) => (natural(low), natural(high)),
        Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) => return Ok(None),
        Err(error) => return Err(error),
    };
    let from = from.max(low);
    if from >= high {
        return Ok(Some(Vec::new()));
    }
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(&partition.topic, number(partition), native(from))?;
    reader.assign(&place)?;
    let records = collect(reader, partition, from, high, bytes_max);
    reader.unassign()?;
    records.map(Some)
}

fn collect(
    reader: &Reader,
    partition: &TopicPartition,
    from: u64,
    high: u64,
    bytes_max: usize,
) -> KafkaResult<Vec<Delivered>> {
    let deadline = Instant::now() + PAGE_TIMEOUT;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while bytes < bytes_max.max(1) && Instant::now() < deadline {
        let Some(message) = reader.poll(Duration::from_millis(100)) else { continue };
        let (at, delivered) = match message {
            Ok(message) => received(&message),
            // Troubles with single brokers come here too; the deadline bounds them.
            Err(_) => continue,
        };
        // What an earlier page had asked for may still come.
        if at != *partition || delivered.offset < from {
            continue;
        }
        let last = delivered.offset + 1 >= high;
        bytes += delivered.record.size();
        records.push(delivered);
        if last {
            break;
        }
    }
    Ok(records)
}

impl Readers {
    /// Asks on a thread where blocking is allowed.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        group: String,
        question: impl FnOnce(&super::client::Cluster, &Reader) -> Result<T, BusError> + Send + 'static,
    ) -> Result<T, BusError> {
        let reader = self.reader(&group)?;
        let cluster = self.cluster();
        let asking = tokio::task::spawn_blocking(move || {
            let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            serve(&reader, cluster.needs_token());
            question(&cluster, &reader)
        });
        asking.await.unwrap_or_else(|error| Err(BusError::Unavailable { reason: format!("asking failed: {error}") }))
    }
}
