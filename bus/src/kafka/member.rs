//! A member of a group: the thread behind a consumer.
//!
//! It has two clients. The [`Membership`] joins the group, is told what it gets and has to give, and commits; it fetches
//! nothing. The [`Fetcher`] belongs to no group and reads exactly what is held. One client alone would do both, but librdkafka
//! stops the fetching of *all* partitions from the moment that a rebalance is announced until it is answered
//! (`rd_kafka_assignment_pause`), and a revocation is answered only when the caller has drained. With two, the other
//! partitions keep flowing, and no message stands between the thread and what the group says.
//!
//! The thread polls both without a wait and sleeps until librdkafka or the caller wakes it. So the membership is kept alive
//! whatever the caller does. Should the process stand still for longer than the group allows, the group takes everything
//! away: that is told as lost, counted in a log line, and the member joins again by itself.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::Instant;

use super::client::Cluster;
use super::commits::CommitFault;
use super::conditions::Source;
use super::ear::Heard;
use super::fetcher::Fetcher;
use super::membership::Membership;
use super::shared::Shared;
use crate::{BusError, Subscription, TopicPartition};

/// How long the thread sleeps when nothing wakes it.
const IDLE: Duration = Duration::from_millis(100);
/// How long a question to the brokers may hold up the thread.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait before the brokers are asked again, or a commit is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// From when on it is said that what is committed cannot be learnt.
const UNKNOWN_AFTER: Duration = Duration::from_secs(5);
/// What a leaving member may take for commits that were requested.
const LEAVE_GRACE: Duration = Duration::from_secs(3);

/// The thread's own.
pub(super) struct Member {
    cluster: Arc<Cluster>,
    subscription: Subscription,
    shared: Arc<Shared>,
    clients: Option<Clients>,
    /// Given by the group, and not yet begun: what is committed is being asked.
    beginning: Vec<TopicPartition>,
    ask_again: Option<Instant>,
    /// Since when that cannot be learnt.
    unknown_since: Option<Instant>,
    commit_again: Option<Instant>,
    /// How often the group took everything away.
    expelled: u64,
}

struct Clients {
    fetcher: Fetcher,
    membership: Membership,
    /// Of the way to the brokers that they were made with.
    number: u64,
}

impl Clients {
    fn new(cluster: &Cluster, subscription: &Subscription, shared: &Arc<Shared>) -> KafkaResult<Self> {
        let number = cluster.security().number;
        let fetcher = Fetcher::new(cluster, subscription, shared)?;
        Ok(Self { number, fetcher, membership: Membership::join(cluster, subscription, shared)? })
    }
}

impl Member {
    /// Joins; what comes of it is the thread's matter.
    pub(super) fn new(
        cluster: Arc<Cluster>,
        subscription: Subscription,
        shared: Arc<Shared>,
    ) -> Result<Self, BusError> {
        let clients = Clients::new(&cluster, &subscription, &shared)
            .map_err(|error| BusError::Invalid { reason: format!("a consumer cannot be made: {error}") })?;
        Ok(Self {
            cluster,
            subscription,
            shared,
            clients: Some(clients),
            beginning: Vec::new(),
            ask_again: None,
            unknown_since: None,
            commit_again: None,
            expelled: 0,
        })
    }

    /// Works until it is asked to leave, and then leaves.
    pub(super) fn run(mut self) {
        while !self.shared.state().leaving {
            let now = Instant::now();
            if self.clients.as_ref().is_some_and(|clients| clients.number != self.cluster.security().number) {
                self.begin_anew();
            }
            let busy = self.hear();
            self.begin_partitions(now);
            self.finish_revocation(now);
            self.commit(now);
            if !self.fetch(now) && !busy {
                self.shared.sleep(self.until_next(now));
            }
        }
        self.leave();
    }

    fn until_next(&self, now: Instant) -> Duration {
        let revocation = self.shared.state().assignments.deadline();
        let places = self.clients.as_ref().and_then(|clients| clients.fetcher.deadline());
        let wakes = [revocation, places, self.ask_again, self.commit_again].into_iter().flatten().min();
        wakes.map_or(IDLE, |at| at.saturating_duration_since(now).min(IDLE).max(Duration::from_millis(1)))
    }

