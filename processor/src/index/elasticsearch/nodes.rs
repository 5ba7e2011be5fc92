//! Which node gets the next request: a pure choice.
//!
//! Round robin over the nodes that are not set aside. A node that failed is set aside, for longer each time in a row; when
//! all are, the one whose time is nearest gets the request, so that a cluster that comes back is found.

use std::time::{Duration, Instant};

use logmesh_runtime::backoff::Backoff;

/// How long a node is set aside: at first, and at most.
const ASIDE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

#[derive(Debug)]
struct Node {
    aside_until: Option<Instant>,
    backoff: Backoff,
}

/// The nodes, by their place in the configuration.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    next: usize,
}

impl Nodes {
    pub(super) fn new(count: usize) -> Self {
        let node = || Node { aside_until: None, backoff: Backoff::new(ASIDE.0, ASIDE.1) };
        Self { nodes: (0..count.max(1)).map(|_| node()).collect(), next: 0 }
    }

    /// The node for the next request.
    pub(super) fn pick(&mut self, now: Instant) -> usize {
        let count = self.nodes.len();
        let order = (0..count).map(|step| (self.next + step) % count);
        let until = |node: &usize| self.nodes[*node].aside_until.filter(|until| *until > now);
        let picked = order.min_by_key(until).unwrap_or(0);
        self.next = (picked + 1) % count;
        picked
    }

    /// Notes that a node answered.
    pub(super) fn answered(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.aside_until = None;
            node.backoff.reset();
        }
    }

    /// Sets a node aside. `random` is a fresh draw from `0.0..1.0`.
    pub(super) fn failed(&mut self, node: usize, now: Instant, random: f64) {
        if let Some(node) = self.nodes.get_mut(node) {
            // What was under way when it failed says nothing new.
            if node.aside_until.is_none_or(|until| until <= now) {
                node.aside_until = Some(now + node.backoff.next(random));
            }
        }
    }

    /// Nodes that are set aside.
    pub(super) fn aside(&self, now: Instant) -> usize {
        self.nodes.iter().filter(|node| node.aside_until.is_some_and(|until| until > now)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_turns() {
        let (mut nodes, now) = (Nodes::new(3), Instant::now());
        assert_eq!([0; 5].map(|_| nodes.pick(now)), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn a_node_that_failed_is_left_out_until_its_time_is_over() {
        let (mut nodes, now) = (Nodes::new(3), Instant::now());
        nodes.failed(1, now, 1.0);
        assert_eq!([0; 4].map(|_| nodes.pick(now)), [0, 2, 0, 2]);
        assert_eq!(nodes.aside(now), 1);
        assert!([0; 3].map(|_| nodes.pick(now + ASIDE.0)).contains(&1));
    }

    #[test]
    fn failing_again_sets_aside_for_longer_and_an_answer_forgives() {
        let (mut nodes, mut now) = (Nodes::new(2), Instant::now());
        for _ in 0..10 {
            nodes.failed(0, now, 1.0);
            now += ASIDE.1;
        }
        nodes.failed(0, now, 1.0);
        assert_eq!(nodes.aside(now + ASIDE.1 - Duration::from_millis(1)), 1);
        nodes.answered(0);
        assert_eq!(nodes.aside(now), 0);
        nodes.failed(0, now, 1.0);
        assert_eq!(nodes.aside(now + ASIDE.0), 0);
    }

    #[test]
    fn with_all_set_aside_the_nearest_is_tried() {
        let (mut nodes, now) = (Nodes::new(2), Instant::now());
        nodes.failed(0, now, 1.0);
        nodes.failed(1, now, 0.1);
        assert_eq!([0; 3].map(|_| nodes.pick(now)), [1, 1, 1]);
    }
}
