//! One document on its way into tantivy: its JSON, parsed once, and handed to the writers without a copy.
//!
//! Owns which part of a document goes to which field of the schema ([`super::schema`]). What has a field of its own is
//! left out of the field `document`. What lies deeper than [`DEPTH_MAX`] objects and arrays is in the body but not
//! searchable, so that no document can exhaust a writer's stack.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use sonic_rs::{JsonContainerTrait, JsonNumberTrait, JsonValueTrait, ValueRef};
use tantivy::DateTime;
use tantivy::schema::Field;
use tantivy::schema::document::{Document as TantivyDocument, ReferenceValue, ReferenceValueLeaf, Value};

use super::schema::{self, Fields};
use crate::document::Document;

/// Deepest level of objects and arrays that is indexed.
const DEPTH_MAX: usize = 32;

/// Most distinct sets of paths that are remembered; more begin anew.
const SHAPES_MAX: usize = 4096;

/// A path of object keys that is not indexed as part of `document`, since it has a field of its own.
#[derive(Debug)]
struct Own {
    key: &'static str,
    /// Empty: this is the whole path.
    below: &'static [Own],
}

const OWN: &[Own] = &[
    Own { key: "@timestamp", below: &[] },
    Own { key: "message", below: &[] },
    Own {
        key: "log",
        below: &[Own { key: "level", below: &[] }, Own { key: "file", below: &[Own { key: "path", below: &[] }] }],
    },
    Own { key: "host", below: &[Own { key: "name", below: &[] }] },
    Own { key: "service", below: &[Own { key: "name", below: &[] }] },
    Own {
        key: "event",
        below: &[
            Own { key: "dataset", below: &[] },
            Own { key: "original", below: &[] },
            Own { key: "original_base64", below: &[] },
        ],
    },
];

/// Paths whose values are times, indexed to the second.
pub(crate) const TIMES: [&str; 4] = ["event.created", "event.ingested", "event.start", "event.end"];

/// A document, parsed.
pub(crate) struct Entry {
    fields: Fields,
    id: [u8; 16],
    key: u64,
    index: Arc<str>,
    timestamp: DateTime,
    sequence: u64,
    shape: Arc<str>,
    body: Bytes,
    json: sonic_rs::Value,
    /// Values with a field of their own, found once: the writers ask four times.
    texts: [Option<(Field, sonic_rs::Value)>; TEXTS],
}

/// Number of texts with a field of their own.
const TEXTS: usize = 7;

impl Fields {
    /// Where the texts with a field of their own stand.
    fn texts(&self) -> [(Field, &'static [&'static str]); TEXTS] {
        [
            (self.message, &["message"]),
            (self.original, &["event", "original"]),
            (self.level, &["log", "level"]),
            (self.host, &["host", "name"]),
            (self.service, &["service", "name"]),
            (self.dataset, &["event", "dataset"]),
            (self.path, &["log", "file", "path"]),
        ]
    }
}

fn at<'a>(mut value: &'a sonic_rs::Value, path: &[&str]) -> Option<&'a sonic_rs::Value> {
    for key in path {
        value = value.as_object()?.get(key)?;
    }
    Some(value)
}

/// Reads documents, remembering the sets of paths that it has met.
#[derive(Default)]
pub(crate) struct EntryReader {
    shapes: HashMap<u64, Arc<str>>,
    names: String,
    path: String,
}

impl EntryReader {
    /// Parses a document's body.
    ///
    /// # Errors
    /// The body is not one JSON object: the reason, for people.
    pub(crate) fn read(&mut self, document: &Document, fields: Fields, sequence: u64) -> Result<Entry, String> {
        let body = std::str::from_utf8(&document.body).map_err(|error| format!("the body is not UTF-8: {error}"))?;
        let json: sonic_rs::Value =
            sonic_rs::from_str(body).map_err(|error| format!("the body is not JSON: {error}"))?;
        if !json.is_object() {
            return Err("the body is not a JSON object".to_owned());
        }
        Ok(Entry {
            fields,
            id: *document.id.as_bytes(),
            key: schema::key_number(&document.id),
            index: Arc::clone(&document.index),
            timestamp: DateTime::from_timestamp_nanos(document.timestamp_unix_nano),
            sequence,
            shape: self.shape_of(&json),
            body: document.body.clone(),
            texts: fields
                .texts()
                .map(|(field, path)| at(&json, path).filter(JsonValueTrait::is_str).map(|text| (field, text.clone()))),
            json,
        })
    }

    /// The paths of a document, a line feed before, between and behind them; the same `Arc` for documents of the same
    /// shape.
    fn shape_of(&mut self, json: &sonic_rs::Value) -> Arc<str> {
        self.names.clear();
        self.names.push('\n');
        self.path.clear();
        collect_names(json, DEPTH_MAX, &mut self.path, &mut self.names);
        let hash = xxhash_rust::xxh3::xxh3_64(self.names.as_bytes());
        if self.shapes.len() >= SHAPES_MAX {
            self.shapes.clear();
        }
        let known = self.shapes.entry(hash).or_insert_with(|| Arc::from(self.names.as_str()));
        if **known == *self.names { Arc::clone(known) } else { Arc::from(self.names.as_str()) }
    }
}

