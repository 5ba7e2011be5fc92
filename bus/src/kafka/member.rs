//! A member of a group: the thread behind a consumer.
//!
//! It has two clients. The *membership* joins the group, is told what it gets and has to give, and commits; it is assigned
//! nothing as far as librdkafka knows, and so fetches nothing. The *fetcher* belongs to no group and reads exactly the
//! partitions that are held. One client alone would do both, but librdkafka stops the fetching of *all* partitions from the moment
//! that a rebalance is announced until it is answered (`rd_kafka_assignment_pause`), and a revocation is answered only when the
//! caller has drained: with two, the other partitions keep flowing, and no message stands between the thread and what the
//! group says.
//!
//! The thread polls both without a wait and sleeps until librdkafka or the caller wakes it. So membership is kept
//! alive whatever the caller does. Should the process be stopped for longer than the group allows, the group
//! takes everything away: that is told as lost, counted in a log line, and the member joins again by itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use logmesh_proto::Header;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::assignment::Assignments;
use super::client::{Cluster, Watch, millis};
use super::commits::CommitFault;
use super::committer::Committer;
use super::conditions::Source;
use crate::{BusError, Delivered, Record, Subscription, TopicPartition};

/// How long the thread sleeps when nothing wakes it.
const IDLE: Duration = Duration::from_millis(100);
/// How often clients are polled in one round.
const POLLS: usize = 64;
/// How long a question to the brokers may hold up the thread.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait before the brokers are asked again, or a commit is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// What a leaving member may take for commits that were requested.
const LEAVE_GRACE: Duration = Duration::from_secs(3);
/// Fetches are no smaller, since one batch of the largest size must pass.
const FETCH_BYTES_LEAST: usize = 1 << 20;

/// What the consumer and its thread share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the caller.
    pub(super) news: Notify,
    awake: Mutex<bool>,
    waker: Condvar,
}

/// What is decided, and what is asked.
pub(super) struct State {
    pub(super) assignments: Assignments,
    /// What the caller is to be told once, retryable.
    pub(super) trouble: Option<BusError>,
    /// No more events come.
    pub(super) ended: Option<BusError>,
    /// The thread is to leave the group.
    pub(super) leaving: bool,
}

