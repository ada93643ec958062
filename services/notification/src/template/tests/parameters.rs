use super::{DEFINITION, ENGLISH, built_in, load, news, with};
use crate::template::{ParameterError, Template};

fn check(template: &Template, name: &str, value: &str) -> Result<(), ParameterError> {
    let parameters = with(template.samples(), &[(name, value)]);
    template.check(&parameters).map(|_| ())
}

#[test]
fn parameters_are_exactly_those_of_the_template() {
    let templates = news(ENGLISH);
    let template = templates.get("news").unwrap();
    let mut parameters = template.samples();
    parameters.remove("word");
    assert_eq!(template.check(&parameters).unwrap_err(), ParameterError::Missing("word".to_owned()));
    let error = check(template, "wörd\n", "").unwrap_err();
    assert_eq!(error.to_string(), "parameter `wörd\\n` is unknown to this template");
    assert_eq!(check(template, &"x".repeat(99), ""), Err(ParameterError::Unknown("x".repeat(32))));
}

#[test]
fn parameters_are_bounded() {
    let templates = news(ENGLISH);
    let template = templates.get("news").unwrap();
    assert_eq!(check(template, "word", &"é".repeat(128)), Ok(()));
    let error = check(template, "word", &"é".repeat(129)).unwrap_err();
    assert_eq!(error.to_string(), "parameter `word` has more than 256 bytes");

    let definition = (0..9).fold(DEFINITION.to_owned(), |text, index| {
        format!("{text}[parameters.p{index}]\nkind = \"text\"\nmax_length = 2048\nsample = \"\"\n")
    });
    let templates = load(&[("news/template.toml", &definition), ("news/en.toml", ENGLISH)]).unwrap();
    let template = templates.get("news").unwrap();
    let mut parameters = template.samples();
    for index in 0..8 {
        assert!(template.check(&parameters).is_ok());
        parameters.insert(format!("p{index}"), "x".repeat(2048));
    }
    assert_eq!(template.check(&parameters).unwrap_err(), ParameterError::TooLarge);
}

#[test]
fn texts_are_one_line() {
    let templates = news(ENGLISH);
    let template = templates.get("news").unwrap();
    for value in ["", "李小龍", "a\u{a0}b", "<b>"] {
        assert_eq!(check(template, "word", value), Ok(()));
    }
    for value in ["a\r\nBcc: x@example.com", "a\nb", "a\rb", "\t", "\0", "\u{85}", "\u{2028}", "\u{2029}", "\u{7f}"] {
        let error = check(template, "word", value).unwrap_err();
        assert_eq!(error.to_string(), "parameter `word` must be one line without control characters", "{value:?}");
    }
}

#[test]
fn urls_are_absolute_and_without_user_info() {
    let templates = news(ENGLISH);
    let template = templates.get("news").unwrap();
    for value in ["https://example.com", "http://localhost:8080/a?b=c&d=%20#e", "https://[::1]/@a", "https://a/'(*)'"] {
        assert_eq!(check(template, "link", value), Ok(()), "{value}");
    }
    let scheme = "must begin with https:// or http://";
    let characters = "must be a URL in the characters of RFC 3986; percent-encode others";
    let user_info = "must be a URL without user info";
    let host = "must be a URL with a valid host";
    for (value, expected) in [
        ("", scheme),
        ("javascript:alert(1)", scheme),
        ("data:text/html,x", scheme),
        ("//example.com", scheme),
        ("/path", scheme),
        (" https://example.com", scheme),
        ("https:example.com", scheme),
        ("https://example.com/\"onclick=\"", characters),
        ("https://example.com/<b>", characters),
        ("https://example.com/é", characters),
        ("https://example.com/a b", characters),
        ("https://example.com/\r\n", characters),
        ("https://example.com\\@example.org", characters),
        ("https://user@example.com/", user_info),
        ("https://user:password@example.com", user_info),
        ("https://@example.com", user_info),
        ("https://", host),
        ("https:///example.com", host),
        ("https://?a", host),
        ("https://example.com:99999/", host),
        ("https://[::1/", host),
    ] {
        let error = ParameterError::Invalid { name: "link".to_owned(), reason: expected };
        assert_eq!(check(template, "link", value), Err(error), "{value:?}");
    }
}

#[test]
fn times_are_short_texts() {
    let templates = built_in();
    let template = templates.get("password_changed").unwrap();
    for value in ["2026-01-31T12:00:00.123456Z", "unknown"] {
        assert_eq!(check(template, "time", value), Ok(()));
    }
    for value in ["", "12:00\n", &"1".repeat(41)] {
        let error = check(template, "time", value).unwrap_err();
        assert_eq!(error.to_string(), "parameter `time` must be a time in one line of 1 to 40 characters");
    }
}

#[test]
fn public_parameters_are_without_secrets() {
    let templates = built_in();
    let template = templates.get("email_changed").unwrap();
    let samples = template.samples();
    let message = template.check(&samples).unwrap();
    assert!(template.has_secrets());
    assert_eq!(message.template().name(), "email_changed");
    assert!(message.public_parameters().into_iter().eq([("days", "7"), ("new_email", "ada@example.org")]));
    assert!(!templates.get("address_taken").unwrap().has_secrets());
}
