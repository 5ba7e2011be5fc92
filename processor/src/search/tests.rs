//! Tests of search as a whole.
