//! The parser: recursive descent over characters, bounded in depth, length and number of clauses.

use std::ops::Bound;

use super::{CLAUSES_MAX, Clause, DEPTH_MAX, Matcher, Node, QUERY_CHARS_MAX, QueryError};

/// Reads a query.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(query: &str) -> Result<Node, QueryError> {
    let chars: Vec<char> = query.chars().take(QUERY_CHARS_MAX + 1).collect();
    let mut parser = Parser { query, chars: &chars, at: 0, depth: 0, clauses: 0 };
    if chars.len() > QUERY_CHARS_MAX {
        return Err(parser.error(QUERY_CHARS_MAX, format!("a query has at most {QUERY_CHARS_MAX} characters")));
    }
    parser.skip_space();
    if parser.at == chars.len() {
        return Ok(Node::All);
    }
    let node = parser.either(None)?;
    match parser.peek() {
        None => Ok(node),
        Some(')') => Err(parser.error(parser.at, "this `)` closes nothing; remove it, or put the text in quotes")),
        Some(other) => Err(parser.error(parser.at, format!("`{other}` was not expected here"))),
    }
}

struct Parser<'a> {
    query: &'a str,
    chars: &'a [char],
    at: usize,
    depth: usize,
    clauses: usize,
}

/// A run of characters with backslashes resolved.
struct Word {
    text: String,
    /// It ended with a `*` that was not taken literally.
    open: bool,
    position: usize,
}

