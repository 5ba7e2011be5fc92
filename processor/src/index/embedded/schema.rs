//! How a document lies in tantivy: fields, and how text becomes terms.
//!
//! | field | holds | for |
//! |---|---|---|
//! | `_id` | the id's 16 bytes, stored | the answer; telling a document from one with the same key |
//! | `_key` | the id's first 8 bytes as a number | looking up and deleting by id |
//! | `_index`, `log.level`, `host.name`, `service.name`, `event.dataset`, `log.file.path` | one term each, also as a column | exact match, counting by value |
//! | `@timestamp` | nanoseconds, a column | order and time ranges |
//! | `_seq` | a number that grows with each document written, a column | breaking ties of time; views that stay as they were |
//! | `message`, `event.original` | words in lower case, with positions | words and phrases |
//! | `document` | everything else as path and value, numbers typed | `field:value` and ranges |
//! | `_shape` | the paths that the document has, all in one term | `field:*` |
//! | `_body` | the document's JSON, stored | the answer |
//!
//! Unique terms cost the most, in building the dictionary of terms and in every merge, and an id is one for each
//! document: hence the short key. At a billion documents in a directory, the chance that a given document's key belongs
//! to another one too is 5 in 10^11; where that could lose a document, the whole id is compared. Documents of one kind share their
//! shape: one term for all, found by reading the few shapes that there are, instead of a term for each path of each document.
//!
//! A change to this schema or to the tokenizers makes old days unreadable or their answers wrong: it needs a new
//! [`VERSION`], and old days are read by the code that knows theirs.

use logmesh_proto::RecordId;
use tantivy::Term;
use tantivy::schema::{
    DateOptions, DateTimePrecision, FAST, Field, IndexRecordOption, JsonObjectOptions, NumericOptions, STORED, Schema,
    TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{TextAnalyzer, Token, TokenStream, Tokenizer, TokenizerManager};

/// Version of schema and tokenizers, kept in every commit.
pub(crate) const VERSION: u8 = 2;

/// Longest word, in bytes, that is kept whole; of a longer one the beginning is indexed and searched.
pub(crate) const WORD_BYTES_MAX: usize = 64;

/// Longest term of a shape, in bytes; more paths make several terms.
const SHAPE_BYTES_MAX: usize = 32 << 10;

/// Longest value of a keyword, in bytes; a longer one is in the document but cannot be searched by `field:value`.
pub(crate) const KEYWORD_BYTES_MAX: usize = 4096;

const WORDS: &str = "words";
const KEYWORD: &str = "keyword";
const SHAPES: &str = "shapes";

/// The fields of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) id: Field,
    pub(crate) key: Field,
    pub(crate) index: Field,
    pub(crate) level: Field,
    pub(crate) host: Field,
    pub(crate) service: Field,
    pub(crate) dataset: Field,
    pub(crate) path: Field,
    pub(crate) timestamp: Field,
    pub(crate) sequence: Field,
    pub(crate) message: Field,
    pub(crate) original: Field,
    pub(crate) document: Field,
    pub(crate) shape: Field,
    pub(crate) body: Field,
}

/// The fields; the same for every day.
pub(crate) fn schema_fields() -> Fields {
    static FIELDS: std::sync::LazyLock<Fields> = std::sync::LazyLock::new(|| schema().1);
    *FIELDS
}

