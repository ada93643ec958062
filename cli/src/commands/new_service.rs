//! `drystone new service`: creates a crate with a service, from the files in `templates/service/`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use drystone_mesh::module::Module;

use crate::{App, command_line::WrongUsage, config::MeshConfig, output};

/// The repository that this binary was built from.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The longest service name. Names derived from it have to fit into a database.
const MAX_NAME_LENGTH: usize = 32;

/// Names that are reserved in the mesh, Cargo, Rust or SQL.
#[rustfmt::skip]
const RESERVED: &[&str] = &[
    // The mesh: entry points and words of access rules; REST paths of Drystone.
    "any", "ingress", "operator", "outside", "drystone", "acme", "google", "users", "sessions", "properties",
    // Cargo and the crates that the new one uses.
    "alloc", "build", "core", "deps", "examples", "incremental", "proc", "prost", "sqlx", "std", "test", "tests", "tokio",
    "tonic", "uuid",
    // Rust.
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else", "enum",
    "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move",
    "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true", "try", "type",
    "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
    // SQL, as the name of a table.
    "value", "values",
];

/// Each file of a new service, with its template. `{{plural}}` and `{{name}}` are replaced in both.
const FILES: [(&str, &str); 13] = [
    (".cargo/config.toml", include_str!("../../templates/service/cargo-config.toml")),
    (PROTOC, include_str!("../../templates/service/protoc")),
    (".gitignore", include_str!("../../templates/service/gitignore")),
    ("Cargo.toml", include_str!("../../templates/service/Cargo.toml.template")),
    ("rustfmt.toml", include_str!("../../templates/service/rustfmt.toml.template")),
    ("build.rs", include_str!("../../templates/service/build.rs")),
    ("proto/acme/{{name}}/v1/{{name}}.proto", include_str!("../../templates/service/proto/service.proto")),
    ("migrations/postgres/0001_{{plural}}.sql", include_str!("../../templates/service/migrations/postgres.sql")),
    ("migrations/sqlite/0001_{{plural}}.sql", include_str!("../../templates/service/migrations/sqlite.sql")),
    ("src/lib.rs", include_str!("../../templates/service/src/lib.rs")),
    ("src/main.rs", include_str!("../../templates/service/src/main.rs")),
    ("src/store.rs", include_str!("../../templates/service/src/store.rs")),
    ("tests/{{name}}.rs", include_str!("../../templates/service/tests/service.rs")),
];

/// The executable file.
const PROTOC: &str = ".cargo/protoc";

/// The flags of `drystone new service`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The workload, in lower-case letters: `orders` makes package `acme.orders.v1` and the resource `Order`
    #[arg(value_name = "NAME")]
    name: String,

    /// Take Drystone's crates from this checkout or git repository [default: the checkout of this binary]
    #[arg(long, value_name = "PATH|GIT-URL")]
    drystone: Option<String>,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let names = Names::parse(&args.name, app)?;
    let source = Source::find(args.drystone.as_deref())?;
    let directory = Path::new(&names.name);
    fs::create_dir(directory).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let name = directory.display();
            anyhow::Error::from(WrongUsage(format!("`{name}` is there already; choose another name, or remove it")))
        }
        _ => anyhow::Error::from(error).context(format!("the directory `{}` cannot be made", directory.display())),
    })?;
    for (path, template) in FILES {
        let path = directory.join(names.fill(path));
        write(&path, &source.fill(&names.fill(template)))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    make_executable(&directory.join(PROTOC)).context("the file .cargo/protoc cannot be made executable")?;
    let Names { name, .. } = &names;
    output::print(format!(
        "The service `{name}` is in the directory {name}. To start a mesh with it:\n\n  cd {name}\n  cargo run -- up\n"
    ))
}

/// The names in a new service.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    /// The workload, the crate and the package: `orders`.
    name: String,
    /// The resource in singular: `order`.
    singular: String,
    /// The resource in plural: `orders`.
    plural: String,
}

