//! Days and the indices they belong to: `logmesh-<tenant>-YYYY.MM.DD`.
//!
//! Names are made once and shared. What is kept is bounded, so that lines that name many days cost time, not memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::writer;
use crate::parse::time::DAY;

/// Most names kept; when there are more, all are forgotten and made anew.
const NAMES_MAX: usize = 1024;

/// One day in UTC.
#[derive(Clone, Debug)]
pub(super) struct Day {
    /// Days since 1970-01-01.
    number: i64,
    /// `2015-05-17`
    pub(super) date: [u8; 10],
    pub(super) index: Arc<str>,
}

/// Days of one tenant at a time.
#[derive(Debug, Default)]
pub(super) struct Days {
    tenant: Arc<str>,
    last: Option<Day>,
    names: HashMap<(Arc<str>, i64), Arc<str>>,
}

impl Days {
    /// Turns to a tenant.
    pub(super) fn tenant(&mut self, tenant: &str) {
        if *self.tenant != *tenant {
            self.tenant = tenant.into();
            self.last = None;
        }
    }

    /// The day of a time.
    pub(super) fn day(&mut self, unix_nano: i64) -> &Day {
        let number = unix_nano.div_euclid(DAY);
        let day = match self.last.take() {
            Some(day) if day.number == number => day,
            _ => Day { number, date: writer::date(number, b'-'), index: self.index(number) },
        };
        self.last.insert(day)
    }

    fn index(&mut self, number: i64) -> Arc<str> {
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        let tenant = &self.tenant;
        let name = self.names.entry((Arc::clone(tenant), number)).or_insert_with(|| {
            let date = writer::date(number, b'.');
            format!("logmesh-{tenant}-{}", String::from_utf8_lossy(&date)).into()
        });
        Arc::clone(name)
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.names.len()
    }
}
