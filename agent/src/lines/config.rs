//! What a record is, as it is configured for files and for other inputs.

use std::time::Duration;

use logmesh_runtime::config::Section;

use super::{Encoding, Framing, FramingConfig, FramingError, LINES_MAX, Multiline, Preset};

/// Names of formats of lines. The processor's `parse::Format::NAMES` is their origin; the agent passes them on and does
/// not depend on the processor, so this list follows that one.
pub const FORMATS: [&str; 12] = [
    "auto",
    "json",
    "logfmt",
    "syslog",
    "syslog3164",
    "syslog5424",
    "common",
    "combined",
    "apache_error",
    "nginx_error",
    "cri",
    "text",
];

/// The format of a stream's lines.
pub(crate) fn read_format(section: &Section, default: &str) -> String {
    let format = section.text("format", default);
    if !format.is_empty() && !FORMATS.contains(&format.as_str()) {
        let what = format!("`{format}` is no format of lines");
        section.fault("format", what, format!("write one of {}", FORMATS.join(", ")));
    }
    format
}

impl FramingConfig {
    /// Reads what a record is, for lines of this format. Faults are noted in the section's root.
    pub(crate) fn read(section: &Section, format: &str) -> Self {
        let framing = Self { cri: format == "cri", ..read_keys(section) };
        if let Err(error) = Framing::new(&framing) {
            let (key, cure) = cure(&framing, &error);
            section.fault(key, error.to_string(), cure);
        }
        framing
    }
}

fn read_keys(section: &Section) -> FramingConfig {
    let names: Vec<&str> = Encoding::NAMES.iter().map(|(name, _)| *name).collect();
    let name = section.text("encoding", "utf-8");
    let encoding = Encoding::from_name(&name).unwrap_or_else(|| {
        section.fault("encoding", format!("`{name}` is no encoding"), format!("write one of {}", names.join(", ")));
        Encoding::default()
    });
    let lines_max = section.integer("multiline_lines_max", LINES_MAX as u64, 2..=100_000);
    let wait = Duration::from_millis(10)..=Duration::from_secs(24 * 3600);
    let timeout = section.duration("multiline_timeout", Duration::from_secs(5), wait);
    FramingConfig {
        encoding,
        delimiter: section.text_opt("delimiter"),
        multiline: read_multiline(section),
        lines_max: usize::try_from(lines_max).ok(),
        timeout: section.is_set("multiline_timeout").then_some(timeout),
        cri: false,
    }
}

fn read_multiline(section: &Section) -> Option<Multiline> {
    let preset = section.text_opt("multiline").and_then(|name| {
        let names: Vec<&str> = Preset::NAMES.iter().map(|(name, _)| *name).collect();
        match Preset::NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, preset)) => Some(Multiline::Preset(*preset)),
            None if name == "indent" => Some(Multiline::Indent),
            None => {
                let choices = format!("write one of {}, indent, or set `multiline_start`", names.join(", "));
                section.fault("multiline", format!("`{name}` is no way to join lines"), choices);
                None
            }
        }
    });
    let start = section.text_opt("multiline_start").map(Multiline::Start);
    let continuation = section.text_opt("multiline_continuation").map(Multiline::Continuation);
    let ways = [("multiline", preset), ("multiline_start", start), ("multiline_continuation", continuation)];
    let mut set = ways.into_iter().filter_map(|(key, way)| way.map(|way| (key, way)));
    let (first, way) = set.next()?;
    for (key, _) in set {
        section.fault(key, format!("lines are joined by `{first}` already"), "keep one of the two");
    }
    Some(way)
}

/// The key that an error is about, and what to do.
fn cure(framing: &FramingConfig, error: &FramingError) -> (&'static str, &'static str) {
    match error {
        FramingError::Pattern { .. } => (
            if matches!(framing.multiline, Some(Multiline::Start(_))) {
                "multiline_start"
            } else {
                "multiline_continuation"
            },
            "write a regular expression without look-around and back-references, classes of ASCII only",
        ),
        FramingError::Delimiter(_) => ("delimiter", "leave it out for lines that end in LF or CRLF"),
        FramingError::Unwritable => ("delimiter", "write it in letters that the files' encoding has"),
        FramingError::CriDelimiter => ("delimiter", "leave it out"),
    }
}