impl Names {
    /// Checks the name of a service, and derives the others from it: the singular is the name without a final `s`, the
    /// plural the singular with it.
    fn parse(name: &str, app: &App) -> Result<Self, WrongUsage> {
        let refuse = |why: &str| Err(WrongUsage(format!("a service cannot be called `{name}`: {why}")));
        if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return refuse(&format!(
                "the name consists of 1 to {MAX_NAME_LENGTH} lower-case letters, since a crate, a package and a table are called after it"
            ));
        }
        let singular = match name.strip_suffix('s') {
            Some(rest) if !rest.is_empty() && !rest.ends_with('s') => rest.to_owned(),
            _ => name.to_owned(),
        };
        let plural = if singular.ends_with('s') { format!("{singular}es") } else { format!("{singular}s") };
        if app.modules().iter().map(Module::name).any(|known| known == name || known == singular) {
            return refuse("this binary has a service of that name");
        }
        let names = [name, &singular, &plural];
        if names.iter().any(|name| RESERVED.contains(name)) {
            return refuse("the name, or its singular or plural, is reserved");
        }
        if MeshConfig::has_setting(name) {
            return refuse("it is a setting of the mesh");
        }
        Ok(Self { name: name.to_owned(), singular, plural })
    }

    /// Replaces the placeholders for names.
    fn fill(&self, template: &str) -> String {
        template
            .replace("{{name}}", &self.name)
            .replace("{{singular}}", &self.singular)
            .replace("{{plural}}", &self.plural)
            .replace("{{Singular}}", &capitalized(&self.singular))
            .replace("{{Plural}}", &capitalized(&self.plural))
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// The source of Drystone's crates.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Checkout(PathBuf),
    Git(String),
}

impl Source {
    fn find(given: Option<&str>) -> Result<Self, WrongUsage> {
        if let Some(url) = given.filter(|given| given.contains("://") || given.starts_with("git@")) {
            return Ok(Self::Git(url.to_owned()));
        }
        let path = Path::new(given.unwrap_or(CHECKOUT));
        let checkout = path.canonicalize().ok().filter(|path| path.join("mesh/Cargo.toml").is_file());
        match (checkout, given) {
            (Some(checkout), _) => Ok(Self::Checkout(checkout)),
            (None, Some(given)) => Err(WrongUsage(format!("`{given}` is no checkout of Drystone and no URL"))),
            (None, None) => Err(WrongUsage(
                "the checkout that this binary was built from is not there; say where Drystone is with --drystone PATH or URL"
                    .to_owned(),
            )),
        }
    }

    /// Replaces the placeholders for Drystone's crates.
    fn fill(&self, template: &str) -> String {
        ["build", "cli", "mesh", "store", "testing", "."].iter().fold(template.to_owned(), |text, folder| {
            let dependency = match self {
                Self::Checkout(path) if *folder == "." => format!("{{ path = {} }}", quoted(path)),
                Self::Checkout(path) => format!("{{ path = {} }}", quoted(&path.join(folder))),
                Self::Git(url) => format!("{{ git = {} }}", toml::Value::from(url.as_str())),
            };
            text.replace(&format!("{{{{drystone {folder}}}}}"), &dependency)
        })
    }
}

fn quoted(path: &Path) -> String {
    toml::Value::from(path.to_string_lossy().into_owned()).to_string()
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str) -> Result<Names, String> {
        Names::parse(name, &App::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn at_most_200_lines_are_generated_and_no_placeholder_is_left() {
        let source = Source::find(None).unwrap();
        for name in ["orders", "widget"] {
            let names = names(name).unwrap();
            let texts = FILES.map(|(path, template)| (names.fill(path), source.fill(&names.fill(template))));
            let lines: usize = texts.iter().map(|(_, text)| text.lines().count()).sum();
            assert!(lines <= 200, "{lines} lines");
            for (path, text) in texts {
                assert!(!path.contains("{{") && !text.contains("{{"), "{path}: {text}");
            }
        }
    }

    #[test]
    fn the_resource_is_named_in_singular_and_plural() {
        for (name, singular, plural) in [
            ("orders", "order", "orders"),
            ("widget", "widget", "widgets"),
            ("address", "address", "addresses"),
            ("s", "s", "ses"),
        ] {
            let names = names(name).unwrap();
            assert_eq!((names.singular.as_str(), names.plural.as_str()), (singular, plural), "{name}");
        }
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for name in ["", "Orders", "my-orders", "order2", "../x", &"x".repeat(33)] {
            assert!(names(name).unwrap_err().contains("lower-case letters"), "{name}");
        }
        for name in ["auth", "auths", "user", "users", "property", "properties", "session", "edge"] {
            names(name).unwrap_err();
        }
        for name in ["ingress", "operator", "outside", "match", "types", "tests", "values", "drystone"] {
            assert!(names(name).unwrap_err().contains("reserved"), "{name}");
        }
        for name in ["log", "limits", "peers", "redis", "admin", "contracts", "issuer", "server"] {
            assert!(names(name).unwrap_err().contains("setting"), "{name}");
        }
    }

    #[test]
    fn a_git_repository_is_named_by_its_url() {
        let source = Source::find(Some("https://example.com/drystone.git")).unwrap();
        assert_eq!(source.fill("{{drystone mesh}}"), "{ git = \"https://example.com/drystone.git\" }");
        assert!(Source::find(Some("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
    }
}
