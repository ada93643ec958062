use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::error::Reason;

const FIELDS: [Field; 4] = [
    Field { name: "status", kind: Kind::Choice(&["active", "disabled"]) },
    Field { name: "role", kind: Kind::Text },
    Field { name: "email", kind: Kind::Prefix },
    Field { name: "create_time", kind: Kind::Time },
];

const OPERATORS: [(&str, Operator); 5] = [
    ("=", Operator::Equal),
    ("<", Operator::Less),
    ("<=", Operator::LessOrEqual),
    (">", Operator::Greater),
    (">=", Operator::GreaterOrEqual),
];

fn term(field: &'static str, operator: Operator, value: Value) -> Term {
    Term { field, operator, value }
}

fn equal(field: &'static str, value: Value) -> Vec<Term> {
    vec![term(field, Operator::Equal, value)]
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn error(filter: &str) -> String {
    let error = parse(filter, &FIELDS).unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidRequest);
    error.to_string()
}

fn assert_errors(table: &[(&str, &str)]) {
    for (filter, expected) in table {
        let error = error(filter);
        assert!(error.contains(expected), "{filter}: {error}");
    }
}

#[test]
fn conditions_are_parsed_in_their_order() {
    let filter = r#" status=disabled AND email = "ada@*"  AND create_time >= "2026-01-31T00:00:00Z" AND create_time<'2026-02-01T00:00:00Z' "#;
    let expected = [
        term("status", Operator::Equal, Value::Choice("disabled")),
        term("email", Operator::Equal, Value::Prefix("ada@".to_owned())),
        term("create_time", Operator::GreaterOrEqual, Value::Time(time("2026-01-31T00:00:00Z"))),
        term("create_time", Operator::Less, Value::Time(time("2026-02-01T00:00:00Z"))),
    ];
    assert_eq!(parse(filter, &FIELDS).unwrap(), expected);
    for empty in ["", "  "] {
        assert_eq!(parse(empty, &FIELDS).unwrap(), []);
    }
}

