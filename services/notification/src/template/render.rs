//! Rendering. All strings of all templates are compiled once, into one environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use minijinja::{AutoEscape, Environment, Output, State, UndefinedBehavior, Value};

use super::{
    Channel,
    error::{LoadError, Problem},
    locale::{Key, Locale, MailKeys, list},
    parameter::check_url,
    source::SourceFile,
    text::{line, truncate, wrap, write_escaped},
};

pub const LAYOUT_TEXT: &str = "layout.txt";
pub const LAYOUT_HTML: &str = "layout.html";
const LAYOUT_VARIABLES: [&str; 6] = ["action", "closing", "lang", "paragraphs", "product", "subject"];

/// The instructions of one rendering. The built-in layouts take some hundred.
const FUEL: u64 = 50_000;

/// A rendered mail. Its debug form is without the bodies, which can have secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// One line of at most 200 characters.
    pub subject: String,
    /// The body as plain text. Its lines end with a line feed and have at most 900 bytes.
    pub text: String,
    /// The body as HTML.
    pub html: String,
}

impl fmt::Debug for Mail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mail").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// A rendered entry of the inbox: plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxText {
    /// One line of at most 200 characters.
    pub title: String,
    /// One paragraph.
    pub body: String,
}

/// Why a message cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The template is not for this channel.
    #[error("the template has no channel {}", .0.name())]
    Channel(Channel),
    /// A template of the operator fails with parameters that differ from its samples.
    #[error("cannot render {key}: {source}")]
    Template {
        /// Its file and field.
        key: String,
        /// The cause.
        source: minijinja::Error,
    },
}

/// The compiled templates.
#[derive(Debug)]
pub struct Renderer {
    environment: Environment<'static>,
    product: Value,
    /// The paths of the layouts, for errors.
    layouts: BTreeMap<&'static str, String>,
}

