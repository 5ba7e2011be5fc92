//! What indices are made from: component and index templates, one set for all servers.
//!
//! Owns their bodies and the decision whether one that is there is to be replaced. The mapping names every field that a
//! document may have and takes no other (`dynamic: false`): what a producer writes lands in `fields` and `labels`, one
//! field each however many keys they have, so that no producer can cause a conflict or an explosion.
//!
//! A template is replaced only by a newer version of ours; one of the same name that is not ours is left alone.

use serde_json::{Map, Value, json};

use super::server::Product;
use crate::document::{FIELDS, FieldKind};

/// Version of the templates. To be raised with each change of what they hold.
pub(super) const VERSION: u64 = 1;

/// Who made a template, in its `_meta`.
const MANAGED_BY: &str = "logmesh";

/// Above Elasticsearch's own templates (100 to 200) and above what users usually give theirs.
const PRIORITY: u64 = 500;

/// Longest keyword in characters that is indexed; a longer one is kept, but not found. Three times less than a term may
/// have, even if each character takes four bytes.
const IGNORE_ABOVE: u64 = 1024;

/// The name that templates and policies of ours begin with.
pub(super) const NAME: &str = "logmesh";

/// One thing to be put on a server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    /// For people: `index template logmesh`.
    pub(super) title: String,
    /// Where it is read and written.
    pub(super) path: String,
    /// Where its definition stands in what the server answers.
    pub(super) pointer: &'static str,
    pub(super) body: Value,
}

/// What templates are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Purpose {
    pub(super) product: Product,
    pub(super) data_streams: bool,
    /// Indices carry the name of a lifecycle policy.
    pub(super) lifecycle: bool,
}

/// What is put on a server, in this order: an index template needs its components.
pub(super) fn templates(purpose: Purpose) -> Vec<Template> {
    let component = |name: &str, template: Value| Template {
        title: format!("component template {name}"),
        path: format!("/_component_template/{name}"),
        pointer: "/component_templates/0/component_template",
        body: json!({ "template": template, "version": VERSION, "_meta": meta() }),
    };
    let (mappings, settings) = (format!("{NAME}-mappings"), format!("{NAME}-settings"));
    let mut all = vec![
        component(&mappings, json!({ "mappings": mapping(purpose.product) })),
        component(&settings, json!({ "settings": { "index": { "auto_expand_replicas": "0-1" } } })),
    ];
    let mut composed_of = vec![mappings, settings];
    if purpose.lifecycle && purpose.product == Product::Elasticsearch {
        let name = format!("{NAME}-lifecycle");
        all.push(component(&name, json!({ "settings": { "index": { "lifecycle": { "name": NAME } } } })));
        composed_of.push(name);
    }
    let index = |name: &str, pattern: &str, stream: bool| {
        let mut body = json!({
            "index_patterns": [pattern],
            "composed_of": composed_of,
            "priority": PRIORITY,
            "version": VERSION,
            "_meta": meta(),
        });
        if stream {
            body["data_stream"] = json!({});
        }
        Template {
            title: format!("index template {name}"),
            path: format!("/_index_template/{name}"),
            pointer: "/index_templates/0/index_template",
            body,
        }
    };
    all.push(index(NAME, "logmesh-*", false));
    if purpose.data_streams {
        all.push(index(&format!("{NAME}-streams"), "logs-logmesh-*", true));
    }
    all
}

fn meta() -> Value {
    json!({ "managed_by": MANAGED_BY, "description": "what documents of logmesh are mapped by" })
}

/// The mapping of a document.
fn mapping(product: Product) -> Value {
    let mut root = Map::new();
    for (name, kind) in FIELDS {
        put(&mut root, name, field(kind, product));
    }
    json!({
        "_meta": { "managed_by": MANAGED_BY, "version": VERSION },
        "dynamic": false,
        "properties": root,
    })
}

/// Puts a field at its dotted name, within the objects that it names.
fn put(properties: &mut Map<String, Value>, name: &str, field: Value) {
    let Some((outer, rest)) = name.split_once('.') else {
        properties.insert(name.to_owned(), field);
        return;
    };
    let object = properties.entry(outer).or_insert_with(|| json!({ "properties": {} }));
    if let Some(inner) = object.get_mut("properties").and_then(Value::as_object_mut) {
        put(inner, rest, field);
    }
}

