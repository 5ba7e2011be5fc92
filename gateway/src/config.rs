//! The gateway's configuration: `[gateway]` and `[[gateway.policy]]`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use logmesh_certs::TlsFiles;
use logmesh_runtime::config::{Root, Secret, Section};

use crate::policy::PolicyRule;

const MIB: u64 = 1 << 20;

/// Commented defaults.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// What a gateway is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where agents connect.
    pub listen: SocketAddr,
    /// Where the admin endpoint listens, in a process of its own.
    pub admin: SocketAddr,
    /// What the admin endpoint asks for, beyond loopback.
    pub admin_token: Option<Secret>,
    /// The gateway's certificate, key, CA and CRL. `None` where the caller makes its own.
    pub tls: Option<TlsFiles>,
    /// Who may write what; the first rule that matches decides.
    pub policy: Vec<PolicyRule>,
    /// Memory in bytes that the gateway may use for what it holds.
    pub memory: u64,
    /// Time from the request to stop until everything is closed, whatever peers do.
    pub shutdown_grace: Duration,
    /// Connections at a time; fewer where the process may open fewer files.
    pub connections_max: u32,
    /// Age at which a session is asked to move, give or take a quarter; zero = never. It spreads agents over gateways that
    /// were added.
    pub session_age_max: Duration,
}

impl Config {
    /// Reads the sections. Faults are noted in `root`.
    pub fn read(root: &Root) -> Self {
        let section = root.section("gateway");
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let config = Self {
            listen: section.address("listen", any(4417)),
            admin: section.address("admin", SocketAddr::from((Ipv4Addr::LOCALHOST, 4419))),
            admin_token: section.secret("admin_token"),
            tls: section.table("tls").and_then(|tls| read_tls(&tls)),
            policy: section.tables("policy").iter().map(read_rule).collect(),
            memory: section.size("memory", 512 * MIB, 4 * MIB..=64 * 1024 * MIB),
            shutdown_grace: section.duration("shutdown_grace", Duration::from_secs(10), seconds(1)..=seconds(600)),
            connections_max: u32::try_from(section.integer("connections_max", 10_000, 1..=1_000_000))
                .unwrap_or(u32::MAX),
            session_age_max: section.duration("session_age_max", seconds(3600), Duration::ZERO..=seconds(30 * 86_400)),
        };
        if !config.admin.ip().is_loopback() && config.admin_token.is_none() {
            let cure = "set gateway.admin_token = { file = \"…\" }, or listen on 127.0.0.1";
            section.fault("admin", "an admin address that is not loopback needs a token", cure);
        }
        config
    }

    /// As [`Config::read`], for a gateway that is a process of its own: it needs certificates and a policy.
    pub fn read_standalone(root: &Root) -> Self {
        let config = Self::read(root);
        let section = root.section("gateway");
        if config.tls.is_none() {
            section.require_table("tls", "`tls = { cert = \"…\", key = \"…\", ca = \"…\" }` in [gateway]");
        }
        if config.policy.is_empty() {
            section.require_table("policy", "`[[gateway.policy]]` with `identity`, `tenant` and `topics` below it");
        }
        config
    }

    /// Names on the bus of all topics that the policy lets anybody write to.
    pub fn bus_topics(&self) -> Vec<String> {
        let named = |rule: &PolicyRule| {
            let tenant = rule.tenant.clone();
            rule.topics.clone().into_iter().map(move |topic| format!("{topic}.{tenant}"))
        };
        let topics: BTreeSet<String> = self.policy.iter().flat_map(named).collect();
        topics.into_iter().collect()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::read(&Root::empty())
    }
}

fn read_tls(section: &Section) -> Option<TlsFiles> {
    let file = |key| {
        let path = section.path_opt(key);
        section.require(key, path)
    };
    let (cert, key, ca) = (file("cert"), file("key"), file("ca"));
    Some(TlsFiles { cert: cert?, key: key?, ca: ca?, crl: section.path_opt("crl") })
}

fn read_rule(section: &Section) -> PolicyRule {
    let identity = section.text_opt("identity");
    let rule = PolicyRule {
        identity: section.require("identity", identity).unwrap_or_else(|| "spiffe://*/agent/*".to_owned()),
        tenant: section.text("tenant", "default"),
        topics: section.texts("topics", &["logs"]),
        rate_limit: section.rate("rate_limit"),
    };
    for (key, what) in rule.faults() {
        let cure = match key {
            "identity" => "write a pattern such as \"spiffe://mesh/agent/*\"",
            "tenant" => "use 1 to 100 of a-z 0-9 - _, beginning with a letter or digit",
            _ => "use names of 1 to 100 of A-Z a-z 0-9 - _",
        };
        section.fault(key, what, cure);
    }
    rule
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_defaults_are_the_defaults() {
        let printed = Config::read(&Root::parse(DEFAULT_TOML, "default.toml").unwrap());
        assert_eq!(format!("{printed:?}"), format!("{:?}", Config::default()));
        let root = Root::parse(DEFAULT_TOML, "default.toml").unwrap();
        Config::read(&root);
        root.finish().unwrap();
    }

    #[test]
    fn every_fault_of_a_policy_is_told_at_once_with_its_place() {
        let text = "[gateway]\nadmin = \"0.0.0.0:1\"\ntls = { cert = \"a\" }\n[[gateway.policy]]\ntenant = \"A.b\"\n\
                    topics = [\"x.y\"]\nrate = 1\n";
        let root = Root::parse(text, "logmesh.toml").unwrap();
        Config::read(&root);
        let faults = root.finish().unwrap_err().to_string();
        for part in
            ["identity", "\"A.b\" cannot be a tenant", "\"x.y\" cannot be a topic", "rate", "gateway.tls.key", "token"]
        {
            assert!(faults.contains(part), "{part:?} is not in\n{faults}");
        }
        assert!(faults.contains("logmesh.toml:5"), "{faults}");
    }

    #[test]
    fn a_gateway_of_its_own_needs_certificates_and_a_policy() {
        let root = Root::empty();
        Config::read_standalone(&root);
        let faults = root.finish().unwrap_err().to_string();
        assert!(faults.contains("gateway.tls") && faults.contains("gateway.policy"), "{faults}");
    }

    #[test]
    fn a_whole_configuration_is_read() {
        let text = "[gateway]\nlisten = \"127.0.0.1:9\"\nmemory = \"64 MiB\"\n\
                    tls = { cert = \"c\", key = \"k\", ca = \"a\", crl = \"r\" }\n[[gateway.policy]]\n\
                    identity = \"spiffe://mesh/agent/*\"\ntenant = \"web\"\nrate_limit = \"50 MiB/s\"\n";
        let root = Root::parse(text, "logmesh.toml").unwrap();
        let config = Config::read_standalone(&root);
        root.finish().unwrap();
        assert_eq!(config.memory, 64 * MIB);
        assert_eq!(config.tls.unwrap().crl.unwrap(), std::path::Path::new("r"));
        assert_eq!(config.policy[0].topics, ["logs"]);
        assert_eq!(config.policy[0].rate_limit, Some(50 * MIB));
    }
}
