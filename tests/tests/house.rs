//! The house holds: which crates may enter, and what the slim agent is free of.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

/// One package of the dependency graph.
struct Package {
    name: String,
    licence: String,
    source: Option<String>,
}

/// The dependency graph as cargo resolves it, without development dependencies.
struct Graph {
    packages: BTreeMap<String, Package>,
    edges: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live in the workspace");
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version=1",
                "--locked",
                "--offline",
                "--filter-platform=x86_64-unknown-linux-gnu",
            ])
            .current_dir(root)
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo speaks JSON");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let packages = list(&metadata["packages"]).map(|package| {
            let id = text(&package["id"]).expect("a package has an id");
            let licence = text(&package["license"]).unwrap_or_default();
            (id, Package { name: text(&package["name"]).expect("a name"), licence, source: text(&package["source"]) })
        });
        let edges = list(&metadata["resolve"]["nodes"]).map(|node| {
            let normal = |dependency: &&Value| list(&dependency["dep_kinds"]).any(|kind| kind["kind"] != "dev");
            let dependencies = list(&node["deps"]).filter(normal).filter_map(|dependency| text(&dependency["pkg"]));
            (text(&node["id"]).expect("a node has an id"), dependencies.collect())
        });
        Self { packages: packages.collect(), edges: edges.collect() }
    }

    /// Names of the packages that depend on one of this name.
    fn dependents(&self, name: &str) -> BTreeSet<&str> {
        let is = |id: &String| self.packages.get(id).is_some_and(|package| package.name == name);
        let users = self.edges.iter().filter(|(_, dependencies)| dependencies.iter().any(is));
        users.filter_map(|(id, _)| self.packages.get(id)).map(|package| package.name.as_str()).collect()
    }

    /// Names of everything that a workspace package links or builds with.
    fn reach(&self, name: &str) -> BTreeSet<&str> {
        let start = self.packages.iter().find(|(_, package)| package.name == name && package.source.is_none());
        let mut open = vec![start.expect("the package is in the workspace").0];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(self.edges.get(id).into_iter().flatten());
            }
        }
        seen.into_iter().filter_map(|id| self.packages.get(id)).map(|package| package.name.as_str()).collect()
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// One entry of a list in deny.toml.
#[derive(serde::Deserialize)]
struct Banned {
    name: String,
    /// Crates that may nevertheless depend on it.
    #[serde(default)]
    wrappers: Vec<String>,
}

/// A value of deny.toml, which cargo-deny reads where it is installed.
fn rules<T: serde::de::DeserializeOwned>(section: &str, key: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deny.toml");
    let text = std::fs::read_to_string(path).expect("deny.toml is there");
    let rules: toml::Table = toml::from_str(&text).expect("deny.toml is TOML");
    rules[section][key].clone().try_into().expect("the rules are as cargo-deny has them")
}

#[test]
fn the_slim_agent_links_neither_kafka_nor_an_index() {
    let graph = Graph::read();
    let agent = graph.reach("logmesh-agent");
    for foreign in ["rdkafka", "rdkafka-sys", "tantivy", "elasticsearch", "logmesh-bus", "logmesh-processor"] {
        assert!(!agent.contains(foreign), "the agent links {foreign}");
    }
    assert!(graph.reach("logmesh").contains("tantivy"), "the walk finds what is there");
}

#[test]
fn services_do_not_depend_on_each_other() {
    let graph = Graph::read();
    let services = ["logmesh-agent", "logmesh-gateway", "logmesh-processor"];
    for service in services {
        let reach = graph.reach(service);
        assert_eq!(services.iter().filter(|other| reach.contains(*other)).collect::<Vec<_>>(), [&service]);
    }
}

#[test]
fn every_crate_has_an_allowed_licence_and_comes_from_the_registry() {
    let allowed: BTreeSet<String> = rules("licenses", "allow");
    let graph = Graph::read();
    for package in graph.packages.values() {
        // An SPDX expression is fine when one side of each OR is; AND needs all. Slashes are an old form of OR.
        let expression = package.licence.replace(['(', ')'], "").replace('/', " OR ");
        let fine = |part: &str| part.split(" AND ").all(|name| allowed.contains(name.trim()));
        assert!(expression.split(" OR ").any(fine), "{} is under {:?}", package.name, package.licence);
        let registry = package
            .source
            .as_deref()
            .is_none_or(|source| source.starts_with("registry+https://github.com/rust-lang/crates.io-index"));
        assert!(registry, "{} comes from {:?}", package.name, package.source);
    }
}

#[test]
fn no_banned_crate_is_linked() {
    let banned: Vec<Banned> = rules("bans", "deny");
    let graph = Graph::read();
    for package in ["logmesh", "logmesh-agent", "logmesh-gateway", "logmesh-processor"] {
        let linked = graph.reach(package);
        for Banned { name, wrappers } in banned.iter().filter(|banned| linked.contains(banned.name.as_str())) {
            let others: Vec<_> = graph.dependents(name).into_iter().filter(|user| linked.contains(user)).collect();
            let fine = |user: &&&str| wrappers.iter().any(|wrapper| wrapper == **user);
            assert!(
                !wrappers.is_empty() && others.iter().all(|user| fine(&user)),
                "{package} links {name} by {others:?}"
            );
        }
    }
}

#[test]
fn agent_and_processor_know_the_same_formats_by_name() {
    let known = logmesh_processor::parse::Format::NAMES.map(|(name, _)| name);
    assert_eq!(logmesh_agent::lines::FORMATS, known);
}
