//! Words of others on the operator's terminal.

/// Control characters are shown, not sent: neither a log line nor the name of a file may speak to the terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_send_control_sequences_to_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\tc\nd\u{9b}e"), "a\u{fffd}[2Jb\tc\u{fffd}d\u{fffd}e");
    }
}
