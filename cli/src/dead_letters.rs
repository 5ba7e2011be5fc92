//! `logmesh dead-letters`: records that an index refused, and another try at them.
//!
//! What is done is the processor's business (`logmesh_processor::dead_letter`); here it is asked for and shown, the same
//! whether a running `logmesh up` does it or this process over a cluster's bus and index.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use http_body_util::BodyExt as _;
use logmesh_bus::Bus as _;
use logmesh_processor::{
    command::ProcessorService,
    dead_letter::{Office, Said, Selection, describe},
    index::Index as _,
};
use logmesh_runtime::{health::Health, service, terminal::printable};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    client::{Api, Target, UsageError},
    settings,
};

/// How long a cluster's bus may take to let go.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Records that the index refused: each is kept with its reason, its origin and its exact bytes.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  logmesh dead-letters list
  logmesh dead-letters show 0123456789abcdef0123456789abcdef
  logmesh dead-letters replay --dry-run
  logmesh dead-letters replay --tenant default --reason mapper_parsing
  logmesh dead-letters discard 0123456789abcdef0123456789abcdef --yes
  logmesh dead-letters list --config processor.toml")]
pub(crate) enum DeadLetters {
    List(List),
    Show(Show),
    Replay(Replay),
    Discard(Discard),
}

/// Lists the letters that wait.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    choice: Choice,
    /// How many letters to show.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=1000))]
    limit: u16,
    /// Those too that are dealt with, as long as they are kept.
    #[arg(long)]
    all: bool,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Shows one letter with all that it holds.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The letter's id.
    id: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Only the exact bytes of what was refused.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    #[command(flatten)]
    place: Place,
}

/// Tries letters again: all that wait, or those that are named. Ends with status 1 where one stays.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Ids of letters; none means all that wait.
    ids: Vec<String>,
    #[command(flatten)]
    choice: Choice,
    /// Says what would be tried, and writes nothing.
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Gives letters up: they count as dealt with, and are not kept any longer.
#[derive(Debug, Args)]
pub(crate) struct Discard {
    /// Ids of letters.
    ids: Vec<String>,
    #[command(flatten)]
    choice: Choice,
    /// All letters that wait.
    #[arg(long)]
    all: bool,
    /// Really: what is discarded cannot be had back.
    #[arg(long)]
    yes: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Which letters.
#[derive(Clone, Debug, Default, Args)]
struct Choice {
    /// Only letters of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only letters whose reason contains this.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Where the letters are.
#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    target: Target,
    /// The configuration of a cluster's processor, to work on its bus and index directly.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "url"])]
    config: Option<PathBuf>,
}

/// Who deals with letters.
enum Desk {
    /// A running `logmesh up`.
    Served(Box<Api>),
    /// This process.
    Direct(Box<Office>),
}

/// What is done with letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Replay { dry_run: bool },
    Discard,
}

impl DeadLetters {
    /// Asks a running `logmesh up`, or a cluster's bus and index, and prints.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (Self::List(List { place, .. })
        | Self::Show(Show { place, .. })
        | Self::Replay(Replay { place, .. })
        | Self::Discard(Discard { place, .. })) = &self;
        let Some(file) = &place.config else {
            let desk = Desk::Served(Box::new(place.target.api()?));
            return self.carry_out(&desk).await;
        };
        let read = settings::root(Some(file)).and_then(service::read::<ProcessorService>);
        let (processor, _) = read.map_err(|faults| UsageError(faults.to_string()))?;
        let (bus, index) = processor.stores(&Health::new())?;
        let office = Office::new(Arc::clone(&bus), index.clone(), processor.config().clone());
        let done = self.carry_out(&Desk::Direct(Box::new(office))).await;
        index.close().await;
        bus.close(CLOSE_WITHIN).await;
        done
    }

    async fn carry_out(self, desk: &Desk) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.carry_out(desk).await,
            Self::Show(show) => show.carry_out(desk).await,
            Self::Replay(replay) => replay.carry_out(desk).await,
            Self::Discard(discard) => discard.carry_out(desk).await,
        }
    }
}

