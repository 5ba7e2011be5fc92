//! `logmesh up`: the same pipeline in one process, with its own log and index.

mod damage;
mod dead_letters;
mod files;
mod framing;
mod input;
mod kills;
mod living;
mod mesh;
mod pressure;
mod samples;
mod search;
mod seeing;
mod stopping;
mod trust;
