//! Which files there are to tail.
//!
//! Owns the patterns ([`Patterns`]), the walk over directories ([`Scan`]) and the hints of the operating system
//! ([`Watcher`]). The walk is the authority, hints only make it faster: with none at all everything is found, later.
//! Does not open files and does not know what was read of them.

mod hints;
mod patterns;
mod scan;

pub use hints::{Hint, Hints, WatchError, Watcher};
pub use patterns::{Group, PatternError, Patterns};
pub use scan::{Found, Scan, Step};
