//! The client that reads what is held. It belongs to no group and is told what to read, offset by offset.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::Instant;

use super::client::{Cluster, POLLS, Watch};
use super::shared::Shared;
use super::words::{list, natural, number, places, received};
use crate::{Subscription, TopicPartition};

/// How long a question to the brokers may hold up the thread.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait before it is asked again.
const RETRY: Duration = Duration::from_millis(250);
/// Fetches are no smaller, since one batch of the largest size must pass.
const FETCH_BYTES_LEAST: usize = 1 << 20;

/// The reading client.
pub(super) struct Fetcher {
    client: BaseConsumer<Watch>,
    suspects: Option<Suspects>,
}

/// Some place is said not to be in the log, and reading there has stopped. librdkafka does not say which: it may be any
/// of these.
struct Suspects {
    /// When they are looked at: whatever has moved on by then is none.
    at: Instant,
    /// Where each was to go on, `None` = the earliest kept.
    places: BTreeMap<TopicPartition, Option<u64>>,
}

impl Fetcher {
    /// Memory: what waits in [`Assignments`](super::assignment::Assignments) is at most half of `fetch_bytes`, librdkafka's
    /// queue a quarter, and a fetch under way an eighth, or one batch of the largest size. None of it grows with the
    /// partitions. A fetch counts as it is on the wire: where a topic is compressed by the brokers, it inflates here.
    pub(super) fn new(cluster: &Cluster, subscription: &Subscription, shared: &Arc<Shared>) -> KafkaResult<Self> {
        let quarter = subscription.fetch_bytes / 4;
        let fetch = (quarter / 2).max(FETCH_BYTES_LEAST);
        let mut config = cluster.config("fetcher");
        config
            // A name that no group has: this client never joins one, and commits nothing.
            .set("group.id", format!("{}.fetcher", subscription.group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "500")
            .set("fetch.error.backoff.ms", "100")
            // How long a full queue stops the fetching: the default, a second, would be its pace.
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", (quarter / 1024).clamp(1, 2_097_151).to_string())
            .set("fetch.message.max.bytes", FETCH_BYTES_LEAST.to_string())
            .set("message.max.bytes", FETCH_BYTES_LEAST.to_string())
            .set("fetch.max.bytes", fetch.to_string())
            .set("receive.message.max.bytes", (100_usize << 20).max(fetch + (1 << 20)).to_string());
        let mut client = BaseConsumer::from_config_and_context(&config, cluster.watch("fetcher"))?;
        client.set_nonempty_callback(shared.waker());
        Ok(Self { client, suspects: None })
    }

    /// Begins to read, from each offset or from the earliest kept.
    pub(super) fn begin<'a>(&self, at: impl IntoIterator<Item = (&'a TopicPartition, Option<u64>)>) {
        if let Err(error) = self.client.incremental_assign(&places(at)) {
            tracing::warn!(%error, "partitions cannot be read");
        }
    }

    /// Ends to read; what of them is still on its way is dropped.
    pub(super) fn stop(&self, partitions: &[TopicPartition]) {
        let assigned = self.client.assignment().unwrap_or_default();
        let is_read =
            |partition: &&TopicPartition| assigned.find_partition(&partition.topic, number(partition)).is_some();
        let read: Vec<_> = partitions.iter().filter(is_read).cloned().collect();
        if read.is_empty() {
            return;
        }
        if let Err(error) = self.client.incremental_unassign(&list(&read)) {
            tracing::warn!(%error, "partitions are read on, though they are not held");
        }
    }

    /// Pauses and resumes as the caller's wishes and the room demand.
    pub(super) fn steer(&self, shared: &Shared) {
        let steering = shared.state().assignments.steer();
        let paused = if steering.pause.is_empty() { Ok(()) } else { self.client.pause(&list(&steering.pause)) };
        let resumed = if steering.resume.is_empty() { Ok(()) } else { self.client.resume(&list(&steering.resume)) };
        if let Err(error) = paused.and(resumed) {
            tracing::warn!(%error, "partitions cannot be paused or resumed");
        }
    }

    /// Takes what was fetched, while there is room. Whether there may be more.
    pub(super) fn fetch(&mut self, shared: &Shared, now: Instant) -> bool {
        let mut records = 0;
        for _ in 0..POLLS {
            if !shared.state().assignments.has_room() {
                break;
            }
            let served = self.client.context().served();
            match self.client.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let (partition, delivered) = received(&message);
                    records += 1;
                    if shared.state().assignments.arrived(&partition, delivered) {
                        shared.news.notify_one();
                    }
                }
                Some(Err(error)) => {
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
                        let suspects = self.suspects.get_or_insert_with(|| Suspects::at(now + RETRY));
                        suspects.places.extend(shared.state().assignments.positions());
                    }
                    tracing::debug!(%error, "a fetch failed");
                }
                None if served == self.client.context().served() => break,
                None => {}
            }
        }
        if records > 0 {
            self.client.context().alive();
        }
        records == POLLS
    }

    /// Compares the place of each suspect with what the log has, and begins again there.
    pub(super) fn find_places(&mut self, shared: &Shared, now: Instant) {
        let Some(Suspects { places, .. }) = self.suspects.take_if(|suspects| suspects.at <= now) else { return };
        let mut rest = Suspects::at(now + RETRY);
        let positions = shared.state().assignments.positions();
        for (partition, at) in positions {
            if places.get(&partition) != Some(&at) {
                continue;
            }
            match self.client.fetch_watermarks(&partition.topic, number(&partition), ASK_TIMEOUT) {
                Ok((low, high)) => self.put_in_place(shared, &partition, at, natural(low), natural(high)),
                Err(error) => {
                    tracing::debug!(%partition, %error, "what is kept is not known yet");
                    rest.places.insert(partition, at);
                }
            }
        }
        self.suspects = (!rest.places.is_empty()).then_some(rest);
    }

    /// When it wants to be called again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.suspects.as_ref().map(|suspects| suspects.at)
    }

    fn put_in_place(&self, shared: &Shared, partition: &TopicPartition, at: Option<u64>, low: u64, high: u64) {
        let place = match at {
            // A leader that has just changed may deny for a moment what it has.
            Some(at) if (low..=high).contains(&at) => at,
            Some(at) if at < low => {
                tracing::error!(%partition, from = at, to = low, "records were removed before they were read: they are lost");
                low
            }
            Some(at) => {
                tracing::error!(%partition, at, end = high, "the cluster has lost the end of the log; reading again what it has");
                low
            }
            None => low,
        };
        if at.is_some_and(|at| at != place) {
            shared.state().assignments.gap(partition, place);
            shared.news.notify_one();
        }
        tracing::debug!(%partition, at = place, "begins to read again");
        shared.state().assignments.fetched_anew(partition);
        self.stop(std::slice::from_ref(partition));
        self.begin([(partition, Some(place))]);
    }
}

impl Suspects {
    fn at(at: Instant) -> Self {
        Self { at, places: BTreeMap::new() }
    }
}
