//! The tailer over the fake file system: named scenarios, and a model with random schedules.

mod adversity;
mod archives;
mod descriptors;
mod discovery;
mod fairness;
mod framing;
mod leaving;
mod lingering;
mod model;
mod past;
mod rig;
mod scenarios;
mod sifted;
