//! The agent's configuration: `[agent]` and `[[agent.files]]`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use logmesh_certs::TlsFiles;
use logmesh_proto::v1;
use logmesh_runtime::{
    admin::check_exposure,
    config::{Root, Secret, Section},
};

use crate::{
    discovery::Group,
    inputs::{InputConfig, read_inputs},
    kubernetes::Kubernetes,
    labels::{read_labels, read_service},
    lines::{FramingConfig, read_format},
    ship::connect::Endpoint,
    sift::SiftConfig,
    spool::SpoolConfig,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What `files_open_max` may be.
pub(crate) const FILES_OPEN: RangeInclusive<u64> = 16..=1_000_000;

/// Commented defaults.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// One `[[agent.files]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesConfig {
    /// Patterns of files to tail.
    pub include: Vec<String>,
    /// Patterns of files to leave alone.
    pub exclude: Vec<String>,
    /// Service that writes them; may be empty.
    pub service: String,
    /// Labels of their records.
    pub labels: BTreeMap<String, String>,
    /// Topic; empty means the first of the gateway's policy.
    pub topic: String,
    /// Format of their lines, one of [`FORMATS`](crate::lines::FORMATS); empty means: found out.
    pub format: String,
    /// Whether archives among them are read.
    pub compressed: bool,
    /// What their records are.
    pub framing: FramingConfig,
    /// Which of them are kept.
    pub sift: SiftConfig,
    /// At what rate they are read at most, all together, in bytes a second.
    pub rate_limit: Option<u64>,
    /// The share of each of them, compared with a file of weight 1, when more is written than leaves.
    pub weight: u32,
    /// Where their paths tell namespace, pod and container.
    pub kubernetes: Kubernetes,
}

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What people call it.
    pub name: String,
    /// Where its state is.
    pub data_dir: PathBuf,
    /// Where the admin endpoint listens, in a process of its own.
    pub admin: SocketAddr,
    /// What the admin endpoint asks for, beyond loopback.
    pub admin_token: Option<Secret>,
    /// Gateways.
    pub gateways: Vec<Endpoint>,
    /// How batches are compressed.
    pub codec: v1::Codec,
    /// Certificate, key and CA. `None` where the caller makes its own.
    pub tls: Option<TlsFiles>,
    /// Which files.
    pub files: Vec<FilesConfig>,
    /// How much is kept of deleted files and of inputs that are no files.
    pub spool: SpoolConfig,
    /// Which inputs that are no files.
    pub inputs: Vec<InputConfig>,
    /// Memory in bytes.
    pub memory: u64,
    /// Longest record in bytes.
    pub record_bytes_max: usize,
    /// After how long without growth an unterminated line is sent.
    pub partial_flush: Duration,
    /// From the request to stop until everything is closed.
    pub shutdown_grace: Duration,
    /// Files held open at most; `None`: what the limit of open files allows.
    pub files_open_max: Option<usize>,
    /// Whether no agent can have read these files before, so that missing state means a first start and nothing is
    /// marked as a resend. Never read from a file: only a caller that owns the whole pipeline can know it.
    pub fresh: bool,
    /// Files and directories of other parts of the same process, never read as the agent's own `data_dir` never is.
    /// Never read from a file.
    pub own: Vec<PathBuf>,
}

