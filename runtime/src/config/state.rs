//! What all handles of one reading share: the overrides, what was asked for, and the faults so far.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fault::{Fault, Place, nearest};
use super::resolved::{Entry, Opened};
use super::value::{Item, Node, Table, Value};

pub(super) const ENV_PREFIX: &str = "LOGMESH_";

#[derive(Debug)]
pub(super) struct State {
    pub(super) origin: Arc<str>,
    /// The whole environment that was handed in: overrides by their prefix, and what secrets refer to.
    pub(super) env: BTreeMap<String, String>,
    /// Variables whose values are not UTF-8.
    pub(super) env_garbled: BTreeSet<String>,
    /// Variables with our prefix that are no setting.
    pub(super) env_reserved: BTreeSet<String>,
    /// Sections that belong to another process and are not looked into.
    pub(super) left: BTreeSet<String>,
    pub(super) flags: BTreeMap<String, Override>,
    /// By table path: the keys that were asked for there. A table that is not in here was never opened.
    pub(super) asked: BTreeMap<String, BTreeSet<String>>,
    pub(super) env_asked: BTreeSet<String>,
    pub(super) flags_asked: BTreeSet<String>,
    pub(super) entries: Vec<Entry>,
    pub(super) sections: Vec<Opened>,
    pub(super) faults: Vec<Fault>,
}

#[derive(Clone, Debug)]
pub(super) struct Override {
    pub(super) words: String,
    pub(super) origin: Arc<str>,
}

impl State {
    pub(super) fn new(origin: Arc<str>) -> State {
        State {
            origin,
            env: BTreeMap::new(),
            env_garbled: BTreeSet::new(),
            env_reserved: BTreeSet::from(["LOGMESH_LOG".to_owned()]),
            left: BTreeSet::new(),
            flags: BTreeMap::new(),
            asked: BTreeMap::from([(String::new(), BTreeSet::new())]),
            env_asked: BTreeSet::new(),
            flags_asked: BTreeSet::new(),
            entries: Vec::new(),
            sections: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, opened: Opened) {
        self.asked.entry(opened.path.clone()).or_default();
        if !self.sections.iter().any(|known| known.path == opened.path) {
            self.sections.push(opened);
        }
    }

    /// The same key read twice (two services share a section) is one entry.
    pub(super) fn record(&mut self, entry: Entry) {
        if !self.entries.iter().any(|known| known.section == entry.section && known.key == entry.key) {
            self.entries.push(entry);
        }
    }

    pub(super) fn fault(&mut self, place: &Place, key: &str, what: String, cure: String) {
        let fault =
            Fault { origin: place.origin.to_string(), position: place.position, key: key.to_owned(), what, cure };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Notes everything that was written and that nobody asked for, or could read.
    pub(super) fn fault_unknown(&mut self, root: &Table) {
        self.fault_unknown_keys(root, "");
        self.fault_unknown_variables();
        self.fault_garbled_variables();
        self.fault_unknown_flags();
    }

    fn fault_unknown_keys(&mut self, table: &Table, path: &str) {
        let Some(asked) = self.asked.get(path).cloned() else { return };
        for (key, item) in &table.items {
            let full = join(path, key);
            if path.is_empty() && self.left.contains(key) {
                continue;
            }
            if asked.contains(key) {
                self.fault_unknown_below(item, &full);
            } else {
                let what = if path.is_empty() { "unknown section" } else { "unknown key" };
                let cure = self.cure_for_unknown(path, key, &asked);
                self.fault(&item.key_place, &full, what.to_owned(), cure);
            }
        }
    }

    fn fault_unknown_below(&mut self, item: &Item, full: &str) {
        match &item.node.value {
            Value::Table(table) => self.fault_unknown_keys(&Arc::clone(table), full),
            Value::List(items) => {
                for (index, Node { value, .. }) in items.iter().enumerate() {
                    if let Value::Table(table) = value {
                        self.fault_unknown_keys(table, &format!("{full}[{index}]"));
                    }
                }
            }
            Value::Text(_) | Value::Integer(_) | Value::Float | Value::Flag(_) | Value::Time => {}
        }
    }

    fn cure_for_unknown(&self, path: &str, key: &str, asked: &BTreeSet<String>) -> String {
        let left = self.left.iter().filter(|_| path.is_empty());
        let known: BTreeSet<&str> = asked.iter().chain(left).map(String::as_str).collect();
        match nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "remove it".to_owned(),
            None => format!("remove it; known here: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        }
    }

    fn fault_unknown_variables(&mut self) {
        let left: Vec<String> = self.left.iter().map(|section| env_name(section, "")).collect();
        let ours = self.env.keys().chain(&self.env_garbled).filter(|name| name.starts_with(ENV_PREFIX));
        let unknown: Vec<String> = ours
            .filter(|name| !self.env_asked.contains(*name) && !self.env_reserved.contains(*name))
            .filter(|name| !left.iter().any(|prefix| name.starts_with(prefix)))
            .cloned()
            .collect();
        for name in unknown {
            let known = self.env_asked.iter().chain(&self.env_reserved).map(String::as_str);
            let cure = match nearest(&name, known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("unset it; variables are named {ENV_PREFIX}<SECTION>_<KEY>"),
            };
            let place = Place::of(&Arc::from(name.as_str()));
            self.fault(&place, &name, "unknown environment variable".to_owned(), cure);
        }
    }

    fn fault_garbled_variables(&mut self) {
        let garbled: Vec<String> = self.env_garbled.intersection(&self.env_asked).cloned().collect();
        for name in garbled {
            let place = Place::of(&Arc::from(name.as_str()));
            self.fault(&place, &name, "its value is not UTF-8".to_owned(), "write it in UTF-8, or unset it".to_owned());
        }
    }

    fn fault_unknown_flags(&mut self) {
        let unknown = self.flags.iter().filter(|(path, _)| !self.flags_asked.contains(*path));
        let unknown: Vec<(String, Override)> = unknown.map(|(path, set)| (path.clone(), set.clone())).collect();
        for (path, set) in unknown {
            let cure = match nearest(&path, self.flags_asked.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`config default` lists the keys".to_owned(),
            };
            self.fault(&Place::of(&set.origin), &path, "unknown key".to_owned(), cure);
        }
    }

    /// The faults in reading order: the file's by place, then what has no place.
    pub(super) fn sorted_faults(&mut self) -> Vec<Fault> {
        let mut faults = std::mem::take(&mut self.faults);
        let place = |fault: &Fault| (fault.position.is_none(), fault.origin.clone(), fault.position);
        faults.sort_by_cached_key(place);
        faults
    }
}

/// A key's full path.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The variable of `key` in the table at `path`; an empty key gives the prefix of all its variables.
pub(super) fn env_name(path: &str, key: &str) -> String {
    format!("{ENV_PREFIX}{}_{}", path.replace('.', "_"), key).to_uppercase().replace('-', "_")
}