fn field(kind: FieldKind, product: Product) -> Value {
    match kind {
        FieldKind::Date => json!({ "type": "date", "format": "strict_date_optional_time" }),
        FieldKind::Text => json!({ "type": "text", "norms": false }),
        FieldKind::Keyword => json!({ "type": "keyword", "ignore_above": IGNORE_ABOVE }),
        FieldKind::Stored => json!({ "type": "keyword", "index": false, "doc_values": false }),
        FieldKind::Long => json!({ "type": "long" }),
        FieldKind::Ip => json!({ "type": "ip" }),
        FieldKind::Labels | FieldKind::Flattened => match product {
            Product::Elasticsearch => json!({ "type": "flattened", "ignore_above": IGNORE_ABOVE }),
            Product::OpenSearch => json!({ "type": "flat_object" }),
        },
    }
}

/// What to do with a template, given what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is not there, or older, or does not use what it should.
    Put,
    /// Ours, of this version or a newer one.
    Keep {
        /// The version that is there.
        version: u64,
    },
    /// Somebody else's, of the same name.
    Foreign,
}

/// Decides from what the server answered to a `GET` of the template's path.
pub(super) fn step(template: &Template, there: &Value) -> Step {
    let Some(there) = there.pointer(template.pointer) else { return Step::Put };
    if there.pointer("/_meta/managed_by").and_then(Value::as_str) != Some(MANAGED_BY) {
        return Step::Foreign;
    }
    let version = there.get("version").and_then(Value::as_u64).unwrap_or_default();
    let same_parts = there.get("composed_of") == template.body.get("composed_of");
    if version > VERSION || (version == VERSION && same_parts) { Step::Keep { version } } else { Step::Put }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELASTICSEARCH: Purpose = Purpose { product: Product::Elasticsearch, data_streams: false, lifecycle: false };

    fn at<'v>(value: &'v Value, field: &str) -> &'v Value {
        let path = field.split('.').map(|name| format!("/properties/{name}")).collect::<String>();
        value.pointer(&path).unwrap_or_else(|| panic!("{field} is mapped"))
    }

    #[test]
    fn every_field_of_a_document_is_mapped_and_nothing_else_is() {
        let mapping = mapping(Product::Elasticsearch);
        for (name, _) in FIELDS {
            assert!(at(&mapping, name)["type"].is_string(), "{name}");
        }
        assert_eq!(mapping["dynamic"], false);
        assert_eq!(at(&mapping, "fields")["type"], "flattened");
    }

    #[test]
    fn the_free_form_container_is_called_as_the_server_calls_it() {
        let open = mapping(Product::OpenSearch);
        assert_eq!(at(&open, "fields")["type"], "flat_object");
        // All else is one for all servers.
        let strip = |mut mapping: Value| {
            for name in ["fields", "labels"] {
                mapping["properties"][name] = Value::Null;
            }
            mapping
        };
        assert_eq!(strip(open), strip(mapping(Product::Elasticsearch)));
    }

    #[test]
    fn data_streams_and_lifecycle_come_on_request_only() {
        let titles = |purpose| templates(purpose).into_iter().map(|template| template.title).collect::<Vec<_>>();
        let few =
            ["component template logmesh-mappings", "component template logmesh-settings", "index template logmesh"];
        assert_eq!(titles(ELASTICSEARCH), few);
        let all = titles(Purpose { data_streams: true, lifecycle: true, ..ELASTICSEARCH });
        assert!(all.contains(&"index template logmesh-streams".to_owned()));
        assert!(all.contains(&"component template logmesh-lifecycle".to_owned()));
    }

    #[test]
    fn only_an_older_one_of_ours_is_replaced() {
        let template = templates(ELASTICSEARCH).pop().expect("an index template");
        let there = |version: u64, managed_by: &str, parts: &Value| {
            json!({ "index_templates": [{ "name": "logmesh", "index_template": {
                "version": version, "_meta": { "managed_by": managed_by }, "composed_of": parts } }] })
        };
        let parts = &template.body["composed_of"];
        assert_eq!(step(&template, &json!({ "error": {} })), Step::Put);
        assert_eq!(step(&template, &there(VERSION - 1, "logmesh", parts)), Step::Put);
        assert_eq!(step(&template, &there(VERSION, "logmesh", parts)), Step::Keep { version: VERSION });
        assert_eq!(step(&template, &there(VERSION + 1, "logmesh", &json!([]))), Step::Keep { version: VERSION + 1 });
        assert_eq!(step(&template, &there(VERSION, "logmesh", &json!([]))), Step::Put, "retention was set since");
        assert_eq!(step(&template, &there(9, "somebody", parts)), Step::Foreign);
    }
}
