//! The readers: one table of the configuration, key by key.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::fault::{Place, nearest};
use super::quantity::{format_duration, format_size, parse_duration, parse_size};
use super::resolved::{Kind, Opened};
use super::secret::mask_password;
use super::state::{State, env_name, join};
use super::value::{Item, Table, Value, bare_or_quoted, quoted, size_of};

/// One table, cheap to clone. Every reader marks its key as known, records what it came to, and on a fault notes it and
/// returns the default.
#[derive(Clone, Debug)]
pub struct Section {
    pub(super) state: Rc<RefCell<State>>,
    /// What the file has under it, if anything.
    pub(super) table: Option<Arc<Table>>,
    pub(super) path: String,
    /// Elements of a list have no variables and no flags: they have no name.
    pub(super) named: bool,
}

impl Section {
    pub(super) fn new(state: Rc<RefCell<State>>, table: Option<Arc<Table>>, path: String, named: bool) -> Section {
        Section { state, table, path, named }
    }

    /// Where it stands, `agent.tls` or `agent.files[0]`.
    pub fn path_name(&self) -> &str {
        &self.path
    }

    /// Whether anybody set this key. Does not make it known: read it too.
    pub fn is_set(&self, key: &str) -> bool {
        let state = self.state.borrow();
        let named = self.named
            && (state.flags.contains_key(&join(&self.path, key)) || state.env.contains_key(&env_name(&self.path, key)));
        named || self.table.as_ref().is_some_and(|table| table.items.contains_key(key))
    }

    /// A string.
    pub fn text(&self, key: &str, default: &str) -> String {
        self.read_or(key, Kind::Text, text_of, |text| shown_text(text), || default.to_owned())
    }

    /// A string that may be missing.
    pub fn text_opt(&self, key: &str) -> Option<String> {
        self.read_opt(key, Kind::Text, text_of, |text| shown_text(text))
    }

    /// A list of strings. In the environment: `a, b`.
    pub fn texts(&self, key: &str, default: &[&str]) -> Vec<String> {
        let default = || default.iter().map(|text| (*text).to_owned()).collect();
        self.read_or(key, Kind::Texts, texts_of, |texts: &Vec<String>| shown_texts(texts), default)
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        let parse = |value: &Value| {
            let Value::Flag(flag) = value else { return Err(value.instead_of("true or false")) };
            Ok(*flag)
        };
        self.read_or(key, Kind::Flag, parse, ToString::to_string, || default)
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let kind = Kind::Integer { min: *range.start(), max: *range.end() };
        let parse = |value: &Value| {
            let Value::Integer(integer) = value else { return Err(value.instead_of("an integer")) };
            let outside = || format!("{integer} is not between {} and {}", range.start(), range.end());
            u64::try_from(*integer).ok().filter(|integer| range.contains(integer)).ok_or_else(outside)
        };
        self.read_or(key, kind, parse, ToString::to_string, || default)
    }

    /// Bytes within `range`: `"16 MiB"`, or a plain integer.
    pub fn size(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let kind = Kind::Size { min: *range.start(), max: *range.end() };
        let parse = |value: &Value| {
            let bytes = size_of(value)?;
            let (least, most) = (format_size(*range.start()), format_size(*range.end()));
            let outside = || format!("{} is not between {least} and {most}", format_size(bytes));
            range.contains(&bytes).then_some(bytes).ok_or_else(outside)
        };
        self.read_or(key, kind, parse, |bytes| quoted(&format_size(*bytes)), || default)
    }

    /// Bytes per second that may be missing (no limit): `"50 MiB/s"`. Zero is a fault: it would be a stop, not a limit.
    pub fn rate(&self, key: &str) -> Option<u64> {
        let parse = |value: &Value| {
            let text = text_of(value)?;
            let size = text
                .trim()
                .strip_suffix("/s")
                .ok_or_else(|| format!("\"{text}\" is no rate; write it as \"50 MiB/s\""))?;
            match parse_size(size)? {
                0 => Err("a rate of zero lets nothing pass; leave the key out for no limit".to_owned()),
                bytes => Ok(bytes),
            }
        };
        self.read_opt(key, Kind::Rate, parse, |bytes| quoted(&format!("{}/s", format_size(*bytes))))
    }

