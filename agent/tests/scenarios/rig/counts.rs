//! How much a scenario writes and breaks: little in `make test`, the full counts in `make soak`.

/// Picks the count of the present run; `LOGMESH_SOAK=1` asks for the full ones.
pub(crate) fn either<T>(small: T, full: T) -> T {
    if std::env::var("LOGMESH_SOAK").is_ok_and(|value| value == "1") { full } else { small }
}
