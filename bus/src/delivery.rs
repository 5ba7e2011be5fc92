//! The promise that an append hands back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::{AppendError, Position};

/// Resolves once the record is durable, or once it is certain that this bus will not answer for it.
///
/// Dropping it takes nothing back: the record may still become durable.
#[derive(Debug)]
#[must_use = "a record is not durable before its delivery has resolved"]
pub struct Delivery(oneshot::Receiver<Result<Position, AppendError>>);

/// The bus's end of a [`Delivery`]. Dropped without an answer it says [`AppendError::Unavailable`].
#[derive(Debug)]
pub struct DeliverySender(oneshot::Sender<Result<Position, AppendError>>);

impl Delivery {
    /// A delivery and the end that answers it.
    pub fn channel() -> (DeliverySender, Self) {
        let (sender, receiver) = oneshot::channel();
        (DeliverySender(sender), Self(receiver))
    }

    /// A delivery that is answered already.
    pub fn ready(result: Result<Position, AppendError>) -> Self {
        let (sender, delivery) = Self::channel();
        sender.resolve(result);
        delivery
    }
}

impl DeliverySender {
    /// Answers; whether anyone still listens does not matter.
    pub fn resolve(self, result: Result<Position, AppendError>) {
        // An error only says that the other end was dropped, which is allowed.
        let _ = self.0.send(result);
    }
}

impl Future for Delivery {
    type Output = Result<Position, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| {
            answer.unwrap_or_else(|_| {
                Err(AppendError::Unavailable { reason: "the bus went away without an answer".to_owned() })
            })
        })
    }
}