    /// A time span within `range`: `"10s"`.
    pub fn duration(&self, key: &str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let kind = Kind::Duration { min_ms: range.start().as_millis(), max_ms: range.end().as_millis() };
        let parse = |value: &Value| {
            let Value::Text(text) = value else { return Err(value.instead_of("a duration such as \"10s\"")) };
            let span = parse_duration(text)?;
            let (least, most) = (format_duration(*range.start()), format_duration(*range.end()));
            range.contains(&span).then_some(span).ok_or_else(|| format!("{text} is not between {least} and {most}"))
        };
        self.read_or(key, kind, parse, |span| quoted(&format_duration(*span)), || default)
    }

    /// A path; a relative one is taken from where the process runs.
    pub fn path(&self, key: &str, default: &Path) -> PathBuf {
        self.read_or(key, Kind::Path, path_of, |path: &PathBuf| quoted(&path.to_string_lossy()), || default.to_owned())
    }

    /// A path that may be missing.
    pub fn path_opt(&self, key: &str) -> Option<PathBuf> {
        self.read_opt(key, Kind::Path, path_of, |path: &PathBuf| quoted(&path.to_string_lossy()))
    }

    /// An IP address and port.
    pub fn address(&self, key: &str, default: SocketAddr) -> SocketAddr {
        let parse = |value: &Value| {
            let text = text_of(value)?;
            text.parse().map_err(|_| format!("\"{text}\" is no IP address with a port, such as \"127.0.0.1:4418\""))
        };
        self.read_or(key, Kind::Address, parse, |address: &SocketAddr| quoted(&address.to_string()), || default)
    }

