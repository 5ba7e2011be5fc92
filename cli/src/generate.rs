//! `logmesh generate`: realistic log lines at a rate, for trials, benchmarks and the demo.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use jiff::{Timestamp, tz::TimeZone};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// Writes realistic log lines at a rate.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  logmesh generate --rate 1000 --output app.log
  logmesh generate --format json --lines 1000000 --rate 0 > million.log")]
pub(crate) struct Generate {
    /// What the lines look like.
    #[arg(long, value_enum, default_value_t = Format::Combined)]
    format: Format,
    /// Lines a second; 0 writes as fast as it can.
    #[arg(long, value_name = "N", default_value_t = 100)]
    rate: u32,
    /// Ends after this many lines.
    #[arg(long, value_name = "N")]
    lines: Option<u64>,
    /// File to append to instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The same seed gives the same lines, but for their times.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Kinds of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Access log of a web server, combined format.
    Combined,
    /// One JSON object a line.
    Json,
    /// RFC 3164, as syslog daemons write files.
    Syslog,
    /// A time, a level and a message.
    Plain,
    /// key=value pairs.
    Logfmt,
}

/// Makes lines.
pub(crate) struct Generator {
    format: Format,
    random: StdRng,
}

const PATHS: [&str; 8] = [
    "/",
    "/index.html",
    "/api/v1/orders",
    "/api/v1/orders/7731",
    "/login",
    "/assets/app.js",
    "/search?q=logs",
    "/health",
];
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Safari/605.1.15",
    "curl/8.9.1",
];
const EVENTS: [(&str, &str); 8] = [
    ("info", "order accepted"),
    ("info", "payment captured"),
    ("debug", "cache hit"),
    ("info", "session opened"),
    ("warn", "slow query"),
    ("error", "upstream timed out"),
    ("info", "mail sent"),
    ("warn", "retrying after connection reset"),
];
const SERVICES: [&str; 4] = ["checkout", "billing", "catalogue", "mailer"];

impl Generator {
    /// Makes lines of a format; a seed fixes all but their times.
    pub(crate) fn new(format: Format, seed: u64) -> Self {
        Self { format, random: StdRng::seed_from_u64(seed) }
    }

    /// The next line, without its terminator.
    pub(crate) fn line(&mut self, now: Timestamp) -> String {
        let random = &mut self.random;
        let (level, event) = EVENTS.choose(random).copied().unwrap_or(EVENTS[0]);
        let service = SERVICES.choose(random).copied().unwrap_or(SERVICES[0]);
        let (order, millis) = (random.random_range(1000..10_000), random.random_range(1..900));
        let utc = now.to_zoned(TimeZone::UTC);
        match self.format {
            Format::Combined => {
                let path = PATHS.choose(random).copied().unwrap_or("/");
                let agent = AGENTS.choose(random).copied().unwrap_or("-");
                let status = [200, 200, 200, 200, 204, 301, 404, 500].choose(random).copied().unwrap_or(200);
                let (host, size) = (random.random_range(1..255), random.random_range(120..48_000));
                let time = utc.strftime("%d/%b/%Y:%H:%M:%S +0000");
                format!("198.51.100.{host} - - [{time}] \"GET {path} HTTP/1.1\" {status} {size} \"-\" \"{agent}\"")
            }
            Format::Json => {
                let trace: u128 = random.random();
                format!(
                    "{{\"time\":\"{now:.3}\",\"level\":\"{level}\",\"service\":\"{service}\",\"msg\":\"{event}\",\
                     \"order\":{order},\"duration_ms\":{millis},\"trace_id\":\"{trace:032x}\"}}"
                )
            }
            Format::Syslog => {
                let time = utc.strftime("%b %e %H:%M:%S");
                format!("{time} demo {service}[{}]: {event} order={order} in {millis} ms", 700 + order % 90)
            }
            Format::Plain => {
                let time = utc.strftime("%Y-%m-%d %H:%M:%S,%3f");
                format!("{time} {} [{service}] {event}, order {order}, {millis} ms", level.to_uppercase())
            }
            Format::Logfmt => {
                format!(
                    "time={now:.3} level={level} service={service} msg=\"{event}\" order={order} duration_ms={millis}"
                )
            }
        }
    }
}

impl Generate {
    /// Writes until the lines are out or the reader goes away.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut out: Box<dyn Write> = match &self.output {
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Box::new(BufWriter::new(file.with_context(|| format!("cannot write {}", path.display()))?))
            }
            None => Box::new(BufWriter::new(io::stdout())),
        };
        let mut generator = Generator::new(self.format, self.seed);
        let started = Instant::now();
        let mut written = 0;
        while self.lines.is_none_or(|lines| written < lines) {
            if self.rate > 0 {
                let due = started + Duration::from_secs_f64(written as f64 / f64::from(self.rate));
                let wait = due.saturating_duration_since(Instant::now());
                if !wait.is_zero() {
                    out.flush()?;
                    std::thread::sleep(wait);
                }
            }
            writeln!(out, "{}", generator.line(Timestamp::now()))?;
            written += 1;
        }
        out.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_lines() {
        for format in Format::value_variants() {
            let mut first = Generator::new(*format, 7);
            let mut second = Generator::new(*format, 7);
            let now = Timestamp::UNIX_EPOCH;
            for _ in 0..20 {
                assert_eq!(first.line(now), second.line(now));
            }
        }
    }

    #[test]
    fn json_lines_are_json() {
        let line = Generator::new(Format::Json, 3).line(Timestamp::UNIX_EPOCH);
        let value: serde_json::Value = serde_json::from_str(&line).expect("json");
        assert_eq!(value["time"], "1970-01-01T00:00:00.000Z");
    }
}
