//! The processor: consume, parse, normalise, index, commit; the embedded index and its search.

pub mod document;
pub mod index;
pub mod parse;
pub mod search;
