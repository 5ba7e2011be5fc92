//! `logmesh status`: how a running `logmesh up` is.

use std::io::{self, Write};

use anyhow::Context as _;
use clap::Args;
use logmesh_runtime::terminal::printable;
use serde_json::{Value, json};

use crate::client::Target;

/// Shows readiness, streams, lag and lanes of a running `logmesh up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  logmesh status\n  logmesh status --json --url http://127.0.0.1:4400")]
pub(crate) struct Status {
    /// The same as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Status {
    /// Asks and prints.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let api = self.target.api()?;
        let readiness = api.json("/readyz", &[]).await.context("cannot ask for readiness")?;
        let status = api.json("/status", &[]).await.context("cannot ask for the status")?;
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", json!({ "readiness": readiness, "status": status }))?;
            return Ok(());
        }
        writeln!(out, "ready: {}", readiness["ready"])?;
        for reason in readiness["reasons"].as_array().into_iter().flatten() {
            writeln!(out, "  {}", in_line(reason))?;
        }
        Ok(print(&mut out, &status, 0)?)
    }
}

/// Prints nested facts as an indented list; lists of objects get a line each.
fn print(out: &mut impl Write, value: &Value, depth: usize) -> io::Result<()> {
    let indent = "  ".repeat(depth);
    let Value::Object(fields) = value else { return Ok(()) };
    for (name, value) in fields {
        match value {
            Value::Object(_) => {
                writeln!(out, "{indent}{name}:")?;
                print(out, value, depth + 1)?;
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                writeln!(out, "{indent}{name}:")?;
                items.iter().try_for_each(|item| writeln!(out, "{indent}  {}", in_line(item)))?;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                writeln!(out, "{indent}{name}: {}", plain(value))?;
            }
        }
    }
    Ok(())
}

fn in_line(item: &Value) -> String {
    let Value::Object(fields) = item else { return plain(item) };
    fields.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect::<Vec<_>>().join(" ")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| printable(&value.to_string()), printable)
}
