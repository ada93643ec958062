//! Templates of messages: mails, entries of the inbox in the application, and webhook calls.
//!
//! A template is a folder: `template.toml` defines who may send it, over which channels and with which parameters;
//! `en.toml`, `de.toml`, ... hold its text, one file a locale. `layout.txt` and `layout.html` are shared by all. The
//! built-in templates are in `templates/`; a folder of the operator replaces and adds files.
//!
//! ```toml
//! # new_device/template.toml
//! category = "security"                 # users cannot switch off `security`
//! channels = ["mail"]                   # mail, inbox, webhook
//! senders = ["auth"]                    # the workloads that may send it
//!
//! [parameters.link]
//! kind = "url"                          # text, url, time
//! secret = true                         # never in a subject, an inbox or a webhook call
//! max_length = 512                      # bytes
//! sample = "https://example.com/not-me?token=5dJ0"
//! ```
//!
//! ```toml
//! # new_device/en.toml: every string is a minijinja template
//! subject = "New sign-in to {{ product }}"
//! paragraphs = ["Hello{% if name %} {{ name }}{% endif %},", "There was a sign-in from a new device."]
//! action = { label = "This was not me", link = "{{ link }}" }
//! ```
//!
//! Templates see `product`, `name` (of the recipient, may be empty) and their parameters. There are no filters, tests,
//! functions, macros or includes. [`Templates::load`] renders every template in every locale with its samples, so a
//! fault is found at startup.

mod built_in;
mod definition;
mod error;
mod locale;
mod parameter;
mod render;
mod source;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
};

pub use crate::channel::Channel;
pub use error::{LoadError, Problem};
pub use parameter::{Kind, ParameterError};
pub use render::{InboxText, Mail, RenderError};

use definition::{Definition, SECURITY};
pub(crate) use definition::{MAX_NAME_LENGTH, is_name};
use locale::{Compiler, Locale};
use parameter::is_text;
use render::{LAYOUT_HTML, LAYOUT_TEXT, Renderer};
use source::{Sources, TemplateSource};

const MAX_PRODUCT_LENGTH: usize = 64;

/// The locale that every template has.
const FALLBACK_LOCALE: &str = "en";

/// All templates.
#[derive(Debug)]
pub struct Templates {
    templates: BTreeMap<String, Template>,
}

/// A template.
#[derive(Debug)]
pub struct Template {
    name: String,
    definition: Definition,
    /// By tag in lower case.
    locales: BTreeMap<String, Arc<Locale>>,
    /// The locale of users whose own is not there.
    default: Arc<Locale>,
    renderer: Arc<Renderer>,
}

/// A template with valid parameters: what can be sent. Its debug form is without the parameters, which can be secret.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    template: &'a Template,
    parameters: &'a BTreeMap<String, String>,
}

impl Templates {
    /// Loads the built-in templates, then those of a folder, whose files replace and add to them one by one.
    ///
    /// `product` is the name of the product in messages. `default_locale` (BCP 47) is for users without a locale and
    /// for those whose locale a template does not have.
    ///
    /// # Errors
    /// The first fault, with the file and what to do.
    pub fn load(product: &str, default_locale: &str, folder: Option<&Path>) -> Result<Self, LoadError> {
        if product.trim().is_empty() || !is_text(product) || product.chars().count() > MAX_PRODUCT_LENGTH {
            return Err(LoadError::Product);
        }
        let mut sources = Sources::built_in();
        if let Some(folder) = folder {
            sources.overlay(folder)?;
        }
        let mut renderer = Renderer::new(product);
        renderer.add_layout(LAYOUT_TEXT, sources.layout_text)?;
        renderer.add_layout(LAYOUT_HTML, sources.layout_html)?;

        let mut parts = Vec::with_capacity(sources.templates.len());
        for (name, source) in sources.templates {
            let (definition, locales) = compile(&name, source, &mut renderer)?;
            parts.push((name, definition, locales));
        }
        let is_known = |tag: &str| parts.iter().any(|(_, _, locales)| lookup(locales, tag).is_some());
        if !is_known(default_locale) {
            return Err(LoadError::DefaultLocale(default_locale.to_owned()));
        }

        let renderer = Arc::new(renderer);
        let mut templates = BTreeMap::new();
        for (name, definition, locales) in parts {
            let default = lookup(&locales, default_locale).or_else(|| lookup(&locales, FALLBACK_LOCALE)).cloned();
            let default = default.ok_or_else(|| LoadError::file(&name, Problem::NoEnglish))?;
            let template =
                Template { name: name.clone(), definition, locales, default, renderer: Arc::clone(&renderer) };
            template.verify()?;
            templates.insert(name, template);
        }
        Ok(Self { templates })
    }

    /// The template of a name.
    pub fn get(&self, name: &str) -> Option<&Template> {
        self.templates.get(name)
    }

    /// All templates, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.templates.values()
    }
}

