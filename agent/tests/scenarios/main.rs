//! The agent as a process, on real files, against a gateway that keeps what it gets: what is promised of every file and
//! every way to rotate it, each as one scenario.
//!
//! The oracle is the writer's own log. Exact means: each line once, its bytes equal, at the offset at which it was
//! written, one stream for each generation; and what did not arrive is what the agent counted as lost, to the byte where
//! it could know.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod copytruncate;
mod deleted;
mod directories;
mod hostile;
mod inputs;
mod kills;
mod logrotate;
mod many;
mod multiline;
mod reuse;
mod rig;
mod state;
mod storm;
#[path = "../stub/mod.rs"]
mod stub;
mod symlinks;
