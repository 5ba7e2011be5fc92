//! A value that may be used and never shown.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::fault::Place;
use super::given::Given;
use super::resolved::{Kind, Source};
use super::section::Section;
use super::state::env_name;
use super::value::{Item, Node, Table, Value, quoted};

/// A secret read from a file or the environment when the configuration was loaded. Debug and Display are masked; only
/// [`expose`](Self::expose) gives the value, so that every use is found by its name. Two of the same value are equal.
#[derive(Clone)]
pub struct Secret {
    value: String,
    /// Where it was read; `None` = in the environment, which does not change while a process runs.
    file: Option<PathBuf>,
}

impl Secret {
    /// Takes `value` into custody.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret { value: value.into(), file: None }
    }

    /// The value itself: for the wire, never for a message.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// What its file holds now, if that is another secret: for whoever was refused with this one. `None` also while the file
    /// cannot be read or is empty, as one that is just being replaced may be.
    pub fn renewed(&self) -> Option<Secret> {
        let file = self.file.clone()?;
        let value = without_line_end(std::fs::read_to_string(&file).ok()?);
        (!value.is_empty() && value != self.value).then_some(Secret { value, file: Some(file) })
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.value == other.value
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl Section {
    /// A secret: `{ file = "…" }` or `{ env = "…" }`, read now. Its own variable may hold it too; the file and the command
    /// line, which others can see, may not.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        let given = self.given(key, &Kind::Secret).or_else(|| self.secret_by_parts(key));
        let Some(Given { value, place, source }) = given else {
            self.record(key, Kind::Secret, None, Source::Default);
            return None;
        };
        let read = match (value.text(), &source) {
            (Ok(_), Source::Environment(name)) => self.secret_from("env", name),
            (Ok(_), _) => Err("a secret may not stand here in the clear".to_owned()),
            (Err(_), _) => value.table("a table").and_then(|table| self.secret_from_table(table)),
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
                let node = Node { place: place.clone(), value: Value::Text(words.clone()) };
                table.items.insert(part.to_owned(), Item { key_place: place.clone(), node });
                found = Some(Given { value: Value::Table(Arc::new(table)), place, source: Source::Environment(name) });
            }
        }
        found
    }

    fn secret_from_table(&self, table: &Table) -> Result<(Secret, String), String> {
        let mut items = table.items.iter();
        match (items.next(), items.next()) {
            (Some((part, item)), None) if part == "file" || part == "env" => {
                self.secret_from(part, item.node.value.text()?)
            }
            _ => Err("expected exactly one of `file` and `env`".to_owned()),
        }
    }

    /// The secret, and the reference to it that may be shown.
    fn secret_from(&self, part: &str, name: &str) -> Result<(Secret, String), String> {
        let (value, file) = if part == "file" {
            let text = std::fs::read_to_string(name)
                .map_err(|error| format!("the file \"{name}\" cannot be read: {error}"))?;
            (without_line_end(text), Some(PathBuf::from(name)))
        } else {
            let state = self.state.borrow();
            let wrong = if state.env_garbled.contains(name) { "UTF-8" } else { "set" };
            (state.env.get(name).cloned().ok_or_else(|| format!("the variable {name} is not {wrong}"))?, None)
        };
        if value.is_empty() {
            return Err(format!("the {} {name} is empty", if part == "file" { "file" } else { "variable" }));
        }
        Ok((Secret { value, file }, format!("{{ {part} = {} }}", quoted(name))))
    }
}

/// Editors end a file with a newline, which is no part of the secret.
fn without_line_end(text: String) -> String {
    text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).unwrap_or(text)
}

/// Hides the password of a URL that carries one, for values that are text but may hold such (a proxy). A password may hold
/// any letter, even a slash nobody escaped, so everything up to the last `@` counts; a path with an `@` is masked too much.
pub(crate) fn mask_password(text: &str) -> String {
    let Some(start) = text.find("://").map(|scheme| scheme + 3) else { return text.to_owned() };
    let Some(at) = text[start..].rfind('@').map(|at| start + at) else { return text.to_owned() };
    match text[start..at].find(':') {
        Some(colon) => format!("{}:***{}", &text[..start + colon], &text[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::mask_password;

    #[test]
    fn a_password_in_a_url_is_hidden_whatever_it_holds() {
        for (text, shown) in [
            ("http://user:pass@proxy:3128", "http://user:***@proxy:3128"),
            ("http://user:p/a@s:s@proxy/x", "http://user:***@proxy/x"),
            ("http://user@proxy:3128/x", "http://user@proxy:3128/x"),
            ("http://otel:4317", "http://otel:4317"),
            ("plain words", "plain words"),
        ] {
            assert_eq!(mask_password(text), shown);
        }
    }
}
