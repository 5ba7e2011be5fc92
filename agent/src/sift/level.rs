//! How severe a record says it is, found where logs commonly say so.
//!
//! Cheap and cautious, and no parser: the first line alone is looked at, and only its beginning, but for JSON, whose
//! members come in any order. A word counts as a level where it is written as one (in capitals, in brackets, behind
//! `level=`), not where it is part of a sentence. `None` where that cannot be told.

use memchr::{memchr, memchr2, memchr3};

/// Bytes of a line among which its level is looked for.
const HEAD_BYTES: usize = 200;
/// The same for `level=`, which may stand behind other fields.
const FIELDS_BYTES: usize = 1024;
/// The same for JSON.
const JSON_BYTES: usize = 16 * 1024;

/// How severe a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What happens, syslog's notice included.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
    /// Everything failed; syslog's crit, alert and emerg.
    Fatal,
}

impl Level {
    /// All names with what they mean.
    pub const NAMES: [(&str, Self); 6] = [
        ("trace", Self::Trace),
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("warn", Self::Warn),
        ("error", Self::Error),
        ("fatal", Self::Fatal),
    ];

    /// What loggers call it.
    fn of_word(word: &[u8]) -> Option<Self> {
        let mut lower = [0; 13];
        let lower = lower.get_mut(..word.len())?;
        lower.copy_from_slice(word);
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"trace" | b"trc" | b"trce" | b"finest" | b"finer" | b"verbose" => Self::Trace,
            b"debug" | b"dbg" | b"dbug" | b"fine" => Self::Debug,
            b"info" | b"inf" | b"information" | b"informational" | b"notice" => Self::Info,
            b"warn" | b"warning" | b"wrn" => Self::Warn,
            b"error" | b"err" | b"eror" | b"fail" | b"severe" => Self::Error,
            b"fatal" | b"ftl" | b"critical" | b"crit" | b"alert" | b"emerg" | b"emergency" | b"panic" | b"dpanic" => {
                Self::Fatal
            }
            _ => return None,
        })
    }

    /// Syslog counts from 0 for the worst to 7; pino and bunyan from 10 to 60 for the worst.
    fn of_number(number: u32) -> Option<Self> {
        Some(match number {
            0..=2 | 60..=69 => Self::Fatal,
            3 | 50..=59 => Self::Error,
            4 | 40..=49 => Self::Warn,
            5 | 6 | 30..=39 => Self::Info,
            7 | 20..=29 => Self::Debug,
            10..=19 => Self::Trace,
            _ => return None,
        })
    }

    fn of_value(value: &[u8]) -> Option<Self> {
        if value.first().is_some_and(u8::is_ascii_digit) {
            return Self::of_number(std::str::from_utf8(value).ok()?.parse().ok()?);
        }
        Self::of_word(value)
    }
}

/// The level of a record.
pub(super) fn find(text: &[u8]) -> Option<Level> {
    let text = text.trim_ascii_start();
    if text.first() == Some(&b'{') {
        return in_json(&text[..text.len().min(JSON_BYTES)]);
    }
    let line = &text[..text.len().min(FIELDS_BYTES)];
    let line = memchr(b'\n', line).map_or(line, |end| &line[..end]);
    let head = &line[..line.len().min(HEAD_BYTES)];
    by_priority(head).or_else(|| by_letter(head)).or_else(|| in_fields(line)).or_else(|| in_words(head))
}

/// `<34>1 2003-10-11T22:14:15.003Z …`
fn by_priority(head: &[u8]) -> Option<Level> {
    let rest = head.strip_prefix(b"<")?;
    let digits = rest.iter().take(4).position(|byte| *byte == b'>').filter(|digits| *digits > 0)?;
    let number: u32 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    (number <= 191).then_some(number % 8).and_then(Level::of_number)
}

/// `I0102 15:04:05.678901   12345 main.go:42] …`
fn by_letter(head: &[u8]) -> Option<Level> {
    let (letter, rest) = head.split_first()?;
    let is_date = rest.len() > 7 && rest[..4].iter().all(u8::is_ascii_digit) && rest[4] == b' ' && rest[7] == b':';
    match letter {
        _ if !is_date => None,
        b'I' => Some(Level::Info),
        b'W' => Some(Level::Warn),
        b'E' => Some(Level::Error),
        b'F' => Some(Level::Fatal),
        _ => None,
    }
}

