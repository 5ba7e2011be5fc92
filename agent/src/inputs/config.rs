//! `[[agent.inputs]]`.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use logmesh_runtime::config::Section;

use crate::{
    labels::{read_labels, read_service},
    lines::{FramingConfig, read_format},
};

/// One `[[agent.inputs]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputConfig {
    /// Names it in the spool and in what is shown; unique.
    pub name: String,
    /// What is read.
    pub kind: Kind,
    /// Service that writes its records; may be empty.
    pub service: String,
    /// Labels of its records.
    pub labels: BTreeMap<String, String>,
    /// Topic; empty means the first of the gateway's policy.
    pub topic: String,
    /// Format of its records, one of [`crate::lines::FORMATS`]; empty means: found out.
    pub format: String,
}

impl InputConfig {
    /// Whether it can be read to its end.
    #[must_use]
    pub fn ends(&self) -> bool {
        matches!(self.kind, Kind::Stdin(_))
    }
}

/// What an input reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Standard input.
    Stdin(FramingConfig),
    /// Syslog from the network or local sockets.
    Syslog(SyslogConfig),
    /// The systemd journal.
    Journald(JournaldConfig),
    /// A command's output.
    Command(CommandConfig),
}

/// Where and how syslog is taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogConfig {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// Certificate and key, for `tls://`.
    pub tls: Option<SyslogTls>,
    /// Connections of each listener at a time; more wait to be accepted.
    pub connections_max: usize,
    /// Mode of the files of local sockets; `None` leaves it to the process's umask.
    pub mode: Option<u32>,
}

/// Certificates of a syslog listener. They belong to no mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogTls {
    /// Certificate, and any intermediates behind it; PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities that senders must come from, PEM; `None` lets anybody in.
    pub ca: Option<PathBuf>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `udp://`
    Udp(SocketAddr),
    /// `tcp://`
    Tcp(SocketAddr),
    /// `tls://`
    Tls(SocketAddr),
    /// `unix://`: a local stream socket.
    Unix(PathBuf),
    /// `unixgram://`: a local datagram socket, as `/dev/log` is one.
    Unixgram(PathBuf),
}

/// Which entries of which journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournaldConfig {
    /// The program that reads journals.
    pub journalctl: String,
    /// A directory of journal files; `None` for the machine's own journal.
    pub directory: Option<PathBuf>,
    /// A journal file, or a pattern of such.
    pub file: Option<PathBuf>,
    /// Only these units; empty for all.
    pub units: Vec<String>,
    /// Only what matches (`FIELD=VALUE`, as journalctl has it); empty for all.
    pub matches: Vec<String>,
    /// Only since this machine started.
    pub since_boot: bool,
}

/// What is run, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandConfig {
    /// The program and its arguments; no shell sees them.
    pub command: Vec<String>,
    /// When it runs.
    pub runs: Runs,
    /// Whether what it says on standard error is records, too.
    pub stderr: bool,
    /// What a record is.
    pub framing: FramingConfig,
}

/// When a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Once per start of the agent.
    Once,
    /// Again whenever it ends.
    Always,
    /// At this interval, never twice at a time.
    Every(Duration),
}

#[derive(Clone, Copy)]
enum KindName {
    Stdin,
    Syslog,
    Journald,
    Command,
}

impl Kind {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stdin(_) => "stdin",
            Self::Syslog(_) => "syslog",
            Self::Journald(_) => "journald",
            Self::Command(_) => "command",
        }
    }

    /// Where it listens.
    fn listens(&self) -> &[Listen] {
        match self {
            Self::Syslog(syslog) => &syslog.listen,
            Self::Stdin(_) | Self::Journald(_) | Self::Command(_) => &[],
        }
    }
}

