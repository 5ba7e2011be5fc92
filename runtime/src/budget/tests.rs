use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::telemetry::{Telemetry, TelemetryConfig};

#[tokio::test]
async fn bytes_are_held_until_the_permit_is_dropped() {
    let budget = Budget::new("agent", 100);
    let permit = budget.reserve(60).await;
    assert_eq!((permit.bytes(), budget.used(), budget.free()), (60, 60, 40));
    assert!(budget.try_reserve(41).is_none());
    drop(permit);
    assert_eq!((budget.used(), budget.free()), (0, 100));
}

#[tokio::test]
async fn a_large_request_is_not_starved_by_small_ones_behind_it() {
    let budget = Budget::new("agent", 100);
    let held = budget.reserve(50).await;
    let mut large = Box::pin(budget.reserve(80));
    assert!((&mut large).now_or_never().is_none());
    let mut small = Box::pin(budget.reserve(10));
    assert!((&mut small).now_or_never().is_none(), "it would overtake");
    assert!(budget.try_reserve(10).is_none(), "it would overtake");
    drop(held);
    let large = (&mut large).now_or_never().expect("its turn");
    let small = (&mut small).now_or_never().expect("there is room beside it");
    assert_eq!(budget.used(), large.bytes() + small.bytes());
}

#[tokio::test]
async fn giving_up_lets_the_next_one_in() {
    let budget = Budget::new("agent", 100);
    let _held = budget.reserve(50).await;
    let mut large = Box::pin(budget.reserve(80));
    assert!((&mut large).now_or_never().is_none());
    let mut small = Box::pin(budget.reserve(10));
    assert!((&mut small).now_or_never().is_none());
    drop(large);
    assert!(small.now_or_never().is_some());
}

#[tokio::test]
async fn a_request_larger_than_the_share_is_alone_and_lets_nobody_in_before_it_is_back_under() {
    let budget = Budget::new("agent", 100);
    let first = budget.reserve(1).await;
    let mut oversized = Box::pin(budget.reserve(250));
    assert!((&mut oversized).now_or_never().is_none(), "not while anything is held");
    drop(first);
    let mut oversized = oversized.now_or_never().expect("alone");
    assert_eq!((budget.used(), budget.free()), (250, 0));
    drop(oversized.split(150));
    assert_eq!((budget.used(), budget.free()), (100, 0));
    drop(oversized.split(30));
    assert_eq!((budget.used(), budget.free()), (70, 30));
    drop(oversized);
    assert_eq!((budget.used(), budget.free()), (0, 100));
}

#[test]
fn a_share_of_nothing_admits_one_request_at_a_time() {
    let budget = Budget::new("agent", 0);
    let permit = budget.try_reserve(4096).expect("alone");
    assert!(budget.try_reserve(1).is_none());
    drop(permit);
    assert!(budget.try_reserve(1).is_some());
}

#[test]
fn splitting_shrinking_and_merging_lose_no_byte() {
    let budget = Budget::new("agent", 100);
    let mut all = budget.try_reserve(90).expect("room");
    let mut part = all.split(50);
    assert_eq!((all.bytes(), part.bytes(), budget.used()), (40, 50, 90));
    part.shrink_to(20);
    assert_eq!((part.bytes(), budget.used(), budget.free()), (20, 60, 40));
    part.shrink_to(1000);
    all.merge(part);
    assert_eq!((all.bytes(), budget.used()), (60, 60));
    assert_eq!(all.split(1000).bytes(), 60);
    assert_eq!((all.bytes(), budget.used()), (0, 0));
}