fn collect_names(value: &sonic_rs::Value, depth: usize, path: &mut String, names: &mut String) {
    if depth == 0 {
        return;
    }
    if let Some(array) = value.as_array() {
        for element in array.iter().filter(|element| element.is_object() || element.is_array()) {
            collect_names(element, depth - 1, path, names);
        }
    }
    let Some(object) = value.as_object() else { return };
    let parent = path.len();
    for (key, value) in object.iter().filter(|(key, value)| !value.is_null() && !key.contains(['\n', '\r', '\0'])) {
        if parent > 0 {
            path.push('.');
        }
        path.push_str(key);
        names.push_str(path);
        names.push('\n');
        collect_names(value, depth - 1, path, names);
        path.truncate(parent);
    }
}

/// Fields that every document has.
const OTHERS: usize = 8;
const PARTS: usize = OTHERS + TEXTS;

impl TantivyDocument for Entry {
    type Value<'a> = Part<'a>;
    type FieldsValuesIter<'a> = std::iter::Flatten<std::array::IntoIter<Option<(Field, Part<'a>)>, PARTS>>;

    fn iter_fields_and_values(&self) -> Self::FieldsValuesIter<'_> {
        let fields = &self.fields;
        let json = Node { value: &self.json, own: OWN, depth: DEPTH_MAX, time: Time::Root };
        let mut parts = [None; PARTS];
        parts[..OTHERS].copy_from_slice(&[
            Some((fields.id, Part::Bytes(&self.id))),
            Some((fields.key, Part::Number(self.key))),
            Some((fields.index, Part::Text(&self.index))),
            Some((fields.timestamp, Part::Time(self.timestamp))),
            Some((fields.sequence, Part::Number(self.sequence))),
            Some((fields.shape, Part::Text(&self.shape))),
            std::str::from_utf8(&self.body).ok().map(|body| (fields.body, Part::Text(body))),
            Some((fields.document, Part::Json(json))),
        ]);
        for (part, text) in parts[OTHERS..].iter_mut().zip(&self.texts) {
            *part = text.as_ref().and_then(|(field, text)| Some((*field, Part::Text(text.as_str()?))));
        }
        parts.into_iter().flatten()
    }
}

/// Where a node stands with respect to [`TIMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Root,
    Event,
    Yes,
    No,
}

impl Time {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Root, "event") => Self::Event,
            (Self::Event, "created" | "ingested" | "start" | "end") => Self::Yes,
            _ => Self::No,
        }
    }
}

/// A value inside the document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'a> {
    value: &'a sonic_rs::Value,
    own: &'static [Own],
    depth: usize,
    time: Time,
}

/// What the writers are given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Number(u64),
    Time(DateTime),
    Json(Node<'a>),
}

/// The elements of an array, those that are indexed.
pub(crate) struct Elements<'a> {
    elements: std::slice::Iter<'a, sonic_rs::Value>,
    of: Node<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let value = self.elements.next()?;
        Some(Part::Json(Node { value, depth: self.of.depth - 1, ..self.of }))
    }
}

/// The members of an object, those that are indexed.
pub(crate) struct Members<'a> {
    members: sonic_rs::value::object::Iter<'a>,
    of: Node<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Part<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        for (key, value) in self.members.by_ref() {
            let own = self.of.own.iter().find(|own| own.key == key);
            if own.is_some_and(|own| own.below.is_empty()) {
                continue;
            }
            let below: &'static [Own] = own.map_or(&[], |own| own.below);
            let node = Node { value, own: below, depth: self.of.depth - 1, time: self.of.time.below(key) };
            return Some((key, Part::Json(node)));
        }
        None
    }
}

impl<'a> Node<'a> {
    fn as_value(self) -> ReferenceValue<'a, Part<'a>> {
        let leaf = match self.value.as_ref() {
            ValueRef::Array(_) | ValueRef::Object(_) if self.depth == 0 => ReferenceValueLeaf::Null,
            ValueRef::Array(array) => {
                return ReferenceValue::Array(Elements { elements: array.iter(), of: Node { own: &[], ..self } });
            }
            ValueRef::Object(object) => return ReferenceValue::Object(Members { members: object.iter(), of: self }),
            ValueRef::Null => ReferenceValueLeaf::Null,
            ValueRef::Bool(flag) => ReferenceValueLeaf::Bool(flag),
            ValueRef::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => ReferenceValueLeaf::I64(number),
                (_, Some(number), _) => ReferenceValueLeaf::U64(number),
                (.., Some(number)) => ReferenceValueLeaf::F64(number),
                _ => ReferenceValueLeaf::Null,
            },
            ValueRef::String(text) => match self.time {
                Time::Yes => time_of(text).map_or(ReferenceValueLeaf::Str(text), ReferenceValueLeaf::Date),
                Time::Root | Time::Event | Time::No => ReferenceValueLeaf::Str(text),
            },
        };
        ReferenceValue::Leaf(leaf)
    }
}

fn time_of(text: &str) -> Option<DateTime> {
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(DateTime::from_timestamp_nanos)
}

impl<'a> Value<'a> for Part<'a> {
    type ArrayIter = Elements<'a>;
    type ObjectIter = Members<'a>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        let leaf = match self {
            Self::Json(node) => return node.as_value(),
            Self::Text(text) => ReferenceValueLeaf::Str(text),
            Self::Bytes(bytes) => ReferenceValueLeaf::Bytes(bytes),
            Self::Number(number) => ReferenceValueLeaf::U64(*number),
            Self::Time(time) => ReferenceValueLeaf::Date(*time),
        };
        ReferenceValue::Leaf(leaf)
    }
}
