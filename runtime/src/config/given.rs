//! Behind the readers: who set a key, and what is noted about it.

use std::sync::Arc;

use super::fault::Place;
use super::resolved::{Entry, Kind, Source};
use super::section::Section;
use super::state::{env_name, join};
use super::value::Value;

/// A value somebody set.
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) place: Place,
    pub(super) source: Source,
}

impl Section {
    /// Marks a key as known, and finds who set it.
    pub(super) fn given(&self, key: &str, kind: &Kind) -> Option<Given> {
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

    pub(super) fn given_in_words(
        &self,
        key: &str,
        kind: &Kind,
        words: &str,
        place: Place,
        source: Source,
    ) -> Option<Given> {
        match Value::from_words(words, kind, &place) {
            Ok(value) => Some(Given { value, place, source }),
            Err(what) => {
                self.note(&place, key, what, String::new());
                None
            }
        }
    }

    pub(super) fn read_opt<T>(
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

    pub(super) fn read_or<T>(
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

    pub(super) fn ask(&self, key: &str) {
        self.state.borrow_mut().asked.entry(self.path.clone()).or_default().insert(key.to_owned());
    }

    pub(super) fn any_below(&self, path: &str) -> bool {
        let state = self.state.borrow();
        let (variables, flags) = (env_name(path, ""), format!("{path}."));
        let below = |name: &str, prefix: &str| name.len() > prefix.len() && name.starts_with(prefix);
        self.named
            && (state.env.keys().any(|name| below(name, &variables))
                || state.flags.keys().any(|name| below(name, &flags)))
    }

    pub(super) fn record(&self, key: &str, kind: Kind, value: Option<String>, source: Source) {
        let entry = Entry { section: self.path.clone(), key: key.to_owned(), kind, value, source };
        self.state.borrow_mut().record(entry);
    }

    pub(super) fn note(&self, place: &Place, key: &str, what: String, cure: String) {
        self.state.borrow_mut().fault(place, &join(&self.path, key), what, cure);
    }

    /// Where the section itself stands.
    pub(super) fn place(&self) -> Place {
        match &self.table {
            Some(table) => table.place.clone(),
            None => Place::of(&self.state.borrow().origin),
        }
    }

    /// Where a key's value stands, or would.
    pub(super) fn place_of(&self, key: &str) -> Place {
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
