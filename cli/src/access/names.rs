//! Names of RPCs on the command line: `package.Service/Method`, or the shorter `Service/Method`.

use std::sync::Arc;

use drystone::contract::Method;

/// How many similar names are suggested.
const SUGGESTIONS: usize = 3;

/// What a name means.
pub(crate) enum Named<'r> {
    /// One RPC.
    Rule(&'r Arc<Method>),
    /// No RPC.
    Unknown,
    /// Several RPCs, of services with the same name in different packages.
    Ambiguous(Vec<&'r str>),
}

impl<'r> Named<'r> {
    pub(super) fn find(rules: &'r [Arc<Method>], name: &str) -> Self {
        let name = name.strip_prefix('/').unwrap_or(name);
        if let Some(rule) = rules.iter().find(|rule| full_name(rule) == name) {
            return Self::Rule(rule);
        }
        let has_suffix = |rule: &&Arc<Method>| short_name(rule) == name;
        match rules.iter().filter(has_suffix).collect::<Vec<_>>()[..] {
            [] => Self::Unknown,
            [rule] => Self::Rule(rule),
            ref several => Self::Ambiguous(several.iter().map(|rule| full_name(rule)).collect()),
        }
    }
}

/// `package.Service/Method`
fn full_name(rule: &Method) -> &str {
    rule.path.trim_start_matches('/')
}

/// `Service/Method`
fn short_name(rule: &Method) -> &str {
    without_package(full_name(rule))
}

fn without_package(name: &str) -> &str {
    let service = name.split('/').next().unwrap_or_default();
    service.rfind('.').map_or(name, |dot| &name[dot + 1..])
}

/// The RPCs whose names differ least, packages apart.
pub(super) fn nearest<'r>(rules: &'r [Arc<Method>], name: &str) -> Vec<&'r str> {
    let name = name.strip_prefix('/').unwrap_or(name);
    let wanted = without_package(name).to_lowercase();
    let distance = |rule: &Method| {
        // A name without a service is compared with that of the RPC alone.
        let known = if wanted.contains('/') { short_name(rule) } else { rule.name() };
        edit_distance(&wanted, &known.to_lowercase())
    };
    let mut candidates: Vec<_> = rules.iter().map(|rule| (distance(rule), full_name(rule))).collect();
    candidates.sort_unstable();
    candidates.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
}

/// The Levenshtein distance: how many bytes are inserted, removed or replaced.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rpc_is_found_by_its_full_and_its_short_name() {
        let contracts = drystone::contracts().unwrap();
        for name in ["/drystone.user.v1.UserService/GetMe", "drystone.user.v1.UserService/GetMe", "UserService/GetMe"] {
            let found = Named::find(contracts.methods(), name);
            assert!(
                matches!(found, Named::Rule(rule) if &*rule.path == "/drystone.user.v1.UserService/GetMe"),
                "{name}"
            );
        }
        // A suffix must begin at a package, and have a service.
        for name in ["Service/GetMe", "GetMe", "/GetMe", "v1.UserService/GetMe", "UserService/", ""] {
            assert!(matches!(Named::find(contracts.methods(), name), Named::Unknown), "{name}");
        }
    }

    #[test]
    fn the_most_similar_names_are_suggested() {
        let contracts = drystone::contracts().unwrap();
        for name in ["UserService/GetMee", "drystone.user.v1.UserServce/GetMe", "getme"] {
            let candidates = nearest(contracts.methods(), name);
            assert_eq!(candidates.len(), SUGGESTIONS);
            assert_eq!(candidates[0], "drystone.user.v1.UserService/GetMe", "{name}");
        }
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!((edit_distance("", "abc"), edit_distance("abc", "")), (3, 3));
    }

    #[test]
    fn a_short_name_of_two_services_is_ambiguous() {
        let rule = |path: &str| {
            let contracts = drystone::contracts().unwrap();
            Arc::new(Method { path: path.into(), ..(*contracts.methods()[0]).clone() })
        };
        let rules = [rule("/a.v1.S/M"), rule("/b.v1.S/M")];
        assert!(matches!(Named::find(&rules, "S/M"), Named::Ambiguous(several) if several == ["a.v1.S/M", "b.v1.S/M"]));
        assert!(matches!(Named::find(&rules, "b.v1.S/M"), Named::Rule(_)));
    }
}