/// `time=… level=info msg=…`; what a quoted value holds is no field.
fn in_fields(line: &[u8]) -> Option<Level> {
    let mut from = 0;
    while let Some(at) = memchr2(b'=', b'"', &line[from..]).map(|at| from + at) {
        if line[at] == b'"' {
            let opens = at == 0 || matches!(line[at - 1], b'=' | b' ' | b'\t');
            let end = string_end(line, at + 1).filter(|_| opens);
            if end.is_none() && at > 0 && line[at - 1] == b'=' {
                // A value whose end is not looked at holds all that is left.
                return None;
            }
            // Another one that is never closed is a mark of inches, or the like.
            from = end.unwrap_or(at) + 1;
            continue;
        }
        let key = line[..at].rsplit(|byte| *byte == b' ' || *byte == b'\t').next().unwrap_or_default();
        if is_key(key) {
            let value = &line[at + 1..];
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            let end = value.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(value.len());
            if let Some(level) = Level::of_value(&value[..end]) {
                return Some(level);
            }
        }
        from = at + 1;
    }
    None
}

fn is_key(key: &[u8]) -> bool {
    const KEYS: [&[u8]; 11] = [
        b"level",
        b"severity",
        b"log.level",
        b"lvl",
        b"loglevel",
        b"log_level",
        b"levelname",
        b"level_name",
        b"severity_text",
        b"severityText",
        b"@l",
    ];
    KEYS.iter().any(|known| known.eq_ignore_ascii_case(key))
}

/// Words that are written as levels: in capitals, or closed in, or before a colon at the very beginning.
fn in_words(head: &[u8]) -> Option<Level> {
    let mut from = 0;
    while let Some(begin) = head[from..].iter().position(u8::is_ascii_alphabetic).map(|at| from + at) {
        let length = head[begin..].iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        let end = length.map_or(head.len(), |length| begin + length);
        from = end;
        // A word that the head cuts off may be another one.
        if end == HEAD_BYTES {
            return None;
        }
        let word = &head[begin..end];
        let Some(level) = Level::of_word(word) else { continue };
        let (before, behind) = (begin.checked_sub(1).map(|at| head[at]), head.get(end).copied());
        let is_capital = word.iter().all(u8::is_ascii_uppercase)
            && matches!(before, None | Some(b' ' | b'\t' | b'[' | b'(' | b'<' | b'|' | b':' | b'-'))
            && matches!(behind, None | Some(b' ' | b'\t' | b']' | b')' | b'>' | b'|' | b':' | b',' | b';' | b'-'));
        let is_closed_in = matches!(
            (before, behind),
            (Some(b'[' | b':'), Some(b']'))
                | (Some(b'('), Some(b')'))
                | (Some(b'<'), Some(b'>'))
                | (Some(b'|'), Some(b'|'))
        );
        if is_capital || is_closed_in || (begin == 0 && behind == Some(b':')) {
            return Some(level);
        }
    }
    None
}

/// A member of the object itself, or `level` of a member `log`.
fn in_json(text: &[u8]) -> Option<Level> {
    let (mut at, mut depth, mut in_log) = (0, 0_u32, false);
    while let Some(next) = text[at..].iter().position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')) {
        at += next + 1;
        match text[at - 1] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                in_log &= depth > 1;
            }
            _ => {
                let end = string_end(text, at)?;
                let key = &text[at..end];
                at = end + 1;
                if depth > 2 || (depth == 2 && !in_log) {
                    continue;
                }
                let Some(value) = value_behind(text, at) else { continue };
                let level = is_key(key).then(|| json_value(value)).flatten();
                if level.is_some() {
                    return level;
                }
                in_log |= depth == 1 && key == b"log" && value.first() == Some(&b'{');
            }
        }
    }
    None
}