    /// One of `choices`, each with what it means.
    ///
    /// # Panics
    /// When `default` is not among the choices, which is a fault of the program.
    pub fn one_of<T: Copy>(&self, key: &str, default: &str, choices: &[(&str, T)]) -> T {
        let find = |word: &str| choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice);
        let fallback = find(default).expect("the default is one of the choices");
        let names: Vec<String> = choices.iter().map(|(name, _)| (*name).to_owned()).collect();
        let parse = |value: &Value| {
            let text = text_of(value)?;
            if find(&text).is_some() {
                return Ok(text);
            }
            let list = names.join(", ");
            Err(match nearest(&text, names.iter().map(String::as_str)) {
                Some(near) => format!("\"{text}\" is not one of {list}; did you mean \"{near}\"?"),
                None => format!("\"{text}\" is not one of {list}"),
            })
        };
        let kind = Kind::Choice(names.clone());
        let word = self.read_or(key, kind, parse, |word| quoted(word), || default.to_owned());
        find(&word).unwrap_or(fallback)
    }

    /// A table of strings; a missing one is empty. In the environment: `a=1, b=2`.
    pub fn map(&self, key: &str) -> BTreeMap<String, String> {
        self.read_or(key, Kind::Map, map_of, shown_map, BTreeMap::new)
    }

    /// The table under `key`, when it is there or any of its keys is set by the environment or a flag. A sibling key must
    /// not begin with the table's name and `_`: their variables could not be told apart.
    pub fn table(&self, key: &str) -> Option<Section> {
        self.ask(key);
        let path = join(&self.path, key);
        let Some(item) = self.table.as_ref().and_then(|table| table.items.get(key)) else {
            return self.any_below(&path).then(|| self.open(path, None));
        };
        match item.node.value.table("a table") {
            Ok(table) => Some(self.open(path, Some(Arc::clone(table)))),
            Err(what) => {
                self.note(&item.node.place, key, what, format!("write it as [{path}]"));
                None
            }
        }
    }

    /// The table under `key`; a missing one has every key at its default.
    pub fn section(&self, key: &str) -> Section {
        self.table(key).unwrap_or_else(|| self.open(join(&self.path, key), None))
    }

    fn open(&self, path: String, table: Option<Arc<Table>>) -> Section {
        let heading = format!("[{}]", without_indices(&path));
        self.state.borrow_mut().open(Opened { path: path.clone(), parent: self.path.clone(), heading });
        Section::new(Rc::clone(&self.state), table, path, self.named)
    }

    /// The tables of the list under `key`, in order: `[[agent.files]]`.
    pub fn tables(&self, key: &str) -> Vec<Section> {
        self.ask(key);
        let Some(item) = self.table.as_ref().and_then(|table| table.items.get(key)) else { return Vec::new() };
        let path = join(&self.path, key);
        let heading = format!("[[{}]]", without_indices(&path));
        let wrong = |place: &Place, what: String| self.note(place, key, what, format!("write each as {heading}"));
        let nodes = match item.node.value.list("a list of tables") {
            Ok(nodes) => nodes,
            Err(what) => {
                wrong(&item.node.place, what);
                return Vec::new();
            }
        };
        let mut sections = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let table = match node.value.table("a table") {
                Ok(table) => table,
                Err(what) => {
                    wrong(&node.place, what);
                    continue;
                }
            };
            let path = format!("{path}[{index}]");
            let opened = Opened { path: path.clone(), parent: self.path.clone(), heading: heading.clone() };
            self.state.borrow_mut().open(opened);
            sections.push(Section::new(Rc::clone(&self.state), Some(Arc::clone(table)), path, false));
        }
        sections
    }

    /// Notes a missing key, unless what stood there was already found at fault. Read the key first.
    pub fn require<T>(&self, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            let cure = match self.named {
                true => format!("set `{}`, or {}", join(&self.path, key), env_name(&self.path, key)),
                false => format!("set `{key}` here"),
            };
            self.note_missing(key, cure);
        }
        value
    }

    /// Notes a table that is missing, or an array of tables, unless what stood there was already found at fault: neither
    /// can be set by one variable. `written` is what to write.
    pub fn require_table(&self, key: &str, written: &str) {
        self.note_missing(key, format!("write {written}"));
    }

    fn note_missing(&self, key: &str, cure: String) {
        let full = join(&self.path, key);
        if !self.state.borrow().faults.iter().any(|fault| fault.key == full) {
            self.note(&self.place(), key, "missing".to_owned(), cure);
        }
    }

    /// Notes what a service found wrong with a key's value: faults that need more than one key to see.
    pub fn fault(&self, key: &str, what: impl Into<String>, cure: impl Into<String>) {
        self.note(&self.place_of(key), key, what.into(), cure.into());
    }
}

fn text_of(value: &Value) -> Result<String, String> {
    value.text().map(str::to_owned)
}

fn path_of(value: &Value) -> Result<PathBuf, String> {
    match value.text()? {
        "" => Err("expected a path, found an empty string".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

fn texts_of(value: &Value) -> Result<Vec<String>, String> {
    value.list("a list of strings")?.iter().map(|item| text_of(&item.value)).collect()
}

fn map_of(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let pair = |(key, item): (&String, &Item)| {
        text_of(&item.node.value).map(|text| (key.clone(), text)).map_err(|what| format!("`{key}`: {what}"))
    };
    value.table("a table of strings")?.items.iter().map(pair).collect()
}

fn shown_text(text: &str) -> String {
    quoted(&mask_password(text))
}

fn shown_texts(texts: &[String]) -> String {
    let items: Vec<String> = texts.iter().map(|text| shown_text(text)).collect();
    format!("[{}]", items.join(", "))
}

fn shown_map(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> =
        map.iter().map(|(key, value)| format!("{} = {}", bare_or_quoted(key), shown_text(value))).collect();
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
}

/// `agent.files[0].tls` as a heading writes it.
fn without_indices(path: &str) -> String {
    path.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}