impl Parser<'_> {
    fn error(&self, position: usize, message: impl Into<String>) -> QueryError {
        QueryError::new(self.query, position, message)
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn peek_second(&self) -> Option<char> {
        self.chars.get(self.at + 1).copied()
    }

    fn take(&mut self, expected: char) -> bool {
        let taken = self.peek() == Some(expected);
        self.at += usize::from(taken);
        taken
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Takes a word of the language, which must stand alone.
    fn keyword(&mut self, word: &str) -> bool {
        let end = self.at + word.len();
        let stands_alone = self.chars.get(end).is_none_or(|next| next.is_whitespace() || "()\"".contains(*next));
        let matches = self.chars.get(self.at..end).is_some_and(|chars| chars.iter().copied().eq(word.chars()));
        if matches && stands_alone {
            self.at = end;
            self.skip_space();
        }
        matches && stands_alone
    }

    fn either(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let mut nodes = vec![self.all(field)?];
        while self.keyword("OR") {
            nodes.push(self.all(field)?);
        }
        Ok(flatten(nodes, Node::Or))
    }

    fn all(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let mut nodes = vec![self.one(field)?];
        loop {
            let joined = self.keyword("AND");
            let ends = matches!(self.peek(), None | Some(')'));
            let or_follows = {
                let at = self.at;
                let follows = self.keyword("OR");
                self.at = at;
                follows
            };
            if !joined && (ends || or_follows) {
                return Ok(flatten(nodes, Node::And));
            }
            nodes.push(self.one(field)?);
        }
    }

    fn one(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let begin = self.at;
        // A dash alone, and options like `--force`, are words.
        let negates = |next: char| !next.is_whitespace() && next != '-';
        let dashed = self.peek() == Some('-') && self.peek_second().is_some_and(negates);
        if self.keyword("NOT") || (dashed && self.take('-')) {
            return self.deeper(begin, |parser| Ok(Node::Not(Box::new(parser.one(field)?))));
        }
        let node = match self.peek() {
            Some('(') => self.deeper(begin, |parser| parser.parentheses(field))?,
            None | Some(')') => return Err(self.expected_condition()),
            Some(_) => {
                let at = self.at;
                if self.keyword("AND") || self.keyword("OR") {
                    self.at = at;
                    return Err(self.expected_condition());
                }
                self.clause(field)?
            }
        };
        self.skip_space();
        Ok(node)
    }

    fn expected_condition(&self) -> QueryError {
        self.error(self.at, "a word, a \"phrase\" or field:value is expected here")
    }

    fn deeper<T>(
        &mut self,
        begin: usize,
        inner: impl FnOnce(&mut Self) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(begin, format!("nested more than {DEPTH_MAX} deep; make the query simpler")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn parentheses(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let begin = self.at;
        self.take('(');
        self.skip_space();
        let node = self.either(field)?;
        if self.take(')') { Ok(node) } else { Err(self.error(begin, "this `(` is never closed; add a `)`")) }
    }

    fn clause(&mut self, outer: Option<&str>) -> Result<Node, QueryError> {
        self.clauses += 1;
        if self.clauses > CLAUSES_MAX {
            return Err(self.error(self.at, format!("more than {CLAUSES_MAX} conditions; make the query simpler")));
        }
        let own = self.field();
        let field = own.as_deref().or(outer);
        let position = self.at;
        let clause = |matcher| Node::Clause(Clause { field: field.map(str::to_owned), matcher, position });
        let matcher = match self.peek() {
            Some('"') => Matcher::Exact(self.quoted()?),
            Some('(') if own.is_some() => return self.deeper(position, |parser| parser.parentheses(field)),
            Some('[' | '{') if field.is_some() => self.range()?,
            Some('>' | '<') if field.is_some() => self.comparison()?,
            _ => {
                let word = self.word("()\"", true)?;
                match (word.text.is_empty(), word.open, field) {
                    (true, true, None) => return Ok(Node::All),
                    (true, true, Some(_)) => Matcher::Exists,
                    (true, false, _) => {
                        let name = field.unwrap_or_default();
                        let message =
                            format!("a value is expected after `{name}:`; `{name}:*` finds where it is there");
                        return Err(self.error(position, message));
                    }
                    (false, true, _) => Matcher::Prefix(word.text),
                    (false, false, _) => Matcher::Value(word.text),
                }
            }
        };
        Ok(clause(matcher))
    }

    /// Takes `name:`, if a field's name stands here.
    fn field(&mut self) -> Option<String> {
        let first = self.peek()?;
        if !(first.is_alphabetic() || first == '_' || first == '@') {
            return None;
        }
        let mut name = String::new();
        let mut at = self.at;
        loop {
            match *self.chars.get(at)? {
                '\\' => {
                    at += 1;
                    name.push(*self.chars.get(at)?);
                }
                ':' => break,
                other if other.is_whitespace() || "()\"[]{}<>=,;*".contains(other) => return None,
                other => name.push(other),
            }
            at += 1;
        }
        if self.chars[at + 1..].starts_with(&['/', '/']) {
            return None;
        }
        self.at = at + 1;
        Some(name)
    }

    fn quoted(&mut self) -> Result<String, QueryError> {
        let begin = self.at;
        self.take('"');
        let mut text = String::new();
        loop {
            let Some(next) = self.peek() else {
                return Err(self.error(begin, "this quote is never closed; add a `\"`"));
            };
            self.at += 1;
            match (next, self.peek()) {
                ('"', _) => return Ok(text),
                ('\\', Some(escaped)) => {
                    text.push(escaped);
                    self.at += 1;
                }
                _ => text.push(next),
            }
        }
    }

    /// Takes characters up to white space or one of `ends`.
    fn word(&mut self, ends: &str, stars: bool) -> Result<Word, QueryError> {
        let mut word = Word { text: String::new(), open: false, position: self.at };
        while let Some(next) = self.peek() {
            if next.is_whitespace() || ends.contains(next) {
                break;
            }
            if word.open {
                let message = "a `*` may stand only at the end of a word; write `\\*` for the character itself";
                return Err(self.error(self.at - 1, message));
            }
            self.at += 1;
            match next {
                '\\' => match self.peek() {
                    Some(escaped) => {
                        word.text.push(escaped);
                        self.at += 1;
                    }
                    None => word.text.push('\\'),
                },
                '*' if stars => word.open = true,
                other => word.text.push(other),
            }
        }
        Ok(word)
    }

    fn range(&mut self) -> Result<Matcher, QueryError> {
        let begin = self.at;
        let includes_lower = self.peek() == Some('[');
        self.at += 1;
        let lower = self.bound("]}", includes_lower)?;
        if !self.keyword("TO") {
            let message = "a range is written [a TO b], with `*` for an open end: TO is expected here";
            return Err(self.error(self.at, message));
        }
        let at = self.at;
        let (text, open) = self.bound_text("]}")?;
        let includes_upper = match self.peek() {
            Some(']') => true,
            Some('}') => false,
            _ => return Err(self.error(begin, "this range is never closed; add a `]`")),
        };
        self.at += 1;
        let upper = self.make_bound(text, open, includes_upper, at)?;
        Ok(Matcher::Range { lower, upper })
    }

    fn bound(&mut self, ends: &str, included: bool) -> Result<Bound<String>, QueryError> {
        self.skip_space();
        let at = self.at;
        let (text, open) = self.bound_text(ends)?;
        self.make_bound(text, open, included, at)
    }

    fn bound_text(&mut self, ends: &str) -> Result<(String, bool), QueryError> {
        self.skip_space();
        let read = if self.peek() == Some('"') {
            (self.quoted()?, false)
        } else {
            let word = self.word(ends, false)?;
            let open = word.text == "*" && self.at == word.position + 1;
            (word.text, open)
        };
        self.skip_space();
        Ok(read)
    }

    fn make_bound(&self, text: String, open: bool, included: bool, at: usize) -> Result<Bound<String>, QueryError> {
        match (open, included) {
            (true, _) => Ok(Bound::Unbounded),
            (false, _) if text.is_empty() => Err(self.error(at, "a value or `*` is expected here")),
            (false, true) => Ok(Bound::Included(text)),
            (false, false) => Ok(Bound::Excluded(text)),
        }
    }

    fn comparison(&mut self) -> Result<Matcher, QueryError> {
        let less = self.peek() == Some('<');
        self.at += 1;
        let included = self.take('=');
        let at = self.at;
        let text = match self.peek() {
            Some('"') => self.quoted()?,
            _ => self.word("()\"", false)?.text,
        };
        let bound = self.make_bound(text, false, included, at)?;
        Ok(match less {
            true => Matcher::Range { lower: Bound::Unbounded, upper: bound },
            false => Matcher::Range { lower: bound, upper: Bound::Unbounded },
        })
    }
}

fn flatten(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    match nodes.len() {
        1 => nodes.remove(0),
        _ => many(nodes),
    }
}