    fn hear(&mut self) -> bool {
        let Some(clients) = &self.clients else { return false };
        let (heard, busy) = clients.membership.hear();
        // Lost while it waits to be answered: nobody waits for the answer any more.
        let lost = self.shared.state().assignments.is_revoking() && clients.membership.is_lost();
        if lost {
            self.lose_all();
        }
        heard.into_iter().for_each(|heard| self.take_in(heard));
        busy
    }

    fn take_in(&mut self, heard: Heard) {
        let Some(clients) = &self.clients else { return };
        match heard {
            Heard::Assigned(partitions) => {
                clients.membership.accept();
                self.beginning.extend(partitions);
                (self.ask_again, self.unknown_since) = (None, None);
                self.alive();
            }
            Heard::Revoked(partitions) => {
                self.beginning.retain(|partition| !partitions.contains(partition));
                clients.fetcher.stop(&partitions);
                let deadline = Instant::now() + self.subscription.revoke_grace;
                self.shared.state().assignments.revoke(partitions, deadline);
                self.shared.news.notify_one();
            }
            Heard::Lost => self.lose_all(),
            Heard::Committed(results) => self.committed(&results),
            Heard::Error(error) => self.error(&error),
        }
    }

    fn committed(&mut self, results: &[(TopicPartition, Result<(), RDKafkaErrorCode>)]) {
        let group = &self.subscription.group;
        let again = self.shared.state().assignments.committed(|partition| {
            let result = results.iter().find(|(committed, _)| committed == partition);
            let result = result.map_or(Err(RDKafkaErrorCode::Fail), |(_, result)| *result);
            result.map_err(|code| commit_fault(group, partition, code))
        });
        self.commit_again = again.then(|| Instant::now() + RETRY);
        if results.iter().any(|(_, result)| result.is_ok()) {
            self.alive();
        }
    }

    /// The group answered: whatever kept us from it is over.
    fn alive(&self) {
        if let Some(clients) = &self.clients {
            clients.membership.alive();
        }
        if self.cluster.conditions.clear(&Source::Group(self.subscription.group.clone())) {
            tracing::info!(group = self.subscription.group, "the group may be used again");
        }
    }

