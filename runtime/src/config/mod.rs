//! Strict configuration: TOML, environment and flags, read once, with every fault reported together.
//!
//! Owns the reading: which key was asked for, what it came to, where that came from, and what is wrong with it and what
//! to do. Does not own any setting: each service reads its own sections through [`Section`], which knows the kinds of
//! values (sizes, durations, addresses, secrets), their notation and their places.
//!
//! How it goes: [`Root::parse`] a file (or [`Root::empty`]), lay environment and flags over it, hand `&Root` to each
//! service's `Config::read`, then [`Root::finish`]. Invariants:
//! - No fault stops the reading: a reader that finds a fault notes it and returns the default, and `finish` refuses.
//! - What no reader asked for is a fault (an unknown key), so a key is either meant or reported, never ignored.
//! - A flag wins over the environment, which wins over the file, which wins over the default.
//! - A secret's value is in no fault, no log line and no printed configuration.

mod fault;
mod given;
mod live;
mod quantity;
mod resolved;
mod root;
mod secret;
mod section;
mod state;
#[cfg(test)]
mod tests;
mod value;

pub use fault::{Fault, Faults, Position};
pub use live::Live;
pub use quantity::{format_duration, format_size, parse_duration, parse_size};
pub use resolved::{Entry, Kind, Resolved, Source};
pub use root::Root;
pub use secret::Secret;
pub(crate) use secret::mask_password;
pub use section::Section;