impl Renderer {
    pub fn new(product: &str) -> Self {
        // Empty: no filters, tests, functions or loader.
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|key| if is_html(key) { AutoEscape::Html } else { AutoEscape::None });
        environment.set_formatter(write_value);
        Self { environment, product: Value::from(product), layouts: BTreeMap::new() }
    }

    pub fn add_layout(&mut self, name: &'static str, file: SourceFile) -> Result<(), LoadError> {
        let added = self.add(name, file.text.into_owned());
        let variables = added.map_err(|source| Problem::Syntax { field: name.to_owned(), source });
        let checked = variables.and_then(|variables| {
            match variables.into_iter().find(|variable| !LAYOUT_VARIABLES.contains(&variable.as_str())) {
                Some(variable) => Err(Problem::UnknownVariable {
                    field: name.to_owned(),
                    variable,
                    known: list(LAYOUT_VARIABLES, []),
                }),
                None => Ok(()),
            }
        });
        checked.map_err(|problem| LoadError::file(&*file.origin, problem))?;
        self.layouts.insert(name, file.origin);
        Ok(())
    }

    /// Compiles a template. Returns the variables that it uses.
    pub fn add(&mut self, key: &str, text: String) -> Result<BTreeSet<String>, minijinja::Error> {
        self.environment.add_template_owned(key.to_owned(), text)?;
        Ok(self.environment.get_template(key)?.undeclared_variables(false).into_iter().collect())
    }

    pub fn mail(&self, locale: &Locale, parameters: &BTreeMap<&str, &str>, name: &str) -> Result<Mail, RenderError> {
        let keys = locale.mail.as_ref().ok_or(RenderError::Channel(Channel::Mail))?;
        let context = self.context(parameters, name);
        let subject = truncate(line(&self.render(&keys.subject, &context)?));
        let layout = self.layout_context(locale.tag(), keys, &subject, &context)?;
        let body = |own: &Option<Key>, shared| match own {
            Some(key) => self.render(key, &context),
            None => self.render(shared, &layout),
        };
        let text = wrap(&body(&keys.text, LAYOUT_TEXT)?);
        let html = body(&keys.html, LAYOUT_HTML)?;
        Ok(Mail { subject, text, html })
    }

    pub fn inbox(
        &self,
        locale: &Locale,
        parameters: &BTreeMap<&str, &str>,
        name: &str,
    ) -> Result<InboxText, RenderError> {
        let keys = locale.inbox.as_ref().ok_or(RenderError::Channel(Channel::Inbox))?;
        let context = self.context(parameters, name);
        let title = truncate(line(&self.render(&keys.title, &context)?));
        Ok(InboxText { title, body: line(&self.render(&keys.body, &context)?) })
    }

    /// Renders the samples in all formats.
    pub fn verify(
        &self,
        locale: &Locale,
        parameters: &BTreeMap<&str, &str>,
        public: &BTreeMap<&str, &str>,
        name: &str,
    ) -> Result<(), LoadError> {
        let failed = |error| self.load_error(locale, error);
        let of_locale = |problem| LoadError::file(&*locale.origin, problem);
        if locale.inbox.is_some() {
            let inbox = self.inbox(locale, public, name).map_err(failed)?;
            if inbox.title.is_empty() || inbox.body.is_empty() {
                return Err(of_locale(Problem::Empty("inbox")));
            }
        }
        let Some(keys) = &locale.mail else {
            return Ok(());
        };
        let mail = self.mail(locale, parameters, name).map_err(failed)?;
        if mail.subject.is_empty() {
            return Err(of_locale(Problem::Empty("subject")));
        }
        let Some(action) = &keys.action else {
            return Ok(());
        };
        let link = self.render(&action.link, &self.context(parameters, name)).map_err(failed)?;
        check_url(&link).map_err(|reason| of_locale(Problem::Link(reason)))?;
        let mut escaped = String::new();
        let _ = write_escaped(&mut escaped, &link);
        for (layout, own, body, link) in
            [(LAYOUT_TEXT, &keys.text, &mail.text, &link), (LAYOUT_HTML, &keys.html, &mail.html, &escaped)]
        {
            if own.is_none() && !body.contains(link) {
                return Err(self.layout_error(layout, Problem::LinkNotShown));
            }
        }
        Ok(())
    }

    fn context(&self, parameters: &BTreeMap<&str, &str>, name: &str) -> Value {
        let common = [("product", self.product.clone()), ("name", Value::from(line(name)))];
        parameters.iter().map(|(name, value)| (*name, Value::from(*value))).chain(common).collect()
    }

    /// What the layouts see: texts without markup, which the layout of HTML escapes.
    fn layout_context(&self, tag: &str, keys: &MailKeys, subject: &str, context: &Value) -> Result<Value, RenderError> {
        let paragraphs = |keys: &[Key]| -> Result<Value, RenderError> {
            let all = keys.iter().map(|key| self.render(key, context)).collect::<Result<Vec<_>, _>>()?;
            Ok(all.iter().map(|text| line(text)).filter(|text| !text.is_empty()).collect())
        };
        let action = match &keys.action {
            Some(action) => Value::from_iter([
                ("label", line(&self.render(&action.label, context)?)),
                ("link", self.render(&action.link, context)?),
            ]),
            None => Value::from(()),
        };
        Ok(Value::from_iter([
            ("product", self.product.clone()),
            ("lang", Value::from(tag)),
            ("subject", Value::from(subject)),
            ("paragraphs", paragraphs(&keys.paragraphs)?),
            ("action", action),
            ("closing", paragraphs(&keys.closing)?),
        ]))
    }

    fn render(&self, key: &str, context: &Value) -> Result<String, RenderError> {
        let template = self.environment.get_template(key);
        template
            .and_then(|template| template.render(context))
            .map_err(|source| RenderError::Template { key: key.to_owned(), source })
    }

    fn load_error(&self, locale: &Locale, error: RenderError) -> LoadError {
        let (key, source) = match error {
            RenderError::Template { key, source } => (key, source),
            RenderError::Channel(channel) => {
                return LoadError::file(&*locale.origin, Problem::Missing { field: channel.name(), channel });
            }
        };
        let field = key.rsplit('#').next().unwrap_or_default().to_owned();
        let problem = Problem::Render { field, source };
        if self.layouts.contains_key(&*key) {
            self.layout_error(&key, problem)
        } else {
            LoadError::file(&*locale.origin, problem)
        }
    }

    fn layout_error(&self, layout: &str, problem: Problem) -> LoadError {
        LoadError::file(self.layouts.get(layout).map_or(layout, String::as_str), problem)
    }
}

fn is_html(key: &str) -> bool {
    key == LAYOUT_HTML || key.ends_with("#html")
}

/// Escapes by the file and not by the state: `{% autoescape false %}` does not switch it off. A safe value is one that
/// a `{% set %}` block has escaped already, since there are no filters.
fn write_value(out: &mut Output, state: &State, value: &Value) -> Result<(), minijinja::Error> {
    if is_html(state.name()) && !value.is_safe() {
        write_escaped(out, &value.to_string())?;
    } else {
        write!(out, "{value}")?;
    }
    Ok(())
}