#[test]
fn each_kind_has_its_values() {
    for (filter, expected) in [
        ("status = DISABLED", equal("status", Value::Choice("disabled"))),
        ("status = 'Active'", equal("status", Value::Choice("active"))),
        ("role = manager", equal("role", text("manager"))),
        ("role = 'AND'", equal("role", text("AND"))),
        (r#"role = "a \"b\" \\ 'c' *""#, equal("role", text(r#"a "b" \ 'c' *"#))),
        (r#"role = '\'a\' "b"'"#, equal("role", text(r#"'a' "b""#))),
        ("email = ada@example.com", equal("email", text("ada@example.com"))),
        ("email = ada*", equal("email", Value::Prefix("ada".to_owned()))),
    ] {
        assert_eq!(parse(filter, &FIELDS).unwrap(), expected, "{filter}");
    }
    for (text, operator) in OPERATORS {
        let expected = [term("create_time", operator, Value::Time(time("2026-01-31T00:00:00Z")))];
        assert_eq!(parse(&format!("create_time {text} \"2026-01-31T00:00:00Z\""), &FIELDS).unwrap(), expected);
    }
}

#[test]
fn times_are_converted_to_utc_and_truncated_to_microseconds() {
    for (given, expected) in [
        ("2026-01-31T01:00:00.1234569+01:00", "2026-01-31T00:00:00.123456Z"),
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
    ] {
        let parsed = parse(&format!("create_time = '{given}'"), &FIELDS).unwrap();
        assert_eq!(parsed, equal("create_time", Value::Time(time(expected))));
    }
}

#[test]
fn errors_say_what_is_expected_and_where() {
    assert_errors(&[
        (
            "name = x",
            "filter: at character 1, `name`: expected the name of a field: `status`, `role`, `email`, `create_time`",
        ),
        ("\"ada\"", "at character 1, `\"ada\"`: expected the name of a field"),
        ("status", "at character 7, the end: expected `=`, the only operator of `status`"),
        ("status > active", "at character 8, `>`: expected `=`, the only operator of `status`"),
        ("create_time ! x", "at character 13, `!`: expected `=`, `<`, `<=`, `>` or `>=`"),
        ("status =", "at character 9, the end: expected a value: a word, or text in quotes"),
        ("status == active", "at character 9, `=`: expected a value"),
        ("role = \"\"", "at character 8, `\"\"`: expected a value"),
        (
            "role = AND status = active",
            "at character 8, `AND`: expected a value; `AND`, `OR` and `NOT` are values only in quotes",
        ),
        ("status = gone", "at character 10, `gone`: expected one of `active`, `disabled`"),
        ("status = 'is gone'", "at character 10, `'is gone'`: expected one of `active`, `disabled`"),
        ("email = *", "at character 9, `*`: expected text before the `*`"),
        ("email = a*b", "at character 9, `a*b`: expected a `*` only at the end"),
        ("email = a**", "at character 9, `a**`: expected a `*` only at the end"),
        (
            "create_time = 2026-01-31",
            "at character 15, `2026-01-31`: expected a time in quotes with its offset from UTC, such as \"2026-",
        ),
        ("create_time = \"2026-01-31T00:00:00\"", "at character 15, `\"2026-01-31T00:00:00\"`: expected a time"),
        ("role = \"open text", "at character 8, `\"open text`: expected a closing \""),
        ("role = 'open\\'", "at character 8, `'open\\'`: expected a closing '"),
        ("role = \"é\\n\"", "at character 10, `\\`: expected a quote or a backslash after the backslash"),
        ("role = \"open\\", "at character 8, `\"open\\`: expected a closing \""),
        ("role = \"é\"x", "at character 11, `x`: expected a space or the end after the value"),
        ("status = active,disabled", "at character 16, `,`: expected a space or the end after the value"),
        ("status = active role = x", "at character 17, `role`: expected `AND`, in upper case"),
        ("status = active and role = x", "at character 17, `and`: expected `AND`, in upper case"),
        ("status = active AND", "at character 20, the end: expected a condition after `AND`"),
        ("status = active AND AND", "at character 21, `AND`: expected the name of a field"),
        ("status = active AND status = disabled", "at character 21, `status`: expected one condition on `status`"),
    ]);
}

#[test]
fn unsupported_constructs_are_named() {
    assert_errors(&[
        ("status = active OR role = x", "at character 17, `OR`: expected `AND`, in upper case; `OR` is not supported"),
        ("NOT status = active", "at character 1, `NOT`: expected the name of a field: "),
        ("NOT status = active", "; `NOT` is not supported"),
        ("-status = active", "at character 1, `-status`: expected the name of a field: "),
        (
            "role = x -status",
            "at character 10, `-status`: expected `AND`, in upper case; negation with `-` is not supported",
        ),
        ("(status = active)", "at character 1, `(`: expected the name of a field: "),
        ("(status = active)", "; parentheses are not supported"),
        (
            "status = active)",
            "at character 16, `)`: expected a space or the end after the value; parentheses are not supported",
        ),
        (
            "role = f(x)",
            "at character 9, `(`: expected a space or the end after the value; parentheses are not supported",
        ),
        ("regex(email, 'x')", "at character 1, `regex`: expected the name of a field: "),
        ("regex(email, 'x')", "; functions are not supported"),
        ("email:ada", "at character 6, `:`: expected `=`, the only operator of `email`; `:` is not supported"),
        ("status != active", "at character 8, `!`: expected `=`, the only operator of `status`; `!=` is not supported"),
        ("create_time != x", "at character 13, `!`: expected `=`, `<`, `<=`, `>` or `>=`; `!=` is not supported"),
    ]);
}

#[test]
fn the_number_of_conditions_is_limited() {
    let times = ["create_time > \"2026-01-31T00:00:00Z\""; 3].join(" AND ");
    assert_errors(&[(&times, "at character 83, `create_time`: expected at most two conditions on `create_time`")]);

    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let fields = names.map(|name| Field { name, kind: Kind::Text });
    let filter =
        |count: usize| names[..count].iter().map(|name| format!("{name} = x")).collect::<Vec<_>>().join(" AND ");
    assert_eq!(parse(&filter(8), &fields).unwrap().len(), 8);
    let error = parse(&filter(9), &fields).unwrap_err().to_string();
    assert!(error.contains("at character 81, `i`: expected at most 8 conditions"), "{error}");
}

#[test]
fn an_error_quotes_a_bounded_printable_part_of_the_filter() {
    for filter in ["x".repeat(100_000), format!("role = \"{}", "\u{202e}".repeat(100_000))] {
        assert!(error(&filter).len() < 400);
    }
    assert_errors(&[
        ("role = \u{202e}", r"at character 8, `\u{202e}`: expected a value"),
        ("role = \u{1b}[2J", r"at character 8, `\u{1b}`: expected a value"),
        ("status = \"a\nb\"", r#"at character 10, `"a\nb"`: expected a value without control characters"#),
    ]);
}

/// A text in quotes.
fn quoted(text: &str, mark: char) -> String {
    let text = text.replace('\\', "\\\\").replace(mark, &format!("\\{mark}"));
    format!("{mark}{text}{mark}")
}

fn render(terms: &[Term], mark: char, space: &str) -> String {
    let render = |term: &Term| {
        let (operator, _) = OPERATORS.into_iter().find(|(_, operator)| *operator == term.operator).unwrap();
        let value = match &term.value {
            Value::Choice(choice) => (*choice).to_owned(),
            Value::Text(text) => text.clone(),
            Value::Prefix(prefix) => format!("{prefix}*"),
            Value::Time(time) => time.to_rfc3339(),
        };
        format!("{}{space}{operator}{space}{}", term.field, quoted(&value, mark))
    };
    terms.iter().map(render).collect::<Vec<_>>().join(" AND ")
}

fn any_time() -> impl Strategy<Value = Term> {
    let years = time("0001-01-01T00:00:00Z").timestamp_micros()..time("9999-12-31T00:00:00Z").timestamp_micros();
    (years, select(&OPERATORS)).prop_map(|(micros, (_, operator))| {
        term("create_time", operator, Value::Time(DateTime::from_timestamp_micros(micros).unwrap()))
    })
}

fn any_terms() -> impl Strategy<Value = Vec<Term>> {
    let status = select(&["active", "disabled"]).prop_map(|choice| equal("status", Value::Choice(choice)));
    let role = "\\PC{1,40}".prop_map(|text| equal("role", Value::Text(text)));
    let email = ("[^*\\p{C}]{1,40}", any::<bool>())
        .prop_map(|(text, is_prefix)| equal("email", if is_prefix { Value::Prefix(text) } else { Value::Text(text) }));
    let times = vec(any_time(), 0..=2);
    let others = prop_oneof![status.clone(), role.clone(), email.clone()];
    prop_oneof![
        others.prop_map(|terms| vec![terms]),
        (status, role, email, times).prop_map(|(status, role, email, times)| vec![status, role, email, times]),
    ]
    .prop_map(|terms| terms.concat())
    .prop_shuffle()
}

proptest! {
    #[test]
    fn rendered_terms_are_parsed_to_the_same_terms(
        terms in any_terms(),
        mark in select(&['"', '\'']),
        space in select(&["", " ", "\t "]),
    ) {
        prop_assert_eq!(parse(&render(&terms, mark, space), &FIELDS).unwrap(), terms);
    }

    #[test]
    fn parsing_never_panics(filter in "(?s).*") {
        let _ = parse(&filter, &FIELDS);
    }

    #[test]
    fn almost_filters_never_panic(words in vec(
        select(&[
            "status", "role", "email", "create_time", "AND", "OR", "=", ">=", "!=", ":", "(", ")", "\"", "'", "\\", "*",
            " ", "\u{a0}", "é", "active", "'x'", "\"2026-01-31T00:00:00Z\"",
        ]),
        0..16,
    )) {
        let _ = parse(&words.concat(), &FIELDS);
    }
}
