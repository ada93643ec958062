//! The file of a locale, compiled.

use serde::Deserialize;

use super::{
    Channel,
    definition::{COMMON_VARIABLES, Definition},
    error::Problem,
    parameter::Kind,
    render::Renderer,
};

/// The texts of a template in a locale, by their keys in the [`Renderer`].
#[derive(Debug)]
pub struct Locale {
    tag: Box<str>,
    /// The path of its file, for errors.
    pub origin: Box<str>,
    pub mail: Option<MailKeys>,
    pub inbox: Option<InboxKeys>,
}

/// The name of a compiled template: `new_device/en.toml#subject`.
pub type Key = Box<str>;

#[derive(Debug)]
pub struct MailKeys {
    pub subject: Key,
    pub paragraphs: Vec<Key>,
    pub action: Option<ActionKeys>,
    pub closing: Vec<Key>,
    /// The whole body as plain text, in place of the layout.
    pub text: Option<Key>,
    /// The whole body as HTML, in place of the layout.
    pub html: Option<Key>,
}

#[derive(Debug)]
pub struct ActionKeys {
    pub label: Key,
    pub link: Key,
}

#[derive(Debug)]
pub struct InboxKeys {
    pub title: Key,
    pub body: Key,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LocaleFile {
    subject: Option<String>,
    paragraphs: Option<Vec<String>>,
    action: Option<ActionTexts>,
    closing: Option<Vec<String>>,
    text: Option<String>,
    html: Option<String>,
    inbox: Option<InboxTexts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionTexts {
    label: String,
    link: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InboxTexts {
    title: String,
    body: String,
}

/// Which parameters a text may use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    /// All but the secret ones.
    Public,
    /// Those of [`Kind::Url`], so that the result is always a link.
    Links,
}

impl Locale {
    /// Its tag (BCP 47).
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

/// Compiles the texts of a template in a locale.
pub struct Compiler<'a> {
    renderer: &'a mut Renderer,
    definition: &'a Definition,
    template: &'a str,
    tag: &'a str,
    origin: &'a str,
}

impl<'a> Compiler<'a> {
    pub fn new(
        renderer: &'a mut Renderer,
        definition: &'a Definition,
        template: &'a str,
        tag: &'a str,
        origin: &'a str,
    ) -> Self {
        Self { renderer, definition, template, tag, origin }
    }

    /// Compiles the text of the file.
    pub fn compile(mut self, text: &str) -> Result<Locale, Problem> {
        let mut file: LocaleFile = toml::from_str(text).map_err(|error| Problem::toml(text, &error))?;
        let inbox = file.inbox.take();
        let mail = if self.definition.channels.contains(&Channel::Mail) {
            Some(self.mail(file)?)
        } else {
            refuse_mail(&file, "add the channel mail")?;
            None
        };
        let inbox = match (inbox, self.definition.channels.contains(&Channel::Inbox)) {
            (Some(inbox), true) => Some(self.inbox(inbox)?),
            (None, true) => return Err(Problem::Missing { field: "inbox", channel: Channel::Inbox }),
            (Some(_), false) => return Err(Problem::Unused("inbox", "add the channel inbox")),
            (None, false) => None,
        };
        Ok(Locale { tag: self.tag.into(), origin: self.origin.into(), mail, inbox })
    }

    fn mail(&mut self, file: LocaleFile) -> Result<MailKeys, Problem> {
        let missing = |field| Problem::Missing { field, channel: Channel::Mail };
        let subject = file.subject.ok_or_else(|| missing("subject"))?;
        if file.text.is_some() && file.html.is_some() {
            let layout_only = LocaleFile { subject: None, text: None, html: None, inbox: None, ..file };
            refuse_mail(&layout_only, "one of `text` and `html`, which replace it")?;
            return Ok(MailKeys {
                subject: self.add("subject", subject, Scope::Public)?,
                paragraphs: Vec::new(),
                action: None,
                closing: Vec::new(),
                text: file.text.map(|text| self.add("text", text, Scope::All)).transpose()?,
                html: file.html.map(|html| self.add("html", html, Scope::All)).transpose()?,
            });
        }
        let paragraphs = file.paragraphs.filter(|paragraphs| !paragraphs.is_empty());
        Ok(MailKeys {
            subject: self.add("subject", subject, Scope::Public)?,
            paragraphs: self.add_all("paragraphs", paragraphs.ok_or_else(|| missing("paragraphs"))?)?,
            action: file.action.map(|action| self.action(action)).transpose()?,
            closing: self.add_all("closing", file.closing.unwrap_or_default())?,
            text: file.text.map(|text| self.add("text", text, Scope::All)).transpose()?,
            html: file.html.map(|html| self.add("html", html, Scope::All)).transpose()?,
        })
    }

    fn action(&mut self, action: ActionTexts) -> Result<ActionKeys, Problem> {
        let label = self.add("action.label", action.label, Scope::All)?;
        Ok(ActionKeys { label, link: self.add("action.link", action.link, Scope::Links)? })
    }

    fn inbox(&mut self, inbox: InboxTexts) -> Result<InboxKeys, Problem> {
        let title = self.add("inbox.title", inbox.title, Scope::Public)?;
        Ok(InboxKeys { title, body: self.add("inbox.body", inbox.body, Scope::Public)? })
    }

    fn add_all(&mut self, field: &str, texts: Vec<String>) -> Result<Vec<Key>, Problem> {
        texts
            .into_iter()
            .enumerate()
            .map(|(index, text)| self.add(&format!("{field}[{index}]"), text, Scope::All))
            .collect()
    }

    fn add(&mut self, field: &str, text: String, scope: Scope) -> Result<Key, Problem> {
        let key = format!("{}/{}.toml#{field}", self.template, self.tag).into_boxed_str();
        let variables =
            self.renderer.add(&key, text).map_err(|source| Problem::Syntax { field: field.to_owned(), source })?;
        for variable in variables {
            self.check_variable(field, variable, scope)?;
        }
        Ok(key)
    }

    fn check_variable(&self, field: &str, variable: String, scope: Scope) -> Result<(), Problem> {
        let field = || field.to_owned();
        let parameter = self.definition.parameters.get(&variable);
        if parameter.is_none() && !COMMON_VARIABLES.contains(&variable.as_str()) {
            let parameters = self.definition.parameters.keys().map(String::as_str);
            return Err(Problem::UnknownVariable {
                field: field(),
                variable,
                known: list(COMMON_VARIABLES, parameters),
            });
        }
        match scope {
            Scope::Public if parameter.is_some_and(|parameter| parameter.secret) => {
                Err(Problem::Secret { field: field(), parameter: variable })
            }
            Scope::Links if parameter.is_none_or(|parameter| parameter.kind != Kind::Url) => {
                Err(Problem::LinkVariable(variable))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses texts of a mail that no mail would show.
fn refuse_mail(file: &LocaleFile, instead: &'static str) -> Result<(), Problem> {
    let fields = [
        ("subject", file.subject.is_some()),
        ("paragraphs", file.paragraphs.is_some()),
        ("action", file.action.is_some()),
        ("closing", file.closing.is_some()),
        ("text", file.text.is_some()),
        ("html", file.html.is_some()),
    ];
    match fields.into_iter().find(|(_, is_given)| *is_given) {
        Some((field, _)) => Err(Problem::Unused(field, instead)),
        None => Ok(()),
    }
}

/// Names for an error.
pub fn list<'a>(first: impl IntoIterator<Item = &'a str>, then: impl IntoIterator<Item = &'a str>) -> String {
    first.into_iter().chain(then).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
