//! What the agent says of itself at `/status`.

use serde_json::Value;

/// One answer.
pub(crate) struct Status(pub(crate) Value);

impl Status {
    fn tail(&self) -> &Value {
        &self.0["agent"]["tail"]
    }

    pub(crate) fn tally(&self, name: &str) -> u64 {
        self.tail()["tally"][name].as_u64().unwrap_or(0)
    }

    /// Bytes counted as lost for a reason, and how often something was.
    pub(crate) fn lost(&self, reason: &str) -> (u64, u64) {
        let lost = &self.tail()["lost"][reason];
        (lost["bytes"].as_u64().unwrap_or(0), lost["events"].as_u64().unwrap_or(0))
    }

    /// Bytes and events of all reasons.
    pub(crate) fn lost_in_all(&self) -> (u64, u64) {
        let sum = |name: &str| {
            let reasons = self.tail()["lost"].as_object().into_iter().flatten();
            reasons.map(|(_, lost)| lost[name].as_u64().unwrap_or(0)).sum()
        };
        (sum("bytes"), sum("events"))
    }

    /// The losses told last.
    pub(crate) fn losses(&self) -> Vec<(String, Option<u64>, String)> {
        let losses = self.tail()["losses"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        losses.map(|loss| (text(&loss["path"]), loss["bytes"].as_u64(), text(&loss["reason"]))).collect()
    }

    /// A figure of a spool.
    pub(crate) fn spool(&self, name: &str, what: &str) -> u64 {
        self.tail()["spools"][name][what].as_u64().unwrap_or(0)
    }

    /// Paths that cannot be read.
    pub(crate) fn unreadable(&self) -> Vec<String> {
        let paths = self.tail()["unreadable"].as_array().into_iter().flatten();
        paths.map(|entry| entry[0].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Whether all that it has read is acknowledged, and what it remembers is found again.
    pub(crate) fn is_acknowledged(&self) -> bool {
        let open = |file: &Value| {
            let at = |name: &str| file[name].as_u64().unwrap_or(0);
            at("acked_offset") < at("read_offset")
                || ["held back", "not found yet", "paused"].iter().any(|state| file["state"] == *state)
        };
        self.tail()["in_flight_batches"] == 0 && self.files().count() > 0 && !self.files().any(open)
    }

    /// Whether there is nothing to read besides.
    pub(crate) fn is_at_rest(&self) -> bool {
        let unread = |file: &Value| file["read_offset"].as_u64() < file["size"].as_u64();
        self.is_acknowledged() && !self.files().any(unread)
    }

    /// Generations whose files are found.
    pub(crate) fn found(&self) -> usize {
        self.files().filter(|file| file["state"] != "not found yet").count()
    }

    /// Sizes of all generations.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        self.files().filter_map(|file| file["size"].as_u64()).collect()
    }

    fn files(&self) -> impl Iterator<Item = &Value> {
        self.tail()["files"].as_array().into_iter().flatten()
    }
}