#[test]
fn every_share_is_shown_under_its_name() {
    let telemetry = Telemetry::start(&TelemetryConfig::default(), "tests").expect("starts");
    let (agent, gateway) = (Budget::new("agent", 100), Budget::new("gateway", 200));
    agent.observe(&telemetry.meter());
    gateway.observe(&telemetry.meter());
    let _held = (agent.try_reserve(10), gateway.try_reserve(20));
    let text = telemetry.prometheus_text();
    for line in [
        "logmesh_budget_used_bytes{share=\"agent\"} 10",
        "logmesh_budget_used_bytes{share=\"gateway\"} 20",
        "logmesh_budget_capacity_bytes{share=\"agent\"} 100",
        "logmesh_budget_capacity_bytes{share=\"gateway\"} 200",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} not in:\n{text}");
    }
}

#[test]
#[should_panic(expected = "two shares")]
fn permits_of_two_shares_do_not_merge() {
    let mut one = Budget::new("one", 10).try_reserve(1).expect("room");
    one.merge(Budget::new("two", 10).try_reserve(1).expect("room"));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Reserve(usize),
    /// Gives up a waiting request.
    Cancel(usize),
    Drop(usize),
    Split(usize, usize),
    Merge(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1usize..300).prop_map(Step::Reserve),
        1 => any::<usize>().prop_map(Step::Cancel),
        3 => any::<usize>().prop_map(Step::Drop),
        1 => (any::<usize>(), 0usize..200).prop_map(|(which, bytes)| Step::Split(which, bytes)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(into, from)| Step::Merge(into, from)),
    ];
    prop::collection::vec(step, 1..60)
}

/// A request in the queue, with its bytes.
type Waiting<'a> = (usize, Pin<Box<dyn Future<Output = Permit> + 'a>>);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Against a model that is a queue and a sum.
    #[test]
    fn any_schedule_is_granted_in_order_and_within_the_capacity(capacity in 1usize..200, steps in steps()) {
        let budget = Budget::new("model", capacity);
        let mut waiting: VecDeque<Waiting<'_>> = VecDeque::new();
        let mut held: Vec<Permit> = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        for step in steps {
            match step {
                Step::Reserve(bytes) => {
                    let mut request: Pin<Box<dyn Future<Output = Permit>>> = Box::pin(budget.reserve(bytes));
                    match request.as_mut().poll(&mut context) {
                        Poll::Ready(permit) => {
                            prop_assert!(waiting.is_empty(), "{bytes} overtook");
                            held.push(permit);
                        }
                        Poll::Pending => waiting.push_back((bytes, request)),
                    }
                }
                Step::Cancel(which) if !waiting.is_empty() => drop(waiting.remove(which % waiting.len())),
                Step::Drop(which) if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                Step::Split(which, bytes) if !held.is_empty() => {
                    let which = which % held.len();
                    let part = held[which].split(bytes);
                    held.push(part);
                }
                Step::Merge(into, from) if held.len() > 1 => {
                    let part = held.swap_remove(from % held.len());
                    let into = into % held.len();
                    held[into].merge(part);
                }
                Step::Cancel(_) | Step::Drop(_) | Step::Split(..) | Step::Merge(..) => {}
            }
            // In the order of the queue: the first that is not granted must be one that does not fit.
            let mut blocked = false;
            for _ in 0..waiting.len() {
                let Some((bytes, mut request)) = waiting.pop_front() else { break };
                let sum: usize = held.iter().map(Permit::bytes).sum();
                let fits = sum.min(capacity) + bytes.min(capacity) <= capacity;
                match request.as_mut().poll(&mut context) {
                    Poll::Ready(permit) => {
                        prop_assert!(!blocked && fits, "{bytes} granted beside {sum} of {capacity}");
                        held.push(permit);
                    }
                    Poll::Pending => {
                        prop_assert!(blocked || !fits, "{bytes} not granted beside {sum} of {capacity}");
                        blocked = true;
                        waiting.push_back((bytes, request));
                    }
                }
            }
            prop_assert_eq!(budget.used(), held.iter().map(Permit::bytes).sum::<usize>());
        }
        drop(waiting);
        held.clear();
        prop_assert_eq!((budget.used(), budget.free()), (0, capacity));
    }
}