#[cfg(test)]
mod tests {
    use logmesh_runtime::config::Root;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_format_that_nobody_knows_is_a_fault_that_names_the_choices() {
        let read = |format: &str| {
            let text = format!("[[agent.files]]\ninclude = [\"/a/*.log\"]\nformat = \"{format}\"\n");
            let root = Root::parse(&text, "logmesh.toml").unwrap();
            Config::read(&root);
            root.finish().map(drop).map_err(|faults| faults.to_string())
        };
        for known in FORMATS.iter().chain(&[""]) {
            read(known).unwrap();
        }
        let faults = read("jsno").unwrap_err();
        for part in ["logmesh.toml:3", "`jsno`", "json, logfmt", "nginx_error"] {
            assert!(faults.contains(part), "{part:?} is not in\n{faults}");
        }
    }

    fn framing(keys: &str) -> Result<FramingConfig, String> {
        let text = format!("[[agent.files]]\ninclude = [\"/a/*.log\"]\n{keys}\n");
        let root = Root::parse(&text, "logmesh.toml").unwrap();
        let config = Config::read(&root);
        root.finish().map(|_| config.files[0].framing.clone()).map_err(|faults| faults.to_string())
    }

    #[test]
    fn every_way_to_say_what_a_record_is_is_read() {
        let read = framing("").unwrap();
        assert_eq!((read.encoding, read.multiline, read.timeout), (Encoding::Utf8, None, None));
        for (name, preset) in Preset::NAMES {
            let read = framing(&format!("multiline = \"{name}\"")).unwrap();
            assert_eq!(read.multiline, Some(Multiline::Preset(preset)));
        }
        for (name, encoding) in Encoding::NAMES {
            assert_eq!(framing(&format!("encoding = \"{name}\"")).unwrap().encoding, encoding);
        }
        assert_eq!(framing("multiline = \"indent\"").unwrap().multiline, Some(Multiline::Indent));
        let read =
            framing("multiline_start = '^\\d{4}-'\nmultiline_timeout = \"1s\"\nmultiline_lines_max = 50").unwrap();
        assert_eq!(read.multiline, Some(Multiline::Start("^\\d{4}-".into())));
        assert_eq!((read.timeout, read.lines_max), (Some(Duration::from_secs(1)), Some(50)));
        let read = framing("multiline_continuation = '^ '\ndelimiter = \"\\u0000\"").unwrap();
        assert_eq!(read.multiline, Some(Multiline::Continuation("^ ".into())));
        assert_eq!(read.delimiter.as_deref(), Some("\0"));
        assert!(framing("format = \"cri\"").unwrap().cri);
    }

    #[test]
    fn what_no_record_can_be_is_told_with_its_place_and_a_cure() {
        for (keys, parts) in [
            ("multiline = \"jawa\"", ["logmesh.toml:3", "`jawa`", "java, python"]),
            ("encoding = \"utf-7\"", ["logmesh.toml:3", "`utf-7`", "utf-16le"]),
            ("multiline_start = '(a'", ["logmesh.toml:3", "`(a`", "unclosed group"]),
            ("multiline_start = 'a(?=b)'", ["logmesh.toml:3", "look-around", "without look-around"]),
            ("multiline_start = 'a{1000}{1000}'", ["logmesh.toml:3", "`a{1000}{1000}`", "size limit"]),
            ("multiline_continuation = '[z-a]'", ["multiline_continuation", "`[z-a]`", "range"]),
            (
                "multiline_start = 'a'\nmultiline_continuation = 'b'",
                ["logmesh.toml:4", "`multiline_start`", "keep one"],
            ),
            ("multiline = \"go\"\nmultiline_start = 'b'", ["logmesh.toml:4", "`multiline`", "keep one"]),
            ("delimiter = \"\"", ["logmesh.toml:3", "has 0", "leave it out"]),
            ("delimiter = \"more than sixteen\"", ["logmesh.toml:3", "has 17", "1 to 16"]),
            ("delimiter = \"\\u263a\"\nencoding = \"latin-1\"", ["delimiter", "encoding", "letters"]),
            ("delimiter = \"|\"\nformat = \"cri\"", ["delimiter", "LF", "leave it out"]),
        ] {
            let faults = framing(keys).unwrap_err();
            for part in parts {
                assert!(faults.contains(part), "{keys}: {part:?} is not in\n{faults}");
            }
        }
    }
}
