//! The simplest owner: entries are bytes, and each append has its own answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::owner::{Owner, Written};
use crate::{AppendError, Journal, Position};

/// An owner without state.
#[derive(Debug, Default)]
pub struct Plain;

/// An entry of [`Plain`].
#[derive(Debug)]
pub struct PlainEntry {
    payload: Bytes,
    answer: oneshot::Sender<Result<Position, AppendError>>,
}

/// Resolves once the entry is durable. Dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "an entry is not durable before its ticket has resolved"]
pub struct Ticket(oneshot::Receiver<Result<Position, AppendError>>);

impl Journal<Plain> {
    /// Queues `payload`, waiting for room in the queue.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append_bytes(&self, payload: Bytes) -> Result<Ticket, AppendError> {
        let size = payload.len();
        let (entry, ticket) = entry(payload);
        self.append(entry, size).await?;
        Ok(ticket)
    }
}

/// An entry, and the answer to it.
pub(crate) fn entry(payload: Bytes) -> (PlainEntry, Ticket) {
    let (answer, ticket) = oneshot::channel();
    (PlainEntry { payload, answer }, Ticket(ticket))
}

impl Owner for Plain {
    type Entry = PlainEntry;

    fn encode(&mut self, entry: &mut PlainEntry, out: &mut Vec<u8>) {
        out.extend_from_slice(&entry.payload);
    }

    fn durable(&mut self, entries: Vec<Written<PlainEntry>>) {
        for written in entries {
            // Nobody needs to listen.
            let _ = written.entry.answer.send(Ok(written.position));
        }
    }

    fn failed(&mut self, entries: Vec<PlainEntry>, error: AppendError) {
        for entry in entries {
            let _ = entry.answer.send(Err(error.clone()));
        }
    }
}

impl Future for Ticket {
    type Output = Result<Position, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| {
            let gone = || AppendError::Failed { reason: "the journal's writer has ended without an answer".to_owned() };
            answer.unwrap_or_else(|_| Err(gone()))
        })
    }
}
