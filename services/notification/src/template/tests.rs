//! Tests of templates: of loading, of parameters and of rendering.

mod load;
mod parameters;
mod render;

use std::{collections::BTreeMap, fs, path::Path};

use tempfile::TempDir;

use super::{LoadError, Mail, Templates};

/// A definition for mails, with a secret link and a text.
const DEFINITION: &str = r#"
category = "news"
channels = ["mail"]
senders = ["shop"]
[parameters.link]
kind = "url"
secret = true
sample = "https://example.com/?token=sample&step=1"
[parameters.word]
kind = "text"
sample = "sample"
"#;
const ENGLISH: &str = r#"
subject = "News: {{ word }}"
paragraphs = ["Hello {{ name }}", "{{ word }}"]
action = { label = "Open {{ word }}", link = "{{ link }}" }
closing = ["Bye"]
"#;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(folder.path(), path, text.as_bytes());
    }
    folder
}

fn write(folder: &Path, path: &str, text: &[u8]) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn load_folder(folder: &Path) -> Result<Templates, LoadError> {
    Templates::load("Drystone", "en", Some(folder))
}

fn load(files: &[(&str, &str)]) -> Result<Templates, LoadError> {
    load_folder(folder(files).path())
}

/// The error of a folder, without its path.
fn load_error(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    error_of(folder.path())
}

fn error_of(folder: &Path) -> String {
    let error = load_folder(folder).unwrap_err().to_string();
    error.replace(&format!("{}/", folder.display()), "")
}

fn built_in() -> Templates {
    Templates::load("Drystone", "en", None).unwrap()
}

/// The template `news` with a file of its own for English.
fn news(english: &str) -> Templates {
    load(&[("news/template.toml", DEFINITION), ("news/en.toml", english)]).unwrap()
}

fn mail(templates: &Templates, template: &str, locale: &str, name: &str, changes: &[(&str, &str)]) -> Mail {
    let template = templates.get(template).unwrap();
    let parameters = with(template.samples(), changes);
    template.check(&parameters).unwrap().mail(locale, name).unwrap()
}

fn with(mut parameters: BTreeMap<String, String>, changes: &[(&str, &str)]) -> BTreeMap<String, String> {
    parameters.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    parameters
}
