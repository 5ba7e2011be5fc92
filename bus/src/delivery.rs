//! The promise that an append hands back.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::{AppendError, Position};

/// Resolves once the record is durable, or once it is certain that this bus will not answer for it.
///
/// Dropping it takes nothing back: the record may still become durable.
#[must_use = "a record is not durable before its delivery has resolved"]
pub struct Delivery(Answer);

/// Most deliveries are answered through a channel, which costs no second allocation.
enum Answer {
    Channel(oneshot::Receiver<Result<Position, AppendError>>),
    Future(BoxFuture<'static, Result<Position, AppendError>>),
}

impl fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Delivery").finish_non_exhaustive()
    }
}

/// The bus's end of a [`Delivery`]. Dropped without an answer it says [`AppendError::Unavailable`].
#[derive(Debug)]
pub struct DeliverySender(oneshot::Sender<Result<Position, AppendError>>);

impl Delivery {
    /// A delivery and the end that answers it.
    pub fn channel() -> (DeliverySender, Self) {
        let (sender, receiver) = oneshot::channel();
        (DeliverySender(sender), Self(Answer::Channel(receiver)))
    }

    /// A delivery that is answered by a future: for those who put something between a bus and its user.
    pub fn from_future(answer: impl Future<Output = Result<Position, AppendError>> + Send + 'static) -> Self {
        Self(Answer::Future(Box::pin(answer)))
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
        match &mut self.0 {
            Answer::Channel(receiver) => Pin::new(receiver).poll(context).map(|answer| {
                let gone = || AppendError::Unavailable { reason: "the bus went away without an answer".to_owned() };
                answer.unwrap_or_else(|_| Err(gone()))
            }),
            Answer::Future(future) => future.as_mut().poll(context),
        }
    }
}
