use std::{fs, os::unix::fs::symlink};

use super::{DEFINITION, ENGLISH, built_in, error_of, folder, load, load_error, load_folder, mail, write};
use crate::template::{Channel, LoadError, Templates, source::MAX_FILE_BYTES};

/// The error of the template `news` with these files.
fn news_error(definition: &str, english: &str) -> String {
    load_error(&[("news/template.toml", definition), ("news/en.toml", english)])
}

#[test]
fn product_and_default_locale_are_checked() {
    for product in ["", " ", "a\nb", &"x".repeat(65)] {
        assert!(matches!(Templates::load(product, "en", None), Err(LoadError::Product)), "{product:?}");
    }
    assert!(Templates::load("Drystone", "de-AT", None).is_ok());
    let error = Templates::load("Drystone", "fr", None).unwrap_err();
    let expected = "no template has the default locale `fr`; add a file such as new_device/fr.toml, or choose another";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn folder_that_cannot_be_read_is_an_error() {
    let folder = folder(&[]);
    let path = folder.path().join("none");
    let error = load_folder(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read {}: ", path.display())), "{error}");
    assert!(error.ends_with("; check the path and its permissions"), "{error}");
    symlink("nowhere", folder.path().join("layout.txt")).unwrap();
    assert!(error_of(folder.path()).starts_with("cannot read layout.txt: "));
}

#[test]
fn unknown_files_are_refused() {
    let expected = "unknown file; expected layout.txt, layout.html, or TEMPLATE/template.toml and TEMPLATE/LOCALE.toml";
    for path in
        ["README.md", "new_device/english.toml", "new_device/en.toml~", "new_device/de/x", "new_device/en_GB.toml"]
    {
        let reported = path.strip_suffix("/x").unwrap_or(path);
        assert_eq!(load_error(&[(path, "")]), format!("{reported}: {expected}"));
    }
    for name in ["New", "1st", "a b", &"x".repeat(33)] {
        let expected = "not a name of a template: use a letter, then up to 31 of `a-z 0-9 _ -`";
        assert_eq!(load_error(&[(&format!("{name}/en.toml"), "")]), format!("{name}: {expected}"));
    }
}

#[test]
fn names_with_a_leading_dot_are_ignored() {
    let files = [("..data/new_device/x", ""), (".git", ""), ("new_device/.en.toml.swp", "")];
    assert!(load(&files).is_ok());
}

#[test]
fn symbolic_links_are_followed() {
    let folder = folder(&[("..data/news/template.toml", DEFINITION), ("..data/news/en.toml", ENGLISH)]);
    symlink("..data/news", folder.path().join("news")).unwrap();
    assert!(load_folder(folder.path()).unwrap().get("news").is_some());
}

#[test]
fn files_are_bounded_text() {
    let folder = folder(&[("layout.txt", &" ".repeat(usize::try_from(MAX_FILE_BYTES).unwrap() + 1))]);
    assert_eq!(error_of(folder.path()), "layout.txt: more than 65536 bytes; shorten it");
    write(folder.path(), "layout.txt", b"\xff");
    assert_eq!(error_of(folder.path()), "layout.txt: not UTF-8; save it in this encoding");
}

#[test]
fn templates_and_locales_are_bounded() {
    let dir = folder(&[]);
    for index in 0..200 {
        fs::create_dir(dir.path().join(format!("t{index:03}"))).unwrap();
    }
    let built_in = built_in().iter().count();
    assert_eq!(error_of(dir.path()), format!("t{}: more than 200 templates; remove some", 200 - built_in));

    let dir = folder(&[]);
    for index in 0..49 {
        write(dir.path(), &format!("new_device/aa-{index:02}.toml"), b"");
    }
    assert_eq!(error_of(dir.path()), "new_device/aa-48.toml: more than 50 locales; remove some");
}

#[test]
fn two_files_of_one_locale_are_refused() {
    let files = [("new_device/de-CH.toml", ENGLISH), ("new_device/de-ch.toml", ENGLISH)];
    let expected = "new_device/de-ch.toml: two files of the same locale, which differ only in case; remove one";
    assert_eq!(load_error(&files), expected);
}

#[test]
fn template_needs_a_definition_and_english() {
    let expected =
        "news: template.toml is missing; add it, or use the name of a built-in template to replace its texts";
    assert_eq!(load_error(&[("news/en.toml", ENGLISH)]), expected);
    let expected = "news: en.toml is missing; every template needs it, for users whose locale has no file";
    assert_eq!(load_error(&[("news/template.toml", DEFINITION), ("news/de.toml", ENGLISH)]), expected);
}

#[test]
fn definitions_are_checked() {
    let many = (0..31).fold(DEFINITION.to_owned(), |text, index| {
        format!("{text}[parameters.p{index}]\nkind = \"text\"\nsample = \"\"\n")
    });
    let name = "a name is a letter, then up to 31 of `a-z 0-9 _ -`";
    let parameter = "a name is a letter, then up to 31 of `a-z 0-9 _`, and neither `product` nor `name`";
    for (from, to, expected) in [
        ("category = \"news\"", "category = \"News\"", &*format!("line 2: {name}")),
        ("\"shop\"", "\"\"", &format!("line 4: {name}")),
        ("[\"mail\"]", "[]", "`channels` is empty; name at least one of mail, inbox and webhook"),
        ("[\"shop\"]", "[]", "`senders` is empty; name at least one workload, such as auth"),
        ("mail", "fax", "line 3: unknown variant `fax`, expected one of `mail`, `webhook`, `inbox`"),
        ("kind", "max_length = 0\nkind", "parameter `link`: `max_length` must be 1 to 2048, of a url 1 to 800"),
        ("kind", "max_length = 801\nkind", "parameter `link`: `max_length` must be 1 to 2048, of a url 1 to 800"),
        ("word]", "word]\nmax_length = 2049", "parameter `word`: `max_length` must be 1 to 2048, of a url 1 to 800"),
        ("word]", "name]", &format!("parameter `name`: {parameter}")),
        ("word]", "a-b]", &format!("parameter `a-b`: {parameter}")),
        ("https:", "ftp:", "parameter `link` must begin with https:// or http://; correct its `sample`"),
        (DEFINITION, &many, "more than 32 parameters; remove some"),
    ] {
        let error = news_error(&DEFINITION.replacen(from, to, 1), ENGLISH);
        assert_eq!(error, format!("news/template.toml: {expected}"));
    }
    let error = news_error(&DEFINITION.replace("secret", "secrecy"), ENGLISH);
    assert!(error.starts_with("news/template.toml: line 7: unknown field `secrecy`, expected"), "{error}");
    assert!(news_error("category = ", ENGLISH).starts_with("news/template.toml: line 1: "));
}

#[test]
fn locale_files_are_checked() {
    let both = "subject = 'x'\ntext = 'x'\nhtml = 'x'\nclosing = []";
    let known = "which is not defined; known are `name`, `product`, `link`, `word`";
    for (english, expected) in [
        ("paragraphs = ['x']", "`subject` is missing, which the channel mail needs"),
        ("subject = 'x'\nparagraphs = []", "`paragraphs` is missing, which the channel mail needs"),
        ("subject = 'x'\ntext = 'x'", "`paragraphs` is missing, which the channel mail needs"),
        (both, "`closing` is not used; remove it, or one of `text` and `html`, which replace it"),
        (
            &format!("{ENGLISH}inbox = {{ title = '', body = '' }}"),
            "`inbox` is not used; remove it, or add the channel inbox",
        ),
        (&ENGLISH.replace("Bye", "{{ bye }}"), &format!("`closing[0]` uses `bye`, {known}")),
        (
            &ENGLISH.replace("Bye", "{% if word == 'no' %}{{ bye }}{% endif %}"),
            &format!("`closing[0]` uses `bye`, {known}"),
        ),
        (
            &ENGLISH.replace("News:", "{{ link }}"),
            "`subject` uses the secret parameter `link`; secrets are only for the body of a mail",
        ),
        (
            &ENGLISH.replace("{{ link }}", "{{ link }}{{ word }}"),
            "`action.link` uses `word`; a link may use only parameters of the kind url",
        ),
        (
            &ENGLISH.replace("{{ link }}", "javascript:alert(1)"),
            "`action.link` is not a link: must begin with https:// or http://",
        ),
        (&ENGLISH.replace("News: {{ word }}", " "), "`subject` is empty when it is rendered with the samples"),
    ] {
        assert_eq!(news_error(DEFINITION, english), format!("news/en.toml: {expected}"));
    }
    for (english, expected) in [
        (ENGLISH.replace("closing", "footer"), "line 5: unknown field `footer`, expected one of"),
        (ENGLISH.replace("Bye", "{{ word"), "`closing[0]` is not a valid template: syntax error: "),
        (
            ENGLISH.replace("Bye", "{{ word|upper }}"),
            "`closing[0]` cannot be rendered with the samples: unknown filter",
        ),
        (
            ENGLISH.replace("Bye", "{{ word.size }}"),
            "`closing[0]` cannot be rendered with the samples: undefined value",
        ),
        (ENGLISH.replace("Bye", "{{ word + 1 }}"), "`closing[0]` cannot be rendered with the samples: "),
        (
            ENGLISH.replace("Bye", "{% if not name %}{{ 1 // 0 }}{% endif %}"),
            "`closing[0]` cannot be rendered with the samples: ",
        ),
    ] {
        let error = news_error(DEFINITION, &english);
        assert!(error.starts_with(&format!("news/en.toml: {expected}")), "{error}");
    }
}

#[test]
fn templates_cannot_read_others_or_run_long() {
    for text in ["{% include 'layout.txt' %}", "{% extends 'layout.txt' %}", "{% macro m() %}{% endmacro %}"] {
        let error = news_error(DEFINITION, &ENGLISH.replace("Bye", text));
        assert!(error.starts_with("news/en.toml: `closing[0]` is not a valid template: syntax error: "), "{error}");
    }
    let digits = "{% for a in '0123456789' %}";
    let text = format!("{}x{}", digits.repeat(6), "{% endfor %}".repeat(6));
    let error = news_error(DEFINITION, &ENGLISH.replace("Bye", &text));
    assert!(error.contains("engine ran out of fuel"), "{error}");
}

#[test]
fn inbox_is_required_and_without_secrets() {
    let definition = DEFINITION.replace("\"mail\"", "\"inbox\"");
    let error = |english| news_error(&definition, english);
    assert_eq!(error(""), "news/en.toml: `inbox` is missing, which the channel inbox needs");
    assert_eq!(error(ENGLISH), "news/en.toml: `subject` is not used; remove it, or add the channel mail");
    let expected =
        "news/en.toml: `inbox.body` uses the secret parameter `link`; secrets are only for the body of a mail";
    assert_eq!(error("inbox = { title = 'x', body = '{{ link }}' }"), expected);
    // This assignment hides the use from the analysis; the inbox is rendered without secrets.
    let error = error("inbox = { title = 'x', body = '{% set link = link %}{{ link }}' }");
    assert!(error.starts_with("news/en.toml: `inbox.body` cannot be rendered"), "{error}");
}

#[test]
fn layouts_are_replaced_and_checked() {
    let error = load_error(&[("layout.html", "{{ paragraphs }}{{ word }}")]);
    let known = "known are `action`, `closing`, `lang`, `paragraphs`, `product`, `subject`";
    assert_eq!(error, format!("layout.html: `layout.html` uses `word`, which is not defined; {known}"));
    let error = load_error(&[("layout.txt", "{{ paragraphs }}")]);
    assert_eq!(error, "layout.txt: does not show `action.link`; add {{ action.link }}");
    let error = load_error(&[("layout.txt", "{{ action.link }}")]);
    assert!(
        error.starts_with("layout.txt: `layout.txt` cannot be rendered with the samples: undefined value"),
        "{error}"
    );
    let templates = load(&[("layout.txt", "{% if action %}Link:\n{{ action.link }}{% endif %}")]).unwrap();
    assert_eq!(mail(&templates, "address_taken", "en", "", &[]).text, "Link:\nhttps://example.com/sign-in\n");
}

#[test]
fn folder_replaces_and_adds_file_by_file() {
    let french = ENGLISH.replace("News", "Nouvelles");
    let german = "subject = 'Hallo'\nparagraphs = ['Hallo']";
    let files = [
        ("news/template.toml", DEFINITION),
        ("news/en.toml", ENGLISH),
        ("news/fr.toml", &french),
        ("password_changed/DE.toml", &format!("{german}\ninbox = {{ title = 'a', body = 'b' }}")),
    ];
    let templates = load(&files).unwrap();
    assert_eq!(templates.iter().count(), built_in().iter().count() + 1);
    assert_eq!(mail(&templates, "password_changed", "de", "", &[]).subject, "Hallo");
    assert_eq!(mail(&templates, "password_changed", "en", "", &[]).subject, "Your Drystone password was changed");
    assert_eq!(mail(&templates, "news", "fr", "", &[]).subject, "Nouvelles: sample");

    let news = templates.get("news").unwrap();
    assert_eq!((news.name(), news.category(), news.is_security(), news.has_secrets()), ("news", "news", false, true));
    assert!(news.channels().iter().eq(&[Channel::Mail]));
    assert!(news.locales().eq(["en", "fr"]));
    assert!(news.may_send("shop") && !news.may_send("auth"));
    let changed = templates.get("password_changed").unwrap();
    assert!(changed.locales().eq(["DE", "en"]));
}
