//! The language, as a table, and the promise that no text makes the parser panic.

use proptest::prelude::*;

use super::*;

/// A tree in one line: `level=error & !(text~"a b")`.
fn show(node: &Node) -> String {
    let join = |nodes: &[Node], by: &str| format!("({})", nodes.iter().map(show).collect::<Vec<_>>().join(by));
    match node {
        Node::All => "all".to_owned(),
        Node::Not(inner) => format!("!{}", show(inner)),
        Node::And(nodes) => join(nodes, " & "),
        Node::Or(nodes) => join(nodes, " | "),
        Node::Clause(clause) => {
            let field = clause.field.as_deref().map(|field| format!("{field}:")).unwrap_or_default();
            let end = |bound: &Bound<String>| match bound {
                Bound::Included(text) => format!("={text}"),
                Bound::Excluded(text) => format!("/{text}"),
                Bound::Unbounded => "*".to_owned(),
            };
            match &clause.matcher {
                Matcher::Value(text) => format!("{field}{text}"),
                Matcher::Exact(text) => format!("{field}'{text}'"),
                Matcher::Prefix(text) => format!("{field}{text}.."),
                Matcher::Range { lower, upper } => format!("{field}<{},{}>", end(lower), end(upper)),
                Matcher::Exists => format!("{field}?"),
            }
        }
    }
}

#[test]
fn queries_are_understood_so() {
    let table = [
        ("", "all"),
        ("  ", "all"),
        ("*", "all"),
        ("error", "error"),
        ("disk full", "(disk & full)"),
        ("disk AND full", "(disk & full)"),
        ("a OR b c", "(a | (b & c))"),
        ("(a OR b) c", "((a | b) & c)"),
        ("NOT a", "!a"),
        ("a NOT b", "(a & !b)"),
        ("a -b -\"c d\" -(e OR f)", "(a & !b & !'c d' & !(e | f))"),
        ("NOT NOT a", "!!a"),
        ("a - b", "(a & - & b)"),
        ("rm --force", "(rm & --force)"),
        ("\"disk full\"", "'disk full'"),
        (r#""say \"hi\" \\""#, r#"'say "hi" \'"#),
        ("level:error", "level:error"),
        ("log.file.path:\"/var/log/a b.log\"", "log.file.path:'/var/log/a b.log'"),
        ("labels.env:prod*", "labels.env:prod.."),
        ("trace.id:*", "trace.id:?"),
        ("http.response.status_code:[400 TO 499]", "http.response.status_code:<=400,=499>"),
        ("n:{1 TO 2}", "n:</1,/2>"),
        ("n:[* TO 2}", "n:<*,/2>"),
        ("n:[ \"a b\" TO * ]", "n:<=a b,*>"),
        ("@timestamp:[2015-05-17T10:05:03Z TO now-15m]", "@timestamp:<=2015-05-17T10:05:03Z,=now-15m>"),
        ("n:>5 m:>=6 o:<7 p:<=8", "(n:</5,*> & m:<=6,*> & o:<*,/7> & p:<*,=8>)"),
        ("level:(error OR fatal) x", "((level:error | level:fatal) & x)"),
        ("level:(error OR host:a)", "(level:error | host:a)"),
        ("http://example.com/a?b=c", "http://example.com/a?b=c"),
        ("10.251.73.220:50010", "10.251.73.220:50010"),
        ("13:53:08", "13:53:08"),
        (r"a\:b", "a:b"),
        (r"a\*", "a*"),
        (r"\(x\)", "(x)"),
        ("ORDER ANDROID NOTE or", "(ORDER & ANDROID & NOTE & or)"),
        ("user=root;", "user=root;"),
        ("[preauth]", "[preauth]"),
        ("Ärger 日本", "(Ärger & 日本)"),
    ];
    for (query, tree) in table {
        match parse(query) {
            Ok(node) => assert_eq!(show(&node), tree, "{query}"),
            Err(error) => panic!("{query}: {error}"),
        }
    }
}

#[test]
fn faults_are_named_with_their_place() {
    let table = [
        ("level:", 6, "a value is expected"),
        ("a (b OR", 7, "expected here"),
        ("a (b", 2, "never closed"),
        ("ä )", 2, "closes nothing"),
        ("a AND", 5, "expected here"),
        ("OR b", 0, "expected here"),
        ("a OR OR b", 5, "expected here"),
        ("()", 1, "expected here"),
        ("\"abc", 0, "never closed"),
        ("fo*o", 2, "only at the end"),
        ("*foo", 0, "only at the end"),
        ("n:[1 2]", 5, "TO is expected"),
        ("n:[1 TO ]", 8, "a value or `*`"),
        ("n:[1 TO 2", 2, "never closed"),
        ("n:>", 3, "a value or `*`"),
        ("NOT", 3, "expected here"),
    ];
    for (query, position, message) in table {
        let error = parse(query).expect_err(query);
        assert_eq!(error.position, position, "{query}: {error}");
        assert!(error.message.contains(message), "{query}: {error}");
        assert_eq!(error.query, query);
    }
}

#[test]
fn a_fault_is_shown_below_the_query() {
    let error = parse("a (b").unwrap_err();
    assert_eq!(error.to_string(), "this `(` is never closed; add a `)`\n  a (b\n    ^");
}

#[test]
fn depth_length_and_number_are_bounded() {
    let deep = format!("{}a{}", "(".repeat(DEPTH_MAX), ")".repeat(DEPTH_MAX));
    assert!(parse(&deep).is_ok());
    assert!(parse(&format!("({deep})")).unwrap_err().message.contains("deep"));
    assert!(parse(&"NOT ".repeat(100_000)).is_err());
    assert!(parse(&"-(".repeat(QUERY_CHARS_MAX / 2)).unwrap_err().message.contains("deep"));
    assert!(parse(&"a".repeat(QUERY_CHARS_MAX)).is_ok());
    assert!(parse(&"a".repeat(QUERY_CHARS_MAX + 1)).unwrap_err().message.contains("at most"));
    assert!(parse(&"a ".repeat(CLAUSES_MAX)).is_ok());
    assert!(parse(&"a ".repeat(CLAUSES_MAX + 1)).unwrap_err().message.contains("conditions"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_parser_panic_and_faults_lie_in_the_query(
        query in "(?s)([a-z@:.*\"()\\[\\]{}<>=\\\\ -]|AND |OR |NOT |TO |\\PC){0,40}",
    ) {
        if let Err(error) = parse(&query) {
            prop_assert!(error.position <= query.chars().count());
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
