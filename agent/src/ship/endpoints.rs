//! Which gateway to try next: a pure choice among all addresses of all names.
//!
//! Every address stands for itself: one that fails is set aside for a time that grows with its failures, while the other
//! addresses of its name are used. An address asked to be avoided (drain, refusal with a delay) is set aside too, but has not
//! failed. While any address is not set aside, none that is will be picked; with all of them set aside they take turns, so
//! that a gateway that is back is found among dead ones, and an agent is never without one to try.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::connect::{Endpoint, Target};

/// How long an address is set aside after its first failure; each further one doubles it.
const ASIDE_MIN: Duration = Duration::from_secs(2);
/// The longest time for which a failing address is set aside, before jitter.
const ASIDE_MAX: Duration = Duration::from_secs(120);
/// Longest time for which a gateway can ask to be avoided.
const AVOID_MAX: Duration = Duration::from_secs(300);
/// Addresses of one name that are known at a time.
const ADDRESSES_MAX: usize = 64;

/// How an address has fared.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Failures since it last worked.
    failures: u32,
    /// Not to be picked before, while there is another.
    aside_until: Duration,
    /// When it was set aside last.
    aside_since: Duration,
}

/// All names, with the addresses they led to when they were last resolved.
#[derive(Debug)]
pub(super) struct Endpoints {
    names: Vec<(Endpoint, BTreeMap<SocketAddr, Record>)>,
}

impl Endpoints {
    /// The names, none of which was resolved yet.
    #[must_use]
    pub(super) fn new(names: &[Endpoint]) -> Self {
        Self { names: names.iter().map(|name| (name.clone(), BTreeMap::new())).collect() }
    }

    /// The names.
    pub(super) fn names(&self) -> impl Iterator<Item = &Endpoint> {
        self.names.iter().map(|(name, _)| name)
    }

    /// A name was resolved: what is known of addresses that stay is kept, others are forgotten. Nothing found changes
    /// nothing: old addresses are better than none.
    pub(super) fn resolved(&mut self, name: &Endpoint, found: &[SocketAddr]) {
        if found.is_empty() {
            return;
        }
        for (_, addresses) in self.names.iter_mut().filter(|(other, _)| other == name) {
            let before = std::mem::take(addresses);
            let kept = |address: &SocketAddr| (*address, before.get(address).copied().unwrap_or_default());
            *addresses = found.iter().take(ADDRESSES_MAX).map(kept).collect();
        }
    }

    /// An address that is not set aside, by the draw; with all set aside, the one that was so longest ago. `None` when no name
    /// ever led anywhere.
    #[must_use]
    pub(super) fn pick(&self, now: Duration, random: u64) -> Option<Target> {
        let fresh: Vec<_> = self.all().filter(|(_, _, record)| record.aside_until <= now).collect();
        let chosen = if fresh.is_empty() {
            self.all().min_by_key(|(_, _, record)| record.aside_since)
        } else {
            fresh.get(usize::try_from(random % fresh.len() as u64).unwrap_or(0)).copied()
        };
        chosen.map(|(endpoint, address, _)| Target { endpoint: endpoint.clone(), address })
    }

    /// Number of addresses that are not set aside.
    #[must_use]
    pub(super) fn fresh(&self, now: Duration) -> usize {
        self.all().filter(|(_, _, record)| record.aside_until <= now).count()
    }

    /// Sets an address aside because it failed: the longer the more often it did, by 0.5 to 1.5 of that as the draw in
    /// 0..1 says, so that agents that lost it together do not come back together.
    pub(super) fn failed(&mut self, target: &Target, now: Duration, random: f64) {
        self.change(target, |record| {
            let time = ASIDE_MIN.saturating_mul(1 << record.failures.min(16)).min(ASIDE_MAX);
            record.failures = record.failures.saturating_add(1);
            record.aside_until = record.aside_until.max(now + time.mul_f64(0.5 + random));
            record.aside_since = now;
        });
    }

