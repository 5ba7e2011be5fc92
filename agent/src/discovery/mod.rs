//! Which files there are to tail.
//!
//! Owns the patterns ([`Patterns`]), the walk over directories ([`Scan`]) with what it remembers of them ([`Memory`]), and
//! the hints of the operating system ([`Watcher`]). The walk is the authority, hints only make it faster: with none at
//! all everything is found, later. Does not open files and does not know what was read of them.

mod hints;
mod memory;
mod patterns;
mod scan;

pub use hints::{Hint, Hints, WatchError, Watcher};
pub use memory::Memory;
pub use patterns::{Group, PatternError, Patterns};
pub use scan::{Found, Ground, Scan, Step};