impl Listen {
    /// Whether the two cannot listen at a time. Port 0 is another port each time.
    fn meets(&self, other: &Self) -> bool {
        let is_port = matches!((self, other),
            (Self::Udp(one), Self::Udp(two)) | (Self::Tcp(one) | Self::Tls(one), Self::Tcp(two) | Self::Tls(two))
                if one == two && one.port() != 0);
        let is_file = matches!((self, other),
            (Self::Unix(one) | Self::Unixgram(one), Self::Unix(two) | Self::Unixgram(two)) if one == two);
        is_port || is_file
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no `://`")?;
        let address = || rest.parse::<SocketAddr>().map_err(|_| format!("`{rest}` is no IP address with a port"));
        let path = || match PathBuf::from(rest) {
            path if !path.is_absolute() => Err(format!("`{rest}` is no absolute path")),
            // The kernel's limit, with the NUL at the end.
            path if rest.len() > 107 => {
                Err(format!("{} is longer than the 107 bytes that a socket's path may have", path.display()))
            }
            path => Ok(path),
        };
        match scheme {
            "udp" => address().map(Self::Udp),
            "tcp" => address().map(Self::Tcp),
            "tls" => address().map(Self::Tls),
            "unix" => path().map(Self::Unix),
            "unixgram" => path().map(Self::Unixgram),
            _ => Err(format!("`{scheme}` is no way to listen")),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(formatter, "udp://{address}"),
            Self::Tcp(address) => write!(formatter, "tcp://{address}"),
            Self::Tls(address) => write!(formatter, "tls://{address}"),
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Unixgram(path) => write!(formatter, "unixgram://{}", path.display()),
        }
    }
}

/// Reads all inputs. Faults are noted.
pub(crate) fn read_inputs(sections: &[Section]) -> Vec<InputConfig> {
    let mut inputs: Vec<InputConfig> = Vec::with_capacity(sections.len());
    for section in sections {
        let input = read_input(section);
        if inputs.iter().any(|known| known.name == input.name) {
            let what = format!("two inputs are named `{}`", input.name);
            section.fault("name", what, "give each a `name` of its own; it is where its position is kept");
        }
        let second = |known: &InputConfig| matches!((&known.kind, &input.kind), (Kind::Stdin(_), Kind::Stdin(_)));
        if inputs.iter().any(second) {
            section.fault("kind", "standard input is read by another input already", "keep one of the two");
        }
        for address in input.kind.listens() {
            let meets = |known: &&InputConfig| known.kind.listens().iter().any(|taken| taken.meets(address));
            if let Some(known) = inputs.iter().find(meets) {
                let what = format!("the input `{}` listens where `{address}` would", known.name);
                section.fault("listen", what, "listen elsewhere, or keep one of the two");
            }
        }
        inputs.push(input);
    }
    inputs
}

fn read_input(section: &Section) -> InputConfig {
    let kinds = [
        ("stdin", KindName::Stdin),
        ("syslog", KindName::Syslog),
        ("journald", KindName::Journald),
        ("command", KindName::Command),
    ];
    let kind_name = section.one_of("kind", "stdin", &kinds);
    if !section.is_set("kind") {
        section.require::<()>("kind", None);
    }
    let default_format = match kind_name {
        KindName::Syslog => "syslog",
        KindName::Journald => "json",
        KindName::Stdin | KindName::Command => "",
    };
    let format = read_format(section, default_format);
    let kind = match kind_name {
        KindName::Stdin => Kind::Stdin(FramingConfig::read(section, &format)),
        KindName::Syslog => Kind::Syslog(read_syslog(section)),
        KindName::Journald => Kind::Journald(read_journald(section)),
        KindName::Command => Kind::Command(read_command(section, &format)),
    };
    let name = section.text("name", kind.name());
    if name.is_empty() || name.len() > 64 || name.chars().any(|letter| letter.is_control() || letter == '/') {
        section.fault("name", format!("`{name}` is no name of an input"), "write 1 to 64 letters without `/`");
    }
    InputConfig {
        name,
        kind,
        service: read_service(section),
        labels: read_labels(section),
        topic: section.text("topic", ""),
        format,
    }
}

fn read_syslog(section: &Section) -> SyslogConfig {
    const CURE: &str = "write \"udp://0.0.0.0:514\", \"tcp://…:601\", \"tls://…:6514\", \"unix:///run/x.sock\" or \
                        \"unixgram:///dev/log\", several in a list";
    let texts = section.texts("listen", &[]);
    let mut listen: Vec<Listen> = Vec::with_capacity(texts.len());
    for text in &texts {
        match text.parse() {
            Ok(address) if listen.iter().any(|taken| taken.meets(&address)) => {
                section.fault("listen", format!("`{text}` is where another one of them listens"), "write it once");
            }
            Ok(address) => listen.push(address),
            Err(why) => section.fault("listen", format!("`{text}` is no address to listen on: {why}"), CURE),
        }
    }
    if texts.is_empty() {
        section.require::<()>("listen", None);
    }
    let tls = section.table("tls").and_then(|tls| {
        let file = |key| tls.require(key, tls.path_opt(key));
        let (cert, key, ca) = (file("cert"), file("key"), tls.path_opt("ca"));
        Some(SyslogTls { cert: cert?, key: key?, ca })
    });
    if listen.iter().any(|address| matches!(address, Listen::Tls(_))) && !section.is_set("tls") {
        section.require::<()>("tls", None);
    }
    let mode = section.text_opt("mode").and_then(|text| {
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
        if mode.is_none() {
            section.fault("mode", format!("`{text}` is no mode of a file"), "write it in octal: \"0666\"");
        }
        mode
    });
    let connections_max = section.integer("connections_max", 512, 1..=65_536);
    SyslogConfig { listen, tls, connections_max: usize::try_from(connections_max).unwrap_or(usize::MAX), mode }
}

