//! How long servers keep documents: bodies for index lifecycle management (Elasticsearch) and index state management
//! (OpenSearch).
//!
//! Made only when `retention` is set. Neither test server has these parts: the bodies are checked for their shape and
//! against a scripted server, and the documentation says so.

use serde_json::{Value, json};

use super::{server::Product, templates::NAME};

/// When a data stream begins another index.
const ROLLOVER: [(&str, &str); 2] = [("max_age", "1d"), ("max_primary_shard_size", "50gb")];

/// Where the policy is read and written.
pub(super) fn path(product: Product) -> String {
    match product {
        Product::Elasticsearch => format!("/_ilm/policy/{NAME}"),
        Product::OpenSearch => format!("/_plugins/_ism/policies/{NAME}"),
    }
}

/// The policy that removes an index once it is so old.
pub(super) fn policy(product: Product, days: u32, data_streams: bool) -> Value {
    match product {
        Product::Elasticsearch => ilm(days, data_streams),
        Product::OpenSearch => ism(days, data_streams),
    }
}

fn ilm(days: u32, data_streams: bool) -> Value {
    let hot =
        if data_streams { json!({ "rollover": rollover("max_age", "max_primary_shard_size") }) } else { json!({}) };
    json!({
        "policy": {
            "_meta": { "managed_by": NAME },
            "phases": {
                "hot": { "actions": hot },
                "delete": { "min_age": format!("{days}d"), "actions": { "delete": {} } },
            },
        },
    })
}

fn ism(days: u32, data_streams: bool) -> Value {
    let hot = if data_streams {
        json!([{ "rollover": rollover("min_index_age", "min_primary_shard_size") }])
    } else {
        json!([])
    };
    let age = if data_streams { "min_rollover_age" } else { "min_index_age" };
    json!({
        "policy": {
            "description": "removes the indices of logmesh once they are old",
            "default_state": "hot",
            "states": [
                {
                    "name": "hot",
                    "actions": hot,
                    "transitions": [{ "state_name": "delete", "conditions": { age: format!("{days}d") } }],
                },
                { "name": "delete", "actions": [{ "delete": {} }], "transitions": [] },
            ],
            "ism_template": [{ "index_patterns": ["logmesh-*", ".ds-logs-logmesh-*"], "priority": 100 }],
        },
    })
}

fn rollover(age: &str, size: &str) -> Value {
    json!({ age: ROLLOVER[0].1, size: ROLLOVER[1].1 })
}

/// What a policy that is there came to: whether it keeps documents for as long, and what a replacement must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There, and as it should be.
    Keep,
    /// To be written, with this query.
    Put(String),
}

/// Decides from what the server answered to a `GET` of the policy.
pub(super) fn step(product: Product, wanted: &Value, there: &Value) -> Step {
    match product {
        Product::Elasticsearch => {
            let age = "/policy/phases/delete/min_age";
            let same = there.get(NAME).and_then(|there| there.pointer(age)) == wanted.pointer(age);
            if same { Step::Keep } else { Step::Put(String::new()) }
        }
        Product::OpenSearch => {
            let number = |key: &str| there.get(key).and_then(Value::as_u64);
            let conditions = "/policy/states/0/transitions/0/conditions";
            match (number("_seq_no"), number("_primary_term")) {
                (Some(_), Some(_)) if there.pointer(conditions) == wanted.pointer(conditions) => Step::Keep,
                // It is only replaced if nobody else was faster.
                (Some(sequence), Some(term)) => Step::Put(format!("?if_seq_no={sequence}&if_primary_term={term}")),
                _ => Step::Put(String::new()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daily_indices_are_deleted_by_age_and_data_streams_roll_over() {
        let daily = policy(Product::Elasticsearch, 30, false);
        assert_eq!(daily.pointer("/policy/phases/delete/min_age"), Some(&json!("30d")));
        assert_eq!(daily.pointer("/policy/phases/hot/actions"), Some(&json!({})));
        let stream = policy(Product::Elasticsearch, 30, true);
        assert_eq!(stream.pointer("/policy/phases/hot/actions/rollover/max_age"), Some(&json!("1d")));
        let open = policy(Product::OpenSearch, 7, false);
        assert_eq!(open.pointer("/policy/states/0/transitions/0/conditions"), Some(&json!({ "min_index_age": "7d" })));
    }

    #[test]
    fn a_policy_is_written_when_missing_or_of_another_age() {
        let ilm = policy(Product::Elasticsearch, 30, false);
        let there = json!({ NAME: { "version": 1, "policy": ilm["policy"] } });
        assert_eq!(step(Product::Elasticsearch, &ilm, &there), Step::Keep);
        assert_eq!(
            step(Product::Elasticsearch, &policy(Product::Elasticsearch, 31, false), &there),
            Step::Put(String::new())
        );
        assert_eq!(step(Product::Elasticsearch, &ilm, &json!({})), Step::Put(String::new()));
        let ism = policy(Product::OpenSearch, 30, false);
        let there = json!({ "_id": NAME, "_seq_no": 4, "_primary_term": 2, "policy": ism["policy"] });
        assert_eq!(step(Product::OpenSearch, &ism, &there), Step::Keep);
        let other = policy(Product::OpenSearch, 3, false);
        assert_eq!(step(Product::OpenSearch, &other, &there), Step::Put("?if_seq_no=4&if_primary_term=2".into()));
        assert_eq!(step(Product::OpenSearch, &ism, &json!({ "error": "none" })), Step::Put(String::new()));
    }
}
