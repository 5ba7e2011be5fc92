//! One bulk request from documents to outcomes: what is too large is halved, what a whole refusal holds up is sent apart.
//!
//! Owns no connection and no queue, and tries nothing again that failed: a document without an outcome of its own gets
//! [`Outcome::Retry`] or [`Outcome::Held`], and comes again when its lane says so. What is sent again *within* a request is
//! only what the server surely did not take: a body that it called too large, or refused as a whole.

use std::time::Duration;

use bytes::Bytes;
use elasticsearch::http::Method;

use super::{
    super::Outcome,
    answer::{self, Answered, Cause},
    body::{self, Entry, Target, Writer},
    counters::Counters,
    pace::Course,
    state::Health,
    transport::{Cluster, Failure, Reply, Request},
};

/// Of the answer only what decides comes over the wire. A shard without a primary is waited for by the server, for less
/// time than a request may take: else one index would make its node look dead.
fn path(form: Form) -> String {
    let seconds = form.shard_timeout.as_secs().max(1);
    format!("/_bulk?filter_path=errors,items.*.status,items.*.error&timeout={seconds}s")
}

/// A single document at least this large, whose connection the server cut in mid-send, may be too large for it.
const SUSPECT_BYTES: usize = 64 << 10;

/// How often such a document is tried before it counts as too large.
const SUSPECT_TRIES: usize = 3;

/// How a request goes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) gzip: bool,
    pub(super) target: Target,
    /// Uncompressed bytes of a body, unless a single document is larger.
    pub(super) bytes: usize,
    /// Long strings in free-form objects are cut.
    pub(super) fit: bool,
    /// How long the servers wait for a shard.
    pub(super) shard_timeout: Duration,
}

/// What a request came to.
#[derive(Debug)]
pub(super) struct Report {
    /// One for each entry, in order.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) course: Course,
    /// Uncompressed bytes of the body that `course` speaks of.
    pub(super) bytes: usize,
    pub(super) health: Health,
}

impl Report {
    fn note(&mut self, course: Course, bytes: usize) {
        let rank = |course: Course| match course {
            Course::NotSent => 0,
            Course::Answered => 1,
            Course::PushedBack => 2,
            Course::TooLarge => 3,
        };
        if rank(course) > rank(self.course) {
            (self.course, self.bytes) = (course, bytes);
        }
    }
}

/// What one body came to.
enum Step {
    Done(Vec<Outcome>, Course),
    /// The server does not take the body for its size.
    TooLarge(String),
    /// The connection broke while the body was sent: perhaps for its size.
    CutInSending(String),
    /// A whole refusal that may be one index's fault.
    Apart(Outcome),
    /// No document has an answer.
    Failed(Outcome, Course, Health),
}

/// Sends entries, and answers for each.
pub(super) async fn exchange(cluster: &Cluster, form: Form, entries: &[Entry<'_>], counters: &Counters) -> Report {
    let mut report =
        Report { outcomes: unanswered(entries.len()), course: Course::NotSent, bytes: 0, health: Health::Well };
    // Ranges still to be sent, first on top.
    let mut todo = ranges(entries, form.bytes);
    while let Some((start, end)) = todo.pop() {
        let part = &entries[start..end];
        let bytes = part.iter().map(|entry| body::size_of(entry.document)).sum();
        let mut step = send(cluster, form, part, bytes, counters).await;
        if let (Step::CutInSending(words), 1) = (&step, part.len()) {
            let words = words.clone();
            step = resend_suspect(cluster, form, part, bytes, words, counters).await;
        }
        match step {
            Step::Done(outcomes, course) => {
                report.note(course, bytes);
                report.outcomes.splice(start..end, outcomes);
            }
            Step::TooLarge(_) | Step::CutInSending(_) if part.len() > 1 => {
                counters.halved();
                report.note(Course::TooLarge, bytes);
                let middle = start + part.len() / 2;
                todo.extend([(middle, end), (start, middle)]);
            }
            Step::TooLarge(words) | Step::CutInSending(words) => {
                report.outcomes[start] = Outcome::Rejected { reason: words };
            }
            Step::Apart(refusal) => match boundary(part) {
                Some(middle) => todo.extend([(start + middle, end), (start, start + middle)]),
                None => {
                    let words = words_of(&refusal);
                    report.outcomes[start..end].fill(refusal);
                    report.note(Course::Answered, bytes);
                    report.health = Health::Refusal(words);
                }
            },
            Step::Failed(outcome, course, health) => {
                report.note(course, bytes);
                report.outcomes[start..end].fill(outcome.clone());
                report.health = health;
                // The rest would meet the same server; its lanes come again.
                for (start, end) in todo.drain(..) {
                    report.outcomes[start..end].fill(outcome.clone());
                }
            }
        }
    }
    report
}

/// Cuts entries into runs of at most `bytes`, or of one that is larger; the last run first.
fn ranges(entries: &[Entry<'_>], bytes: usize) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (at, entry) in entries.iter().enumerate() {
        let size = body::size_of(entry.document);
        if at > start && sum + size > bytes {
            ranges.push((start, at));
            (start, sum) = (at, 0);
        }
        sum += size;
    }
    if start < entries.len() {
        ranges.push((start, entries.len()));
    }
    ranges.reverse();
    ranges
}

fn unanswered(count: usize) -> Vec<Outcome> {
    vec![Outcome::Retry { reason: "the index did not answer".to_owned(), after: None }; count]
}

fn words_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Retry { reason, .. } | Outcome::Rejected { reason } | Outcome::Held { reason } => reason.clone(),
        Outcome::Created | Outcome::Exists => String::new(),
    }
}

