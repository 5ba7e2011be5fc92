//! From a query's tree to a search of the embedded index: what each field means.
//!
//! - No field: the words of `message` or of `event.original`, so that any word of the line is found, also where parsing
//!   made another message of it. Words are compared in lower case; several pieces (`10.2.3.4`) must follow each other.
//! - `message`, `event.original`: words of that field alone.
//! - `@timestamp`: times ([`super::time`]).
//! - `_id`; `_index` and other fields: the value as it stands (`log.level` in lower case). Numbers, `true` and `false`
//!   are also found as such, and ranges are ranges of numbers where both ends are numbers, else of text. Times in `event.*` are
//!   compared to the second.
//! - `level`, `host`, `service`, `dataset`, `path` are short for `log.level`, `host.name`, `service.name`,
//!   `event.dataset`, `log.file.path`; a field that is not found so is also looked for below `fields`, where free-form
//!   fields are kept.

use std::ops::Bound;

use logmesh_proto::RecordId;
use tantivy::{
    DateTime, Term,
    query::{
        AllQuery, BooleanQuery, EmptyQuery, InvertedIndexRangeQuery, Occur, PhrasePrefixQuery, PhraseQuery, Query,
        RangeQuery, TermQuery,
    },
    schema::{Field, IndexRecordOption},
};

use super::{
    has_path::HasPath,
    query::{Clause, Matcher, Node, QueryError},
    time::{self, Moment},
};
use crate::index::embedded::{TIMES, schema, schema::Fields};

/// Most words that the last word of a phrase may be the beginning of.
const PHRASE_EXPANSIONS_MAX: u32 = 16_384;

type Built = Box<dyn Query>;

/// Builds the search for a tree.
///
/// # Errors
/// A value that its field cannot have, with its place in `query`.
pub(crate) fn lower(node: &Node, query: &str, fields: Fields, now: i64) -> Result<Built, QueryError> {
    Lowering { query, fields, now }.node(node)
}

struct Lowering<'a> {
    query: &'a str,
    fields: Fields,
    now: i64,
}

fn any(queries: Vec<Built>) -> Built {
    combine(queries, Occur::Should)
}

fn combine(mut queries: Vec<Built>, occur: Occur) -> Built {
    match queries.len() {
        0 => Box::new(EmptyQuery),
        1 => queries.remove(0),
        _ => Box::new(BooleanQuery::new(queries.into_iter().map(|query| (occur, query)).collect())),
    }
}

