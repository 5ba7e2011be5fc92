//! Which gateway to try next. Pure.

use std::time::Duration;

use super::connect::Endpoint;

/// How long a gateway that failed is set aside, while another one is left.
const ASIDE: Duration = Duration::from_secs(10);

/// The gateways, and which of them are set aside.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<(Endpoint, Duration)>,
}

impl Endpoints {
    /// All of them fresh.
    #[must_use]
    pub(super) fn new(all: &[Endpoint]) -> Self {
        Self { all: all.iter().map(|endpoint| (endpoint.clone(), Duration::ZERO)).collect() }
    }

    /// One that is not set aside, by the draw; with all set aside, the one that was so first.
    #[must_use]
    pub(super) fn pick(&self, now: Duration, random: u64) -> Option<Endpoint> {
        let good: Vec<&Endpoint> = self.all.iter().filter(|(_, until)| *until <= now).map(|(good, _)| good).collect();
        if good.is_empty() {
            return self.all.iter().min_by_key(|(_, until)| *until).map(|(endpoint, _)| endpoint.clone());
        }
        let draw = usize::try_from(random % good.len() as u64).unwrap_or(0);
        good.get(draw).map(|endpoint| (*endpoint).clone())
    }

    /// Whether the best choice is one that was set aside.
    #[must_use]
    pub(super) fn all_aside(&self, now: Duration) -> bool {
        self.all.iter().all(|(_, until)| *until > now)
    }

    /// Sets one aside because it failed.
    pub(super) fn failed(&mut self, endpoint: &Endpoint, now: Duration) {
        self.avoid(endpoint, now + ASIDE);
    }

    /// Sets one aside until then.
    pub(super) fn avoid(&mut self, endpoint: &Endpoint, until: Duration) {
        for (_, aside) in self.all.iter_mut().filter(|(other, _)| other == endpoint) {
            *aside = until.max(*aside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_failed_is_not_picked_while_another_is_left() {
        let all: Vec<Endpoint> = ["a:1", "b:2", "[::1]:3"].iter().map(|text| text.parse().unwrap()).collect();
        let mut endpoints = Endpoints::new(&all);
        let now = Duration::from_secs(5);
        endpoints.failed(&all[1], now);
        for random in 0..100 {
            assert_ne!(endpoints.pick(now, random).as_ref(), Some(&all[1]));
        }
        endpoints.failed(&all[0], now + Duration::from_secs(1));
        endpoints.failed(&all[2], now + Duration::from_secs(2));
        assert_eq!(endpoints.pick(now + Duration::from_secs(3), 7).as_ref(), Some(&all[1]), "the one set aside first");
        assert_eq!(Endpoints::new(&[]).pick(now, 0), None);
    }

    #[test]
    fn an_address_without_port_is_no_endpoint() {
        for text in ["gw1", "gw1:", "gw1:99999", ":1", "a b:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
        assert_eq!("[::1]:3".parse::<Endpoint>().unwrap().to_string(), "[::1]:3");
    }
}