/// Where the documents of the first index end, if there is another: one index must not hold up its neighbours.
fn boundary(part: &[Entry<'_>]) -> Option<usize> {
    let first = &part.first()?.document.index;
    part.iter().position(|entry| entry.document.index != *first)
}

async fn send(cluster: &Cluster, form: Form, part: &[Entry<'_>], bytes: usize, counters: &Counters) -> Step {
    let mut writer = Writer::new(form.target, form.fit, bytes);
    for entry in part {
        writer.push(*entry);
    }
    let body = match pack(writer.finish(), form.gzip).await {
        Ok(body) => body,
        Err(error) => {
            let words = format!("a bulk request could not be packed: {error}");
            return Step::Failed(retry(&words), Course::NotSent, Health::Trouble(words));
        }
    };
    counters.sent(part.len(), bytes, body.len());
    let path = path(form);
    let request = Request {
        method: Method::Post,
        body: Some(body),
        content_type: "application/x-ndjson",
        gzip: form.gzip,
        ..Request::get(&path)
    };
    match cluster.send(request).await {
        Ok(reply) => read(&reply, form.target, part),
        Err(Failure::CutInSending(words)) => Step::CutInSending(words),
        Err(failure) => {
            let course = match failure {
                Failure::Connect(_) => Course::NotSent,
                Failure::Timeout(_) | Failure::Cut(_) | Failure::CutInSending(_) => Course::PushedBack,
            };
            Step::Failed(retry(failure.words()), course, no_answer(cluster, failure.words()))
        }
    }
}

async fn pack(body: Bytes, gzip: bool) -> std::io::Result<Bytes> {
    if !gzip {
        return Ok(body);
    }
    // Some tens of milliseconds of work: not on a thread that others wait for.
    tokio::task::spawn_blocking(move || body::gzip(&body)).await.map_err(std::io::Error::other)?
}

fn read(reply: &Reply, target: Target, part: &[Entry<'_>]) -> Step {
    match reply.status {
        200..300 => {
            let sent = part.iter().map(|entry| (target.mode(entry.mode), &*entry.document.index));
            match answer::read(&reply.body, sent) {
                Some(Answered { outcomes, pressed }) => {
                    Step::Done(outcomes, if pressed { Course::PushedBack } else { Course::Answered })
                }
                None => odd(reply),
            }
        }
        413 => Step::TooLarge(format!("too large for the index server, which answers 413{}", said(&reply.body))),
        400 | 403 | 404 => Step::Apart(answer::refused(reply.status, &answer::cause_of_whole(&reply.body), None)),
        429 | 500.. => failed(reply, Course::PushedBack),
        300..400 => odd(reply),
        _ => failed(reply, Course::Answered),
    }
}

fn failed(reply: &Reply, course: Course) -> Step {
    let mut outcome = answer::refused(reply.status, &answer::cause_of_whole(&reply.body), None);
    if let Outcome::Retry { after, .. } = &mut outcome {
        *after = reply.retry_after.map(|after| after.min(Duration::from_secs(60)));
    }
    let words = words_of(&outcome);
    let health = if reply.status >= 500 { Health::Trouble(words) } else { Health::Refusal(words) };
    Step::Failed(outcome, course, health)
}

fn retry(words: &str) -> Outcome {
    Outcome::Retry { reason: words.to_owned(), after: None }
}

/// One node that does not answer is no trouble while there are others.
fn no_answer(cluster: &Cluster, words: &str) -> Health {
    if cluster.has_nodes_left() { Health::Silent } else { Health::Trouble(words.to_owned()) }
}

fn odd(reply: &Reply) -> Step {
    let words = format!(
        "what answers at `urls` of [index] does not answer as Elasticsearch does (status {}{}); check the address and any proxy before it",
        reply.status,
        said(&reply.body),
    );
    Step::Failed(retry(&words), Course::PushedBack, Health::Trouble(words))
}

fn said(body: &[u8]) -> String {
    let Cause { words, .. } = answer::cause_of_whole(body);
    match (words.is_empty(), body.is_empty()) {
        (false, _) => format!(": {words}"),
        (true, false) => format!(": {}", answer::excerpt(body)),
        (true, true) => String::new(),
    }
}

/// A single document whose connection was cut in mid-send: too large only if the server cuts it each time, and is well
/// otherwise.
async fn resend_suspect(
    cluster: &Cluster,
    form: Form,
    part: &[Entry<'_>],
    bytes: usize,
    words: String,
    counters: &Counters,
) -> Step {
    let later = || Step::Failed(retry(&words), Course::PushedBack, no_answer(cluster, &words));
    if bytes < SUSPECT_BYTES {
        return later();
    }
    for _ in 1..SUSPECT_TRIES {
        match cluster.send(Request::get("/").within(Duration::from_secs(5))).await {
            Ok(reply) if reply.status < 500 => {}
            Ok(_) | Err(_) => return later(),
        }
        let step = send(cluster, form, part, bytes, counters).await;
        if !matches!(step, Step::CutInSending(_)) {
            return step;
        }
    }
    Step::TooLarge(format!("too large for the index server, which cuts the connection each time: {words}"))
}
