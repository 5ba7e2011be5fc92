use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn root(text: &str) -> Root {
    Root::parse(text, "logmesh.toml").expect("valid TOML")
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn faults(root: Root) -> String {
    root.finish().expect_err("faults").to_string()
}

fn read_agent(root: &Root) -> (String, u64, Duration) {
    let agent = root.section("agent");
    let name = agent.text("name", "host");
    let budget = agent.size("memory_budget", 64 << 20, 1 << 20..=1 << 40);
    let linger = agent.duration("partial_flush", 5 * SECOND, SECOND..=3600 * SECOND);
    (name, budget, linger)
}

#[test]
fn nothing_at_all_reads_as_the_defaults() {
    let root = Root::empty();
    assert_eq!(read_agent(&root), ("host".to_owned(), 64 << 20, 5 * SECOND));
    assert!(root.finish().is_ok());
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let file = "[agent]\nname = \"file\"\nmemory_budget = \"2 MiB\"\npartial_flush = \"7s\"\n";
    let root = root(file)
        .env(variables(&[("LOGMESH_AGENT_NAME", "env"), ("LOGMESH_AGENT_MEMORY_BUDGET", "3 MiB"), ("PATH", "/bin")]))
        .set("agent.name", "flag", "--name");
    assert_eq!(read_agent(&root), ("flag".to_owned(), 3 << 20, 7 * SECOND));
    let sources: Vec<Source> = root.finish().expect("valid").entries().map(|entry| entry.source.clone()).collect();
    assert_eq!(
        sources,
        [
            Source::Flag("--name".to_owned()),
            Source::Environment("LOGMESH_AGENT_MEMORY_BUDGET".to_owned()),
            Source::File("logmesh.toml:4:17".to_owned()),
        ]
    );
}

#[test]
fn all_faults_come_at_once_each_with_its_place_and_cure() {
    let root = root(
        "[agent]\nnaem = \"x\"\nmemory_budget = \"64 megs\"\npartial_flush = 5\nzzzzzzzzzz = 1\n\n[gatewya]\nlisten = \"x\"\n",
    );
    root.section("gateway");
    read_agent(&root);
    assert_eq!(
        faults(root),
        "logmesh.toml:2:1: agent.naem: unknown key; did you mean `name`?\n\
         logmesh.toml:3:17: agent.memory_budget: \"megs\" is no unit known here; write a size as \"16 MiB\", with a unit of \
         B, KiB, MiB, GiB, KB, MB or GB\n\
         logmesh.toml:4:17: agent.partial_flush: expected a duration such as \"10s\", found an integer\n\
         logmesh.toml:5:1: agent.zzzzzzzzzz: unknown key; remove it; known here: memory_budget, name, partial_flush\n\
         logmesh.toml:7:2: gatewya: unknown section; did you mean `gateway`?"
    );
}

#[test]
fn every_kind_says_what_it_expected() {
    let root = root(
        "[a]\ntext = 1\ntexts = [1]\nflag = \"yes\"\ninteger = 11\nnegative = -1\nsize = \"9 B\"\nrate = \"5 MiB\"\n\
         duration = \"2d\"\npath = \"\"\naddress = \"localhost:80\"\nchoice = \"zsdt\"\nmap = { a = 1 }\ntable = 1\ntables = 1\n",
    );
    let a = root.section("a");
    a.text("text", "");
    a.texts("texts", &[]);
    a.flag("flag", false);
    a.integer("integer", 1, 1..=10);
    a.integer("negative", 1, 1..=10);
    a.size("size", 10, 10..=20);
    a.rate("rate");
    a.duration("duration", SECOND, SECOND..=Duration::from_secs(3600));
    a.path("path", Path::new("x"));
    a.address("address", SocketAddr::from(([127, 0, 0, 1], 1)));
    a.one_of("choice", "none", &[("none", 0), ("zstd", 1), ("snappy", 2)]);
    a.map("map");
    assert!(a.table("table").is_none());
    assert!(a.tables("tables").is_empty());
    let text = faults(root);
    for line in [
        "2:8: a.text: expected a string, found an integer",
        "3:9: a.texts: expected a string, found an integer",
        "4:8: a.flag: expected true or false, found a string",
        "5:11: a.integer: 11 is not between 1 and 10",
        "6:12: a.negative: -1 is not between 1 and 10",
        "7:8: a.size: 9 B is not between 10 B and 20 B",
        "8:8: a.rate: \"5 MiB\" is no rate; write it as \"50 MiB/s\"",
        "9:12: a.duration: 2d is not between 1s and 1h",
        "10:8: a.path: expected a path, found an empty string",
        "11:11: a.address: \"localhost:80\" is no IP address with a port, such as \"127.0.0.1:4418\"",
        "12:10: a.choice: \"zsdt\" is not one of none, zstd, snappy; did you mean \"zstd\"?",
        "13:7: a.map: `a`: expected a string, found an integer",
        "14:9: a.table: expected a table, found an integer; write it as [a.table]",
        "15:10: a.tables: expected a list of tables, found an integer; write each as [[a.tables]]",
    ] {
        assert!(text.lines().any(|found| found == format!("logmesh.toml:{line}")), "{line} not in:\n{text}");
    }
    assert_eq!(text.lines().count(), 14);
}

#[test]
fn a_bad_variable_is_named_and_so_is_an_unknown_one_with_the_nearest() {
    let root = Root::empty().env(variables(&[
        ("LOGMESH_AGENT_MEMORY_BUDGET", "lots"),
        ("LOGMESH_AGENT_NAEM", "x"),
        ("LOGMESH_LOG", "debug"),
        ("LOGMESH_FAULTS", "x"),
        ("LOGMESH_BUS_KIND", "local"),
    ]));
    let root = root.reserve_env(&["LOGMESH_FAULTS"]).leave(&["bus"]);
    read_agent(&root);
    let text = faults(root);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].starts_with("LOGMESH_AGENT_MEMORY_BUDGET: agent.memory_budget: \"lots\" does not begin with a number")
    );
    assert_eq!(lines[1], "LOGMESH_AGENT_NAEM: unknown environment variable; did you mean LOGMESH_AGENT_NAME?");
}

