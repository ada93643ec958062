//! Why templates cannot be loaded.

use std::{io, path::PathBuf};

use super::{
    Channel, MAX_PRODUCT_LENGTH,
    parameter::{MAX_PARAMETERS, MAX_TEXT_LENGTH, MAX_URL_LENGTH, ParameterError},
    source::{MAX_FILE_BYTES, MAX_LOCALES, MAX_TEMPLATES},
};

/// Why the templates cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The name of the product is invalid.
    #[error("the product name of messages must be one line of 1 to {MAX_PRODUCT_LENGTH} characters")]
    Product,
    /// No template has the default locale.
    #[error("no template has the default locale `{0}`; add a file such as new_device/{0}.toml, or choose another")]
    DefaultLocale(String),
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file or folder is invalid.
    #[error("{file}: {problem}")]
    File {
        /// Its path. A built-in file has the prefix `built-in `.
        file: String,
        /// What is wrong, and what to do.
        problem: Box<Problem>,
    },
}

impl LoadError {
    pub(super) fn file(file: impl Into<String>, problem: Problem) -> Self {
        Self::File { file: file.into(), problem: Box::new(problem) }
    }
}

/// What is wrong with a file or folder of templates.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Problem {
    #[error("unknown file; expected layout.txt, layout.html, or TEMPLATE/template.toml and TEMPLATE/LOCALE.toml")]
    UnknownFile,
    #[error("not a name of a template: use a letter, then up to 31 of `a-z 0-9 _ -`")]
    TemplateName,
    #[error("more than {MAX_FILE_BYTES} bytes; shorten it")]
    TooLarge,
    #[error("not UTF-8; save it in this encoding")]
    NotUtf8,
    #[error("line {line}: {message}")]
    Toml { line: usize, message: String },
    #[error("two files of the same locale, which differ only in case; remove one")]
    DuplicateLocale,
    #[error("more than {MAX_TEMPLATES} templates; remove some")]
    TooManyTemplates,
    #[error("more than {MAX_LOCALES} locales; remove some")]
    TooManyLocales,
    #[error("template.toml is missing; add it, or use the name of a built-in template to replace its texts")]
    NoDefinition,
    #[error("en.toml is missing; every template needs it, for users whose locale has no file")]
    NoEnglish,

    #[error("`channels` is empty; name at least one of mail, inbox and webhook")]
    NoChannels,
    #[error("`senders` is empty; name at least one workload, such as auth")]
    NoSenders,
    #[error("more than {MAX_PARAMETERS} parameters; remove some")]
    TooManyParameters,
    #[error("parameter `{0}`: a name is a letter, then up to 31 of `a-z 0-9 _`, and neither `product` nor `name`")]
    ParameterName(String),
    #[error("parameter `{0}`: `max_length` must be 1 to {MAX_TEXT_LENGTH}, of a url 1 to {MAX_URL_LENGTH}")]
    MaxLength(String),
    #[error("{0}; correct its `sample`")]
    Sample(ParameterError),

    #[error("`{field}` is missing, which the channel {} needs", channel.name())]
    Missing { field: &'static str, channel: Channel },
    #[error("`{0}` is not used; remove it, or {1}")]
    Unused(&'static str, &'static str),
    #[error("`{field}` is not a valid template: {source}")]
    Syntax { field: String, source: minijinja::Error },
    #[error("`{field}` uses `{variable}`, which is not defined; known are {known}")]
    UnknownVariable { field: String, variable: String, known: String },
    #[error("`{field}` uses the secret parameter `{parameter}`; secrets are only for the body of a mail")]
    Secret { field: String, parameter: String },
    #[error("`action.link` uses `{0}`; a link may use only parameters of the kind url")]
    LinkVariable(String),
    #[error("`action.link` is not a link: {0}")]
    Link(&'static str),
    #[error("`{0}` is empty when it is rendered with the samples")]
    Empty(&'static str),
    #[error("does not show `action.link`; add {{{{ action.link }}}}")]
    LinkNotShown,
    #[error("`{field}` cannot be rendered with the samples: {source}")]
    Render { field: String, source: minijinja::Error },
}

impl Problem {
    /// Of invalid TOML, in one line.
    pub(super) fn toml(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
        Self::Toml { line, message: error.message().replace('\n', ", ") }
    }
}
