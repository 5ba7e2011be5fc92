//! What the scenarios share: a scene, the agent's process, writers that know what they wrote, and the oracle.

mod counts;
mod oracle;
mod pace;
mod process;
mod scene;
mod status;
mod writer;

pub(crate) use counts::either;
pub(crate) use oracle::{Verdict, judge};
pub(crate) use pace::{Paced, Rhythm};
pub(crate) use process::{Process, poll};
pub(crate) use scene::{Scene, WITHIN};
pub(crate) use status::Status;
pub(crate) use writer::{Line, Writer};
