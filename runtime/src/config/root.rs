//! The whole configuration while it is being read.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::fault::{Fault, Faults, Place};
use super::resolved::{Opened, Resolved};
use super::section::Section;
use super::state::{Override, State};
use super::value::Table;

/// A configuration file with what is laid over it. Not `Send`: it lives from the command line to the finished `Config`s.
#[derive(Debug)]
pub struct Root {
    tree: Table,
    state: Rc<RefCell<State>>,
}

impl Root {
    /// Reads a TOML document; `origin` is what faults call it, its path as the user gave it.
    ///
    /// # Errors
    /// The syntax fault, with its place. Everything else waits for [`finish`](Self::finish).
    pub fn parse(text: &str, origin: &str) -> Result<Root, Faults> {
        let origin: Arc<str> = Arc::from(origin);
        let tree = Table::parse(text, &origin)?;
        Ok(Root { tree, state: Rc::new(RefCell::new(State::new(origin))) })
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// A fault that says why the file cannot be read, or its syntax fault.
    pub fn read(path: &Path) -> Result<Root, Faults> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let cure = "give a file that can be read, as UTF-8 text".to_owned();
            let what = format!("cannot be read: {error}");
            Faults(vec![Fault { origin: origin.clone(), position: None, key: String::new(), what, cure }])
        })?;
        Root::parse(&text, &origin)
    }

    /// A configuration without a file: defaults, environment and flags.
    pub fn empty() -> Root {
        let origin: Arc<str> = Arc::from("configuration");
        let tree = Table::empty(Place::of(&origin));
        Root { tree, state: Rc::new(RefCell::new(State::new(origin))) }
    }

    /// Lays a second document over this one, table by table and key by key; its faults name its own `origin`.
    ///
    /// # Errors
    /// The syntax fault of `text`.
    pub fn overlay(mut self, text: &str, origin: &str) -> Result<Root, Faults> {
        self.tree = self.tree.overlaid(&Table::parse(text, &Arc::from(origin))?);
        Ok(self)
    }

    /// Lays the environment over the file: `LOGMESH_<SECTION>_<KEY>`, a nested table's keys joined by `_`. Variables
    /// without that prefix are kept for secrets that refer to them. A setting or a secret that is not UTF-8 is a fault.
    #[must_use]
    pub fn env(self, variables: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>) -> Root {
        for (name, value) in variables {
            let (name, mut state) = (name.into().to_string_lossy().into_owned(), self.state.borrow_mut());
            if let Ok(value) = value.into().into_string() {
                state.env.insert(name, value);
            } else {
                state.env_garbled.insert(name);
            }
        }
        self
    }

    /// Lays this process's environment over the file.
    #[must_use]
    pub fn process_env(self) -> Root {
        self.env(std::env::vars_os())
    }

    /// Names variables with our prefix that are no settings (`LOGMESH_FAULTS`); `LOGMESH_LOG` is known without.
    #[must_use]
    pub fn reserve_env(self, names: &[&str]) -> Root {
        self.state.borrow_mut().env_reserved.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Names sections that belong to other processes: a file may be shared by all services of a host. They and their
    /// variables are not looked into.
    #[must_use]
    pub fn leave(self, sections: &[&str]) -> Root {
        self.state.borrow_mut().left.extend(sections.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Lays one value over file and environment: `path` is `agent.name` or `agent.tls.cert`, `words` are written as in the
    /// environment (no quotes; lists with commas), `origin` is what faults call it, the flag's name.
    #[must_use]
    pub fn set(self, path: &str, words: impl Into<String>, origin: &str) -> Root {
        let set = Override { words: words.into(), origin: Arc::from(origin) };
        self.state.borrow_mut().flags.insert(path.to_owned(), set);
        self
    }

    /// The section of that name; a missing one reads as empty.
    pub fn section(&self, name: &'static str) -> Section {
        let mut state = self.state.borrow_mut();
        if let Some(keys) = state.asked.get_mut("") {
            keys.insert(name.to_owned());
        }
        let opened = Opened { path: name.to_owned(), parent: String::new(), heading: format!("[{name}]") };
        state.open(opened);
        let mut table = None;
        if let Some(item) = self.tree.items.get(name) {
            match item.node.value.table("a table") {
                Ok(found) => table = Some(Arc::clone(found)),
                Err(what) => state.fault(&item.node.place, name, what, format!("write it as [{name}]")),
            }
        }
        drop(state);
        Section::new(Rc::clone(&self.state), table, name.to_owned(), true)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All faults: those the readers noted, and everything that was written and that no reader asked for.
    pub fn finish(self) -> Result<Resolved, Faults> {
        let mut state = self.state.borrow_mut();
        state.fault_unknown(&self.tree);
        let faults = state.sorted_faults();
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        Ok(Resolved { entries: std::mem::take(&mut state.entries), sections: std::mem::take(&mut state.sections) })
    }
}
