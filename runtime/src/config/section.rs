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
use super::resolved::{Entry, Kind, Opened, Source};
use super::secret::{Secret, mask_password};
use super::state::{State, env_name, join};
use super::value::{Table, Value, bare_or_quoted, quoted, size_of};

/// One table, cheap to clone. Every reader marks its key as known, records what it came to, and on a fault notes it and
/// returns the default.
#[derive(Clone, Debug)]
pub struct Section {
    state: Rc<RefCell<State>>,
    table: Option<Arc<Table>>,
    path: String,
    /// Elements of a list have no variables and no flags: they have no name.
    named: bool,
}

/// A value somebody set.
struct Given {
    value: Value,
    place: Place,
    source: Source,
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
        let parse = |value: &Value| match value {
            Value::Flag(flag) => Ok(*flag),
            other => Err(format!("expected true or false, found {}", other.noun())),
        };
        self.read_or(key, Kind::Flag, parse, ToString::to_string, || default)
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let kind = Kind::Integer { min: *range.start(), max: *range.end() };
        let parse = |value: &Value| match value {
            Value::Integer(integer) => match u64::try_from(*integer) {
                Ok(integer) if range.contains(&integer) => Ok(integer),
                _ => Err(format!("{integer} is not between {} and {}", range.start(), range.end())),
            },
            other => Err(format!("expected an integer, found {}", other.noun())),
        };
        self.read_or(key, kind, parse, ToString::to_string, || default)
    }

    /// Bytes within `range`: `"16 MiB"`, or a plain integer.
    pub fn size(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let kind = Kind::Size { min: *range.start(), max: *range.end() };
        let parse = |value: &Value| {
            let bytes = size_of(value)?;
            let least_most = || format!("{} and {}", format_size(*range.start()), format_size(*range.end()));
            if range.contains(&bytes) { Ok(bytes) } else { Err(format!("{} is not between {}", format_size(bytes), least_most())) }
        };
        self.read_or(key, kind, parse, |bytes| quoted(&format_size(*bytes)), || default)
    }

    /// Bytes per second that may be missing (no limit): `"50 MiB/s"`. Zero is a fault: it would be a stop, not a limit.
    pub fn rate(&self, key: &str) -> Option<u64> {
        let parse = |value: &Value| {
            let text = text_of(value)?;
            let size = text.trim().strip_suffix("/s").ok_or_else(|| format!("\"{text}\" is no rate; write it as \"50 MiB/s\""))?;
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
            let Value::Text(text) = value else {
                return Err(format!("expected a duration such as \"10s\", found {}", value.noun()));
            };
            let span = parse_duration(text)?;
            let least_most = || format!("{} and {}", format_duration(*range.start()), format_duration(*range.end()));
            if range.contains(&span) { Ok(span) } else { Err(format!("{text} is not between {}", least_most())) }
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

    /// A secret: `{ file = "…" }` or `{ env = "…" }`, read now. Its own variable may hold it too; the file and the command
    /// line, which others can see, may not.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        let given = self.given(key, &Kind::Secret).or_else(|| self.secret_by_parts(key));
        let Some(Given { value, place, source }) = given else {
            self.record(key, Kind::Secret, None, Source::Default);
            return None;
        };
        let read = match (&value, &source) {
            (Value::Text(_), Source::Environment(name)) => self.secret_from("env", name),
            (Value::Table(table), _) => self.secret_from_table(table),
            (Value::Text(_), _) => Err("a secret may not stand here in the clear".to_owned()),
            (other, _) => Err(format!("expected a table, found {}", other.noun())),
        };
        match read {
            Ok((secret, shown)) => {
                self.record(key, Kind::Secret, Some(shown), source);
                Some(secret)
            }
            Err(what) => {
                let cure = "write { file = \"/path/to/it\" } or { env = \"VARIABLE\" }";
                self.note(&place, key, what, cure.to_owned());
                None
            }
        }
    }

    /// The table under `key`, when it is there or any of its keys is set by the environment or a flag.
    pub fn table(&self, key: &str) -> Option<Section> {
        let path = join(&self.path, key);
        self.ask(key);
        let item = self.table.as_ref().and_then(|table| table.items.get(key));
        let table = match item.map(|item| (&item.node.place, &item.node.value)) {
            Some((_, Value::Table(table))) => Some(Arc::clone(table)),
            Some((place, other)) => {
                let what = format!("expected a table, found {}", other.noun());
                self.note(place, key, what, format!("write it as [{path}]"));
                return None;
            }
            None if self.any_below(&path) => None,
            None => return None,
        };
        let heading = format!("[{}]", without_indices(&path));
        self.state.borrow_mut().open(Opened { path: path.clone(), parent: self.path.clone(), heading });
        Some(Section::new(Rc::clone(&self.state), table, path, self.named))
    }

    /// The tables of the list under `key`, in order: `[[agent.files]]`.
    pub fn tables(&self, key: &str) -> Vec<Section> {
        self.ask(key);
        let Some(item) = self.table.as_ref().and_then(|table| table.items.get(key)) else { return Vec::new() };
        let path = join(&self.path, key);
        let heading = format!("[[{}]]", without_indices(&path));
        let wrong = |place: &Place, found: &Value| {
            self.note(place, key, format!("expected a list of tables, found {}", found.noun()), format!("write each as {heading}"));
        };
        let Value::List(nodes) = &item.node.value else {
            wrong(&item.node.place, &item.node.value);
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let Value::Table(table) = &node.value else {
                wrong(&node.place, &node.value);
                continue;
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
        let full = join(&self.path, key);
        if value.is_none() && !self.state.borrow().faults.iter().any(|fault| fault.key == full) {
            let cure = match self.named {
                true => format!("set `{full}`, or {}", env_name(&self.path, key)),
                false => format!("set `{key}` here"),
            };
            self.note(&self.place(), key, "missing".to_owned(), cure);
        }
        value
    }

    /// Notes what a service found wrong with a key's value: faults that need more than one key to see.
    pub fn fault(&self, key: &str, what: impl Into<String>, cure: impl Into<String>) {
        self.note(&self.place_of(key), key, what.into(), cure.into());
    }

    /// Marks a key as known, and finds who set it.
    fn given(&self, key: &str, kind: &Kind) -> Option<Given> {
        self.ask(key);
        if self.named {
            let full = join(&self.path, key);
            let name = env_name(&self.path, key);
            let mut state = self.state.borrow_mut();
            state.env_asked.insert(name.clone());
            state.flags_asked.insert(full.clone());
            let flag = state.flags.get(&full).cloned();
            let variable = state.env.get(&name).cloned();
            drop(state);
            if let Some(set) = flag {
                let source = Source::Flag(set.origin.to_string());
                return self.given_in_words(key, kind, &set.words, Place::of(&set.origin), source);
            }
            if let Some(words) = variable {
                let place = Place::of(&Arc::from(name.as_str()));
                return self.given_in_words(key, kind, &words, place, Source::Environment(name));
            }
        }
        let item = self.table.as_ref()?.items.get(key)?;
        let (value, place) = (item.node.value.clone(), item.node.place.clone());
        let source = Source::file(&place);
        Some(Given { value, place, source })
    }

    fn given_in_words(&self, key: &str, kind: &Kind, words: &str, place: Place, source: Source) -> Option<Given> {
        match Value::from_words(words, kind, &place) {
            Ok(value) => Some(Given { value, place, source }),
            Err(what) => {
                self.note(&place, key, what, String::new());
                None
            }
        }
    }

    fn read_opt<T>(
        &self,
        key: &str,
        kind: Kind,
        parse: impl FnOnce(&Value) -> Result<T, String>,
        show: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let Some(Given { value, place, source }) = self.given(key, &kind) else {
            self.record(key, kind, None, Source::Default);
            return None;
        };
        match parse(&value) {
            Ok(read) => {
                self.record(key, kind, Some(show(&read)), source);
                Some(read)
            }
            Err(what) => {
                self.note(&place, key, what, String::new());
                None
            }
        }
    }

    fn read_or<T>(
        &self,
        key: &str,
        kind: Kind,
        parse: impl FnOnce(&Value) -> Result<T, String>,
        show: impl Fn(&T) -> String,
        default: impl FnOnce() -> T,
    ) -> T {
        let Some(Given { value, place, source }) = self.given(key, &kind) else {
            let default = default();
            self.record(key, kind, Some(show(&default)), Source::Default);
            return default;
        };
        match parse(&value) {
            Ok(read) => {
                self.record(key, kind, Some(show(&read)), source);
                read
            }
            Err(what) => {
                self.note(&place, key, what, String::new());
                default()
            }
        }
    }

    fn secret_by_parts(&self, key: &str) -> Option<Given> {
        if !self.named {
            return None;
        }
        let base = env_name(&self.path, key);
        let mut found = None;
        for part in ["file", "env"] {
            let name = format!("{base}_{}", part.to_uppercase());
            let mut state = self.state.borrow_mut();
            state.env_asked.insert(name.clone());
            if let Some(words) = state.env.get(&name) {
                let place = Place::of(&Arc::from(name.as_str()));
                let mut table = Table::empty(place.clone());
                let node = super::value::Node { place: place.clone(), value: Value::Text(words.clone()) };
                table.items.insert(part.to_owned(), super::value::Item { key_place: place.clone(), node });
                found = Some(Given { value: Value::Table(Arc::new(table)), place, source: Source::Environment(name) });
            }
        }
        found
    }

    fn secret_from_table(&self, table: &Table) -> Result<(Secret, String), String> {
        let mut items = table.items.iter();
        match (items.next(), items.next()) {
            (Some((part, item)), None) if part == "file" || part == "env" => {
                self.secret_from(part, &text_of(&item.node.value)?)
            }
            _ => Err("expected exactly one of `file` and `env`".to_owned()),
        }
    }

    /// The secret, and the reference to it that may be shown.
    fn secret_from(&self, part: &str, name: &str) -> Result<(Secret, String), String> {
        let value = if part == "file" {
            let text = std::fs::read_to_string(name).map_err(|error| format!("the file \"{name}\" cannot be read: {error}"))?;
            text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).unwrap_or(text)
        } else {
            self.state.borrow().env.get(name).cloned().ok_or_else(|| format!("the variable {name} is not set"))?
        };
        if value.is_empty() {
            return Err(format!("the {} {name} is empty", if part == "file" { "file" } else { "variable" }));
        }
        Ok((Secret::new(value), format!("{{ {part} = {} }}", quoted(name))))
    }

    fn ask(&self, key: &str) {
        self.state.borrow_mut().asked.entry(self.path.clone()).or_default().insert(key.to_owned());
    }

    fn any_below(&self, path: &str) -> bool {
        let state = self.state.borrow();
        let (variables, flags) = (env_name(path, ""), format!("{path}."));
        let below = |name: &str, prefix: &str| name.len() > prefix.len() && name.starts_with(prefix);
        self.named
            && (state.env.keys().any(|name| below(name, &variables)) || state.flags.keys().any(|name| below(name, &flags)))
    }

    fn record(&self, key: &str, kind: Kind, value: Option<String>, source: Source) {
        let entry = Entry { section: self.path.clone(), key: key.to_owned(), kind, value, source };
        self.state.borrow_mut().record(entry);
    }

    fn note(&self, place: &Place, key: &str, what: String, cure: String) {
        self.state.borrow_mut().fault(place, &join(&self.path, key), what, cure);
    }

    /// Where the section itself stands.
    fn place(&self) -> Place {
        match &self.table {
            Some(table) => table.place.clone(),
            None => Place::of(&self.state.borrow().origin),
        }
    }

    /// Where a key's value stands, or would.
    fn place_of(&self, key: &str) -> Place {
        let state = self.state.borrow();
        if self.named {
            if let Some(set) = state.flags.get(&join(&self.path, key)) {
                return Place::of(&set.origin);
            }
            let name = env_name(&self.path, key);
            if state.env.contains_key(&name) {
                return Place::of(&Arc::from(name));
            }
        }
        drop(state);
        let item = self.table.as_ref().and_then(|table| table.items.get(key));
        item.map_or_else(|| self.place(), |item| item.node.place.clone())
    }
}

fn text_of(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(format!("expected a string, found {}", other.noun())),
    }
}

fn path_of(value: &Value) -> Result<PathBuf, String> {
    match text_of(value)? {
        text if text.is_empty() => Err("expected a path, found an empty string".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

fn texts_of(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::List(items) => items.iter().map(|item| text_of(&item.value)).collect(),
        other => Err(format!("expected a list of strings, found {}", other.noun())),
    }
}

fn map_of(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let Value::Table(table) = value else {
        return Err(format!("expected a table of strings, found {}", value.noun()));
    };
    let pair = |(key, item): (&String, &super::value::Item)| {
        text_of(&item.node.value).map(|text| (key.clone(), text)).map_err(|what| format!("`{key}`: {what}"))
    };
    table.items.iter().map(pair).collect()
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