    fn error(&mut self, error: &KafkaError) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let group = &self.subscription.group;
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            tracing::error!(group, %code, "the membership failed for good; joining anew");
            self.begin_anew();
        } else if code == RDKafkaErrorCode::PollExceeded {
            tracing::error!(group, "this process stood still for longer than the group allows");
        } else if code == RDKafkaErrorCode::GroupAuthorizationFailed {
            self.denied(format!("the group `{group}`"), code);
        } else if code == RDKafkaErrorCode::TopicAuthorizationFailed {
            self.denied(self.subscription.topics.join(", "), code);
        }
        // Others are troubles with brokers, which the watch tells, or topics that do not exist yet.
    }

    fn denied(&self, what: String, code: RDKafkaErrorCode) {
        let group = &self.subscription.group;
        let reason = format!("{code}: allow this user to Read the topics and the group `{group}`");
        let source = Source::Group(group.clone());
        if self.cluster.conditions.set(source, &format!("reading {what} is denied ({reason})")) {
            tracing::warn!(group, what, reason, "reading is denied");
        }
        self.shared.state().trouble = Some(BusError::Denied { what, reason });
        self.shared.news.notify_one();
    }

    fn begin_anew(&mut self) {
        self.lose_all();
        self.clients = None;
        // How a commit under way went was told to a client that is gone.
        self.shared.state().assignments.committed(|_| Err(CommitFault::Again));
        self.commit_again = None;
        match Clients::new(&self.cluster, &self.subscription, &self.shared) {
            Ok(clients) => self.clients = Some(clients),
            Err(error) => {
                let reason = format!("a consumer of {} cannot be made anew: {error}", self.subscription.group);
                self.shared.leave(BusError::Fatal { reason });
            }
        }
    }

    /// The group has taken everything away without asking.
    fn lose_all(&mut self) {
        self.beginning.clear();
        self.expelled += 1;
        let held = self.shared.state().assignments.partitions();
        if let Some(clients) = &self.clients {
            clients.fetcher.stop(&held);
            clients.membership.give_back();
        }
        self.shared.state().assignments.lose_all();
        let (group, partitions, count) = (&self.subscription.group, held.len(), self.expelled);
        tracing::warn!(group, partitions, count, "the group took its partitions away without asking; joining again");
        self.shared.news.notify_one();
    }

    /// Asks where the group has got to in new partitions, and begins to fetch there.
    fn begin_partitions(&mut self, now: Instant) {
        if self.beginning.is_empty() || self.ask_again.is_some_and(|at| now < at) {
            return;
        }
        let Some(clients) = &self.clients else { return };
        let committed = match clients.membership.committed(&self.beginning, ASK_TIMEOUT) {
            Ok(committed) => committed,
            Err(error) => {
                self.ask_again = Some(Instant::now() + RETRY);
                self.cannot_begin(now, &error);
                return;
            }
        };
        if self.unknown_since.take().is_some() {
            self.alive();
        }
        self.shared.state().assignments.assign(committed.iter().cloned());
        clients.fetcher.begin(committed.iter().map(|(partition, offset)| (partition, *offset)));
        self.beginning.clear();
        self.ask_again = None;
        self.shared.news.notify_one();
    }

    /// Brokers that change places do not know for a moment; for longer, somebody must look.
    fn cannot_begin(&mut self, now: Instant, error: &KafkaError) {
        let group = &self.subscription.group;
        tracing::debug!(group, %error, "what is committed is not known yet");
        if now - *self.unknown_since.get_or_insert(now) < UNKNOWN_AFTER {
            return;
        }
        let words =
            format!("the group `{group}` does not say what it has committed ({error}): look at its coordinator");
        if self.cluster.conditions.set(Source::Group(group.clone()), &words) {
            tracing::warn!(group, partitions = self.beginning.len(), %error, "reading cannot begin");
        }
    }

    fn finish_revocation(&self, now: Instant) {
        let Some(partitions) = self.shared.state().assignments.finish_revocation(now) else { return };
        if let Some(clients) = &self.clients {
            clients.membership.give_back();
        }
        tracing::debug!(group = self.subscription.group, partitions = partitions.len(), "gave partitions back");
        self.shared.news.notify_one();
    }

    /// Commits only from here, one request at a time (K7).
    fn commit(&mut self, now: Instant) {
        if self.commit_again.is_some_and(|at| now < at) {
            return;
        }
        self.commit_again = None;
        let Some(clients) = &self.clients else { return };
        if let Some(offsets) = self.shared.state().assignments.take_commits() {
            clients.membership.commit(offsets);
        }
    }

    fn fetch(&mut self, now: Instant) -> bool {
        let Some(clients) = &mut self.clients else { return false };
        clients.fetcher.steer(&self.shared);
        clients.fetcher.find_places(&self.shared, now);
        clients.fetcher.fetch(&self.shared, now)
    }

    /// Commits what was asked for, and leaves. Dropping a client blocks until it has left: whoever waits for this thread
    /// waits no longer than it wants to.
    fn leave(&mut self) {
        let deadline = Instant::now() + LEAVE_GRACE;
        while self.shared.state().assignments.has_commits() && Instant::now() < deadline {
            self.commit(Instant::now());
            if !self.hear() {
                self.shared.sleep(Duration::from_millis(10));
            }
        }
        self.shared.state().assignments.lose_all();
        if let Some(clients) = &self.clients {
            clients.membership.prepare_to_leave();
        }
        self.clients = None;
    }
}

/// Who is to hear of a commit that failed.
fn commit_fault(group: &str, partition: &TopicPartition, code: RDKafkaErrorCode) -> CommitFault {
    let passing = matches!(
        code,
        RDKafkaErrorCode::RebalanceInProgress
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::CoordinatorNotAvailable
    );
    if passing {
        return CommitFault::Again;
    }
    if matches!(code, RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed) {
        let what = format!("{} of the group {group}", partition.topic);
        return CommitFault::Refused(BusError::Denied { what, reason: code.to_string() });
    }
    CommitFault::Refused(BusError::Unavailable { reason: format!("the commit of {partition} failed: {code}") })
}