fn read_journald(section: &Section) -> JournaldConfig {
    let config = JournaldConfig {
        journalctl: section.text("journalctl", "journalctl"),
        directory: section.path_opt("directory"),
        file: section.path_opt("file"),
        units: section.texts("units", &[]),
        matches: section.texts("matches", &[]),
        since_boot: section.flag("since_boot", false),
    };
    if config.directory.is_some() && config.file.is_some() {
        section.fault("file", "`directory` names journals already", "keep one of the two");
    }
    for text in &config.matches {
        let field = text.split_once('=').map_or("", |(field, _)| field);
        let letters = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if field.is_empty() || !field.bytes().all(letters) {
            section.fault("matches", format!("`{text}` is no match"), "write \"_TRANSPORT=kernel\"");
        }
    }
    config
}

fn read_command(section: &Section, format: &str) -> CommandConfig {
    let second = Duration::from_secs(1);
    let restart = section.one_of("restart", "always", &[("always", Runs::Always), ("never", Runs::Once)]);
    let interval = section.duration("interval", Duration::from_secs(60), second..=second * 86_400 * 7);
    let runs = if section.is_set("interval") { Runs::Every(interval) } else { restart };
    if section.is_set("interval") && section.is_set("restart") {
        section.fault("restart", "it runs at an `interval` already", "keep one of the two");
    }
    let command = section.texts("command", &[]);
    if command.first().is_none_or(String::is_empty) {
        section.require::<()>("command", None);
        if section.is_set("command") {
            section.fault("command", "there is no program in it", "write [\"/usr/bin/vmstat\", \"1\"]");
        }
    }
    CommandConfig {
        command,
        runs,
        stderr: section.flag("stderr", false),
        framing: FramingConfig::read(section, format),
    }
}

#[cfg(test)]
mod tests {
    use logmesh_runtime::config::Root;

    use super::*;
    use crate::config::Config;

    fn read(text: &str) -> Result<Vec<InputConfig>, String> {
        let root = Root::parse(text, "logmesh.toml").unwrap();
        let config = Config::read(&root);
        root.finish().map(|_| config.inputs).map_err(|faults| faults.to_string())
    }

