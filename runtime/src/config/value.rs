//! The tree of a TOML document, owned, with the place of every key and value.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Faults, Place, Position};
use super::quantity;
use super::resolved::Kind;

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) place: Place,
    pub(super) items: BTreeMap<String, Item>,
}

/// One key of a table and what it holds.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) key_place: Place,
    pub(super) node: Node,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Float,
    Flag(bool),
    Time,
    List(Vec<Node>),
    Table(Arc<Table>),
}

impl Value {
    /// What it is, with its article, for "expected …, found …".
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float => "a float",
            Value::Flag(_) => "a boolean",
            Value::Time => "a date or time",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// The string it is.
    pub(super) fn text(&self) -> Result<&str, String> {
        let Value::Text(text) = self else { return Err(self.instead_of("a string")) };
        Ok(text)
    }

    /// The list it is.
    pub(super) fn list(&self, wanted: &str) -> Result<&[Node], String> {
        let Value::List(items) = self else { return Err(self.instead_of(wanted)) };
        Ok(items)
    }

    /// The table it is.
    pub(super) fn table(&self, wanted: &str) -> Result<&Arc<Table>, String> {
        let Value::Table(table) = self else { return Err(self.instead_of(wanted)) };
        Ok(table)
    }

    /// What to say when something else was wanted.
    pub(super) fn instead_of(&self, wanted: &str) -> String {
        format!("expected {wanted}, found {}", self.noun())
    }

    /// The value that an environment variable or a flag of this kind writes: words need no quotes there.
    pub(super) fn from_words(words: &str, kind: &Kind, place: &Place) -> Result<Value, String> {
        let trimmed = words.trim();
        match kind {
            Kind::Flag => match trimmed {
                "true" | "1" | "yes" => Ok(Value::Flag(true)),
                "false" | "0" | "no" => Ok(Value::Flag(false)),
                _ => Err(format!("expected true or false, found \"{words}\"")),
            },
            Kind::Integer { .. } => {
                let digits = trimmed.replace('_', "");
                digits.parse().map(Value::Integer).map_err(|_| format!("expected an integer, found \"{words}\""))
            }
            Kind::Texts => Ok(Value::List(list_from_words(trimmed, place)?)),
            Kind::Map | Kind::Table => Ok(Value::Table(Arc::new(map_from_words(trimmed, place)?))),
            Kind::Text
            | Kind::Size { .. }
            | Kind::Rate
            | Kind::Duration { .. }
            | Kind::Path
            | Kind::Address
            | Kind::Choice(_)
            | Kind::Secret => Ok(Value::Text(words.to_owned())),
        }
    }
}

impl Table {
    pub(super) fn empty(place: Place) -> Table {
        Table { place, items: BTreeMap::new() }
    }

    /// Reads a document.
    pub(super) fn parse(text: &str, origin: &Arc<str>) -> Result<Table, Faults> {
        let table = DeTable::parse(text).map_err(|error| syntax_fault(text, origin, &error))?;
        Ok(Reading { text, origin, placed: true }.table(table.get_ref(), table.span().start))
    }

    /// This table with what `over` says in its place, table by table.
    pub(super) fn overlaid(&self, over: &Table) -> Table {
        let mut merged = self.clone();
        for (key, item) in &over.items {
            let both = match (merged.items.get(key).map(|below| &below.node.value), &item.node.value) {
                (Some(Value::Table(below)), Value::Table(above)) => Some(below.overlaid(above)),
                _ => None,
            };
            let mut item = item.clone();
            if let Some(both) = both {
                item.node.value = Value::Table(Arc::new(both));
            }
            merged.items.insert(key.clone(), item);
        }
        merged
    }
}

/// The document being converted: spans become places through it.
struct Reading<'a> {
    text: &'a str,
    origin: &'a Arc<str>,
    /// Whether a position means anything to the user: not inside an environment variable.
    placed: bool,
}

impl Reading<'_> {
    fn table(&self, table: &DeTable<'_>, start: usize) -> Table {
        let items = table.iter().map(|(key, value)| {
            let key_place = self.place(key.span().start);
            (key.get_ref().to_string(), Item { key_place, node: self.node(value) })
        });
        Table { place: self.place(start), items: items.collect() }
    }

    fn node(&self, spanned: &Spanned<DeValue<'_>>) -> Node {
        let start = spanned.span().start;
        let value = match spanned.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(digits) => match i128::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(integer) => Value::Integer(integer),
                // Beyond 128 bits it is no integer that any key takes.
                Err(_) => Value::Float,
            },
            DeValue::Float(_) => Value::Float,
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(_) => Value::Time,
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => Value::Table(Arc::new(self.table(table, start))),
        };
        Node { place: self.place(start), value }
    }

    fn place(&self, byte: usize) -> Place {
        if self.placed { Place::at(self.origin, self.text, byte) } else { Place::of(self.origin) }
    }
}

fn syntax_fault(text: &str, origin: &Arc<str>, error: &toml::de::Error) -> Faults {
    let position = error.span().map(|span| Position::of(text, span.start));
    let what = error.message().replace('\n', ", ");
    Faults(vec![Fault { origin: origin.to_string(), position, key: String::new(), what, cure: String::new() }])
}

/// `a, b` or a TOML array.
fn list_from_words(words: &str, place: &Place) -> Result<Vec<Node>, String> {
    if words.starts_with('[') {
        return toml_value(words, place)?.list("an array").map(<[Node]>::to_vec);
    }
    let items = words.split(',').map(str::trim).filter(|item| !item.is_empty());
    Ok(items.map(|item| Node { place: place.clone(), value: Value::Text(item.to_owned()) }).collect())
}

/// `key=value, key=value` or a TOML inline table.
fn map_from_words(words: &str, place: &Place) -> Result<Table, String> {
    if words.starts_with('{') {
        return toml_value(words, place)?.table("a table").map(|table| Table::clone(table));
    }
    let mut table = Table::empty(place.clone());
    for pair in words.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("expected key=value pairs, found \"{pair}\""))?;
        let node = Node { place: place.clone(), value: Value::Text(value.trim().to_owned()) };
        table.items.insert(key.trim().to_owned(), Item { key_place: place.clone(), node });
    }
    Ok(table)
}

fn toml_value(words: &str, place: &Place) -> Result<Value, String> {
    let value = DeValue::parse(words).map_err(|error| error.message().replace('\n', ", "))?;
    Ok(Reading { text: words, origin: &place.origin, placed: false }.node(&value).value)
}

/// How a value is written in TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\U{:08X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// A key as TOML writes it: bare where it can be.
pub(super) fn bare_or_quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare { key.to_owned() } else { quoted(key) }
}

/// Bytes from a size written as a string or as a plain integer.
pub(super) fn size_of(value: &Value) -> Result<u64, String> {
    match value {
        Value::Text(text) => quantity::parse_size(text),
        Value::Integer(bytes) => u64::try_from(*bytes).map_err(|_| format!("{bytes} is no size in bytes")),
        Value::Float | Value::Flag(_) | Value::Time | Value::List(_) | Value::Table(_) => {
            Err(value.instead_of("a size such as \"16 MiB\""))
        }
    }
}
