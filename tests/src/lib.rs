//! What the end-to-end scenarios are told with: the real `logmesh` binary on a stage of its own, writers that know what
//! they wrote, a reader of the search API, and a ledger that must balance.
//!
//! A scenario (in `tests/*.rs`) builds its stage, acts, makes something fail, and asserts delivery. It never waits for
//! a time to pass: it waits for a condition, under a deadline ([`wait::wait_until`]). Deadlines are five times what the
//! product promises, since tests share their machine; where the promise itself is the claim (latency, return to service)
//! the measured value is printed too.
//!
//! The binaries are the ones that cargo put beside the test executable; `make test` builds them, with the fault seams
//! of [`faults`], before it runs anything here.

pub mod api;
pub mod binary;
pub mod cluster;
pub mod counts;
pub mod faults;
pub mod index_server;
pub mod ledger;
pub mod mesh;
pub mod process;
pub mod samples;
pub mod scene;
pub mod session;
pub mod up;
pub mod wait;
pub mod writer;
