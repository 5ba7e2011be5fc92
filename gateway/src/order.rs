//! The order of one stream within one session.
//!
//! Pure. Once a batch was refused, no later batch of the stream may overtake it: all are refused until one returns that
//! begins where the refused one began (or before). Batches that were already handed to the bus are not called back; the
//! bus may make them durable, and nothing depends on order beyond this session.

use std::collections::BTreeSet;

/// First offsets that a well-behaved client never has outstanding in such a number.
const REFUSED_MAX: usize = 4096;

/// Where a stream stands after refusals.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// First offsets of the batches that were refused for a reason of their own and have not returned.
    refused: BTreeSet<u64>,
}

impl Order {
    /// Whether a batch may be taken now without overtaking a refused one.
    pub(crate) fn allows(&self, first_offset: u64) -> bool {
        self.refused.first().is_none_or(|least| first_offset <= *least)
    }

    /// Notes that a batch was taken. Call it only for one that [`Order::allows`].
    pub(crate) fn taken(&mut self, first_offset: u64, end_offset: u64) {
        if !self.refused.is_empty() {
            // A batch may cover several refused ones, when the client cut anew.
            self.refused.retain(|refused| !(first_offset..end_offset).contains(refused));
        }
    }

    /// Notes that a batch was refused, or that the bus gave it back.
    pub(crate) fn refused(&mut self, first_offset: u64) {
        self.refused.insert(first_offset);
        if self.refused.len() > REFUSED_MAX {
            self.refused.pop_last();
        }
    }

    /// Whether nothing is outstanding.
    pub(crate) fn is_clear(&self) -> bool {
        self.refused.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn later_batches_wait_until_the_refused_one_returns() {
        let mut order = Order::default();
        order.refused(10);
        assert!(!order.allows(20));
        assert!(order.allows(10));
        order.taken(10, 20);
        assert!(order.allows(20) && order.is_clear());
    }

    #[test]
    fn a_refused_batch_may_return_in_pieces() {
        let mut order = Order::default();
        order.refused(10);
        order.taken(10, 15);
        assert!(order.allows(15));
    }

    /// A client that keeps batches until they are acknowledged and re-sends refused ones in order, against a bus that
    /// fails at random, some answers late.
    #[derive(Debug)]
    struct Trial {
        order: Order,
        unsent: VecDeque<u64>,
        at_bus: VecDeque<u64>,
        durable: Vec<u64>,
        /// Refused for a reason of its own, and not taken since.
        held_against: BTreeSet<u64>,
    }

    impl Trial {
        fn send(&mut self, refuse: bool) -> Result<(), TestCaseError> {
            let Some(batch) = self.unsent.pop_front() else { return Ok(()) };
            let allowed = self.order.allows(batch * 10);
            let overtakes = self.held_against.iter().any(|refused| *refused < batch);
            prop_assert_eq!(allowed, !overtakes, "batch {} of {:?}", batch, self);
            if allowed && !refuse {
                self.order.taken(batch * 10, batch * 10 + 10);
                self.held_against.remove(&batch);
                self.at_bus.push_back(batch);
                return Ok(());
            }
            if allowed {
                self.order.refused(batch * 10);
                self.held_against.insert(batch);
            }
            self.returns(batch);
            Ok(())
        }

        fn answer(&mut self, fails: bool) {
            let Some(batch) = self.at_bus.pop_front() else { return };
            if fails {
                self.order.refused(batch * 10);
                self.held_against.insert(batch);
                self.returns(batch);
            } else {
                self.durable.push(batch);
            }
        }

        fn returns(&mut self, batch: u64) {
            let place = self.unsent.partition_point(|other| *other < batch);
            self.unsent.insert(place, batch);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn nothing_overtakes_a_refused_batch_and_everything_gets_through(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut trial = Trial {
                order: Order::default(), unsent: (0..20).collect(), at_bus: VecDeque::new(),
                durable: Vec::new(), held_against: BTreeSet::new(),
            };
            for (send, bad) in steps {
                if send { trial.send(bad)?; } else { trial.answer(bad); }
            }
            for _ in 0..200 {
                trial.send(false)?;
                trial.answer(false);
            }
            trial.durable.sort_unstable();
            prop_assert_eq!(trial.durable, (0..20).collect::<Vec<_>>());
        }
    }
}