impl Config {
    /// Reads the sections. Faults are noted in `root`.
    pub fn read(root: &Root) -> Self {
        let section = root.section("agent");
        let codecs = [("zstd", v1::Codec::Zstd), ("snappy", v1::Codec::Snappy), ("none", v1::Codec::None)];
        let admin_token = section.secret("admin_token");
        let admin = section.address("admin", SocketAddr::from((Ipv4Addr::LOCALHOST, 4418)));
        check_exposure(&section, "admin", admin, admin_token.as_ref());
        let record_bytes_max = section.size("record_bytes_max", 512 * KIB, KIB..=512 * KIB);
        Self {
            name: section.text("name", &host_name()),
            data_dir: section.path("data_dir", Path::new("/var/lib/logmesh/agent")),
            admin,
            admin_token,
            gateways: section.texts("gateways", &[]).iter().filter_map(|text| read_gateway(&section, text)).collect(),
            codec: section.one_of("compression", "zstd", &codecs),
            tls: section.table("tls").and_then(|tls| read_tls(&tls)),
            files: section.tables("files").iter().map(read_files).collect(),
            spool: SpoolConfig::read(&section.section("spool")),
            inputs: read_inputs(&section.tables("inputs")),
            memory: section.size("memory", 64 * MIB, 2 * MIB..=64 * 1024 * MIB),
            record_bytes_max: usize::try_from(record_bytes_max).unwrap_or(usize::MAX),
            partial_flush: section.duration(
                "partial_flush",
                Duration::from_secs(5),
                Duration::from_millis(10)..=Duration::from_secs(24 * 3600),
            ),
            shutdown_grace: section.duration(
                "shutdown_grace",
                Duration::from_secs(10),
                Duration::from_secs(1)..=Duration::from_secs(600),
            ),
            files_open_max: section
                .is_set("files_open_max")
                .then(|| section.integer("files_open_max", *FILES_OPEN.end(), FILES_OPEN))
                .and_then(|files| usize::try_from(files).ok()),
            fresh: false,
            own: Vec::new(),
        }
    }

    /// As [`Config::read`], for an agent that is a process of its own: it needs certificates, gateways and files.
    pub fn read_standalone(root: &Root) -> Self {
        let config = Self::read(root);
        let section = root.section("agent");
        if config.tls.is_none() {
            section.require_table("tls", "`tls = { cert = \"…\", key = \"…\", ca = \"…\" }` in [agent]");
        }
        // A key that is there with a fault of its own was told already.
        if config.gateways.is_empty() && !section.is_set("gateways") {
            section.require::<()>("gateways", None);
        }
        let is_told = ["files", "inputs"].iter().any(|key| section.is_set(key));
        if config.files.is_empty() && config.inputs.is_empty() && !is_told {
            section.require_table("files", "`[[agent.files]]` with `include = [\"/var/log/**/*.log\"]` below it");
        }
        for (files, section) in config.files.iter().zip(section.tables("files")) {
            refuse_own(&files.include, &config.data_dir, &section);
        }
        config
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::read(&Root::empty())
    }
}

/// This machine's name.
#[must_use]
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".into() } else { name }
}

fn read_gateway(section: &Section, text: &str) -> Option<Endpoint> {
    text.parse::<Endpoint>()
        .map_err(|error| section.fault("gateways", error.to_string(), "write \"gw1.example.com:4417\""))
        .ok()
}

fn read_tls(section: &Section) -> Option<TlsFiles> {
    let file = |key| {
        let path = section.path_opt(key);
        section.require(key, path)
    };
    let (cert, key, ca) = (file("cert"), file("key"), file("ca"));
    Some(TlsFiles { cert: cert?, key: key?, ca: ca?, crl: section.path_opt("crl") })
}

fn read_files(section: &Section) -> FilesConfig {
    let mut files = FilesConfig {
        include: section.texts("include", &[]),
        exclude: section.texts("exclude", &[]),
        service: read_service(section),
        labels: read_labels(section),
        topic: section.text("topic", ""),
        format: read_format(section, ""),
        compressed: section.flag("compressed", false),
        framing: FramingConfig::default(),
        sift: SiftConfig::read(section),
        rate_limit: section.rate("rate_limit"),
        weight: u32::try_from(section.integer("weight", 1, 1..=100)).unwrap_or(1),
        kubernetes: section.one_of("kubernetes", "auto", &Kubernetes::NAMES),
    };
    files.framing = FramingConfig::read(section, &files.format);
    if files.include.is_empty() {
        section.require::<()>("include", None);
    }
    for (key, patterns) in [("include", &files.include), ("exclude", &files.exclude)] {
        for pattern in patterns {
            if let Err(error) = Group::new(std::slice::from_ref(pattern), &[], Path::new("/")) {
                section.fault(key, error.to_string(), "see the pattern rules in `logmesh config default`");
            }
        }
    }
    files
}