fn term(term: Term) -> Built {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

fn between(lower: Bound<Term>, upper: Bound<Term>) -> Built {
    Box::new(InvertedIndexRangeQuery::new(lower, upper))
}

/// The fields that a name stands for.
enum Target {
    Text(Vec<Field>),
    Time,
    Id,
    Keyword(Field, String),
    Path(String),
}

impl Lowering<'_> {
    fn node(&self, node: &Node) -> Result<Built, QueryError> {
        let many = |nodes: &[Node]| nodes.iter().map(|node| self.node(node)).collect::<Result<Vec<_>, _>>();
        Ok(match node {
            Node::All => Box::new(AllQuery),
            Node::Not(inner) => Box::new(BooleanQuery::new(vec![
                (Occur::Must, Box::new(AllQuery) as Built),
                (Occur::MustNot, self.node(inner)?),
            ])),
            Node::And(nodes) => combine(many(nodes)?, Occur::Must),
            Node::Or(nodes) => any(many(nodes)?),
            Node::Clause(clause) => self.clause(clause)?,
        })
    }

    fn error(&self, clause: &Clause, message: impl Into<String>) -> QueryError {
        QueryError::new(self.query, clause.position, message)
    }

    fn target(&self, name: Option<&str>) -> Target {
        let fields = &self.fields;
        let keyword = |field, name: &str| Target::Keyword(field, name.to_owned());
        match name {
            None => Target::Text(vec![fields.message, fields.original]),
            Some("message") => Target::Text(vec![fields.message]),
            Some("event.original") => Target::Text(vec![fields.original]),
            Some("@timestamp" | "timestamp") => Target::Time,
            Some("_id") => Target::Id,
            Some("_index") => keyword(fields.index, "_index"),
            Some("log.level" | "level") => keyword(fields.level, "log.level"),
            Some("host.name" | "host") => keyword(fields.host, "host.name"),
            Some("service.name" | "service") => keyword(fields.service, "service.name"),
            Some("event.dataset" | "dataset") => keyword(fields.dataset, "event.dataset"),
            Some("log.file.path" | "path") => keyword(fields.path, "log.file.path"),
            Some(path) => Target::Path(path.to_owned()),
        }
    }

    fn clause(&self, clause: &Clause) -> Result<Built, QueryError> {
        let open = Matcher::Range { lower: Bound::Unbounded, upper: Bound::Unbounded };
        if clause.matcher == Matcher::Exists || clause.matcher == open {
            return Ok(self.exists(clause.field.as_deref().unwrap_or_default()));
        }
        match self.target(clause.field.as_deref()) {
            Target::Text(fields) => self.text(&fields, clause),
            Target::Time => self.time(clause),
            Target::Id => self.id(clause),
            Target::Keyword(field, _) => Ok(self.keyword(field, clause)),
            Target::Path(path) => self.path(&path, clause),
        }
    }

    fn exists(&self, name: &str) -> Built {
        let name = match self.target(Some(name)) {
            Target::Time | Target::Id => return Box::new(AllQuery),
            Target::Keyword(field, _) if field == self.fields.index => return Box::new(AllQuery),
            Target::Keyword(_, name) | Target::Path(name) => name,
            Target::Text(_) => name.to_owned(),
        };
        let free = format!("fields.{name}");
        Box::new(HasPath::new(self.fields.shape, [&name, &free]))
    }

    fn text(&self, fields: &[Field], clause: &Clause) -> Result<Built, QueryError> {
        let (text, prefix) = match &clause.matcher {
            Matcher::Value(text) | Matcher::Exact(text) => (text, false),
            Matcher::Prefix(text) => (text, true),
            Matcher::Range { .. } | Matcher::Exists => {
                let message = "words have no range; ranges are for other fields, such as @timestamp";
                return Err(self.error(clause, message));
            }
        };
        let words = schema::words(text);
        if words.is_empty() {
            // Only signs, which are not indexed: no condition.
            return Ok(Box::new(AllQuery));
        }
        // Behind `foo.*` any word may begin.
        let prefix = prefix && text.ends_with(char::is_alphanumeric);
        let of = |field: &Field| -> Built {
            let terms: Vec<Term> = words.iter().map(|word| Term::from_field_text(*field, word)).collect();
            match (terms.as_slice(), prefix) {
                ([one], false) => term(one.clone()),
                ([one], true) => begins(one),
                (_, false) => Box::new(PhraseQuery::new(terms)),
                (_, true) => {
                    let mut phrase = PhrasePrefixQuery::new(terms);
                    phrase.set_max_expansions(PHRASE_EXPANSIONS_MAX);
                    Box::new(phrase)
                }
            }
        };
        Ok(any(fields.iter().map(of).collect()))
    }

    fn moment(&self, text: &str, clause: &Clause) -> Result<Moment, QueryError> {
        time::parse(text, self.now).ok_or_else(|| {
            let message = format!("`{text}` is no time; write 2026-11-23, 2026-11-23T10:05:03Z, now or now-15m");
            self.error(clause, message)
        })
    }

    fn time(&self, clause: &Clause) -> Result<Built, QueryError> {
        let at = |nanos: i64| Term::from_field_date(self.fields.timestamp, DateTime::from_timestamp_nanos(nanos));
        let (lower, upper) = match &clause.matcher {
            Matcher::Value(text) | Matcher::Exact(text) => {
                let moment = self.moment(text, clause)?;
                (Bound::Included(at(moment.begin)), Bound::Excluded(at(moment.end)))
            }
            Matcher::Range { lower, upper } => {
                let lower = match lower {
                    Bound::Included(text) => Bound::Included(at(self.moment(text, clause)?.begin)),
                    Bound::Excluded(text) => Bound::Included(at(self.moment(text, clause)?.end)),
                    Bound::Unbounded => Bound::Unbounded,
                };
                let upper = match upper {
                    Bound::Included(text) => Bound::Excluded(at(self.moment(text, clause)?.end)),
                    Bound::Excluded(text) => Bound::Excluded(at(self.moment(text, clause)?.begin)),
                    Bound::Unbounded => Bound::Unbounded,
                };
                (lower, upper)
            }
            Matcher::Prefix(_) | Matcher::Exists => {
                return Err(
                    self.error(clause, "a time has no beginning to search by; write a range, [2026-11-01 TO *]")
                );
            }
        };
        Ok(Box::new(RangeQuery::new(lower, upper)))
    }

    fn id(&self, clause: &Clause) -> Result<Built, QueryError> {
        let (Matcher::Value(text) | Matcher::Exact(text)) = &clause.matcher else {
            return Err(self.error(clause, "an _id is searched as a whole"));
        };
        let id: RecordId = text.parse().map_err(|error| self.error(clause, format!("{error}")))?;
        Ok(term(schema::key_term(self.fields, &id)))
    }

    fn keyword(&self, field: Field, clause: &Clause) -> Built {
        let value = |text: &str| {
            let lower_case = field == self.fields.level;
            if lower_case {
                Term::from_field_text(field, &text.to_lowercase())
            } else {
                Term::from_field_text(field, text)
            }
        };
        match &clause.matcher {
            Matcher::Value(text) | Matcher::Exact(text) => term(value(text)),
            Matcher::Prefix(text) => begins(&value(text)),
            Matcher::Exists => Box::new(AllQuery),
            Matcher::Range { lower, upper } => {
                between(lower.as_ref().map(|text| value(text)), upper.as_ref().map(|text| value(text)))
            }
        }
    }

    fn path(&self, path: &str, clause: &Clause) -> Result<Built, QueryError> {
        let free = format!("fields.{path}");
        let mut queries = Vec::new();
        for path in [path, &free] {
            let value = Values { field: self.fields.document, path };
            match &clause.matcher {
                Matcher::Value(text) | Matcher::Exact(text) if TIMES.contains(&path) => {
                    let moment = self.moment(text, clause)?;
                    queries.push(value.times(Bound::Included(moment.begin), Bound::Excluded(moment.end)));
                }
                Matcher::Range { lower, upper } if TIMES.contains(&path) => {
                    let begin = |text: &String| self.moment(text, clause).map(|moment| moment.begin);
                    let end = |text: &String| self.moment(text, clause).map(|moment| moment.end);
                    let lower = match lower {
                        Bound::Included(text) => Bound::Included(begin(text)?),
                        Bound::Excluded(text) => Bound::Included(end(text)?),
                        Bound::Unbounded => Bound::Unbounded,
                    };
                    let upper = match upper {
                        Bound::Included(text) => Bound::Excluded(end(text)?),
                        Bound::Excluded(text) => Bound::Excluded(begin(text)?),
                        Bound::Unbounded => Bound::Unbounded,
                    };
                    queries.push(value.times(lower, upper));
                }
                Matcher::Value(text) | Matcher::Exact(text) => queries.extend(value.equal(text)),
                Matcher::Prefix(text) => queries.push(begins(&value.text(text))),
                Matcher::Range { lower, upper } => queries.extend(value.range(lower, upper)),
                Matcher::Exists => {}
            }
        }
        Ok(any(queries))
    }
}