/// The number by which a document is looked up: the beginning of its id.
pub(crate) fn key_number(id: &RecordId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The term by which a document is looked up.
pub(crate) fn key_term(fields: Fields, id: &RecordId) -> Term {
    Term::from_field_u64(fields.key, key_number(id))
}

/// Name of the column of times.
pub(crate) const TIMESTAMP: &str = "@timestamp";
/// Name of the column of sequence numbers.
pub(crate) const SEQUENCE: &str = "_seq";

/// Builds the schema; the same one each time.
pub(crate) fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let terms = |tokenizer: &str, record| {
        TextFieldIndexing::default().set_tokenizer(tokenizer).set_index_option(record).set_fieldnorms(false)
    };
    let keyword =
        || TextOptions::default().set_indexing_options(terms(KEYWORD, IndexRecordOption::Basic)).set_fast("raw");
    let words = || TextOptions::default().set_indexing_options(terms(WORDS, IndexRecordOption::WithFreqsAndPositions));
    let fields = Fields {
        id: builder.add_bytes_field("_id", STORED),
        key: builder.add_u64_field("_key", NumericOptions::default().set_indexed()),
        index: builder.add_text_field("_index", keyword().set_stored()),
        level: builder.add_text_field("log.level", keyword()),
        host: builder.add_text_field("host.name", keyword()),
        service: builder.add_text_field("service.name", keyword()),
        dataset: builder.add_text_field("event.dataset", keyword()),
        path: builder.add_text_field("log.file.path", keyword()),
        timestamp: builder
            .add_date_field(TIMESTAMP, DateOptions::default().set_fast().set_precision(DateTimePrecision::Nanoseconds)),
        sequence: builder.add_u64_field(SEQUENCE, FAST),
        message: builder.add_text_field("message", words()),
        original: builder.add_text_field("event.original", words()),
        document: builder.add_json_field(
            "document",
            JsonObjectOptions::default()
                .set_indexing_options(terms(KEYWORD, IndexRecordOption::Basic))
                .set_expand_dots_enabled(),
        ),
        shape: builder.add_text_field(
            "_shape",
            TextOptions::default().set_indexing_options(terms(SHAPES, IndexRecordOption::Basic)),
        ),
        // As text, which tantivy copies whole; bytes it would copy one by one.
        body: builder.add_text_field("_body", STORED),
    };
    (builder.build(), fields)
}

/// The tokenizers that the schema names.
pub(crate) fn tokenizers() -> TokenizerManager {
    let manager = TokenizerManager::default();
    manager.register(WORDS, TextAnalyzer::from(Words::default()));
    manager.register(KEYWORD, TextAnalyzer::from(Keyword::default()));
    manager.register(SHAPES, TextAnalyzer::from(Shapes::default()));
    manager
}

/// The words of a text as the index knows them, in order: for queries.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut tokenizer = Words::default();
    let mut stream = tokenizer.token_stream(text);
    let mut words = Vec::new();
    while stream.advance() {
        words.push(stream.token().text.clone());
    }
    words
}

/// Splits at whatever is neither letter nor digit, and writes the words in lower case.
#[derive(Clone, Default)]
struct Words {
    token: Token,
}

struct WordStream<'a> {
    rest: &'a str,
    offset: usize,
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { rest: text, offset: 0, token: &mut self.token }
    }
}

impl WordStream<'_> {
    fn take(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
        self.offset += bytes;
    }
}

/// Length of the run at the start of `text` whose characters are (or are not) part of a word.
fn run(text: &str, of_word: bool) -> usize {
    let bytes = text.as_bytes();
    let mut length = bytes.iter().take_while(|byte| byte.is_ascii() && byte.is_ascii_alphanumeric() == of_word).count();
    while let Some(next) = text[length..].chars().next() {
        if next.is_alphanumeric() != of_word {
            break;
        }
        length += next.len_utf8();
    }
    length
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        self.take(run(self.rest, false));
        if self.rest.is_empty() {
            return false;
        }
        let length = run(self.rest, true);
        let (word, kept) = (&self.rest[..length], self.rest.floor_char_boundary(length.min(WORD_BYTES_MAX)));
        self.token.text.clear();
        if word.is_ascii() {
            self.token.text.push_str(&word[..kept]);
            self.token.text.make_ascii_lowercase();
        } else {
            self.token.text.extend(word[..kept].chars().flat_map(char::to_lowercase));
        }
        self.token.position = self.token.position.wrapping_add(1);
        self.token.offset_from = self.offset;
        self.token.offset_to = self.offset + length;
        self.take(length);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// The whole text as one term; nothing when it is longer than [`KEYWORD_BYTES_MAX`].
#[derive(Clone, Default)]
struct Keyword {
    token: Token,
}

/// Lines, each with a line feed before and behind it, in as few terms as may be; every term begins and ends with one.
#[derive(Clone, Default)]
struct Shapes {
    token: Token,
}

/// Pieces of a shape: consecutive ones share the line feed between them.
struct ShapePieces<'a>(&'a str);

