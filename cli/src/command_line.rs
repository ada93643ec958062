//! The commands and their flags.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    App,
    commands::{
        access_diff, access_explain, access_show, certs_check, certs_init, certs_issue, certs_rotate_root, certs_show,
        config_check, config_show, contract_export, export_envoy, health, keys_generate, keys_list, keys_rewrap,
        keys_rotate, keys_seal, keys_withdraw, migrate_status, migrate_up, new_service, notifications_list,
        notifications_preview, notifications_requeue, passwords_build_list, roles_grant, roles_list, roles_revoke,
        roles_show, serve, up, users_delete, users_disable, users_enable, users_export, users_import, users_list,
        users_promote, users_purge, users_show, users_undelete,
    },
};

/// An identity platform: accounts, sign-in, sessions, roles and owned resources, served over gRPC and REST.
#[derive(Debug, Parser)]
#[command(name = "drystone", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Settings come from defaults < the file of --config (or $DRYSTONE_CONFIG) < the environment < flags.
In the environment, DRYSTONE_AUTH__LISTEN sets `listen` in [auth].
To start a mesh on this machine: drystone up";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole mesh in this process, on embedded stores
    Up(up::Args),
    /// Run one service of the mesh, or several
    Serve(serve::Args),
    /// Issue, show and check certificates, and rotate the root of the development CA
    #[command(subcommand)]
    Certs(Certs),
    /// Check whether a running process is ready; exits with 1 if it is not or does not answer
    Health(health::Args),
    /// Show, explain and compare the access rules
    #[command(subcommand)]
    Access(Access),
    /// Export the contracts
    #[command(subcommand)]
    Contract(ContractCommand),
    /// Export configurations of other programs
    #[command(subcommand)]
    Export(Export),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(Config),
    /// Manage the database schemas
    #[command(subcommand)]
    Migrate(Migrate),
    /// Show accounts, and make the first administrator
    #[command(subcommand)]
    Users(Users),
    /// Show, grant and revoke roles
    #[command(subcommand)]
    Roles(Roles),
    /// Show messages to users, and have those delivered that were given up
    #[command(subcommand)]
    Notifications(Notifications),
    /// Make lists of leaked passwords
    #[command(subcommand)]
    Passwords(Passwords),
    /// Manage the keys that sign access tokens, and those that encrypt secrets in databases
    #[command(subcommand)]
    Keys(Keys),
    /// Create a project from a template
    #[command(subcommand)]
    New(New),
}

#[derive(Debug, Subcommand)]
enum Certs {
    /// Create the development CA if there is none, and issue a certificate for every workload
    Init(certs_init::Args),
    /// Issue a certificate for one workload, such as a service that is not compiled in
    Issue(certs_issue::Args),
    /// Take a step of a rotation of the development CA's root: add, issue, then remove
    RotateRoot(certs_rotate_root::Args),
    /// Show the certificates in a file, or those of a server
    Show(certs_show::Args),
    /// Check the certificates in `certs_dir` as services do; exits with 1 if one cannot be used
    Check(certs_check::Args),
}

#[derive(Debug, Subcommand)]
enum Users {
    /// Delete an account, and end its sessions; it can be restored for some time
    Delete(users_delete::Args),
    /// Disable an account, and end its sessions
    Disable(users_disable::Args),
    /// Enable a disabled account
    Enable(users_enable::Args),
    /// Write all accounts as lines of JSON, without passwords
    Export(users_export::Args),
    /// Import accounts, with the hashes of their passwords, from lines of JSON
    Import(users_import::Args),
    /// List accounts, oldest first
    List(users_list::Args),
    /// Grant a user a role, such as to the first administrator
    Promote(users_promote::Args),
    /// Remove a deleted account for good
    Purge(users_purge::Args),
    /// Show an account, and what its user may do and why
    Show(users_show::Args),
    /// Restore a deleted account
    Undelete(users_undelete::Args),
}

#[derive(Debug, Subcommand)]
enum Roles {
    /// List all roles
    List(roles_list::Args),
    /// Show a role
    Show(roles_show::Args),
    /// Grant a role to a user
    Grant(roles_grant::Args),
    /// Revoke a role from a user
    Revoke(roles_revoke::Args),
}

#[derive(Debug, Subcommand)]
enum Notifications {
    /// List deliveries, newest first
    List(notifications_list::Args),
    /// Show the message of a template with sample parameters, or list the templates
    Preview(notifications_preview::Args),
    /// Have a delivery attempted again that was given up
    Requeue(notifications_requeue::Args),
}

#[derive(Debug, Subcommand)]
enum Passwords {
    /// Make a compact file of leaked passwords, which new ones must not be among
    BuildList(passwords_build_list::Args),
}

#[derive(Debug, Subcommand)]
enum Keys {
    /// Write a file with a new master key, for sealing.key_file
    Generate(keys_generate::Args),
    /// List the keys that sign access tokens
    List(keys_list::Args),
    /// Put the encrypted keys under the master key that encrypts now
    Rewrap(keys_rewrap::Args),
    /// Publish a new key that signs access tokens soon
    Rotate(keys_rotate::Args),
    /// Encrypt and replace the keys that an earlier release stored unencrypted
    Seal(keys_seal::Args),
    /// Have every server refuse the access tokens of a compromised key at once
    Withdraw(keys_withdraw::Args),
}