/// Where a string ends whose first byte is at `from`.
fn string_end(text: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

/// What stands behind the colon, if one comes next.
fn value_behind(text: &[u8], at: usize) -> Option<&[u8]> {
    let rest = text[at..].trim_ascii_start().strip_prefix(b":")?;
    Some(rest.trim_ascii_start())
}

fn json_value(value: &[u8]) -> Option<Level> {
    let Some(text) = value.strip_prefix(b"\"") else {
        let end = value.iter().position(|byte| !byte.is_ascii_digit())?;
        return Level::of_value(&value[..end]);
    };
    Level::of_value(&text[..memchr3(b'"', b'\\', b'\n', text)?])
}

#[cfg(test)]
mod tests {
    use super::{Level::*, *};

    #[test]
    fn levels_are_found_where_real_logs_say_them() {
        for (line, level) in [
            ("[Sun Dec 04 04:47:44 2005] [notice] workerEnv.init() ok /etc/httpd/conf/workers2.properties", Info),
            ("[Sun Dec 04 04:47:44 2005] [error] mod_jk child workerEnv in error state 6", Error),
            ("[Thu May 01 00:00:01.123456 2025] [core:warn] [pid 7:tid 8] AH00111: undefined", Warn),
            ("2025/05/01 12:00:00 [crit] 31#31: *1 connect() to unix:/run/php.sock failed", Fatal),
            ("2015-10-18 18:01:47,978 INFO [main] org.apache.hadoop.mapreduce.v2.app.MRAppMaster: Created", Info),
            ("081109 203615 148 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block", Info),
            ("nova-api.log.1.2017-05-16_13:53:08 2017-05-16 00:00:00.008 25746 INFO nova.osapi_compute", Info),
            ("17/06/09 20:10:40 INFO executor.CoarseGrainedExecutorBackend: Registered signal handlers", Info),
            ("2015-07-29 19:04:29,071 - WARN  [SendWorker:188978561024:QuorumCnxManager$SendWorker@688]", Warn),
            ("I0102 15:04:05.678901   12345 main.go:42] starting", Info),
            ("E0102 15:04:05.678901   12345 main.go:42] DEBUG is no level here", Error),
            ("<34>1 2003-10-11T22:14:15.003Z mymachine su - ID47 - 'su root' failed", Fatal),
            ("<15>Oct 11 22:14:15 mymachine su: INFO", Debug),
            ("time=2025-05-01T00:00:00Z level=debug msg=\"level=error in a message\"", Debug),
            (r#"msg="retry with level=debug for \"x\"" level=error"#, Error),
            (r#"app "said severity=debug" severity=fatal"#, Fatal),
            (r#"a disk of 5" level=warn"#, Warn),
            ("ts=1 caller=main.go:1 LEVEL=\"WARN\" msg=x", Warn),
            ("INFO:root:a line of Python", Info),
            ("[2025-05-01T00:00:00Z DEBUG my::module] a line of env_logger", Debug),
            ("2025-05-01 00:00:00 UTC [123] FATAL:  the database system is starting up", Fatal),
            ("warn: Microsoft.Hosting.Lifetime[0]", Warn),
            ("   ERROR indented\nDEBUG of the next line", Error),
            ("2025-05-01 00:00:00 |trace| piped", Trace),
            ("ERROR", Error),
        ] {
            assert_eq!(find(line.as_bytes()), Some(level), "{line}");
        }
    }

    #[test]
    fn levels_are_found_among_the_members_of_an_object() {
        for (line, level) in [
            (r#"{"time":"2025-05-01","msg":"x","level":"info"}"#, Some(Info)),
            (r#"{"severity" : "WARNING", "message":"x"}"#, Some(Warn)),
            (r#"{"log.level":"error","message":"x"}"#, Some(Error)),
            (r#"{"log":{"logger":"a","level":"debug"},"message":"x"}"#, Some(Debug)),
            (r#"{"level":30,"time":1531171074631,"msg":"pino"}"#, Some(Info)),
            (r#"{"version":"1.1","level":3,"host":"gelf"}"#, Some(Error)),
            (r#"{"message":"say \"level\":\"error\"","level":"debug"}"#, Some(Debug)),
            (r#"{"request":{"level":"error"},"list":["level","error"],"level":"debug"}"#, Some(Debug)),
            (r#"{"log":{"file":"a"},"request":{"level":"error"},"lvl":"trace"}"#, Some(Trace)),
            (r#"{"level":"spicy","severity":"warn"}"#, Some(Warn)),
            (r#"{"message":"ERROR in a sentence"}"#, None),
            (r#"{"level":"#, None),
            (r#"{"level":"err"#, None),
            (r#"{"level":99999999999999999999}"#, None),
            (r#"{"a":"\"#, None),
            (r#"}}}]{"level":"warn"}"#, None),
        ] {
            assert_eq!(find(line.as_bytes()), level, "{line}");
        }
    }

    #[test]
    fn words_in_sentences_and_names_are_no_levels() {
        let late = format!("{}{}", "x ".repeat(110), "ERROR");
        for line in [
            "",
            " ",
            "<",
            "<999>x",
            "Dec 10 06:55:46 LabSZ sshd[24200]: Failed password, error in login",
            "Jun 14 15:16:02 combo sshd(pam_unix)[19937]: check pass; user unknown",
            "83.149.9.216 - - [17/May/2015:10:05:03 +0000] \"GET /debug/ERROR.html HTTP/1.1\" 200 203023",
            "no error found, nothing to warn of",
            "DEBUG_MODE is on",
            "Information is power: read it",
            &late,
        ] {
            assert_eq!(find(line.as_bytes()), None, "{line}");
        }
        let long = format!("msg=\"{} level=debug {}\" level=error", "x".repeat(500), "x".repeat(FIELDS_BYTES));
        assert_eq!(find(long.as_bytes()), None, "a quoted text that is not looked at to its end");
        assert_eq!(find(b"\xff\xfe ERROR \xff"), Some(Error), "bytes that are no text are in nobody's way");
    }
}
