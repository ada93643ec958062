//! The application: a list of services, and the commands for them.

use std::{collections::BTreeSet, process::ExitCode};

use clap::Parser;
use drystone::contract::EncodedContract;
use drystone_mesh::{config::ConfigError, module::Module};

use crate::{
    command_line::{CommandLine, Negative, WrongUsage},
    output,
    process::SecondSignal,
};

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// The services of a binary. Their order determines default ports and the order of output.
#[derive(Debug, Clone)]
pub struct App {
    modules: Vec<Module>,
}

impl App {
    /// Drystone's own services.
    #[must_use]
    pub fn new() -> Self {
        let modules = vec![
            drystone_auth::module(),
            drystone_user::module(),
            drystone_session::module(),
            drystone_property::module(),
            drystone_notification::module(),
            drystone_edge::module(),
        ];
        Self { modules }
    }

    /// Adds a service.
    #[must_use]
    pub fn with(mut self, module: Module) -> Self {
        self.modules.push(module);
        self
    }

    /// Runs the command of the process arguments. Exit codes: 0 success, 1 failure or a negative answer, 2 wrong usage or configuration, 128 plus
    /// the signal's number after a second signal.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        let outcome = self.check().and_then(|()| CommandLine::parse().run(self));
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.is::<Negative>() => ExitCode::from(FAILED),
            Err(error) => {
                output::complain(&error);
                ExitCode::from(code_of(&error))
            }
        }
    }

    /// The services.
    pub(crate) fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The service of this name.
    ///
    /// # Errors
    /// The service is unknown; the error lists the known ones.
    pub(crate) fn module(&self, name: &str) -> Result<Module, WrongUsage> {
        self.modules.iter().copied().find(|module| module.name() == name).ok_or_else(|| {
            let known: Vec<&str> = self.modules.iter().map(Module::name).collect();
            WrongUsage(format!("there is no service `{name}` in this binary; there are {}", known.join(", ")))
        })
    }

    /// Checks that each name is a service.
    ///
    /// # Errors
    /// As [`App::module`].
    pub(crate) fn select(&self, names: &[String]) -> Result<Vec<Module>, WrongUsage> {
        names.iter().try_for_each(|name| self.module(name).map(drop))?;
        let is_named = |module: &Module| names.iter().any(|name| name == module.name());
        Ok(self.modules.iter().copied().filter(is_named).collect())
    }

    /// The contracts that are compiled in.
    pub(crate) fn contracts(&self) -> impl Iterator<Item = EncodedContract> {
        std::iter::once(drystone::CONTRACT.clone()).chain(self.modules.iter().filter_map(Module::contract).cloned())
    }

    /// Refuses duplicate service names.
    fn check(&self) -> anyhow::Result<()> {
        let mut names = BTreeSet::new();
        match self.modules.iter().find(|module| !names.insert(module.name())) {
            Some(module) => {
                let name = module.name();
                Err(WrongUsage(format!("two services of this binary are called `{name}`; rename one of them")).into())
            }
            None => Ok(()),
        }
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    if let Some(second) = error.downcast_ref::<SecondSignal>() {
        return second.exit_code();
    }
    if error.is::<ConfigError>() || error.is::<WrongUsage>() { WRONG_USAGE } else { FAILED }
}

impl Default for App {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_services_of_one_name_are_refused_by_it() {
        assert!(App::new().check().is_ok());
        let error = App::new().with(drystone_user::module()).check().unwrap_err();
        assert!(error.is::<WrongUsage>());
        assert_eq!(error.to_string(), "two services of this binary are called `user`; rename one of them");
    }

    #[test]
    fn an_unknown_service_is_refused_with_those_there_are() {
        let error = App::new().select(&["user".to_owned(), "orders".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("`orders`") && error.contains("auth, user, session, property, notification, edge"),
            "{error}"
        );
    }
}
