//! The section `[telemetry]`.

use std::time::Duration;

use crate::config::{Root, mask_password};

/// The commented defaults of `[telemetry]`.
pub const DEFAULT_TOML: &str = r#"[telemetry]
# Pushes metrics to an OpenTelemetry collector over gRPC. Unset: no push; the admin address always has /metrics.
# otlp = "http://otel:4317"
# How often metrics are pushed.
otlp_interval = "15s"
# error, warn, info, debug or trace. The variable LOGMESH_LOG, in the notation of RUST_LOG, wins over it.
log_level = "info"
# text, for people, or json, an object a line.
log_format = "text"
"#;

/// How the process is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// The collector's gRPC address; none is no push.
    pub otlp: Option<String>,
    /// How often metrics are pushed.
    pub otlp_interval: Duration,
    /// The least grave line that is logged.
    pub log_level: Level,
    /// How a line is written.
    pub log_format: LogFormat,
}

/// How grave a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A person must look.
    Error,
    /// Something is not as it should be and is dealt with.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Compact lines, coloured on a terminal.
    Text,
    /// A JSON object a line.
    Json,
}

impl TelemetryConfig {
    /// Reads `[telemetry]`.
    pub fn read(root: &Root) -> TelemetryConfig {
        let section = root.section("telemetry");
        let otlp = section.text_opt("otlp");
        if let Some(endpoint) = &otlp {
            let host = endpoint.strip_prefix("http://").filter(|host| !host.is_empty());
            if host.is_none() || endpoint.parse::<http::Uri>().is_err() {
                let what = format!("\"{}\" is no plain gRPC address", mask_password(endpoint));
                section.fault(
                    "otlp",
                    what,
                    "write it as \"http://otel:4317\"; for TLS put a local collector before it",
                );
            }
        }
        let levels = [
            ("error", Level::Error),
            ("warn", Level::Warn),
            ("info", Level::Info),
            ("debug", Level::Debug),
            ("trace", Level::Trace),
        ];
        let interval = Duration::from_secs(1)..=Duration::from_secs(3600);
        TelemetryConfig {
            otlp,
            otlp_interval: section.duration("otlp_interval", Duration::from_secs(15), interval),
            log_level: section.one_of("log_level", "info", &levels),
            log_format: section.one_of("log_format", "text", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        }
    }
}

impl Default for TelemetryConfig {
    fn default() -> TelemetryConfig {
        TelemetryConfig::read(&Root::empty())
    }
}