impl List {
    async fn carry_out(self, desk: &Desk) -> anyhow::Result<()> {
        let listing = desk.list(&self.choice.selection(Vec::new(), self.all), usize::from(self.limit)).await?;
        let letters = listing["letters"].as_array().map_or(&[][..], Vec::as_slice);
        if self.json {
            return letters.iter().try_for_each(|letter| line(&letter.to_string()));
        }
        if !letters.is_empty() {
            table(letters)?;
        }
        let (total, more) = (&listing["total"], if listing["complete"] == false { " or more" } else { "" });
        match letters.len() {
            0 if *total == 0 => line("no dead letters"),
            shown => line(&format!("{shown} of {total}{more}")),
        }
    }
}

impl Show {
    async fn carry_out(self, desk: &Desk) -> anyhow::Result<()> {
        let letter = desk.show(&self.id).await?;
        if self.json {
            return line(&letter.to_string());
        }
        if self.raw {
            let mut out = io::stdout();
            out.write_all(&original(&letter)?)?;
            return Ok(out.flush()?);
        }
        let Value::Object(fields) = &letter else { bail!("the answer is no letter") };
        for (name, value) in fields {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            line(&format!("{name:16} {}", printable(&text)))?;
        }
        Ok(())
    }
}

impl Replay {
    async fn carry_out(self, desk: &Desk) -> anyhow::Result<()> {
        let selection = self.choice.selection(self.ids, false);
        let summary = desk.deal(Deed::Replay { dry_run: self.dry_run }, &selection, self.json).await?;
        let count = |name: &str| summary[name].as_u64().unwrap_or(0);
        let word = if self.dry_run { "can be replayed" } else { "replayed" };
        let staying = count("refused") + count("waiting");
        if !self.json {
            line(&format!(
                "{} {word}, {} refused again, {} waiting",
                count("replayed"),
                count("refused"),
                count("waiting")
            ))?;
        }
        complain(&summary);
        anyhow::ensure!(count("unknown") == 0, "{} of the ids name no letter that waits", count("unknown"));
        anyhow::ensure!(staying == 0, "{staying} letters stay");
        Ok(())
    }
}

impl Discard {
    async fn carry_out(self, desk: &Desk) -> anyhow::Result<()> {
        let is_said = self.all || !self.ids.is_empty() || self.choice.tenant.is_some() || self.choice.reason.is_some();
        if !is_said {
            return Err(UsageError("say which letters: their ids, --tenant, --reason, or --all".to_owned()).into());
        }
        let selection = self.choice.selection(self.ids, false);
        if !self.yes {
            let total = desk.list(&Selection { ids: Vec::new(), ..selection.clone() }, 0).await?["total"].clone();
            let meant = if selection.ids.is_empty() { total.to_string() } else { selection.ids.len().to_string() };
            let words = format!("{meant} letters would be given up for good; say --yes if that is meant");
            return Err(UsageError(words).into());
        }
        let summary = desk.deal(Deed::Discard, &selection, self.json).await?;
        if !self.json {
            line(&format!("{} discarded", summary["discarded"]))?;
        }
        complain(&summary);
        anyhow::ensure!(summary["unknown"] == 0, "{} of the ids name no letter that waits", summary["unknown"]);
        Ok(())
    }
}

impl Choice {
    fn selection(self, ids: Vec<String>, all: bool) -> Selection {
        Selection { ids, tenant: self.tenant, reason: self.reason, all }
    }
}

impl Desk {
    async fn list(&self, selection: &Selection, limit: usize) -> anyhow::Result<Value> {
        match self {
            Self::Direct(office) => Ok(office.list(selection, limit).await?.into_json()),
            Self::Served(api) => {
                let limit = limit.to_string();
                let mut parameters = vec![("limit", limit.as_str())];
                parameters.extend(selection.tenant.as_deref().map(|tenant| ("tenant", tenant)));
                parameters.extend(selection.reason.as_deref().map(|reason| ("reason", reason)));
                parameters.extend(selection.all.then_some(("all", "true")));
                api.json("/api/dead-letters", &parameters).await
            }
        }
    }

    async fn show(&self, id: &str) -> anyhow::Result<Value> {
        let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if !is_id {
            return Err(UsageError(format!("`{}` cannot be a letter's id", printable(id))).into());
        }
        match self {
            Self::Served(api) => api.json(&format!("/api/dead-letters/{id}"), &[]).await,
            Self::Direct(office) => match office.show(id).await? {
                Some((letter, fate)) => Ok(describe(&letter, fate)),
                None => bail!("there is no dead letter `{id}`"),
            },
        }
    }