#[test]
fn an_unknown_flag_path_is_a_fault() {
    let root = Root::empty().set("agent.nme", "x", "--set");
    read_agent(&root);
    assert_eq!(faults(root), "--set: agent.nme: unknown key; did you mean `agent.name`?");
}

#[test]
fn sections_of_other_processes_are_left_alone() {
    let root = root("[gateway]\nanything = 1\n[agent]\n").leave(&["gateway"]);
    read_agent(&root);
    assert!(root.finish().is_ok());
}

#[test]
fn a_syntax_fault_has_its_line_and_column() {
    let faults = Root::parse("[agent]\nname = \n", "logmesh.toml").expect_err("a syntax fault");
    assert_eq!(faults.0[0].position, Some(Position { line: 2, column: 8 }), "{faults}");
}

#[test]
fn nested_tables_and_lists_are_read_and_checked_below() {
    let root = root(
        "[agent]\ntls = { cert = \"c\", kee = \"k\" }\n[[agent.files]]\ninclude = [\"a\"]\n[[agent.files]]\nincldue = [\"b\"]\n",
    );
    let agent = root.section("agent");
    let tls = agent.table("tls").expect("a table");
    assert_eq!((tls.text_opt("cert").as_deref(), tls.text_opt("key")), (Some("c"), None));
    let includes: Vec<Vec<String>> = agent.tables("files").iter().map(|file| file.texts("include", &[])).collect();
    assert_eq!(includes, [vec!["a".to_owned()], vec![]]);
    assert_eq!(
        faults(root),
        "logmesh.toml:2:21: agent.tls.kee: unknown key; did you mean `key`?\n\
         logmesh.toml:6:1: agent.files[1].incldue: unknown key; did you mean `include`?"
    );
}

#[test]
fn a_nested_table_exists_when_only_the_environment_names_it() {
    let root = Root::empty().env(variables(&[("LOGMESH_AGENT_TLS_CERT", "/c.pem")]));
    let agent = root.section("agent");
    assert!(agent.table("proxy").is_none());
    let cert = agent.table("tls").and_then(|tls| tls.path_opt("cert"));
    assert_eq!(cert.as_deref(), Some(Path::new("/c.pem")));
    assert!(root.finish().is_ok());
}

#[test]
fn lists_and_maps_in_the_environment_need_no_quotes() {
    let root = Root::empty().env(variables(&[
        ("LOGMESH_AGENT_GATEWAYS", "gw1:4417, gw2:4417"),
        ("LOGMESH_AGENT_PATTERNS", "[\"a,b\"]"),
        ("LOGMESH_AGENT_LABELS", "env=prod,team=core"),
        ("LOGMESH_AGENT_TRY", "true"),
        ("LOGMESH_AGENT_COUNT", "12"),
    ]));
    let agent = root.section("agent");
    assert_eq!(agent.texts("gateways", &[]), ["gw1:4417", "gw2:4417"]);
    assert_eq!(agent.texts("patterns", &[]), ["a,b"]);
    assert_eq!(
        agent.map("labels").into_iter().map(|(key, value)| key + &value).collect::<Vec<_>>(),
        ["envprod", "teamcore"]
    );
    assert_eq!((agent.flag("try", false), agent.integer("count", 1, 0..=20)), (true, 12));
    assert!(root.finish().is_ok());
}

