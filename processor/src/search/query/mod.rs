//! The query language: from text to a tree, and every fault with its place.
//!
//! ```text
//! query    = [ either ]                                  empty: everything
//! either   = all { "OR" all }
//! all      = one { [ "AND" ] one }                       side by side means AND, which binds closer than OR
//! one      = [ "NOT" | "-" ] ( "(" either ")" | clause )
//! clause   = [ field ":" ] value | field ":(" either ")" the field holds for every value in the parentheses
//! value    = word | word "*" | "quoted" | "*" | range    "*" after a field: the field is there
//! range    = ( "[" | "{" ) bound "TO" bound ( "]" | "}" ) | ( ">" | ">=" | "<" | "<=" ) bound
//! bound    = word | "quoted" | "*"                       "*": open end; square brackets include their bound
//! ```
//!
//! A backslash takes the meaning from the character after it. `AND`, `OR` and `NOT` are words of the language in capital
//! letters only. A word holds whatever is not white space, a quote or a parenthesis; its colon ends a field only if what
//! stands before it begins with a letter, `_` or `@` and no `//` follows, so that times, addresses and URLs can be typed
//! as they are.
//!
//! Pure. What fields mean is decided where a tree is turned into a search ([`super::lower`]).

mod parse;
#[cfg(test)]
mod tests;

use std::{fmt, ops::Bound};

use thiserror::Error;

pub use self::parse::parse;

/// Longest query, in characters.
pub const QUERY_CHARS_MAX: usize = 8192;
/// Deepest nesting of parentheses and negations.
pub const DEPTH_MAX: usize = 32;
/// Most clauses in one query.
pub const CLAUSES_MAX: usize = 512;

/// A query, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Everything.
    All,
    /// What the other does not find.
    Not(Box<Node>),
    /// What all of them find.
    And(Vec<Node>),
    /// What any of them finds.
    Or(Vec<Node>),
    /// One condition.
    Clause(Clause),
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The field, by its name in the document; none: the text of the record.
    pub field: Option<String>,
    /// What is asked of it.
    pub matcher: Matcher,
    /// Where the value begins in the query, in characters.
    pub position: usize,
}

/// What is asked of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// It has this value, or these words.
    Value(String),
    /// It has this value, or these words in this order: it was quoted.
    Exact(String),
    /// It begins so, or has a word that begins so.
    Prefix(String),
    /// It lies between.
    Range {
        /// Lower end.
        lower: Bound<String>,
        /// Upper end.
        upper: Bound<String>,
    },
    /// It is there.
    Exists,
}

/// A query that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct QueryError {
    /// What is wrong, and what to do.
    pub message: String,
    /// Where, in characters from the start of the query, which is 0.
    pub position: usize,
    /// The query.
    pub query: String,
}

impl QueryError {
    pub(crate) fn new(query: &str, position: usize, message: impl Into<String>) -> Self {
        let query: String = query.chars().take(QUERY_CHARS_MAX).collect();
        Self { message: message.into(), position, query }
    }
}

impl fmt::Display for QueryError {
    /// The message, the query, and a caret below the place.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_line: String = self.query.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        write!(formatter, "{}\n  {one_line}\n  {:2$}^", self.message, "", self.position)
    }
}
