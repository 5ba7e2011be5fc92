//! The process's log: lines on standard error.

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::config::{Level, LogFormat, TelemetryConfig};

/// The variable that wins over `log_level`, in the notation of `RUST_LOG`.
const VARIABLE: &str = "LOGMESH_LOG";

/// What libraries say below warning is about themselves; it is shown only when asked for by name in [`VARIABLE`].
const LIBRARIES: &str = ",h2=warn,hyper=warn,hyper_util=warn,rustls=warn,tower=warn,tonic=warn,tantivy=warn,opentelemetry=warn,\
                         opentelemetry_sdk=warn,opentelemetry_otlp=warn,mio=warn,notify=warn";

/// The installed log, for changing its level later.
#[derive(Clone, Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The variable is no filter.
    #[error("LOGMESH_LOG=\"{value}\" is no log filter; write it as \"debug\" or \"info,logmesh_agent=trace\"")]
    Filter {
        /// What it holds.
        value: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// There is one already.
    #[error("logging is already set up in this process")]
    Installed(#[from] TryInitError),
}

/// Sends the log of this process to standard error. Once per process.
///
/// # Errors
/// A bad `LOGMESH_LOG`, or a second call.
pub fn logging(config: &TelemetryConfig) -> Result<Log, LoggingError> {
    let wanted = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    let (filter, handle) = reload::Layer::new(filter(config.log_level, wanted.as_deref())?);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = lines(config.log_format, colour, std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(Log { filter: handle })
}

impl Log {
    /// Changes the level of a running process; `LOGMESH_LOG` no longer counts after that.
    pub fn set_level(&self, level: Level) {
        // The only way this fails is that the subscriber is gone, and then there is no log to change.
        if let Ok(filter) = filter(level, None) {
            let _ = self.filter.reload(filter);
        }
    }
}

fn lines<S, W>(format: LogFormat, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // A reader that went away (`2>&1 | head`) must not end the process: the layer's own complaint would panic.
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text => lines.compact().with_ansi(colour).boxed(),
    }
}

fn filter(level: Level, wanted: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let directives = match wanted {
        Some(value) => value.to_owned(),
        None => format!("{}{LIBRARIES}", level.directive()),
    };
    EnvFilter::try_new(&directives).map_err(|source| LoggingError::Filter { value: directives, source })
}

impl Level {
    fn directive(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What the log wrote.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, colour: bool) -> String {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::registry().with(lines(format, colour, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || tracing::warn!(condition = "disk", "not \"ready\""));
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn json_is_one_object_a_line_with_values_as_members() {
        let text = written(LogFormat::Json, false);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("JSON");
        assert_eq!(
            (&line["message"], &line["condition"], &line["level"]),
            (&"not \"ready\"".into(), &"disk".into(), &"WARN".into())
        );
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn text_is_plain_unless_it_goes_to_a_terminal() {
        let plain = written(LogFormat::Text, false);
        assert!(plain.contains("WARN") && plain.contains("condition=\"disk\"") && !plain.contains('\x1b'), "{plain}");
        assert!(written(LogFormat::Text, true).contains('\x1b'));
    }

    #[test]
    fn a_reader_that_went_away_ends_nothing() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let subscriber = tracing_subscriber::registry().with(lines(LogFormat::Text, false, || Gone));
        tracing::subscriber::with_default(subscriber, || tracing::warn!("nobody reads this"));
    }

    #[test]
    fn the_variable_wins_over_the_level_and_a_bad_one_is_named() {
        let shown = filter(Level::Info, Some("debug")).expect("valid").to_string();
        assert_eq!(shown, "debug");
        let error = filter(Level::Info, Some("info,=x=")).expect_err("no filter");
        assert!(error.to_string().starts_with("LOGMESH_LOG=\"info,=x=\" is no log filter"));
    }

    #[test]
    fn every_level_gives_a_filter_that_keeps_libraries_quiet() {
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace] {
            let shown = filter(level, None).expect("valid").to_string();
            assert!(shown.contains("h2=warn") && shown.contains(level.directive()), "{shown}");
        }
    }
}