#[test]
fn an_overlay_replaces_key_by_key() {
    let root = root("[agent]\nname = \"below\"\npartial_flush = \"9s\"\n");
    let root = root.overlay("[agent]\nname = \"above\"\nmemory_budget = true\n", "over.toml").expect("valid TOML");
    let (name, _, linger) = read_agent(&root);
    assert_eq!((name.as_str(), linger), ("above", 9 * SECOND));
    assert!(faults(root).starts_with("over.toml:3:17: agent.memory_budget: expected a size"));
}

#[test]
fn missing_is_said_once_and_not_of_what_is_merely_wrong() {
    let root = root("[agent]\ncert = 1\n");
    let agent = root.section("agent");
    agent.require("cert", agent.path_opt("cert"));
    agent.require("key", agent.path_opt("key"));
    agent.require("key", agent.path_opt("key"));
    assert_eq!(
        faults(root),
        "logmesh.toml:1:1: agent.key: missing; set `agent.key`, or LOGMESH_AGENT_KEY\n\
         logmesh.toml:2:8: agent.cert: expected a string, found an integer"
    );
}

#[test]
fn a_service_may_note_its_own_fault_at_a_key() {
    let root = root("[agent]\nlow = 5\nhigh = 3\n");
    let agent = root.section("agent");
    let (low, high) = (agent.integer("low", 1, 0..=9), agent.integer("high", 9, 0..=9));
    if low > high {
        agent.fault("high", "is below `low`", "raise it");
    }
    assert_eq!(faults(root), "logmesh.toml:3:8: agent.high: is below `low`; raise it");
}

#[test]
fn a_variable_that_is_not_utf_8_is_a_fault_where_it_would_be_a_setting() {
    let garbled = || OsString::from_vec(b"caf\xe9".to_vec());
    let root = root("[index]\na = { env = \"ES_KEY\" }\n").env([
        (OsString::from("ES_KEY"), garbled()),
        ("LOGMESH_AGENT_NAME".into(), garbled()),
        ("LOGMESH_AGENT_NAEM".into(), garbled()),
        (OsString::from_vec(b"LOGMESH_AGENT_NAM\xe9".to_vec()), OsString::from("x")),
        ("LOGMESH_BUS_KIND".into(), garbled()),
        ("PWD".into(), garbled()),
    ]);
    let root = root.leave(&["bus"]);
    read_agent(&root);
    root.section("index").secret("a");
    let text = faults(root);
    for line in [
        "logmesh.toml:2:5: index.a: the variable ES_KEY is not UTF-8",
        "LOGMESH_AGENT_NAME: its value is not UTF-8; write it in UTF-8, or unset it",
        "LOGMESH_AGENT_NAEM: unknown environment variable; did you mean LOGMESH_AGENT_NAME?",
        "LOGMESH_AGENT_NAM\u{fffd}: unknown environment variable; did you mean LOGMESH_AGENT_NAME?",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} not in:\n{text}");
    }
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn a_secret_comes_from_a_file_or_a_variable_and_is_never_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("key");
    std::fs::write(&file, "hunter2\n").expect("writable");
    let text = format!("[index]\na = {{ file = {:?} }}\nb = {{ env = \"ES_KEY\" }}\n", file.display().to_string());
    let root = root(&text).env(variables(&[
        ("ES_KEY", "hunter2"),
        ("LOGMESH_INDEX_C", "hunter2"),
        ("LOGMESH_INDEX_D_ENV", "ES_KEY"),
    ]));
    let index = root.section("index");
    for key in ["a", "b", "c", "d"] {
        let secret = index.secret(key).expect(key);
        assert_eq!(secret.expose(), "hunter2", "{key}");
        assert_eq!(format!("{secret} {secret:?}"), "*** Secret(***)");
    }
    assert_eq!(index.secret("e"), None);
    let shown = root.finish().expect("valid").to_toml();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.contains("b = { env = \"ES_KEY\" }") && shown.contains("c = { env = \"LOGMESH_INDEX_C\" }"),
        "{shown}"
    );
}