impl Shared {
    pub(super) fn new(subscription: &Subscription) -> Arc<Self> {
        let assignments = Assignments::new(subscription.fetch_bytes);
        Arc::new(Self {
            state: Mutex::new(State { assignments, trouble: None, ended: None, leaving: false }),
            news: Notify::new(),
            awake: Mutex::new(false),
            waker: Condvar::new(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread.
    pub(super) fn wake(&self) {
        *self.awake.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.waker.notify_one();
    }

    /// Asks the thread to leave; the caller is told `ended`.
    pub(super) fn leave(&self, ended: BusError) {
        {
            let mut state = self.state();
            state.leaving = true;
            state.ended.get_or_insert(ended);
        }
        self.news.notify_one();
        self.wake();
    }

    fn sleep(&self, longest: Duration) {
        let awake = self.awake.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = self.waker.wait_timeout_while(awake, longest, |awake| !*awake);
        *slept.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// The thread's own.
pub(super) struct Member {
    cluster: Arc<Cluster>,
    subscription: Subscription,
    shared: Arc<Shared>,
    membership: Option<Arc<BaseConsumer<Ear>>>,
    committer: Option<Committer>,
    fetcher: Option<BaseConsumer<Watch>>,
    /// Given by the group, and not yet begun: what is committed is being asked.
    beginning: Vec<TopicPartition>,
    ask_again: Option<Instant>,
    commit_again: Option<Instant>,
    /// Some partition's place is not in the log any more.
    out_of_range: bool,
}

/// What the membership hears.
pub(super) struct Ear {
    watch: Watch,
    heard: Mutex<Vec<Heard>>,
    /// Rebalances are answered at once: nobody drains any more.
    leaving: AtomicBool,
    expelled: AtomicU64,
}

pub(super) enum Heard {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    Lost,
    Committed(Vec<(TopicPartition, Result<(), RDKafkaErrorCode>)>),
}

impl Ear {
    pub(super) fn heard(&self, heard: Heard) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
    }
}

impl Member {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        subscription: Subscription,
        shared: Arc<Shared>,
    ) -> Result<Self, BusError> {
        let mut member = Self {
            cluster,
            subscription,
            shared,
            membership: None,
            committer: None,
            fetcher: None,
            beginning: Vec::new(),
            ask_again: None,
            commit_again: None,
            out_of_range: false,
        };
        member.begin().map_err(|error| BusError::Invalid { reason: format!("a consumer cannot be made: {error}") })?;
        Ok(member)
    }

    /// Makes both clients and joins.
    fn begin(&mut self) -> KafkaResult<()> {
        let waker = || {
            let shared = Arc::clone(&self.shared);
            move || shared.wake()
        };
        let ear = Ear {
            watch: self.cluster.watch("member"),
            heard: Mutex::default(),
            leaving: AtomicBool::new(false),
            expelled: AtomicU64::new(0),
        };
        let mut membership = BaseConsumer::from_config_and_context(&self.membership_config(), ear)?;
        membership.set_nonempty_callback(waker());
        let mut fetcher = BaseConsumer::from_config_and_context(&self.fetcher_config(), self.cluster.watch("fetcher"))?;
        fetcher.set_nonempty_callback(waker());
        let topics: Vec<_> = self.subscription.topics.iter().map(|topic| native_pattern(topic)).collect();
        membership.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        let membership = Arc::new(membership);
        let committer = Committer::start(Arc::clone(&membership), Arc::clone(&self.shared));
        let committer = committer.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        (self.membership, self.committer, self.fetcher) = (Some(membership), Some(committer), Some(fetcher));
        Ok(())
    }

    fn membership_config(&self) -> rdkafka::ClientConfig {
        let options = &self.cluster.options;
        let mut config = self.cluster.config("member");
        config
            .set("group.id", &self.subscription.group)
            .set("partition.assignment.strategy", options.assignor.name())
            .set("session.timeout.ms", millis(options.session_timeout))
            .set("heartbeat.interval.ms", millis(options.session_timeout / 5))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error");
        config
    }

    /// Memory: what waits in [`Assignments`] is at most half of `fetch_bytes`, librdkafka's queue a quarter, and a fetch
    /// under way another quarter, or one batch of the largest size. None of it grows with the partitions.
    fn fetcher_config(&self) -> rdkafka::ClientConfig {
        let quarter = self.subscription.fetch_bytes / 4;
        let fetch = quarter.max(FETCH_BYTES_LEAST);
        let mut config = self.cluster.config("fetcher");
        config
            // A name that no group has: the fetcher never joins one, and commits nothing.
            .set("group.id", format!("{}.fetcher", self.subscription.group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "500")
            .set("fetch.error.backoff.ms", "100")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", (quarter / 1024).clamp(1, 2_097_151).to_string())
            .set("fetch.message.max.bytes", fetch.min(FETCH_BYTES_LEAST).to_string())
            .set("message.max.bytes", fetch.min(FETCH_BYTES_LEAST).to_string())
            .set("fetch.max.bytes", fetch.to_string())
            .set("receive.message.max.bytes", (100_usize << 20).max(fetch + (1 << 20)).to_string());
        config
    }

    /// Works until it is asked to leave, and then leaves.
    pub(super) fn run(mut self) {
        while !self.shared.state().leaving {
            let now = Instant::now();
            let mut busy = self.hear();
            self.begin_partitions(now);
            self.finish_revocation(now);
            self.commit(now);
            self.steer();
            self.find_place();
            busy |= self.fetch();
            if !busy {
                self.shared.sleep(self.until_next(now));
            }
        }
        self.leave();
    }

    fn until_next(&self, now: Instant) -> Duration {
        let deadline = self.shared.state().assignments.deadline();
        let wakes = [deadline, self.ask_again, self.commit_again].into_iter().flatten().min();
        wakes.map_or(IDLE, |at| at.saturating_duration_since(now).min(IDLE).max(Duration::from_millis(1)))
    }

    /// Lets the group say what it has to say. Whether there may be more.
    fn hear(&mut self) -> bool {
        let Some(membership) = &self.membership else { return false };
        let before = membership.context().watch.served();
        let mut errors = Vec::new();
        for _ in 0..POLLS {
            let served = membership.context().watch.served();
            match membership.poll(Duration::ZERO) {
                Some(Err(error)) => errors.push(error),
                // Nothing is fetched by a membership.
                Some(Ok(_)) => {}
                None if served == membership.context().watch.served() => break,
                None => {}
            }
        }
        let busy = membership.context().watch.served() != before;
        let heard = std::mem::take(&mut *membership.context().heard.lock().unwrap_or_else(PoisonError::into_inner));
        if self.shared.state().assignments.is_revoking() && membership.assignment_lost() {
            self.lose_all();
            self.answer_revoked(&[]);
        }
        errors.iter().for_each(|error| self.membership_error(error));
        heard.into_iter().for_each(|heard| self.heard(heard));
        busy
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Assigned(partitions) => {
                self.answer_assigned();
                self.alive();
                self.beginning.extend(partitions);
                self.ask_again = None;
            }
            Heard::Revoked(partitions) => {
                self.beginning.retain(|partition| !partitions.contains(partition));
                let deadline = Instant::now() + self.subscription.revoke_grace;
                self.stop_fetching(&partitions);
                self.shared.state().assignments.revoke(partitions, deadline);
                self.shared.news.notify_one();
            }
            Heard::Lost => {
                self.lose_all();
                self.answer_revoked(&[]);
            }
            Heard::Committed(results) => {
                let again = self.shared.state().assignments.committed(|partition| {
                    let result = results.iter().find(|(committed, _)| committed == partition);
                    let result = result.map_or(Err(RDKafkaErrorCode::Fail), |(_, result)| *result);
                    result.map_err(|code| self.commit_fault(partition, code))
                });
                self.commit_again = again.then(|| Instant::now() + RETRY);
                if results.iter().any(|(_, result)| result.is_ok()) {
                    self.alive();
                }
            }
        }
    }

    fn commit_fault(&self, partition: &TopicPartition, code: RDKafkaErrorCode) -> CommitFault {
        if matches!(
            code,
            RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
        ) {
            return CommitFault::Again;
        }
        if matches!(code, RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed) {
            let what = format!("{} of group {}", partition.topic, self.subscription.group);
            return CommitFault::Refused(BusError::Denied { what, reason: code.to_string() });
        }
        CommitFault::Refused(BusError::Unavailable { reason: format!("the commit of {partition} failed: {code}") })
    }

    fn alive(&self) {
        if let Some(membership) = &self.membership {
            membership.context().watch.alive();
        }
        let source = Source::Group(self.subscription.group.clone());
        if self.cluster.conditions.clear(&source) {
            tracing::info!(group = self.subscription.group, "the group may be used again");
        }
    }

    fn membership_error(&mut self, error: &KafkaError) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let group = &self.subscription.group;
        if code == RDKafkaErrorCode::PollExceeded {
            let count = self
                .membership
                .as_ref()
                .map_or(0, |membership| membership.context().expelled.fetch_add(1, Ordering::Relaxed) + 1);
            tracing::error!(
                group,
                count,
                "this process stood still for longer than the group allows and lost its partitions; joining again"
            );
        } else if matches!(
            code,
            RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed
        ) {
            let what = if code == RDKafkaErrorCode::GroupAuthorizationFailed {
                format!("group {group}")
            } else {
                self.subscription.topics.join(", ")
            };
            let reason = format!("{code}: allow this user to Read the topics and the group `{group}`");
            self.cluster.conditions.set(Source::Group(group.clone()), &format!("reading {what} is denied ({reason})"));
            self.shared.state().trouble = Some(BusError::Denied { what, reason });
            self.shared.news.notify_one();
        } else if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            let reason = format!("the membership of {group} failed ({code})");
            tracing::error!(group, %code, "the membership failed for good; joining anew");
            self.begin_anew(reason);
        }
        // Others are troubles with brokers, which the watch tells, or topics that do not exist yet.
    }

    fn begin_anew(&mut self, reason: String) {
        self.lose_all();
        (self.committer, self.membership, self.fetcher) = (None, None, None);
        if let Err(error) = self.begin() {
            let reason = format!("{reason}, and cannot be made anew: {error}");
            self.shared.leave(BusError::Fatal { reason });
        }
    }

    fn lose_all(&mut self) {
        self.beginning.clear();
        let held: Vec<_> =
            self.shared.state().assignments.positions().into_iter().map(|(partition, _)| partition).collect();
        self.stop_fetching(&held);
        self.shared.state().assignments.lose_all();
        tracing::warn!(
            group = self.subscription.group,
            partitions = held.len(),
            "the group took all partitions away without asking"
        );
        self.shared.news.notify_one();
    }

    /// The group is answered at once; that nothing is fetched yet is our own matter.
    fn answer_assigned(&self) {
        let Some(membership) = &self.membership else { return };
        let nothing = TopicPartitionList::new();
        let answered = match membership.rebalance_protocol() {
            RebalanceProtocol::Cooperative => membership.incremental_assign(&nothing),
            RebalanceProtocol::Eager | RebalanceProtocol::None => membership.assign(&nothing),
        };
        if let Err(error) = answered {
            tracing::warn!(group = self.subscription.group, %error, "an assignment could not be confirmed");
        }
    }

    fn answer_revoked(&self, partitions: &[TopicPartition]) {
        let Some(membership) = &self.membership else { return };
        tracing::debug!(group = self.subscription.group, partitions = partitions.len(), "gave partitions back");
        let answered = match membership.rebalance_protocol() {
            RebalanceProtocol::Cooperative => membership.incremental_unassign(&TopicPartitionList::new()),
            RebalanceProtocol::Eager | RebalanceProtocol::None => membership.unassign(),
        };
        if let Err(error) = answered {
            tracing::warn!(group = self.subscription.group, %error, "a revocation could not be confirmed");
        }
    }

    /// Asks where the group has got to in new partitions, and begins to fetch there.
    fn begin_partitions(&mut self, now: Instant) {
        if self.beginning.is_empty() || self.ask_again.is_some_and(|at| now < at) {
            return;
        }
        let (Some(membership), Some(fetcher)) = (&self.membership, &self.fetcher) else { return };
        let committed = membership.committed_offsets(list(&self.beginning), ASK_TIMEOUT);
        let committed = committed.and_then(|committed| {
            let elements = committed.elements();
            let each = elements.iter().map(|element| {
                element.error().map(|()| (owned(element.topic(), element.partition()), offset_of(element.offset())))
            });
            each.collect::<KafkaResult<Vec<_>>>()
        });
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => {
                tracing::debug!(group = self.subscription.group, %error, "committed offsets are not known yet");
                self.ask_again = Some(Instant::now() + RETRY);
                return;
            }
        };
        let places = committed.iter().map(|(partition, offset)| (partition.clone(), *offset));
        self.shared.state().assignments.assign(places);
        if let Err(error) = fetcher.incremental_assign(&places_of(&committed)) {
            tracing::warn!(group = self.subscription.group, %error, "new partitions cannot be fetched");
        }
        self.beginning.clear();
        self.ask_again = None;
        self.shared.news.notify_one();
    }

    fn stop_fetching(&self, partitions: &[TopicPartition]) {
        let Some(fetcher) = &self.fetcher else { return };
        let assigned = fetcher.assignment().unwrap_or_default();
        let known = |partition: &&TopicPartition| {
            let number = i32::try_from(partition.partition).unwrap_or(i32::MAX);
            assigned.find_partition(&partition.topic, number).is_some()
        };
        let known: Vec<_> = partitions.iter().filter(known).cloned().collect();
        if known.is_empty() {
            return;
        }
        if let Err(error) = fetcher.incremental_unassign(&list(&known)) {
            tracing::warn!(group = self.subscription.group, %error, "partitions that were given back are still fetched");
        }
    }

    fn finish_revocation(&mut self, now: Instant) {
        let done = self.shared.state().assignments.finish_revocation(now);
        if let Some(partitions) = done {
            self.answer_revoked(&partitions);
            self.shared.news.notify_one();
        }
    }

    /// Commits only from here, one request at a time (K7).
    fn commit(&mut self, now: Instant) {
        if self.commit_again.is_some_and(|at| now < at) {
            return;
        }
        self.commit_again = None;
        let Some(committer) = &self.committer else { return };
        if let Some(offsets) = self.shared.state().assignments.take_commits() {
            committer.commit(offsets);
        }
    }

    fn steer(&self) {
        let Some(fetcher) = &self.fetcher else { return };
        let steering = self.shared.state().assignments.steer();
        let paused = if steering.pause.is_empty() { Ok(()) } else { fetcher.pause(&list(&steering.pause)) };
        let resumed = if steering.resume.is_empty() { Ok(()) } else { fetcher.resume(&list(&steering.resume)) };
        if let Err(error) = paused.and(resumed) {
            tracing::warn!(group = self.subscription.group, %error, "partitions cannot be paused or resumed");
        }
    }

    /// Takes what was fetched, while there is room. Whether there may be more.
    fn fetch(&mut self) -> bool {
        let Some(fetcher) = &self.fetcher else { return false };
        for _ in 0..POLLS {
            if !self.shared.state().assignments.has_room() {
                return false;
            }
            let served = fetcher.context().served();
            match fetcher.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let (partition, delivered) = received(&message);
                    if self.shared.state().assignments.arrived(&partition, delivered) {
                        self.shared.news.notify_one();
                    }
                }
                Some(Err(error)) => {
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
                        self.out_of_range = true;
                    }
                    tracing::debug!(group = self.subscription.group, %error, "a fetch failed");
                }
                None if served == fetcher.context().served() => return false,
                None => {}
            }
        }
        fetcher.context().alive();
        true
    }

    /// librdkafka says that a place is not in the log any more, and not which: all are compared with what the log has.
    fn find_place(&mut self) {
        let now = Instant::now();
        if !self.out_of_range || self.ask_again.is_some_and(|at| now < at) {
            return;
        }
        let positions = self.shared.state().assignments.positions();
        for (partition, at) in positions {
            let Some(fetcher) = &self.fetcher else { return };
            match fetcher.fetch_watermarks(&partition.topic, number(&partition), ASK_TIMEOUT) {
                Ok((low, high)) => self.put_in_place(&partition, at, natural(low), natural(high)),
                Err(error) => {
                    tracing::debug!(%partition, %error, "what is kept is not known yet");
                    self.ask_again = Some(now + RETRY);
                    return;
                }
            }
        }
        (self.out_of_range, self.ask_again) = (false, None);
    }

    fn put_in_place(&self, partition: &TopicPartition, at: Option<u64>, low: u64, high: u64) {
        let begin = match at {
            None => low,
            Some(at) if at < low || at > high => low,
            Some(_) => return,
        };
        if let Some(at) = at {
            if at < low {
                tracing::error!(%partition, from = at, to = low, "records were removed before they were read: they are lost");
            } else {
                tracing::error!(%partition, at, end = high, "the cluster has lost the end of the log; reading again what it has");
            }
            self.shared.state().assignments.gap(partition, begin);
            self.shared.news.notify_one();
        }
        self.stop_fetching(std::slice::from_ref(partition));
        let Some(fetcher) = &self.fetcher else { return };
        if let Err(error) = fetcher.incremental_assign(&places_of(&[(partition.clone(), Some(begin))])) {
            tracing::warn!(%partition, %error, "the partition cannot be fetched from where its log begins");
        }
    }

    /// Commits what was asked for, and leaves. Dropping a client of a group blocks until it has left.
    fn leave(&mut self) {
        let deadline = Instant::now() + LEAVE_GRACE;
        self.fetcher = None;
        while self.shared.state().assignments.has_commits() && Instant::now() < deadline {
            self.commit(Instant::now());
            if !self.hear() {
                self.shared.sleep(Duration::from_millis(10));
            }
        }
        self.shared.state().assignments.lose_all();
        if let Some(membership) = &self.membership {
            membership.context().leaving.store(true, Ordering::Release);
            // A rebalance that waits for an answer would hold up the end.
            self.answer_revoked(&[]);
        }
        (self.committer, self.membership) = (None, None);
    }
}

