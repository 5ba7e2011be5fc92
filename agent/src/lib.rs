//! The agent.
pub mod discovery;
pub mod filesystem;
pub mod generation;
pub mod identity;
pub mod lines;
pub mod state;
