use super::{DEFINITION, ENGLISH, built_in, load, mail, news, with};
use crate::template::{Channel, RenderError, Templates, parameter::is_break};

#[test]
fn built_in_templates_render_in_all_locales() {
    let templates = built_in();
    assert_eq!(templates.iter().count(), 15);
    for template in templates.iter() {
        assert!(template.locales().eq(["de", "en"]), "{}", template.name());
        assert!(template.is_security() && template.may_send("auth"), "{}", template.name());
        let samples = template.samples();
        let message = template.check(&samples).unwrap();
        for locale in template.locales() {
            if template.channels().contains(&Channel::Mail) {
                let mail = message.mail(locale, "Ada").unwrap();
                assert!(!mail.subject.contains(is_break) && mail.subject.contains("Drystone"), "{}", mail.subject);
                assert!(mail.html.contains(&format!("<html lang=\"{locale}\"")));
                assert!(mail.text.lines().all(|line| line.chars().count() <= 76), "{}", mail.text);
                for (name, value) in samples.iter().filter(|(name, _)| !["link", "change"].contains(&name.as_str())) {
                    assert!(mail.text.contains(value) && mail.html.contains(value), "{}: {name}", template.name());
                }
                if let Some(link) = samples.get("link") {
                    assert!(mail.text.lines().any(|line| line == link), "{}", mail.text);
                    assert!(
                        mail.html.contains(&format!("href=\"{link}\"")) && mail.html.contains(&format!(">{link}<"))
                    );
                }
            }
            if template.channels().contains(&Channel::Inbox) {
                let inbox = message.inbox(locale, "Ada").unwrap();
                let mut shown = samples.iter().filter(|(name, _)| *name != "change");
                assert!(!inbox.title.is_empty() && shown.all(|(_, value)| inbox.body.contains(value)));
            }
        }
    }
}

#[test]
fn each_change_of_second_factors_has_a_sentence_of_its_own() {
    let templates = built_in();
    let template = templates.get("second_factor_changed").unwrap();
    let changes = [
        "removed",
        "disabled",
        "reset",
        "reset_requested",
        "reset_cancelled",
        "backup_codes_replaced",
        "backup_code_used",
        "of a later release",
    ];
    for locale in ["de", "en"] {
        let texts: std::collections::HashSet<String> = changes
            .iter()
            .map(|change| {
                let samples = template.samples().into_iter();
                let parameters = samples
                    .map(|(name, value)| if name == "change" { (name, (*change).into()) } else { (name, value) });
                template.check(&parameters.collect()).unwrap().inbox(locale, "Ada").unwrap().body
            })
            .collect();
        assert_eq!(texts.len(), changes.len(), "{locale}");
    }
}

#[test]
fn messages_to_unverified_addresses_do_not_show_the_name() {
    let templates = built_in();
    for template in ["email_verification", "email_change"] {
        for locale in ["en", "de"] {
            let mail = mail(&templates, template, locale, "visit example.org", &[]);
            assert!(!(mail.subject + &mail.text + &mail.html).contains("visit"), "{template}");
        }
    }
}

#[test]
fn unknown_details_are_left_out() {
    let templates = built_in();
    let unknown = [("time", "unknown"), ("device", "unknown"), ("address", "unknown")];
    for locale in ["en", "de"] {
        let mail = mail(&templates, "password_changed", locale, "Ada", &unknown);
        assert!(!mail.text.contains("unknown") && !mail.text.contains("\n\n\n"), "{}", mail.text);
        assert!(!mail.html.contains("></p>"));
    }
}

#[test]
fn html_is_escaped_and_text_is_not() {
    let name = "<script>alert(\"1\")</script> & 'Co'";
    let mail = mail(&news(ENGLISH), "news", "en", name, &[("word", "a\"><b>")]);
    assert_eq!(mail.subject, "News: a\"><b>");
    assert!(mail.text.contains(name) && mail.text.contains("\n\na\"><b>\n\n"), "{}", mail.text);
    let escaped = "Hello &lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;Co&#39;</p>";
    assert!(mail.html.contains(escaped), "{}", mail.html);
    assert!(mail.html.contains("<title>News: a&quot;&gt;&lt;b&gt;</title>"));
    assert!(mail.html.contains("href=\"https://example.com/?token=sample&amp;step=1\""));
    assert!(!mail.html.contains("<b>") && !mail.html.contains("<script"));
}

#[test]
fn escaping_cannot_be_switched_off() {
    let text = |inner: &str| format!("subject = 's'\ntext = '{{{{ word }}}}'\nhtml = '{inner}'");
    for inner in [
        "{% autoescape false %}{{ word }}{% endautoescape %}",
        "{% autoescape false %}{% set x %}{{ word }}{% endset %}{{ x }}{% endautoescape %}",
        "{% set x %}{{ word }}{% endset %}{{ x }}",
        "{{ word ~ word }}",
        "{{ [word] }}",
    ] {
        let mail = mail(&news(&text(inner)), "news", "en", "", &[("word", "<b>")]);
        assert!(mail.html.contains("lt;b&") && !mail.html.contains('<'), "{inner}: {}", mail.html);
        assert_eq!(mail.text, "<b>\n");
    }
    for filter in ["safe", "e", "escape"] {
        let english = text(&format!("{{{{ word|{filter} }}}}"));
        let files = [("news/template.toml", DEFINITION), ("news/en.toml", &*english)];
        assert!(load(&files).unwrap_err().to_string().contains("unknown filter"));
    }
}

