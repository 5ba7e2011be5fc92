//! The command line as people meet it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

/// Every command that there is.
const COMMANDS: [&str; 11] =
    ["up", "agent", "check", "config", "certs", "search", "status", "generate", "completions", "man", "--help"];

fn logmesh(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logmesh"));
    // The environment is configuration: what this test run was started with must not be the binary's.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LOGMESH_")) {
        command.env_remove(name);
    }
    command.args(arguments).output().expect("the binary runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("scratch paths are text")
}

#[test]
fn every_command_has_help_and_most_have_examples() {
    let overview = out(&logmesh(&["--help"]));
    for command in COMMANDS.into_iter().filter(|command| *command != "--help") {
        assert!(overview.contains(command), "{command} is not in the overview");
        let help = logmesh(&[command, "--help"]);
        assert!(help.status.success() && !help.stdout.is_empty(), "{command}: {}", err(&help));
    }
    assert!(out(&logmesh(&["search", "--help"])).contains("Examples"));
    assert!(out(&logmesh(&["--version"])).starts_with("logmesh 0."));
}

#[test]
fn an_unknown_command_or_flag_is_bad_usage() {
    assert_eq!(logmesh(&["tial"]).status.code(), Some(2));
    let output = logmesh(&["search", "--form", "-1h"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("--from"), "the nearest flag is named: {}", err(&output));
}

#[test]
fn certificates_are_made_issued_and_shown_with_private_keys() {
    let scratch = tempfile::tempdir().expect("scratch");
    let (pki, edge) = (scratch.path().join("pki"), scratch.path().join("edge"));
    assert!(logmesh(&["certs", "init", "--dir", text(&pki), "--mesh", "example"]).status.success());
    let again = logmesh(&["certs", "init", "--dir", text(&pki), "--mesh", "example"]);
    assert_eq!(again.status.code(), Some(1), "a CA is never overwritten");
    let issue = ["certs", "issue", "agent", "edge-1", "--dir", text(&pki), "--out", text(&edge)];
    let issued = logmesh(&issue);
    assert!(out(&issued).contains("spiffe://example/agent/edge-1"), "{}", err(&issued));
    assert_eq!(logmesh(&issue).status.code(), Some(1), "a key is never overwritten unasked");
    assert!(logmesh(&[&issue[..], &["--replace"]].concat()).status.success());
    for key in [pki.join("ca-key.pem"), edge.join("key.pem")] {
        let mode = fs::metadata(&key).expect("the key is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", key.display());
    }
    let shown = logmesh(&["certs", "show", text(&edge.join("cert.pem")), "--key", text(&edge.join("key.pem"))]);
    let shown = out(&shown);
    for part in ["spiffe://example/agent/edge-1", "clientAuth", "matches", "days left"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
}

#[test]
fn the_printed_default_configuration_is_good_and_the_resolved_one_reads_back() {
    let scratch = tempfile::tempdir().expect("scratch");
    let file = scratch.path().join("logmesh.toml");
    fs::write(&file, logmesh(&["config", "default"]).stdout).expect("written");
    let checked = logmesh(&["check", "--config", text(&file)]);
    assert!(checked.status.success(), "{}", err(&checked));
    let resolved = logmesh(&["config", "show", "--config", text(&file)]);
    assert!(resolved.status.success(), "{}", err(&resolved));
    fs::write(&file, &resolved.stdout).expect("written");
    let checked = logmesh(&["check", "--config", text(&file)]);
    assert!(checked.status.success(), "{}", err(&checked));
}

#[test]
fn a_secret_is_never_printed() {
    let scratch = tempfile::tempdir().expect("scratch");
    let (file, token) = (scratch.path().join("logmesh.toml"), scratch.path().join("token"));
    fs::write(&token, "hunter2\n").expect("written");
    fs::write(&file, format!("[up]\nadmin_token = {{ file = \"{}\" }}\n", text(&token))).expect("written");
    let shown = out(&logmesh(&["config", "show", "--config", text(&file)]));
    assert!(shown.contains("admin_token") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn keys_that_up_sets_itself_are_refused_in_its_file() {
    let scratch = tempfile::tempdir().expect("scratch");
    let file = scratch.path().join("logmesh.toml");
    fs::write(&file, "[agent]\ngateways = [\"gw1:4417\"]\n").expect("written");
    let data = scratch.path().join("data");
    let output = logmesh(&["up", "--config", text(&file), "--data", text(&data)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("logmesh.toml:2") && err(&output).contains("agent.gateways"), "{}", err(&output));
    assert!(!data.exists());
}

#[test]
fn a_check_for_a_role_knows_what_that_process_needs() {
    let scratch = tempfile::tempdir().expect("scratch");
    let file = scratch.path().join("agent.toml");
    fs::write(&file, "[agent]\nname = \"edge-1\"\n[bus]\nkind = \"kafka\"\n").expect("written");
    let checked = logmesh(&["check", "--config", text(&file), "--role", "agent"]);
    assert_eq!(checked.status.code(), Some(2));
    assert!(err(&checked).contains("agent.tls") && !err(&checked).contains("bus"), "{}", err(&checked));
    fs::write(&file, "[agent]\ngateways = [\"gw1:4417\"]\n").expect("written");
    assert!(logmesh(&["check", "--config", text(&file)]).status.success());
    assert_eq!(logmesh(&["check", "--config", text(&file), "--role", "up"]).status.code(), Some(2));
}

#[test]
fn a_check_says_what_is_wrong_with_a_file_once() {
    let scratch = tempfile::tempdir().expect("scratch");
    let file = scratch.path().join("agent.toml");
    let files = ["cert", "key", "ca"].map(|name| format!("{name} = {:?}", scratch.path().join(name)));
    let agent = format!("[agent]\ngateways = [\"gw1:4417\"]\ntls = {{ {} }}\n", files.join(", "));
    fs::write(&file, agent + "[[agent.files]]\ninclude = [\"/var/log/*.log\"]\n").expect("written");
    let checked = logmesh(&["check", "--config", text(&file), "--role", "agent"]);
    assert_eq!(checked.status.code(), Some(1), "{}", err(&checked));
    assert_eq!(out(&checked).matches("No such file").count(), 1, "{}", out(&checked));
    assert!(out(&checked).contains("check that the path is right"), "{}", out(&checked));
}

#[test]
fn searching_where_nothing_runs_says_what_to_do() {
    let scratch = tempfile::tempdir().expect("scratch");
    let output = logmesh(&["search", "error", "--data", text(scratch.path())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("logmesh up"), "{}", err(&output));
    let output = logmesh(&["search", "error", "--url", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("is `logmesh up` running?"), "{}", err(&output));
}

#[test]
fn lines_of_every_format_are_generated_as_many_as_asked_for() {
    for format in ["combined", "json", "syslog", "plain", "logfmt"] {
        let output = logmesh(&["generate", "--format", format, "--lines", "50", "--rate", "0"]);
        assert_eq!(out(&output).lines().count(), 50, "{format}");
    }
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let scratch = tempfile::tempdir().expect("scratch");
    assert!(logmesh(&["man", text(scratch.path())]).status.success());
    assert!(scratch.path().join("logmesh-search.1").exists());
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&logmesh(&["completions", shell])).contains("logmesh"), "{shell}");
    }
}
