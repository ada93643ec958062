//! The files of templates: built in, and in a folder of the operator.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    built_in,
    definition::is_name,
    error::{LoadError, Problem},
    render::{LAYOUT_HTML, LAYOUT_TEXT},
};

/// The maximum size of a file in bytes.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The maximum number of templates.
pub const MAX_TEMPLATES: usize = 200;
/// The maximum number of locales of a template.
pub const MAX_LOCALES: usize = 50;
const MAX_TAG_LENGTH: usize = 35;

/// All files.
pub struct Sources {
    pub layout_text: SourceFile,
    pub layout_html: SourceFile,
    pub templates: BTreeMap<String, TemplateSource>,
}

/// The files of a template.
#[derive(Default)]
pub struct TemplateSource {
    pub definition: Option<SourceFile>,
    /// By tag in lower case, with the tag as the file is named.
    pub locales: BTreeMap<String, (String, SourceFile)>,
    /// The folder, for errors.
    pub origin: String,
}

/// A file.
pub struct SourceFile {
    pub text: Cow<'static, str>,
    /// Its path, for errors.
    pub origin: String,
    is_built_in: bool,
}

impl Sources {
    /// The built-in files.
    pub fn built_in() -> Self {
        let file =
            |path: &str, text| SourceFile { text: Cow::Borrowed(text), origin: origin_of(path), is_built_in: true };
        let mut templates: BTreeMap<String, TemplateSource> = BTreeMap::new();
        for (name, name_of_file, text) in built_in::FILES {
            let template = templates.entry((*name).to_owned()).or_default();
            template.origin = origin_of(name);
            let inserted = template.insert(name_of_file, file(&format!("{name}/{name_of_file}"), text));
            debug_assert!(inserted.is_ok(), "{name}/{name_of_file}");
        }
        Self {
            layout_text: file(LAYOUT_TEXT, built_in::LAYOUT_TEXT),
            layout_html: file(LAYOUT_HTML, built_in::LAYOUT_HTML),
            templates,
        }
    }

    /// Replaces and adds the files of a folder.
    pub fn overlay(&mut self, folder: &Path) -> Result<(), LoadError> {
        for (name, path) in entries(folder)? {
            let of_file = |problem| LoadError::file(path.display().to_string(), problem);
            if is_folder(&path)? {
                let name = name.filter(|name| is_name(name)).ok_or_else(|| of_file(Problem::TemplateName))?;
                if !self.templates.contains_key(&name) && self.templates.len() == MAX_TEMPLATES {
                    return Err(of_file(Problem::TooManyTemplates));
                }
                self.templates.entry(name).or_default().overlay(&path)?;
                continue;
            }
            match name.as_deref() {
                Some(LAYOUT_TEXT) => self.layout_text = read(&path)?,
                Some(LAYOUT_HTML) => self.layout_html = read(&path)?,
                _ => return Err(of_file(Problem::UnknownFile)),
            }
        }
        Ok(())
    }
}

impl TemplateSource {
    fn overlay(&mut self, folder: &Path) -> Result<(), LoadError> {
        self.origin = folder.display().to_string();
        for (name, path) in entries(folder)? {
            let of_file = |problem| LoadError::file(path.display().to_string(), problem);
            let name = name.filter(|name| is_known_file(name)).ok_or_else(|| of_file(Problem::UnknownFile))?;
            if is_folder(&path)? {
                return Err(of_file(Problem::UnknownFile));
            }
            self.insert(&name, read(&path)?).map_err(of_file)?;
        }
        Ok(())
    }

    fn insert(&mut self, name: &str, file: SourceFile) -> Result<(), Problem> {
        if name == DEFINITION {
            self.definition = Some(file);
            return Ok(());
        }
        let tag = tag_of(name).ok_or(Problem::UnknownFile)?;
        let is_built_in = file.is_built_in;
        let replaced = self.locales.insert(tag.to_ascii_lowercase(), (tag.to_owned(), file));
        if replaced.is_some_and(|(_, file)| file.is_built_in == is_built_in) {
            return Err(Problem::DuplicateLocale);
        }
        if self.locales.len() > MAX_LOCALES { Err(Problem::TooManyLocales) } else { Ok(()) }
    }
}

const DEFINITION: &str = "template.toml";

fn origin_of(built_in: &str) -> String {
    format!("built-in {built_in}")
}

fn is_known_file(name: &str) -> bool {
    name == DEFINITION || tag_of(name).is_some()
}

/// The tag of the file of a locale.
fn tag_of(name: &str) -> Option<&str> {
    name.strip_suffix(".toml").filter(|tag| is_tag(tag))
}

/// Whether a text is a well-formed language tag (BCP 47), without its rarer forms.
fn is_tag(text: &str) -> bool {
    let mut tags = text.split('-');
    let language = tags.next().unwrap_or_default();
    let is_language = (2..=3).contains(&language.len()) && language.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_subtag = |tag: &str| (1..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.len() <= MAX_TAG_LENGTH && is_language && tags.all(is_subtag)
}

/// The entries of a folder in order, with their names if these are UTF-8. Those with a leading dot are left out: they
/// are of editors, and of the config maps of Kubernetes (`..data`).
fn entries(folder: &Path) -> Result<Vec<(Option<String>, PathBuf)>, LoadError> {
    let failed = |source| LoadError::Read { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(OsStr::to_str).map(str::to_owned);
        if !name.as_deref().is_some_and(|name| name.starts_with('.')) {
            entries.push((name, path));
        }
    }
    entries.sort();
    Ok(entries)
}

/// Follows symbolic links.
fn is_folder(path: &Path) -> Result<bool, LoadError> {
    let metadata = fs::metadata(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    // A pipe or a device: to open it could block.
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(LoadError::file(path.display().to_string(), Problem::UnknownFile));
    }
    Ok(metadata.is_dir())
}

fn read(path: &Path) -> Result<SourceFile, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let origin = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(LoadError::file(origin, Problem::TooLarge));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceFile { text: Cow::Owned(text), origin, is_built_in: false }),
        Err(_) => Err(LoadError::file(origin, Problem::NotUtf8)),
    }
}