/// Terms that begin like this one.
fn begins(term: &Term) -> Built {
    let mut upper = term.clone();
    upper.append_bytes("\u{10ffff}".as_bytes());
    between(Bound::Included(term.clone()), Bound::Excluded(upper))
}

/// Terms of one path inside the document.
struct Values<'a> {
    field: Field,
    path: &'a str,
}

impl Values<'_> {
    fn empty(&self) -> Term {
        Term::from_field_json_path(self.field, &self.path.replace('\\', "\\\\"), true)
    }

    fn text(&self, text: &str) -> Term {
        let mut term = self.empty();
        term.append_type_and_str(text);
        term
    }

    fn number<T: tantivy::fastfield::FastValue>(&self, number: T) -> Term {
        let mut term = self.empty();
        term.append_type_and_fast_value(number);
        term
    }

    fn equal(&self, text: &str) -> Vec<Built> {
        let mut queries = vec![term(self.text(text))];
        if let Ok(number) = text.parse::<i64>() {
            queries.push(term(self.number(number)));
        } else if let Ok(number) = text.parse::<u64>() {
            queries.push(term(self.number(number)));
        } else if let Some(number) = finite(text) {
            // Whole numbers are indexed as such, however they were written.
            let whole = number.fract() == 0.0 && number.abs() < 9e18;
            queries.push(term(if whole { self.number(number as i64) } else { self.number(number) }));
        } else if let Ok(flag) = text.parse::<bool>() {
            queries.push(term(self.number(flag)));
        }
        queries
    }

    fn times(&self, lower: Bound<i64>, upper: Bound<i64>) -> Built {
        let second = |nanos: i64| nanos.div_euclid(1_000_000_000) * 1_000_000_000;
        let at = |nanos: i64| self.number(DateTime::from_timestamp_nanos(second(nanos)));
        // A time to the second stands for all of its second.
        let upper = match upper {
            Bound::Excluded(nanos) => Bound::Included(at(nanos.saturating_sub(1))),
            Bound::Included(nanos) => Bound::Included(at(nanos)),
            Bound::Unbounded => Bound::Included(self.number(DateTime::MAX)),
        };
        let lower = match lower {
            Bound::Included(nanos) | Bound::Excluded(nanos) => Bound::Included(at(nanos)),
            Bound::Unbounded => Bound::Included(self.number(DateTime::MIN)),
        };
        between(lower, upper)
    }

    fn range(&self, lower: &Bound<String>, upper: &Bound<String>) -> Vec<Built> {
        let numeric = |bound: &Bound<String>| match bound {
            Bound::Included(text) | Bound::Excluded(text) => finite(text).is_some(),
            Bound::Unbounded => true,
        };
        if !numeric(lower) || !numeric(upper) {
            let mut end = self.empty();
            // The code of text, and one beyond any text.
            end.append_type_and_str("\u{10ffff}");
            let lower = match lower {
                Bound::Unbounded => Bound::Included(self.text("")),
                bound @ (Bound::Included(_) | Bound::Excluded(_)) => bound.as_ref().map(|text| self.text(text)),
            };
            let upper = match upper {
                Bound::Unbounded => Bound::Included(end),
                bound @ (Bound::Included(_) | Bound::Excluded(_)) => bound.as_ref().map(|text| self.text(text)),
            };
            return vec![between(lower, upper)];
        }
        vec![self.whole_numbers(lower, upper), self.huge_numbers(lower, upper), self.fractions(lower, upper)]
    }

    fn fractions(&self, lower: &Bound<String>, upper: &Bound<String>) -> Built {
        let number = |bound: &Bound<String>, open: f64| match bound {
            Bound::Included(text) => Bound::Included(self.number(finite(text).unwrap_or(open))),
            Bound::Excluded(text) => Bound::Excluded(self.number(finite(text).unwrap_or(open))),
            Bound::Unbounded => Bound::Included(self.number(open)),
        };
        between(number(lower, f64::MIN), number(upper, f64::MAX))
    }

    /// Whole numbers between, as `i128` so that no end overflows.
    fn whole(lower: &Bound<String>, upper: &Bound<String>) -> (i128, i128) {
        let exact = |text: &str| text.parse::<i128>().ok();
        let number = |text: &str| finite(text).unwrap_or_default();
        let least = match lower {
            Bound::Included(text) => exact(text).unwrap_or_else(|| number(text).ceil() as i128),
            Bound::Excluded(text) => exact(text).unwrap_or_else(|| number(text).floor() as i128).saturating_add(1),
            Bound::Unbounded => i128::MIN,
        };
        let greatest = match upper {
            Bound::Included(text) => exact(text).unwrap_or_else(|| number(text).floor() as i128),
            Bound::Excluded(text) => exact(text).unwrap_or_else(|| number(text).ceil() as i128).saturating_sub(1),
            Bound::Unbounded => i128::MAX,
        };
        (least, greatest)
    }

    fn whole_numbers(&self, lower: &Bound<String>, upper: &Bound<String>) -> Built {
        let (least, greatest) = Self::whole(lower, upper);
        let (least, greatest) = (least.max(i64::MIN.into()), greatest.min(i64::MAX.into()));
        match (i64::try_from(least), i64::try_from(greatest)) {
            (Ok(least), Ok(greatest)) if least <= greatest => {
                between(Bound::Included(self.number(least)), Bound::Included(self.number(greatest)))
            }
            _ => Box::new(EmptyQuery),
        }
    }

    /// Whole numbers that only an unsigned one can hold.
    fn huge_numbers(&self, lower: &Bound<String>, upper: &Bound<String>) -> Built {
        let (least, greatest) = Self::whole(lower, upper);
        let (least, greatest) = (least.max(i128::from(i64::MAX) + 1), greatest.min(u64::MAX.into()));
        match (u64::try_from(least), u64::try_from(greatest)) {
            (Ok(least), Ok(greatest)) if least <= greatest => {
                between(Bound::Included(self.number(least)), Bound::Included(self.number(greatest)))
            }
            _ => Box::new(EmptyQuery),
        }
    }
}

fn finite(text: &str) -> Option<f64> {
    let numeric = text.bytes().any(|byte| byte.is_ascii_digit());
    text.parse::<f64>().ok().filter(|number| numeric && number.is_finite())
}