    /// Sets an address aside because its gateway asked for it; up to a quarter longer, as the draw in 0..1 says.
    pub(super) fn avoid(&mut self, target: &Target, now: Duration, time: Duration, random: f64) {
        let until = now + time.min(AVOID_MAX).mul_f64(1.0 + random / 4.0);
        self.change(target, |record| {
            record.aside_until = record.aside_until.max(until);
            record.aside_since = now;
        });
    }

    /// An address did its work: its failures are forgotten.
    pub(super) fn worked(&mut self, target: &Target) {
        self.change(target, |record| record.failures = 0);
    }

    fn change(&mut self, target: &Target, change: impl Fn(&mut Record)) {
        // An address may stand behind several names: it is one gateway.
        let records = self.names.iter_mut().filter_map(|(_, addresses)| addresses.get_mut(&target.address));
        records.for_each(change);
    }

    fn all(&self) -> impl Iterator<Item = (&Endpoint, SocketAddr, &Record)> {
        self.names
            .iter()
            .flat_map(|(name, addresses)| addresses.iter().map(move |(address, record)| (name, *address, record)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn name(text: &str) -> Endpoint {
        text.parse().expect("an endpoint")
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 4417))
    }

    /// Two names with two addresses, one of which they share.
    fn endpoints() -> Endpoints {
        let mut endpoints = Endpoints::new(&[name("a:4417"), name("b:4417")]);
        endpoints.resolved(&name("a:4417"), &[address(1), address(2)]);
        endpoints.resolved(&name("b:4417"), &[address(2), address(3)]);
        endpoints
    }

    fn picked(endpoints: &Endpoints, now: Duration) -> BTreeSet<SocketAddr> {
        (0..100).filter_map(|random| endpoints.pick(now, random)).map(|target| target.address).collect()
    }

    fn target(last: u8) -> Target {
        Target { endpoint: name("a:4417"), address: address(last) }
    }

    #[test]
    fn agents_spread_over_all_addresses_of_all_names() {
        assert_eq!(picked(&endpoints(), NOW), BTreeSet::from([address(1), address(2), address(3)]));
        assert_eq!(Endpoints::new(&[name("a:1")]).pick(NOW, 0), None, "nothing was resolved");
    }

    #[test]
    fn an_address_that_failed_is_not_picked_under_any_name_while_another_is_left() {
        let mut endpoints = endpoints();
        endpoints.failed(&target(2), NOW, 0.5);
        assert_eq!(picked(&endpoints, NOW), BTreeSet::from([address(1), address(3)]));
        endpoints.failed(&target(1), NOW + Duration::from_millis(100), 0.5);
        endpoints.failed(&target(3), NOW + Duration::from_millis(200), 0.5);
        assert_eq!(endpoints.fresh(NOW + Duration::from_millis(300)), 0);
        assert_eq!(picked(&endpoints, NOW + Duration::from_millis(300)), BTreeSet::from([address(2)]), "in turn");
        endpoints.failed(&target(2), NOW + Duration::from_millis(300), 0.5);
        assert_eq!(picked(&endpoints, NOW + Duration::from_millis(400)), BTreeSet::from([address(1)]), "in turn");
        assert_eq!(picked(&endpoints, NOW + Duration::from_secs(10)).len(), 3, "all come back");
    }

    #[test]
    fn failures_in_a_row_set_an_address_aside_for_longer_and_work_makes_up_for_them() {
        let mut endpoints = endpoints();
        let aside = |endpoints: &Endpoints, now: Duration| {
            let until =
                endpoints.all().find(|(_, known, _)| *known == address(1)).map(|(_, _, record)| record.aside_until);
            until.expect("it is known").saturating_sub(now)
        };
        let (mut now, mut before) = (NOW, Duration::ZERO);
        for _ in 0..6 {
            endpoints.failed(&target(1), now, 0.5);
            assert!(aside(&endpoints, now) > before, "it grows");
            before = aside(&endpoints, now);
            now += before;
        }
        for _ in 0..100 {
            endpoints.failed(&target(1), now, 1.0);
        }
        assert!(aside(&endpoints, now) <= ASIDE_MAX.mul_f64(1.5), "to a limit");
        now += ASIDE_MAX * 2;
        endpoints.worked(&target(1));
        endpoints.failed(&target(1), now, 0.5);
        assert_eq!(aside(&endpoints, now), ASIDE_MIN);
    }

    #[test]
    fn a_gateway_that_asks_to_be_avoided_is_for_so_long_and_has_not_failed() {
        let mut endpoints = endpoints();
        endpoints.avoid(&target(1), NOW, Duration::from_secs(30), 0.0);
        assert!(!picked(&endpoints, NOW + Duration::from_secs(29)).contains(&address(1)));
        assert!(picked(&endpoints, NOW + Duration::from_secs(30)).contains(&address(1)));
        endpoints.avoid(&target(1), NOW, Duration::from_secs(1 << 40), 1.0);
        assert!(picked(&endpoints, NOW + AVOID_MAX * 2).contains(&address(1)), "nobody is avoided for ever");
    }

    #[test]
    fn resolving_again_brings_new_addresses_drops_old_ones_and_keeps_what_is_known() {
        let mut endpoints = endpoints();
        endpoints.failed(&target(2), NOW, 0.5);
        endpoints.resolved(&name("a:4417"), &[address(2), address(9)]);
        assert_eq!(picked(&endpoints, NOW), BTreeSet::from([address(3), address(9)]));
        endpoints.resolved(&name("a:4417"), &[]);
        assert_eq!(picked(&endpoints, NOW), BTreeSet::from([address(3), address(9)]), "old ones are better than none");
    }

    #[test]
    fn one_that_is_back_is_found_among_dead_ones_whatever_it_asked_for() {
        let mut endpoints = endpoints();
        endpoints.avoid(&target(1), NOW, Duration::from_secs(300), 0.0);
        let mut now = NOW;
        let tried: Vec<SocketAddr> = (0..4)
            .map(|_| {
                now += Duration::from_millis(100);
                let next = endpoints.pick(now, 0).expect("there is always one");
                endpoints.failed(&next, now, 0.5);
                next.address
            })
            .collect();
        assert!(tried.contains(&address(1)), "{tried:?}");
    }

    /// After gateways were added, every agent is asked to move once, at an age; none need stay away from where it was.
    #[test]
    fn agents_that_move_once_are_spread_evenly_over_gateways_that_were_added() {
        const AGENTS: usize = 4000;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let gateways: Vec<SocketAddr> = (1..=4).map(address).collect();
        let mut sessions = BTreeMap::<SocketAddr, usize>::new();
        for _ in 0..AGENTS {
            let mut endpoints = Endpoints::new(&[name("a:4417")]);
            endpoints.resolved(&name("a:4417"), &gateways[..3]);
            let before = endpoints.pick(NOW, draw()).expect("one");
            endpoints.resolved(&name("a:4417"), &gateways);
            endpoints.avoid(&before, NOW, Duration::ZERO, 0.5);
            *sessions.entry(endpoints.pick(NOW, draw()).expect("one").address).or_default() += 1;
        }
        let mean = AGENTS / gateways.len();
        assert!(sessions.values().all(|count| count.abs_diff(mean) < mean / 5), "{sessions:?}");
    }

    proptest! {
        #[test]
        fn an_address_set_aside_is_picked_only_when_all_are_and_then_they_take_turns(
            steps in prop::collection::vec((1_u8..4, 0_u64..60_000, prop::bool::ANY, 0.0..1.0), 0..30),
            random: u64,
        ) {
            let mut endpoints = endpoints();
            let mut now = NOW;
            for (last, later, fails, draw) in steps {
                now += Duration::from_millis(later);
                if fails {
                    endpoints.failed(&target(last), now, draw);
                } else {
                    endpoints.avoid(&target(last), now, Duration::from_secs(30), draw);
                }
            }
            let picked = endpoints.pick(now, random).expect("there is always one").address;
            let chosen = endpoints.all().find(|(_, known, _)| *known == picked).expect("it is known").2;
            if chosen.aside_until > now {
                prop_assert_eq!(endpoints.fresh(now), 0);
                prop_assert!(endpoints.all().all(|(_, _, record)| record.aside_since >= chosen.aside_since));
            }
        }
    }
}