#[derive(Debug, Subcommand)]
enum New {
    /// Create a crate with a service, in a new directory NAME
    Service(new_service::Args),
}

#[derive(Debug, Subcommand)]
enum Access {
    /// Say who gains and who loses which RPC; exits with 1 if a rule is looser and no entry names it
    Diff(access_diff::Args),
    /// Say whether a call would be allowed, and which part of its rule decides; exits with 1 if it would be denied
    Explain(access_explain::Args),
    /// Show the rule of every RPC
    Show(access_show::Args),
}

#[derive(Debug, Subcommand)]
enum ContractCommand {
    /// Write the descriptor set: for grpcurl, buf, Envoy, and clients in any language
    Export(contract_export::Args),
}

#[derive(Debug, Subcommand)]
enum Export {
    /// Write a complete configuration of Envoy, in front of the services or of the edge
    Envoy(export_envoy::Args),
}

#[derive(Debug, Subcommand)]
enum Config {
    /// Check the configuration
    Check(config_check::Args),
    /// Show the effective configuration, with secrets masked
    Show(config_show::Args),
}

#[derive(Debug, Subcommand)]
enum Migrate {
    /// Show the schema version of each database; exits with 1 if one is not up to date
    Status(migrate_status::Args),
    /// Apply pending migrations, as services do at start
    Up(migrate_up::Args),
}

/// Invalid arguments that clap cannot detect.
#[derive(Debug)]
pub(crate) struct WrongUsage(pub(crate) String);

impl std::error::Error for WrongUsage {}

impl std::fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The answer of the command is no. It has been printed, and only the exit code remains.
#[derive(Debug)]
pub(crate) struct Negative;

impl std::error::Error for Negative {}

impl std::fmt::Display for Negative {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer is no")
    }
}

impl CommandLine {
    pub(crate) fn run(self, app: &App) -> Result<()> {
        match self.command {
            Command::Up(args) => up::run(app, args),
            Command::Serve(args) => serve::run(app, args),
            Command::Certs(Certs::Init(args)) => certs_init::run(app, &args),
            Command::Certs(Certs::Issue(args)) => certs_issue::run(app, &args),
            Command::Certs(Certs::RotateRoot(args)) => certs_rotate_root::run(app, &args),
            Command::Certs(Certs::Show(args)) => certs_show::run(&args),
            Command::Certs(Certs::Check(args)) => certs_check::run(app, &args),
            Command::Health(args) => health::run(app, &args),
            Command::Access(Access::Diff(args)) => access_diff::run(app, &args),
            Command::Access(Access::Explain(args)) => access_explain::run(app, &args),
            Command::Access(Access::Show(args)) => access_show::run(app, &args),
            Command::Contract(ContractCommand::Export(args)) => contract_export::run(app, &args),
            Command::Export(Export::Envoy(args)) => export_envoy::run(app, &args),
            Command::Config(Config::Check(args)) => config_check::run(app, &args),
            Command::Config(Config::Show(args)) => config_show::run(app, &args),
            Command::Migrate(Migrate::Status(args)) => migrate_status::run(app, &args),
            Command::Migrate(Migrate::Up(args)) => migrate_up::run(app, &args),
            Command::Users(Users::Disable(args)) => users_disable::run(app, &args),
            Command::Users(Users::Enable(args)) => users_enable::run(app, &args),
            Command::Users(Users::Delete(args)) => users_delete::run(app, &args),
            Command::Users(Users::Export(args)) => users_export::run(app, &args),
            Command::Users(Users::Import(args)) => users_import::run(app, &args),
            Command::Users(Users::Purge(args)) => users_purge::run(app, &args),
            Command::Users(Users::Undelete(args)) => users_undelete::run(app, &args),
            Command::Users(Users::List(args)) => users_list::run(app, &args),
            Command::Users(Users::Promote(args)) => users_promote::run(app, &args),
            Command::Users(Users::Show(args)) => users_show::run(app, &args),
            Command::Roles(Roles::List(args)) => roles_list::run(app, &args),
            Command::Roles(Roles::Show(args)) => roles_show::run(app, &args),
            Command::Roles(Roles::Grant(args)) => roles_grant::run(app, &args),
            Command::Roles(Roles::Revoke(args)) => roles_revoke::run(app, &args),
            Command::Keys(Keys::Generate(args)) => keys_generate::run(&args),
            Command::Keys(Keys::List(args)) => keys_list::run(app, &args),
            Command::Keys(Keys::Rewrap(args)) => keys_rewrap::run(app, &args),
            Command::Keys(Keys::Rotate(args)) => keys_rotate::run(app, &args),
            Command::Keys(Keys::Seal(args)) => keys_seal::run(app, &args),
            Command::Keys(Keys::Withdraw(args)) => keys_withdraw::run(app, &args),
            Command::Notifications(Notifications::List(args)) => notifications_list::run(app, &args),
            Command::Notifications(Notifications::Preview(args)) => notifications_preview::run(app, &args),
            Command::Notifications(Notifications::Requeue(args)) => notifications_requeue::run(app, &args),
            Command::Passwords(Passwords::BuildList(args)) => passwords_build_list::run(&args),
            Command::New(New::Service(args)) => new_service::run(app, &args),
        }
    }
}
