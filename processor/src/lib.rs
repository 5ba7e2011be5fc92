//! The processor: consume, parse, normalise, index, commit; the embedded index and its search.
//!
//! A batch's way: the bus hands it to its partition's lane, which opens it and builds documents ([`document`], with the
//! parsers of [`parse`]); an [`index`] answers for each document; what is refused becomes a dead letter
//! ([`dead_letter`]) and a reduced document; only then is the batch finished, and only a contiguous prefix of finished
//! batches is committed.

mod attempt;
#[cfg(all(feature = "elasticsearch", feature = "kafka"))]
pub mod command;
mod config;
pub mod dead_letter;
pub mod document;
pub mod index;
mod instruments;
mod lane;
pub mod parse;
mod processor;
mod progress;
#[cfg(feature = "embedded")]
pub mod search;
mod trouble;

pub use config::{Config, DEFAULT_TOML, Pipeline};
pub use processor::Processor;
