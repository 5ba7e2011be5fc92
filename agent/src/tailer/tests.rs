//! The tailer over the fake file system: named scenarios, and a model with random schedules.

mod adversity;
mod archives;
mod fairness;
mod framing;
mod leaving;
mod model;
mod rig;
mod scenarios;
mod sifted;