impl Template {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its category, by which users switch messages off.
    pub fn category(&self) -> &str {
        self.definition.category.as_str()
    }

    /// Whether it is of the category `security`, which users cannot switch off.
    pub fn is_security(&self) -> bool {
        self.category() == SECURITY
    }

    /// Its channels: at least one.
    pub fn channels(&self) -> &BTreeSet<Channel> {
        &self.definition.channels
    }

    /// The workloads that may send it.
    pub fn senders(&self) -> impl Iterator<Item = &str> {
        self.definition.senders.iter().map(definition::Name::as_str)
    }

    /// Whether a workload may send it.
    pub fn may_send(&self, workload: &str) -> bool {
        self.definition.senders.contains(workload)
    }

    /// Its locales (BCP 47), as their files are named.
    pub fn locales(&self) -> impl Iterator<Item = &str> {
        self.locales.values().map(|locale| locale.tag())
    }

    /// Whether it has secret parameters. Its messages are then to be stored encrypted, if at all.
    pub fn has_secrets(&self) -> bool {
        self.definition.parameters.values().any(|parameter| parameter.secret)
    }

    /// The samples of its parameters. They are valid.
    pub fn samples(&self) -> BTreeMap<String, String> {
        self.definition.samples()
    }

    /// Checks parameters.
    ///
    /// # Errors
    /// The first fault, with the name of the parameter.
    pub fn check<'a>(&'a self, parameters: &'a BTreeMap<String, String>) -> Result<Message<'a>, ParameterError> {
        self.definition.check(parameters)?;
        Ok(Message { template: self, parameters })
    }

    /// The locale for a user: of the lookup of RFC 4647 (`de-CH`, then `de`), then the default.
    fn locale(&self, tag: &str) -> &Locale {
        lookup(&self.locales, tag).unwrap_or(&self.default)
    }

    /// Renders all locales on all channels.
    fn verify(&self) -> Result<(), LoadError> {
        let samples = self.samples();
        let message = Message { template: self, parameters: &samples };
        for locale in self.locales.values() {
            for name in ["Ada Lovelace", ""] {
                self.renderer.verify(locale, &message.parameters(), &message.public_parameters(), name)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Message").field("template", &self.template.name).finish_non_exhaustive()
    }
}

impl<'a> Message<'a> {
    /// Its template.
    pub fn template(&self) -> &'a Template {
        self.template
    }

    /// Its parameters but the secret ones: those of webhook calls.
    pub fn public_parameters(&self) -> BTreeMap<&'a str, &'a str> {
        let mut parameters = self.parameters();
        parameters.retain(|name, _| !self.template.definition.is_secret(name));
        parameters
    }

    /// Renders the mail. `locale` is that of the recipient (BCP 47), `name` their display name; both may be empty.
    ///
    /// # Errors
    /// The template has no channel `mail`, or it is of the operator and fails with these parameters.
    pub fn mail(&self, locale: &str, name: &str) -> Result<Mail, RenderError> {
        self.template.renderer.mail(self.template.locale(locale), &self.parameters(), name)
    }

    /// Renders the entry of the inbox, as [`Self::mail`] does the mail. Secret parameters are not visible there.
    ///
    /// # Errors
    /// As of [`Self::mail`].
    pub fn inbox(&self, locale: &str, name: &str) -> Result<InboxText, RenderError> {
        self.template.renderer.inbox(self.template.locale(locale), &self.public_parameters(), name)
    }

    fn parameters(&self) -> BTreeMap<&'a str, &'a str> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

fn compile(
    name: &str,
    source: TemplateSource,
    renderer: &mut Renderer,
) -> Result<(Definition, BTreeMap<String, Arc<Locale>>), LoadError> {
    let Some(file) = source.definition else {
        return Err(LoadError::file(source.origin, Problem::NoDefinition));
    };
    let definition = Definition::parse(&file.text).map_err(|problem| LoadError::file(file.origin, problem))?;
    if !source.locales.contains_key(FALLBACK_LOCALE) {
        return Err(LoadError::file(source.origin, Problem::NoEnglish));
    }
    let mut locales = BTreeMap::new();
    for (key, (tag, file)) in source.locales {
        let compiler = Compiler::new(renderer, &definition, name, &tag, &file.origin);
        let locale = compiler.compile(&file.text).map_err(|problem| LoadError::file(file.origin, problem))?;
        locales.insert(key, Arc::new(locale));
    }
    Ok((definition, locales))
}

/// The lookup of RFC 4647, section 3.4, without regard to case.
fn lookup<'a>(locales: &'a BTreeMap<String, Arc<Locale>>, tag: &str) -> Option<&'a Arc<Locale>> {
    let tag = tag.to_ascii_lowercase();
    let mut range = tag.as_str();
    loop {
        if let Some(locale) = locales.get(range) {
            return Some(locale);
        }
        (range, _) = range.rsplit_once('-')?;
    }
}

#[cfg(test)]
mod tests;
