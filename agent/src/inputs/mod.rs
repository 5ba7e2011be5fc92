//! Inputs that are no files: standard input, syslog, the systemd journal, a command's output.

pub mod intake;
