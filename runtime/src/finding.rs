//! What a look at a running dependency found: the words in which `logmesh check --connect` speaks.

use std::fmt;

use serde::Serialize;

/// How a thing that was looked at stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, or nobody can say; a person should know.
    Doubtful,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found, for people.
    pub words: String,
    /// What to do, unless all is well.
    pub cure: Option<String>,
}

impl Finding {
    /// A finding without a cure.
    pub fn new(subject: impl Into<String>, verdict: Verdict, words: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict, words: words.into(), cure: None }
    }

    /// The same with what to do.
    #[must_use]
    pub fn cured_by(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }
}

impl fmt::Display for Finding {
    /// `bad       index server https://es1:9200: refused; start the server`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "good",
            Verdict::Doubtful => "doubtful",
            Verdict::Bad => "bad",
        };
        write!(formatter, "{verdict:<9} {}: {}", self.subject, self.words)?;
        self.cure.as_ref().map_or(Ok(()), |cure| write!(formatter, "; {cure}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_its_cure() {
        let finding = Finding::new("topic logs.default", Verdict::Bad, "missing").cured_by("create it");
        assert_eq!(finding.to_string(), "bad       topic logs.default: missing; create it");
    }
}