impl<'a> Iterator for ShapePieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let bounded = &self.0[..self.0.floor_char_boundary(SHAPE_BYTES_MAX)];
        // A path that is too long for a term ends the shape; so does the last line feed, alone.
        let end = bounded.rfind('\n').filter(|end| *end > 0)?;
        let piece = &self.0[..=end];
        self.0 = &self.0[end..];
        Some(piece)
    }
}

/// Terms that are pieces of the text as they stand.
struct PieceStream<'a, Pieces> {
    pieces: Pieces,
    token: &'a mut Token,
}

impl Tokenizer for Keyword {
    type TokenStream<'a> = PieceStream<'a, std::option::IntoIter<&'a str>>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Self::TokenStream<'a> {
        self.token.reset();
        PieceStream { pieces: (text.len() <= KEYWORD_BYTES_MAX).then_some(text).into_iter(), token: &mut self.token }
    }
}

impl Tokenizer for Shapes {
    type TokenStream<'a> = PieceStream<'a, ShapePieces<'a>>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Self::TokenStream<'a> {
        self.token.reset();
        PieceStream { pieces: ShapePieces(text), token: &mut self.token }
    }
}

impl<'a, Pieces: Iterator<Item = &'a str>> TokenStream for PieceStream<'a, Pieces> {
    fn advance(&mut self) -> bool {
        let Some(piece) = self.pieces.next() else { return false };
        self.token.text.clear();
        self.token.text.push_str(piece);
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        assert_eq!(
            words("GET /Index.html?q=Ärger_1 10.2.3.4"),
            ["get", "index", "html", "q", "ärger", "1", "10", "2", "3", "4"]
        );
        assert_eq!(words(" -- \u{a0}"), Vec::<String>::new());
        assert_eq!(words("日本語 ログ"), ["日本語", "ログ"]);
    }

    #[test]
    fn of_a_long_word_the_beginning_is_kept() {
        let long = "a".repeat(WORD_BYTES_MAX + 10);
        assert_eq!(words(&long), ["a".repeat(WORD_BYTES_MAX)]);
        let umlauts = "ä".repeat(WORD_BYTES_MAX);
        assert_eq!(words(&umlauts), ["ä".repeat(WORD_BYTES_MAX / 2)]);
    }

    #[test]
    fn a_keyword_is_one_term_unless_it_is_too_long() {
        let mut keyword = Keyword::default();
        let mut terms = |text: &str| {
            let mut stream = keyword.token_stream(text);
            let mut terms = Vec::new();
            while stream.advance() {
                terms.push(stream.token().text.clone());
            }
            terms
        };
        assert_eq!(terms("two Words\nand lines"), ["two Words\nand lines"]);
        assert_eq!(terms(""), [""]);
        assert_eq!(terms(&"x".repeat(KEYWORD_BYTES_MAX + 1)), Vec::<String>::new());
    }

    #[test]
    fn a_shape_is_one_term_and_a_huge_one_is_cut_between_lines() {
        assert_eq!(ShapePieces("\na\na.b\nc\n").collect::<Vec<_>>(), ["\na\na.b\nc\n"]);
        assert_eq!(ShapePieces("\n").count() + ShapePieces("").count(), 0);
        let paths: Vec<String> = (0..9000).map(|n| format!("fields.key-{n}")).collect();
        let shape = format!("\n{}\n", paths.join("\n"));
        let pieces: Vec<&str> = ShapePieces(&shape).collect();
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= SHAPE_BYTES_MAX));
        for path in paths {
            let line = format!("\n{path}\n");
            assert_eq!(pieces.iter().filter(|piece| piece.contains(&line)).count(), 1, "{path}");
        }
    }
}