#[test]
fn parameters_are_not_evaluated() {
    let value = "{{ link }}{% if 1 %}{# x #}";
    let mail = mail(&news(ENGLISH), "news", "en", value, &[("word", value)]);
    assert_eq!(mail.subject, format!("News: {value}"));
    assert!(mail.text.contains(&format!("Hello {value}\n")) && mail.html.contains(&format!("Hello {value}<")));
}

#[test]
fn subjects_are_one_bounded_line() {
    let english = ENGLISH.replace("News: {{ word }}", "  News \\n\\r\\u2028 for\\t{{ name }} {{ word }}");
    let templates = news(&english);
    let subject = |word: &str| mail(&templates, "news", "en", "Ada\r\nBcc: x", &[("word", word)]).subject;
    assert_eq!(subject("x"), "News for Ada Bcc: x x");
    let subject = subject(&"é".repeat(128));
    assert_eq!(subject.chars().count(), 148);
    let templates = news(&ENGLISH.replace("News: ", "{{ word }}"));
    let subject = mail(&templates, "news", "en", "", &[("word", &"é".repeat(128))]).subject;
    assert_eq!(subject, format!("{}…", "é".repeat(199)));
}

#[test]
fn text_is_wrapped_and_links_are_not() {
    let definition = DEFINITION.replace("kind", "max_length = 800\nkind");
    let english = ENGLISH.replace("Bye", &format!("{} {}", "word ".repeat(40), "é".repeat(1000)));
    let templates = load(&[("news/template.toml", &definition), ("news/en.toml", &english)]).unwrap();
    let link = format!("https://example.com/{}", "x".repeat(780));
    let mail = mail(&templates, "news", "en", "", &[("link", &link)]);
    assert!(mail.text.contains(&format!("\nOpen sample:\n{link}\n")), "{}", mail.text);
    assert!(mail.text.contains(&format!("\n\n{}\n", "word ".repeat(15).trim_end())), "{}", mail.text);
    assert!(mail.text.lines().all(|line| line.len() <= 900 && line == line.trim_end()));
    assert_eq!(mail.text.matches('é').count(), 1000);
    assert!(mail.text.ends_with("\n\nDrystone\n"));
}

#[test]
fn own_bodies_replace_the_layouts() {
    let english = "subject = 's'\ntext = '{{ word }}: {{ link }}'\nhtml = '<p>{{ name }}</p>'";
    let one = mail(&news(english), "news", "en", "A&B", &[]);
    assert_eq!(one.text, "sample: https://example.com/?token=sample&step=1\n");
    assert_eq!(one.html, "<p>A&amp;B</p>");
    let mail = mail(&news(&format!("html = '<p>'{ENGLISH}")), "news", "en", "", &[]);
    assert_eq!(mail.html, "<p>");
    assert!(mail.text.starts_with("Hello\n\nsample\n\nOpen sample:\nhttps://"), "{}", mail.text);
}

#[test]
fn locale_is_looked_up_and_falls_back() {
    let locale = |tag: &str| ENGLISH.replace("News", tag);
    let files = [
        ("news/template.toml", DEFINITION.to_owned()),
        ("news/en.toml", locale("en")),
        ("news/de.toml", locale("de")),
        ("news/de-CH.toml", locale("de-CH")),
        ("news/zh-Hant.toml", locale("zh-Hant")),
    ];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let folder = super::folder(&files);
    for (default, tag, expected) in [
        ("en", "de-CH", "de-CH"),
        ("en", "DE-ch", "de-CH"),
        ("en", "de-AT", "de"),
        ("en", "zh-Hant-TW", "zh-Hant"),
        ("en", "fr-CH", "en"),
        ("en", "", "en"),
        ("de-AT", "fr", "de"),
        ("DE-ch", "", "de-CH"),
        ("zh-hant", "en-GB", "en"),
    ] {
        let templates = Templates::load("Drystone", default, Some(folder.path())).unwrap();
        let mail = mail(&templates, "news", tag, "", &[]);
        assert_eq!(mail.subject, format!("{expected}: sample"), "{default} {tag}");
        assert!(mail.html.contains(&format!("<html lang=\"{expected}\"")));
    }
    // A template without the default locale is in English.
    let templates = Templates::load("Drystone", "zh-Hant", Some(folder.path())).unwrap();
    assert_eq!(mail(&templates, "address_taken", "fr", "", &[]).subject, "You already have a Drystone account");
}

#[test]
fn secrets_are_not_in_debug_forms() {
    let templates = built_in();
    let template = templates.get("new_device").unwrap();
    let samples = template.samples();
    let message = template.check(&samples).unwrap();
    assert_eq!(format!("{message:?}"), "Message { template: \"new_device\", .. }");
    let mail = message.mail("en", "").unwrap();
    assert_eq!(format!("{mail:?}"), "Mail { subject: \"New sign-in to Drystone\", .. }");
}

#[test]
fn channels_of_other_templates_are_refused() {
    let templates = built_in();
    let (notice, link) = (templates.get("new_device_notice").unwrap(), templates.get("new_device").unwrap());
    let (of_notice, of_link) = (notice.samples(), with(link.samples(), &[]));
    let error = notice.check(&of_notice).unwrap().mail("en", "").unwrap_err();
    assert!(matches!(error, RenderError::Channel(Channel::Mail)));
    let error = link.check(&of_link).unwrap().inbox("en", "").unwrap_err();
    assert_eq!(error.to_string(), "the template has no channel inbox");
    assert_eq!(Channel::ALL.map(Channel::name), ["mail", "webhook", "inbox"]);
}