impl ClientContext for Ear {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.watch.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watch.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.watch.generate_oauth_token(config)
    }
}

impl ConsumerContext for Ear {
    fn rebalance(&self, membership: &BaseConsumer<Self>, kind: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        self.watch.serve();
        let assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            let nothing = TopicPartitionList::new();
            let _ = match (membership.rebalance_protocol(), assigned) {
                (RebalanceProtocol::Cooperative, true) => membership.incremental_assign(&nothing),
                (RebalanceProtocol::Cooperative, false) => membership.incremental_unassign(&nothing),
                (RebalanceProtocol::Eager | RebalanceProtocol::None, true) => membership.assign(&nothing),
                (RebalanceProtocol::Eager | RebalanceProtocol::None, false) => membership.unassign(),
            };
            return;
        }
        let elements = partitions.elements();
        let list = elements.iter().map(|element| owned(element.topic(), element.partition())).collect();
        let heard = match (assigned, !assigned && membership.assignment_lost()) {
            (true, _) => Heard::Assigned(list),
            (false, true) => Heard::Lost,
            (false, false) => Heard::Revoked(list),
        };
        self.heard(heard);
    }
}

/// A pattern in librdkafka's words: those that begin with `^` are regular expressions.
fn native_pattern(topic: &str) -> String {
    if topic.contains('*') { format!("^{}$", topic.replace('.', "\\.").replace('*', ".*")) } else { topic.to_owned() }
}

