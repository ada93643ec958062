use std::fs;

use super::*;

const JANE: OwnWords<'_> = OwnWords {
    email: Some("jane.doe@example.com"),
    display_name: Some("Jane Doe"),
    given_name: Some("Jane"),
    family_name: Some("Doe"),
};

fn policy(config: &PolicyConfig) -> Policy {
    Policy::new(config).unwrap()
}

fn weakness(policy: &Policy, password: &str) -> Weakness {
    match policy.check(password, &JANE) {
        Err(CheckError::Weak(weakness)) => weakness,
        other => panic!("{password}: {other:?}"),
    }
}

#[test]
fn good_passwords_are_accepted_by_default() {
    let policy = policy(&PolicyConfig::default());
    for password in [
        "correct horse",
        "correct horse battery",
        "Tr0ub4dor&3",
        "blue coffee river 9",
        "gk3mzq8vwx2p7rhd5tnb",
        "qX7!mZ2#vL9@kR4$wP6%",
        "735194028617",
        "синий кофе река",
        "我喜欢喝蓝色咖啡",
        "\u{1f40e}\u{1f50b}\u{1f4ce}\u{2705}\u{1f30a}\u{2615}\u{1f308}\u{1f3b8}",
        "my friend jane likes blue coffee",
    ] {
        policy.check(password, &JANE).unwrap_or_else(|error| panic!("{password}: {error}"));
    }
}

#[test]
fn each_rule_has_its_kind_and_its_text() {
    let config = PolicyConfig { service_names: vec!["Drystone".to_owned()], ..PolicyConfig::default() };
    let policy = policy(&config);
    for (password, kind, text) in [
        ("rz7%kq1", "too_short", "the password is too short: use at least 8 characters"),
        ("Jane.Doe@Example.com", "own_word", "the password is the e-mail address or part of it; choose another one"),
        ("example-com", "own_word", "the password is the e-mail address or part of it; choose another one"),
        ("d r y s t o n e", "own_word", "the password is the name of this service or part of it; choose another one"),
        ("doe, jane", "own_word", "the password is the name of the account or part of it; choose another one"),
        (
            "janedoe1985",
            "similar_to_own_word",
            "the password is too similar to the e-mail address, a name of the account or the name of this service; \
             choose words that have nothing to do with them",
        ),
        ("Football", "common", "the password is one of the 100,000 commonest; choose another one"),
        (
            "zzzzzzzzzzzzzzzzzz",
            "guessable",
            "the password is easy to guess: it repeats a character; add another word or two; uncommon words are better",
        ),
        (
            "Summer2024!",
            "guessable",
            "the password is easy to guess: it is similar to a common password; add another word or two; uncommon \
             words are better; capital letters help little",
        ),
    ] {
        let weakness = weakness(&policy, password);
        assert_eq!((weakness.kind.name(), weakness.text.as_str()), (kind, text), "{password}");
        assert_eq!(weakness.to_string(), weakness.text);
    }
    assert_eq!(weakness(&policy, &"blue coffee ".repeat(22)).kind, WeaknessKind::TooLong);
}

#[test]
fn the_length_is_counted_in_code_points() {
    let config = PolicyConfig { minimum_score: 0, minimum_length: 10, ..PolicyConfig::default() };
    let policy = policy(&config);
    let horses = |count| "\u{1f40e}".repeat(count);
    assert_eq!(weakness(&policy, &horses(9)).kind, WeaknessKind::TooShort);
    policy.check(&horses(10), &JANE).unwrap();
    policy.check(&horses(256), &JANE).unwrap();
    assert_eq!(weakness(&policy, &horses(257)).kind, WeaknessKind::TooLong);
}

#[test]
fn a_leaked_password_is_refused_however_strong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leaked.filter");
    blocklist::build(b"blue coffee river 9\n".as_slice(), &path, None).unwrap();
    let policy = policy(&PolicyConfig { blocklist: Some(path.clone()), ..PolicyConfig::default() });
    let refused = weakness(&policy, "Blue Coffee River 9");
    assert_eq!(refused.kind, WeaknessKind::Leaked);
    assert_eq!(refused.text, "the password is in a list of passwords that have leaked; choose another one");
    policy.check("blue coffee river 8", &JANE).unwrap();

    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    let error = policy.check("blue coffee river 8", &JANE).unwrap_err();
    assert!(matches!(error, CheckError::Blocklist(_)), "not accepted unchecked");
}

#[test]
fn the_minimum_score_is_configurable() {
    let score = |minimum_score| policy(&PolicyConfig { minimum_score, ..PolicyConfig::default() });
    score(3).check("correct horse", &JANE).unwrap();
    let weak = weakness(&score(4), "correct horse").text;
    assert_eq!(weak, "the password is easy to guess: add another word or two; uncommon words are better");
    score(2).check("summer2024!", &JANE).unwrap();
    score(0).check("zzzzzzzzzzzzzzzzzz", &JANE).unwrap();
    // The blocklist and the own words are checked all the same.
    assert_eq!(weakness(&score(0), "football").kind, WeaknessKind::Common);
    assert_eq!(weakness(&score(0), "jane doe").kind, WeaknessKind::OwnWord);
}

#[test]
fn the_built_in_list_has_the_commonest_passwords() {
    let list = Blocklist::from_static(BUILT_IN_BLOCKLIST).unwrap();
    assert_eq!(list.entries(), 39_918);
    for password in ["12345678", "password", "Password1", "iloveyou", "1q2w3e4r"] {
        assert!(list.contains(password).unwrap(), "{password}");
    }
}

#[test]
fn an_invalid_configuration_is_reported_with_its_key() {
    PolicyConfig::default().check().unwrap();
    let default = PolicyConfig::default;
    let many = vec!["name".to_owned(); 9];
    for (config, key) in [
        (PolicyConfig { minimum_score: 5, ..default() }, "minimum_score"),
        (PolicyConfig { minimum_length: 7, ..default() }, "minimum_length"),
        (PolicyConfig { minimum_length: 65, ..default() }, "minimum_length"),
        (PolicyConfig { service_names: vec![String::new()], ..default() }, "service_names"),
        (PolicyConfig { service_names: vec!["x".repeat(65)], ..default() }, "service_names"),
        (PolicyConfig { service_names: many, ..default() }, "service_names"),
        (PolicyConfig { blocklist: Some("/nonexistent/list".into()), ..default() }, "/nonexistent/list"),
    ] {
        let error = Policy::new(&config).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    let config: PolicyConfig = toml::from_str("minimum_length = 15\nblocklist = \"/var/lib/list\"").unwrap();
    assert_eq!((config.minimum_length, config.minimum_score), (15, 3));
}

#[test]
fn no_error_has_the_password() {
    let policy = policy(&PolicyConfig::default());
    for password in ["jane.doe@example.com", "football", "zebra1990", "zzzzzzzzzz", "abc45"] {
        let error = policy.check(password, &JANE).unwrap_err();
        assert!(!format!("{error} {error:?} {policy:?}").contains(password), "{error}");
    }
}
