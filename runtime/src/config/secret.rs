//! A value that may be used and never shown.

use std::fmt;

/// A secret read from a file or the environment when the configuration was loaded. Debug and Display are masked; only
/// [`expose`](Self::expose) gives the value, so that every use is found by its name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes `value` into custody.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself: for the wire, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

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

/// Hides the password of a URL that carries one, for values that are text but may hold such (a proxy).
pub(super) fn mask_password(text: &str) -> String {
    let Some(start) = text.find("://").map(|scheme| scheme + 3) else { return text.to_owned() };
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |slash| start + slash);
    let Some(at) = text[start..end].rfind('@').map(|at| start + at) else { return text.to_owned() };
    match text[start..at].find(':') {
        Some(colon) => format!("{}:***{}", &text[..start + colon], &text[at..]),
        None => text.to_owned(),
    }
}