/// Notes patterns that ask for the agent's own files alone: they are never read, and nothing would ever come.
fn refuse_own(include: &[String], data_dir: &Path, section: &Section) {
    let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
    for pattern in include {
        let within = |root: &PathBuf| root.starts_with(here.join(data_dir));
        let group = Group::new(std::slice::from_ref(pattern), &[], &here);
        if group.is_ok_and(|group| group.roots().keys().any(within)) {
            let what = format!("`{pattern}` lies within {}, which the agent has for itself", data_dir.display());
            section.fault("include", what, "set `data_dir` to a directory that holds no logs");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_defaults_are_the_defaults() {
        let root = Root::parse(DEFAULT_TOML, "default.toml").unwrap();
        let printed = Config::read(&root);
        assert_eq!(format!("{printed:?}"), format!("{:?}", Config::default()));
        root.finish().unwrap();
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_place() {
        let text = "[agent]\ngateways = [\"nowhere\"]\ncompresion = \"zstd\"\nmemory = \"1 KiB\"\n\
                    [[agent.files]]\ninclude = [\"/a/[b\"]\n[[agent.files]]\nservice = \"web\"\n";
        let root = Root::parse(text, "logmesh.toml").unwrap();
        Config::read_standalone(&root);
        let faults = root.finish().unwrap_err().to_string();
        for part in ["`nowhere`", "compression", "memory", "`/a/[b`", "include", "tls", "logmesh.toml:2"] {
            assert!(faults.contains(part), "{part:?} is not in\n{faults}");
        }
    }

    #[test]
    fn patterns_for_the_agents_own_files_alone_are_a_fault() {
        let read = |include: &str| {
            let text = format!(
                "[agent]\ndata_dir = \"/var/lib/logmesh/agent\"\ngateways = [\"gw:1\"]\n\
                 tls = {{ cert = \"c\", key = \"k\", ca = \"a\" }}\n[[agent.files]]\ninclude = [\"{include}\"]\n"
            );
            let root = Root::parse(&text, "logmesh.toml").unwrap();
            Config::read_standalone(&root);
            root.finish().map(drop).map_err(|faults| faults.to_string())
        };
        for own in ["/var/lib/logmesh/agent/*.log", "/var/lib/logmesh/agent/spool/**/*"] {
            let faults = read(own).unwrap_err();
            for part in ["logmesh.toml:6", own, "/var/lib/logmesh/agent", "`data_dir`"] {
                assert!(faults.contains(part), "{part:?} is not in\n{faults}");
            }
        }
        // What covers it among others is no fault: it is left alone.
        for include in ["/var/**/*", "/var/lib/logmesh/agents/*", "/var/lib/logmesh/*"] {
            read(include).unwrap();
        }
    }

    #[test]
    fn archives_are_read_only_where_it_is_said() {
        let text = "[[agent.files]]\ninclude = [\"/a/*\"]\n[[agent.files]]\ninclude = [\"/b/*\"]\ncompressed = true\n";
        let root = Root::parse(text, "logmesh.toml").unwrap();
        let config = Config::read(&root);
        root.finish().unwrap();
        assert_eq!(config.files.iter().map(|files| files.compressed).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_whole_configuration_is_read() {
        let text = "[agent]\nname = \"edge-1\"\ngateways = [\"gw1:4417\", \"[::1]:4418\"]\ncompression = \"snappy\"\n\
                    tls = { cert = \"c\", key = \"k\", ca = \"a\" }\n[[agent.files]]\ninclude = [\"/a/*.log\"]\n\
                    labels = { env = \"prod\" }\ntopic = \"audit\"\nrate_limit = \"10 MiB/s\"\nweight = 4\n\
                    kubernetes = \"off\"\n";
        let root = Root::parse(text, "logmesh.toml").unwrap();
        let config = Config::read_standalone(&root);
        root.finish().unwrap();
        assert_eq!((config.name.as_str(), config.gateways.len(), config.codec), ("edge-1", 2, v1::Codec::Snappy));
        assert_eq!(config.files[0].labels["env"], "prod");
        assert_eq!((config.files[0].rate_limit, config.files[0].weight), (Some(10 * MIB), 4));
        assert_eq!(config.files[0].kubernetes, Kubernetes::Off);
    }
}
