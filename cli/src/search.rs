//! `logmesh search`: finds records in a running `logmesh up`.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use http_body_util::BodyExt as _;
use logmesh_runtime::terminal::printable;
use serde_json::Value;

use crate::client::{Api, Target};

/// How often `--follow` looks for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Hits on one page while following.
const FOLLOW_PAGE: &str = "1000";

/// Finds records in a running `logmesh up`, newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  logmesh search error
  logmesh search 'log.level:error AND service.name:web' --from -1h
  logmesh search '\"connection reset\"' --limit 100 --json
  logmesh search 'http.response.status_code:[500 TO 599]' --count
  logmesh search 'host.name:edge-1' --follow

The query: words, \"phrases\", field:value, field:\"exact value\", field:[a TO b], field:*, AND OR NOT ( ).
Nothing means everything.")]
pub(crate) struct Search {
    /// The query; several words mean all of them.
    query: Vec<String>,
    /// Only records at or after this time: 2026-11-23T10:00:00Z, milliseconds since 1970, or -15m.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only records before this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// How many records to show.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// One JSON document a line instead of text.
    #[arg(long)]
    json: bool,
    /// Show what is there, oldest first, and then what comes.
    #[arg(long, short, conflicts_with_all = ["count", "all", "to"])]
    follow: bool,
    /// Only say how many there are.
    #[arg(long)]
    count: bool,
    /// Every record that matches, of one consistent view, instead of the first ones.
    #[arg(long, conflicts_with = "count")]
    all: bool,
    #[command(flatten)]
    target: Target,
}

impl Search {
    /// Asks and prints.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let api = self.target.api()?;
        let query = self.query.join(" ");
        let mut parameters = vec![("q", query.as_str())];
        parameters.extend(self.from.as_deref().map(|from| ("from", from)));
        parameters.extend(self.to.as_deref().map(|to| ("to", to)));
        let mut printer = Printer::new(self.json);
        if self.count {
            let answer = api.json("/api/count", &parameters).await?;
            return printer.line(&if self.json { answer.to_string() } else { answer["count"].to_string() });
        }
        if self.all {
            return export(&api, &parameters, &mut printer).await;
        }
        let limit = self.limit.to_string();
        parameters.push(("limit", &limit));
        let page = api.json("/api/search", &parameters).await?;
        if self.follow {
            return follow(&api, &parameters, page, &mut printer).await;
        }
        printer.page(&page)?;
        let (shown, total) = (hits(&page).len(), page["total"].as_u64().unwrap_or(0));
        if !self.json && io::stderr().is_terminal() {
            eprintln!("{shown} of {total} records, {} ms", page["took_ms"]);
        }
        Ok(())
    }
}

fn hits(page: &Value) -> &[Value] {
    page["hits"].as_array().map_or(&[], Vec::as_slice)
}

/// Prints every hit as it streams in.
async fn export(api: &Api, parameters: &[(&str, &str)], printer: &mut Printer) -> anyhow::Result<()> {
    let mut body = api.get("/api/export", parameters).await?;
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the export broke off; what is printed is not all")?;
        rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        for line in rest[..end].split(|byte| *byte == b'\n') {
            printer.hit(&serde_json::from_slice(line).context("the export holds a line that is not JSON")?)?;
        }
        rest.drain(..=end);
    }
    anyhow::ensure!(rest.is_empty(), "the export broke off in mid-line; what is printed is not all");
    Ok(())
}

/// Prints the newest hits, oldest first, and then whatever becomes searchable, whatever times it bears.
async fn follow(api: &Api, parameters: &[(&str, &str)], newest: Value, printer: &mut Printer) -> anyhow::Result<()> {
    hits(&newest).iter().rev().try_for_each(|hit| printer.hit(hit))?;
    let query = parameters[0].1;
    let mut revision = newest["revision"].to_string();
    loop {
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        let mut cursor: Option<String> = None;
        loop {
            let mut parameters = vec![("q", query), ("sort", "asc"), ("limit", FOLLOW_PAGE), ("since", &revision)];
            parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = api.json("/api/search", &parameters).await?;
            hits(&page).iter().try_for_each(|hit| printer.hit(hit))?;
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                revision = page["revision"].to_string();
                break;
            }
        }
    }
}

/// Prints hits as text for people or as JSON lines.
struct Printer {
    json: bool,
    colour: bool,
    out: io::BufWriter<io::Stdout>,
}

impl Printer {
    fn new(json: bool) -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour, out: io::BufWriter::new(io::stdout()) }
    }

    fn page(&mut self, page: &Value) -> anyhow::Result<()> {
        hits(page).iter().try_for_each(|hit| self.hit(hit))
    }

    fn hit(&mut self, hit: &Value) -> anyhow::Result<()> {
        if self.json {
            return self.line(&hit.to_string());
        }
        let given = |pointer: &str| hit.pointer(pointer).and_then(Value::as_str).map(printable);
        let text = |pointer: &str| given(pointer).unwrap_or_else(|| "-".to_owned());
        let level = text("/log/level");
        let line = given("/event/original").unwrap_or_else(|| text("/message"));
        let (start, end) = if self.colour { (colour_of(&level), "\x1b[0m") } else { ("", "") };
        let (time, host, path) = (text("/@timestamp"), text("/host/name"), text("/log/file/path"));
        let name = path.rsplit('/').next().unwrap_or(&path);
        self.line(&format!("{time} {start}{level:5}{end} {host} {name}: {line}"))
    }

    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()?;
        Ok(())
    }
}

fn colour_of(level: &str) -> &'static str {
    match level {
        "error" | "fatal" => "\x1b[31m",
        "warn" => "\x1b[33m",
        "info" => "\x1b[32m",
        _ => "\x1b[2m",
    }
}