    #[test]
    fn every_kind_of_input_is_read() {
        let text = "[[agent.inputs]]\nkind = \"stdin\"\nmultiline = \"java\"\nservice = \"app\"\n\
            [[agent.inputs]]\nkind = \"syslog\"\nlisten = [\"udp://0.0.0.0:514\", \"tls://[::]:6514\", \"unixgram:///dev/log\"]\n\
            tls = { cert = \"c\", key = \"k\" }\nmode = \"0666\"\nconnections_max = 10\n\
            [[agent.inputs]]\nkind = \"journald\"\nname = \"kernel\"\ndirectory = \"/var/log/journal\"\n\
            matches = [\"_TRANSPORT=kernel\"]\nunits = [\"a.service\"]\nsince_boot = true\n\
            [[agent.inputs]]\nkind = \"command\"\ncommand = [\"/usr/bin/vmstat\", \"1\"]\ninterval = \"60s\"\nstderr = true\n";
        let inputs = read(text).unwrap();
        let told: Vec<_> = inputs.iter().map(|input| (input.name.as_str(), input.format.as_str())).collect();
        assert_eq!(told, [("stdin", ""), ("syslog", "syslog"), ("kernel", "json"), ("command", "")]);
        assert_eq!(inputs[0].service, "app");
        let Kind::Syslog(syslog) = &inputs[1].kind else { panic!("{:?}", inputs[1]) };
        assert_eq!((syslog.mode, syslog.connections_max), (Some(0o666), 10));
        let listen: Vec<_> = syslog.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["udp://0.0.0.0:514", "tls://[::]:6514", "unixgram:///dev/log"]);
        let Kind::Command(command) = &inputs[3].kind else { panic!("{:?}", inputs[3]) };
        assert_eq!((command.runs, command.stderr), (Runs::Every(Duration::from_secs(60)), true));
    }

    #[test]
    fn what_no_input_can_be_is_told_with_its_place_and_a_cure() {
        for (keys, parts) in [
            ("kind = \"syslogd\"", ["logmesh.toml:2", "syslogd", "did you mean"]),
            ("service = \"a\"", ["kind", "missing", "set"]),
            ("kind = \"syslog\"", ["listen", "missing", "set"]),
            ("kind = \"syslog\"\nlisten = [\"udp:/x\"]", ["logmesh.toml:3", "udp:/x", "udp://0.0.0.0:514"]),
            ("kind = \"syslog\"\nlisten = [\"tcp://host:1\"]", ["logmesh.toml:3", "host:1", "IP address"]),
            ("kind = \"syslog\"\nlisten = [\"unix://x\"]", ["logmesh.toml:3", "absolute", "unix:///"]),
            ("kind = \"syslog\"\nlisten = [\"tls://[::]:1\"]", ["tls", "missing", "set"]),
            ("kind = \"syslog\"\nlisten = [\"udp://[::]:1\"]\nmode = \"rw\"", ["logmesh.toml:4", "`rw`", "0666"]),
            (
                "kind = \"journald\"\ndirectory = \"/a\"\nfile = \"/b\"",
                ["logmesh.toml:4", "directory", "one of the two"],
            ),
            ("kind = \"journald\"\nmatches = [\"--all\"]", ["logmesh.toml:3", "`--all`", "_TRANSPORT"]),
            ("kind = \"command\"", ["command", "missing", "set"]),
            (
                "kind = \"command\"\ncommand = [\"a\"]\ninterval = \"1s\"\nrestart = \"never\"",
                ["logmesh.toml:5", "interval", "one"],
            ),
            ("kind = \"stdin\"\nmultiline = \"jawa\"", ["logmesh.toml:3", "`jawa`", "java, python"]),
            ("kind = \"stdin\"\nlisten = [\"udp://[::]:1\"]", ["logmesh.toml:3", "listen", "unknown"]),
            ("kind = \"stdin\"\n[[agent.inputs]]\nkind = \"stdin\"", ["logmesh.toml:4", "standard input", "name"]),
            (
                "kind = \"syslog\"\nlisten = [\"unix:///run/a\", \"unixgram:///run/a\"]",
                ["logmesh.toml:3", "`unixgram:///run/a`", "write it once"],
            ),
            (
                "kind = \"syslog\"\nlisten = [\"tcp://[::]:601\"]\n[[agent.inputs]]\nname = \"b\"\nkind = \"syslog\"\n\
                 listen = [\"udp://[::]:601\", \"tls://[::]:601\"]\ntls = { cert = \"c\", key = \"k\" }",
                ["logmesh.toml:7", "`syslog` listens where `tls://[::]:601` would", "elsewhere"],
            ),
        ] {
            let faults = read(&format!("[[agent.inputs]]\n{keys}\n")).unwrap_err();
            for part in parts {
                assert!(faults.contains(part), "{keys}: {part:?} is not in\n{faults}");
            }
        }
    }

    #[test]
    fn listeners_on_any_free_port_are_never_in_each_others_way() {
        let input = |name| {
            format!(
                "[[agent.inputs]]\nname = \"{name}\"\nkind = \"syslog\"\nlisten = [\"tcp://[::]:0\", \"tcp://[::]:0\"]\n"
            )
        };
        assert_eq!(read(&(input("a") + &input("b"))).unwrap().len(), 2);
    }

    #[test]
    fn an_agent_may_have_inputs_alone() {
        let text = "[agent]\ngateways = [\"gw1:4417\"]\ntls = { cert = \"c\", key = \"k\", ca = \"a\" }\n\
                    [[agent.inputs]]\nkind = \"stdin\"\n";
        let root = Root::parse(text, "logmesh.toml").unwrap();
        Config::read_standalone(&root);
        root.finish().unwrap();
    }
}
