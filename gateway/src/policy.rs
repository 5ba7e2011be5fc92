//! Who may write what: identities to tenants, topics and rates.
//!
//! Owns the rules; the first that matches an identity decides, and without one there is no way in. Tenant and topic
//! names have no dots, so that the bus topic `<topic>.<tenant>` names exactly one pair.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};
use tokio::time::Instant;

use crate::rate::TokenBucket;

const NAME_BYTES_MAX: usize = 100;

/// One rule, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// A glob over identities, in which `*` stops at `/`: `spiffe://mesh/agent/*`.
    pub identity: String,
    /// The tenant that matching identities belong to.
    pub tenant: String,
    /// The topics that they may write to, without the tenant. The first is the default.
    pub topics: Vec<String>,
    /// Limit of uncompressed bytes per second, shared by all that the rule matches on this gateway.
    pub rate_limit: Option<u64>,
}

/// All rules, ready to match.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<(GlobMatcher, Arc<Grant>)>,
}

/// What a rule gives to the identities that it matches.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) tenant: Arc<str>,
    topics: Vec<Topic>,
    rate: Option<Mutex<TokenBucket>>,
}

/// A topic, and its name on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    /// As clients and rules name it.
    pub(crate) name: Arc<str>,
    /// `<topic>.<tenant>`.
    pub(crate) on_bus: Arc<str>,
}

impl PolicyRule {
    /// What is wrong with the rule: the key, and a sentence.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if let Err(error) = glob(&self.identity) {
            faults.push(("identity", format!("{:?} is no pattern: {error}", self.identity)));
        } else if !self.identity.contains("/agent/") && !self.identity.contains('*') {
            faults.push(("identity", format!("{:?} names no agent", self.identity)));
        }
        if !is_tenant(&self.tenant) {
            faults.push(("tenant", format!("{:?} cannot be a tenant", self.tenant)));
        }
        if self.topics.is_empty() {
            faults.push(("topics", "there is none".to_owned()));
        }
        for topic in self.topics.iter().filter(|topic| !is_topic(topic)) {
            faults.push(("topics", format!("{topic:?} cannot be a topic")));
        }
        faults
    }
}

impl Policy {
    /// Compiles the rules. One whose pattern does not compile matches nobody; [`PolicyRule::faults`] tells of it.
    pub(crate) fn new(rules: &[PolicyRule], batch_bytes_max: u32) -> Self {
        let compile =
            |rule: &PolicyRule| Some((glob(&rule.identity).ok()?, Arc::new(Grant::new(rule, batch_bytes_max))));
        Self { rules: rules.iter().filter_map(compile).collect() }
    }

    /// What `identity` may do; `None` means no way in.
    pub(crate) fn grant(&self, identity: &str) -> Option<Arc<Grant>> {
        self.rules.iter().find(|(pattern, _)| pattern.is_match(identity)).map(|(_, grant)| Arc::clone(grant))
    }

    /// Whether there is no rule at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Grant {
    fn new(rule: &PolicyRule, batch_bytes_max: u32) -> Self {
        let topic =
            |name: &String| Topic { name: name.as_str().into(), on_bus: format!("{name}.{}", rule.tenant).into() };
        Self {
            tenant: rule.tenant.as_str().into(),
            topics: rule.topics.iter().map(topic).collect(),
            rate: rule.rate_limit.map(|rate| Mutex::new(TokenBucket::new(rate, batch_bytes_max))),
        }
    }

    /// The topic that a stream asks for; an empty wish is the first. An error says what would be allowed.
    pub(crate) fn topic(&self, wanted: &str) -> Result<Topic, String> {
        let found = match wanted {
            "" => self.topics.first(),
            _ => self.topics.iter().find(|topic| &*topic.name == wanted),
        };
        found.cloned().ok_or_else(|| {
            let allowed: Vec<&str> = self.topics.iter().map(|topic| &*topic.name).collect();
            format!("the policy does not let this identity write to topic {wanted:?}; allowed: {}", allowed.join(", "))
        })
    }

    /// Takes `bytes` from the rate, or says how long to wait.
    pub(crate) fn take(&self, bytes: u32, now: Instant) -> Result<(), Duration> {
        match &self.rate {
            None => Ok(()),
            Some(bucket) => bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, now),
        }
    }
}

fn glob(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build().map(|glob| glob.compile_matcher())
}

/// Tenants become part of index names, which are lower case.
fn is_tenant(name: &str) -> bool {
    is_topic(name) && !name.starts_with(['-', '_']) && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_topic(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(identity: &str, tenant: &str) -> PolicyRule {
        let topics = vec!["logs".to_owned(), "audit".to_owned()];
        PolicyRule { identity: identity.to_owned(), tenant: tenant.to_owned(), topics, rate_limit: None }
    }

    fn tenant(policy: &Policy, identity: &str) -> Option<String> {
        policy.grant(identity).map(|grant| grant.tenant.to_string())
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_no_match_is_no_way_in() {
        let rules = [
            rule("spiffe://mesh/agent/db-*", "data"),
            rule("spiffe://mesh/agent/*", "web"),
            rule("spiffe://*/agent/x", "late"),
        ];
        let policy = Policy::new(&rules, 1 << 20);
        assert_eq!(tenant(&policy, "spiffe://mesh/agent/db-1").as_deref(), Some("data"));
        assert_eq!(tenant(&policy, "spiffe://mesh/agent/edge-1").as_deref(), Some("web"));
        assert_eq!(tenant(&policy, "spiffe://mesh/agent/x").as_deref(), Some("web"));
        assert_eq!(tenant(&policy, "spiffe://other/agent/x").as_deref(), Some("late"));
        assert_eq!(tenant(&policy, "spiffe://other/agent/y"), None);
        assert_eq!(tenant(&policy, "spiffe://mesh/agent/a/b"), None, "a star stops at a slash");
    }

    #[test]
    fn a_stream_gets_the_first_topic_or_the_one_it_asks_for_or_none() {
        let policy = Policy::new(&[rule("**", "web")], 1 << 20);
        let grant = policy.grant("spiffe://mesh/agent/a").unwrap();
        assert_eq!(&*grant.topic("").unwrap().on_bus, "logs.web");
        assert_eq!(&*grant.topic("audit").unwrap().on_bus, "audit.web");
        assert!(grant.topic("secret").unwrap_err().contains("allowed: logs, audit"));
    }

    #[test]
    fn names_that_could_collide_or_break_an_index_are_faults() {
        for tenant in ["", "a.b", "Upper", "_x", "a b"] {
            assert_eq!(rule("**", tenant).faults().len(), 1, "{tenant:?}");
        }
        let mut wrong = rule("[", "web");
        wrong.topics = vec!["logs.web".to_owned()];
        assert_eq!(wrong.faults().iter().map(|fault| fault.0).collect::<Vec<_>>(), ["identity", "topics"]);
        assert!(rule("spiffe://mesh/agent/*", "web").faults().is_empty());
    }
}