    /// Does it, prints what is said of each letter as it comes, and gives the summary.
    async fn deal(&self, deed: Deed, selection: &Selection, json: bool) -> anyhow::Result<Value> {
        match self {
            Self::Served(api) => served(api, deed, selection, json).await,
            Self::Direct(office) => direct(office, deed, selection, json).await,
        }
    }
}

async fn served(api: &Api, deed: Deed, selection: &Selection, json: bool) -> anyhow::Result<Value> {
    let mut order = json!({ "ids": selection.ids, "tenant": selection.tenant, "reason": selection.reason });
    let path = match deed {
        Deed::Replay { dry_run } => {
            order["dry_run"] = dry_run.into();
            "/api/dead-letters/replay"
        }
        Deed::Discard => {
            order["all"] = true.into();
            "/api/dead-letters/discard"
        }
    };
    let mut body = api.post(path, &order).await?;
    let mut rest = Vec::new();
    let mut summary = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the answer broke off; asking again does no harm")?;
        rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let said: Value =
                serde_json::from_slice(&rest[..end]).context("the answer holds a line that is not JSON")?;
            rest.drain(..=end);
            if let Some(message) = said.pointer("/error/message").and_then(Value::as_str) {
                bail!("{message}");
            }
            match said.get("summary") {
                Some(said) => summary = Some(said.clone()),
                None => print_said(&said, json)?,
            }
        }
    }
    summary.context("the answer broke off; asking again does no harm")
}

async fn direct(office: &Office, deed: Deed, selection: &Selection, json: bool) -> anyhow::Result<Value> {
    let (said, mut heard) = mpsc::channel::<Said>(64);
    let work = async {
        match deed {
            Deed::Replay { dry_run } => office.replay(selection, dry_run, &said).await,
            Deed::Discard => office.discard(selection, &said).await,
        }
    };
    tokio::pin!(work);
    let summary = loop {
        tokio::select! {
            biased;
            Some(said) = heard.recv() => print_said(&json!(said), json)?,
            summary = &mut work => break summary?,
        }
    };
    while let Ok(said) = heard.try_recv() {
        print_said(&json!(said), json)?;
    }
    Ok(json!(summary))
}

fn print_said(said: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        return line(&said.to_string());
    }
    let text = |name: &str| said[name].as_str().unwrap_or_default();
    let more = match text("outcome") {
        "replayed" | "possible" => match (said["documents"].as_u64(), said["refused"].as_u64()) {
            (Some(1), None | Some(0)) => String::new(),
            (documents, Some(refused)) if refused > 0 => {
                format!("{} documents; {refused} refused, now letters of their own", documents.unwrap_or(0))
            }
            (documents, _) => format!("{} documents", documents.unwrap_or(0)),
        },
        _ => printable(text("reason")),
    };
    line(format!("{} {:10} {more}", printable(text("id")), text("outcome")).trim_end())
}

fn complain(summary: &Value) {
    if let Some(why) = summary["not_committed"].as_str() {
        eprintln!("logmesh: what is dealt with is still kept, and goes with the next replay: {why}");
    }
}

/// The exact bytes of what was refused.
fn original(letter: &Value) -> anyhow::Result<Vec<u8>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    match (letter["original"].as_str(), letter["original_base64"].as_str()) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (None, Some(encoded)) => STANDARD.decode(encoded).context("the original is not base64"),
        (None, None) => bail!("the answer holds no original"),
    }
}

/// Letters as a table, columns as wide as they need to be; the last two are as long as they are.
fn table(letters: &[Value]) -> anyhow::Result<()> {
    let names = ["id", "tenant", "state", "kind", "kept", "path", "reason"];
    let cell = |letter: &Value, name: &str| printable(letter[name].as_str().unwrap_or("-"));
    let rows: Vec<Vec<String>> =
        letters.iter().map(|letter| names.iter().map(|name| cell(letter, name)).collect()).collect();
    let heads: Vec<String> = names.iter().map(|name| name.to_uppercase()).collect();
    let width = |place: usize| rows.iter().chain([&heads]).map(|row| row[place].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len() - 1).map(width).collect();
    let bold = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for (number, row) in [&heads].into_iter().chain(&rows).enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
        let text = format!("{}{}", cells.collect::<String>(), row[names.len() - 1]);
        let text = text.trim_end();
        line(&if bold && number == 0 { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() })?;
    }
    Ok(())
}

fn line(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}
