//! What to do with the outcomes of a bulk: a pure decision for each document.

use std::time::Duration;

use crate::{document::Document, index::Outcome};

/// Documents sorted by what an index said of them.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Number of documents that were written now.
    pub(crate) created: u64,
    /// Number of documents that were there already: a replay.
    pub(crate) existing: u64,
    /// To be tried again, and only these.
    pub(crate) retry: Vec<Document>,
    /// Refused for good, each with the cause.
    pub(crate) rejected: Vec<(Document, String)>,
    /// Why the lane is held or the index fails, where documents are to be tried again.
    pub(crate) trouble: Option<Trouble>,
}

/// Why documents wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The index's own words.
    pub(crate) reason: String,
    /// The lane is held: waiting longer is right, until somebody cures it.
    pub(crate) held: bool,
    /// Least time to wait, where the index asked for one.
    pub(crate) after: Option<Duration>,
}

impl Verdict {
    /// Sorts documents by their outcomes. A missing outcome counts as a failure to be tried again: an index that
    /// answered for fewer documents than it was given has not answered for the rest.
    pub(crate) fn sort(documents: Vec<Document>, outcomes: Vec<Outcome>) -> Self {
        let mut verdict = Self::default();
        let mut outcomes = outcomes.into_iter();
        for document in documents {
            match outcomes.next() {
                Some(Outcome::Created) => verdict.created += 1,
                Some(Outcome::Exists) => verdict.existing += 1,
                Some(Outcome::Rejected { reason }) => verdict.rejected.push((document, reason)),
                Some(Outcome::Retry { reason, after }) => {
                    verdict.wait(document, Trouble { reason, held: false, after });
                }
                Some(Outcome::Held { reason }) => verdict.wait(document, Trouble { reason, held: true, after: None }),
                None => {
                    let reason = "the index did not answer for every document".to_owned();
                    verdict.wait(document, Trouble { reason, held: false, after: None });
                }
            }
        }
        verdict
    }

    fn wait(&mut self, document: Document, trouble: Trouble) {
        self.retry.push(document);
        match &mut self.trouble {
            None => self.trouble = Some(trouble),
            Some(known) => {
                known.after = known.after.max(trouble.after);
                if trouble.held && !known.held {
                    known.held = true;
                    known.reason = trouble.reason;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use logmesh_proto::{RecordId, StreamKey};

    use super::*;

    fn document(offset: u64) -> Document {
        let stream_key = StreamKey::from_bytes([1; 16]);
        Document {
            id: RecordId::derive(stream_key, offset, b""),
            stream_key,
            offset,
            end_offset: offset + 1,
            index: "logmesh-default-2026.11.23".into(),
            timestamp_unix_nano: 0,
            received_unix_nano: 0,
            resend: false,
            body: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn only_retriable_documents_are_tried_again() {
        let retry = |after| Outcome::Retry { reason: "busy".into(), after };
        let outcomes = vec![
            Outcome::Created,
            retry(Some(Duration::from_secs(2))),
            Outcome::Exists,
            Outcome::Rejected { reason: "mapping".into() },
            Outcome::Held { reason: "no right".into() },
            retry(None),
        ];
        let verdict = Verdict::sort((0..6).map(document).collect(), outcomes);
        assert_eq!((verdict.created, verdict.existing), (1, 1));
        assert_eq!(verdict.retry.iter().map(|document| document.offset).collect::<Vec<_>>(), [1, 4, 5]);
        assert_eq!(verdict.rejected[0].0.offset, 3);
        let expected = Trouble { reason: "no right".into(), held: true, after: Some(Duration::from_secs(2)) };
        assert_eq!(verdict.trouble, Some(expected));
    }

    #[test]
    fn documents_without_an_answer_are_tried_again() {
        let verdict = Verdict::sort(vec![document(0), document(1)], vec![Outcome::Created]);
        assert_eq!(verdict.retry.len(), 1);
        assert!(verdict.trouble.is_some_and(|trouble| !trouble.held));
    }
}