#[test]
fn a_secret_is_renewed_where_it_lies() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("key");
    let write = |text: &str| std::fs::write(&file, text).expect("writable");
    write("hunter2\n");
    let text = format!("[index]\na = {{ file = {:?} }}\nb = {{ env = \"ES_KEY\" }}\n", file.display().to_string());
    let root = root(&text).env(variables(&[("ES_KEY", "hunter2")]));
    let index = root.section("index");
    let (secret, fixed) = (index.secret("a").expect("a"), index.secret("b").expect("b"));
    assert_eq!((secret.renewed(), fixed.renewed()), (None, None), "nothing has changed");
    write("hunter3\r\n");
    let renewed = secret.renewed().expect("another one");
    assert_eq!((renewed.expose(), renewed.renewed()), ("hunter3", None));
    write("");
    assert_eq!(renewed.renewed(), None, "a file that is being replaced");
    std::fs::remove_file(&file).expect("removable");
    assert_eq!(renewed.renewed(), None, "a file that is being replaced");
}

#[test]
fn a_secret_in_the_clear_is_a_fault_that_does_not_repeat_it() {
    let root = root(
        "[index]\na = \"hunter2\"\nb = { file = \"/nonexistent/key\" }\nc = { env = \"UNSET\" }\nd = { fil = \"x\" }\n",
    )
    .set("index.e", "hunter2", "--set");
    let index = root.section("index");
    for key in ["a", "b", "c", "d", "e"] {
        assert_eq!(index.secret(key), None);
    }
    let text = faults(root);
    assert!(!text.contains("hunter2"), "{text}");
    for part in [
        "2:5: index.a: a secret may not stand here in the clear; write { file = \"/path/to/it\" } or { env = \"VARIABLE\" }",
        "3:5: index.b: the file \"/nonexistent/key\" cannot be read",
        "4:5: index.c: the variable UNSET is not set",
        "5:5: index.d: expected exactly one of `file` and `env`",
        "--set: index.e: a secret may not stand here in the clear",
    ] {
        assert!(text.contains(part), "{part} not in:\n{text}");
    }
}

#[test]
fn what_is_shown_resolves_to_the_same_configuration() {
    let text = "[agent]\nname = \"a \\\"b\\\"\\n\"\nproxy = \"http://u:hunter2@p:1\"\nlabels = { \"a b\" = \"c\" }\n\
                [agent.tls]\ncert = \"c\"\n[[agent.files]]\ninclude = [\"x\", \"y\"]\n[agent.files.more]\nname = \"m\"\n[[agent.files]]\n";
    let read = |text: &str| {
        let root = root(text);
        let (name, budget, linger) = read_agent(&root);
        let agent = root.section("agent");
        let shape = (agent.map("labels"), agent.text_opt("proxy").is_some(), agent.text_opt("unset"));
        let tls = agent.table("tls").map(|tls| tls.text("cert", ""));
        let files: Vec<_> = agent
            .tables("files")
            .iter()
            .map(|file| (file.texts("include", &["d"]), file.table("more").map(|more| more.text("name", ""))))
            .collect();
        ((name, budget, linger, shape, tls, files), root.finish().expect("valid").to_toml())
    };
    let (config, shown) = read(text);
    let (again, _) = read(&shown);
    assert_eq!(config, again, "{shown}");
    assert!(shown.contains("proxy = \"http://u:***@p:1\"  # logmesh.toml:3:9"), "{shown}");
    assert!(shown.contains("memory_budget = \"64 MiB\"  # default") && shown.contains("# unset is not set"), "{shown}");
}

#[test]
fn a_swap_is_seen_by_the_next_load_and_not_by_what_was_loaded() {
    let live = Live::new(1);
    let before = live.load();
    assert_eq!((*live.swap(2), *before, *live.load()), (1, 1, 2));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_and_every_fault_has_a_place_in_it(text in "(\\[{0,2}(agent|tls)\\]{0,2}|name ?= ?|\"x\"|[0-9]s?|\n|\\{|\\}|.){0,12}") {
        let lines = u32::try_from(text.lines().count()).expect("few") + 1;
        let faults = match Root::parse(&text, "any.toml") {
            Err(faults) => faults,
            Ok(root) => {
                read_agent(&root);
                match root.finish() {
                    Err(faults) => faults,
                    Ok(_) => return Ok(()),
                }
            }
        };
        for fault in faults.0 {
            proptest::prop_assert!(fault.position.is_some_and(|at| at.line >= 1 && at.line <= lines), "{fault}");
        }
    }

    #[test]
    fn any_text_survives_being_shown(name in ".*", key in "[a-z]{1,8}") {
        let first = Root::empty().set("agent.name", name.clone(), "--name");
        first.section("agent").text("name", "");
        let shown = first.finish().expect("valid").to_toml();
        let again = Root::parse(&shown, "shown.toml").expect("valid TOML");
        proptest::prop_assume!(!name.contains("://"));
        proptest::prop_assert_eq!(again.section("agent").text("name", &key), name);
    }
}