pub(super) fn received(message: &BorrowedMessage<'_>) -> (TopicPartition, Delivered) {
    let bytes = |bytes: Option<&[u8]>| bytes.map_or_else(Bytes::new, Bytes::copy_from_slice);
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let header = |header: rdkafka::message::Header<'_, &[u8]>| Header {
            name: header.key.to_owned().into(),
            value: bytes(header.value),
        };
        headers.iter().map(header).collect()
    });
    let record = Record { key: bytes(message.key()), headers, value: bytes(message.payload()) };
    (owned(message.topic(), message.partition()), Delivered { offset: natural(message.offset()), record })
}

pub(super) fn owned(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, u32::try_from(partition).unwrap_or(0))
}

pub(super) fn number(partition: &TopicPartition) -> i32 {
    i32::try_from(partition.partition).unwrap_or(i32::MAX)
}

/// An offset of theirs; what is none (below zero) counts as the beginning.
pub(super) fn natural(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

pub(super) fn offset_of(offset: Offset) -> Option<u64> {
    match offset {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
    }
}

pub(super) fn list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, number(partition));
    }
    list
}

/// Partitions with where to begin: the offset, or the earliest kept.
fn places_of(places: &[(TopicPartition, Option<u64>)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (partition, offset) in places {
        let offset =
            offset.map_or(Offset::Beginning, |offset| Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX)));
        // Only offsets below zero are refused.
        let _ = list.add_partition_offset(&partition.topic, number(partition), offset);
    }
    list
}
