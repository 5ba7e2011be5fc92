//! A gateway as its peers see it, over real mTLS connections, before a bus that does what a test wants.

mod leaving;
mod no_way_in;
mod sessions;
mod support;
