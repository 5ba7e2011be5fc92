//! What all documents of a batch share, rendered once.

use logmesh_proto::Envelope;

use super::writer;
use crate::parse::Text;

/// Most labels of a stream, longest name and longest value in bytes: what goes beyond is left out.
const LABELS_MAX: usize = 64;
const LABEL_NAME_MAX: usize = 256;
const LABEL_VALUE_MAX: usize = 1024;

/// Pieces of a document, each with the comma before it, all but the first two complete members.
#[derive(Debug, Default)]
pub(super) struct Constants {
    /// `,"log":{"file":{"path":"…"},"offset":`
    pub(super) log: Vec<u8>,
    /// `,"event":{"created":"…","ingested":"…","dataset":"`, for `observed_unix_nano`.
    pub(super) event: Vec<u8>,
    observed_unix_nano: Option<i64>,
    received_unix_nano: i64,
    /// `,"agent":{…},"labels":{…}`
    pub(super) agent: Vec<u8>,
    /// `,"host":{"name":"…"}`, or nothing.
    pub(super) host: Vec<u8>,
    /// `,"service":{"name":"…"}`, or nothing.
    pub(super) service: Vec<u8>,
    /// The stream's labels did not all fit.
    pub(super) labels_truncated: bool,
}

impl Constants {
    /// Renders what follows from the envelope alone.
    pub(super) fn render(&mut self, envelope: &Envelope) {
        let info = &envelope.info;
        self.received_unix_nano = i64::try_from(envelope.received_unix_nano).unwrap_or(i64::MAX);
        self.observed_unix_nano = None;
        replace(&mut self.log, |out| {
            out.extend_from_slice(b",\"log\":{");
            if !info.path.is_empty() {
                writer::member(out, b"\"file\":{\"path\":\"", Text::Plain(info.path.as_bytes()));
                out.extend_from_slice(b"},");
            }
            out.extend_from_slice(b"\"offset\":");
        });
        replace(&mut self.host, |out| name(out, b",\"host\":{\"name\":\"", &info.host));
        replace(&mut self.service, |out| name(out, b",\"service\":{\"name\":\"", &info.service));
        self.agent(envelope);
    }

    fn agent(&mut self, envelope: &Envelope) {
        let info = &envelope.info;
        // The map is in order of its names, so that a replay writes the same bytes.
        let fits = |(name, value): &(&String, &String)| {
            !name.is_empty() && name.len() <= LABEL_NAME_MAX && value.len() <= LABEL_VALUE_MAX
        };
        let labels: Vec<_> = info.labels.iter().filter(fits).take(LABELS_MAX).collect();
        self.labels_truncated = labels.len() < info.labels.len();
        replace(&mut self.agent, |out| {
            writer::member(out, b",\"agent\":{\"id\":\"", Text::Plain(envelope.identity.as_bytes()));
            if !info.agent.is_empty() {
                writer::member(out, b",\"name\":\"", Text::Plain(info.agent.as_bytes()));
            }
            out.push(b'}');
            let mut separator: &[u8] = b",\"labels\":{\"";
            for (name, value) in &labels {
                writer::member(out, separator, Text::Plain(name.as_bytes()));
                writer::member(out, b":\"", Text::Plain(value.as_bytes()));
                separator = b",\"";
            }
            if !labels.is_empty() {
                out.push(b'}');
            }
        });
    }

    /// Renders `event` for another observed time, if it is another.
    pub(super) fn observed(&mut self, observed_unix_nano: i64) {
        if self.observed_unix_nano == Some(observed_unix_nano) {
            return;
        }
        self.observed_unix_nano = Some(observed_unix_nano);
        let received_unix_nano = self.received_unix_nano;
        replace(&mut self.event, |out| {
            out.extend_from_slice(b",\"event\":{\"created\":\"");
            writer::time(out, observed_unix_nano);
            out.extend_from_slice(b"\",\"ingested\":\"");
            writer::time(out, received_unix_nano);
            out.extend_from_slice(b"\",\"dataset\":\"");
        });
    }
}

fn replace(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.clear();
    write(out);
}

fn name(out: &mut Vec<u8>, prefix: &[u8], name: &str) {
    if !name.is_empty() {
        writer::member(out, prefix, Text::Plain(name.as_bytes()));
        out.push(b'}');
    }
}
