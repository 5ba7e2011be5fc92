//! Opening an index: every day that is sound; what is damaged is set aside as it was found, and said.

use std::{
    collections::BTreeMap,
    panic::catch_unwind,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    OpenError, State,
    calendar::ArrivalDay,
    day::{Day, DayError},
    retention::{Dropped, Layout},
};

/// What is remembered of days that were dropped.
pub(super) fn load_dropped(layout: &Layout, state: &mut State) -> std::io::Result<Dropped> {
    match Dropped::load(layout) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            set_aside(layout, &Dropped::path(layout), &error.to_string(), state)?;
            Ok(Dropped::default())
        }
        other => other,
    }
}

/// Why the days cannot be opened.
pub(super) enum OpenDays {
    /// They cannot be listed, or a damaged one cannot be set aside.
    List(std::io::Error),
    /// One cannot be opened, by no fault of its content.
    Day(OpenError),
}

/// Opens every day; sets aside those that are damaged.
pub(super) fn open_days(layout: &Layout, state: &mut State) -> Result<BTreeMap<ArrivalDay, Day>, OpenDays> {
    let mut days = BTreeMap::new();
    for key in layout.days().map_err(OpenDays::List)? {
        let path = layout.day(key);
        // tantivy panics on some kinds of damage.
        let opened = catch_unwind(|| Day::open(&path))
            .unwrap_or_else(|_| Err(DayError::Io(std::io::Error::other("a panic while opening"))));
        match opened {
            Ok(day) => {
                days.insert(key, day);
            }
            Err(error) if error.is_damage() => {
                set_aside(layout, &path, &error.to_string(), state).map_err(OpenDays::List)?;
            }
            Err(error) => return Err(OpenDays::Day(OpenError::Day { path, reason: error.to_string() })),
        }
    }
    Ok(days)
}

fn set_aside(layout: &Layout, path: &Path, reason: &str, state: &mut State) -> std::io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let to = layout.set_aside(path, now)?;
    tracing::error!(
        from = %path.display(), to = %to.display(), reason,
        "part of the index is damaged and was set aside; its documents are not searchable, the rest goes on"
    );
    state.damaged.push(format!("{}: {reason}", to.display()));
    Ok(())
}
