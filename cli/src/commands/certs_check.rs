//! `drystone certs check`: whether services accept the certificates in `certs_dir`.

use anyhow::{Result, bail};
use drystone_mesh::{
    clock::Clock,
    config::ConfigDuration,
    error::Chain,
    identity::{Denylist, Identity, IdentityFiles, SpiffeId, Svid},
};

use crate::{App, certificates, command_line::WrongUsage, config::Config, output, table::Table};

/// The flags of `drystone certs check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Check these workloads, and fail if one has no certificate [default: all that have one]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Fail if a certificate expires within this time
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    within: ConfigDuration,

    #[command(flatten)]
    directory: certificates::CertsDir,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = args.directory.config(app)?;
    let denylist = config.mesh.certificates.denylist.as_deref().map(Denylist::read).transpose()?.unwrap_or_default();
    let mut table = Table::new(["WORKLOAD", "VALID UNTIL", "STATE"]);
    let mut faults = Vec::new();
    for (name, files) in selected(app, args, &config)? {
        let (valid_until, outcome) = match Identity::load(&files) {
            Ok(identity) => {
                let svid = identity.svid();
                let own = SpiffeId::for_workload(&config.mesh.trust_domain, &name)
                    .map_err(|error| WrongUsage(format!("`{name}` is not the name of a workload: {error}")))?;
                (certificates::time(svid.not_after), check(&svid, &own, &denylist, args.within))
            }
            Err(error) => ("-".to_owned(), Err(Chain(&error).to_string())),
        };
        table.row([name.clone(), valid_until, if outcome.is_ok() { "ok" } else { "not usable" }.to_owned()]);
        faults.extend(outcome.err().map(|fault| format!("{name}: {fault}")));
    }
    output::print(table.to_string())?;
    match faults.as_slice() {
        [] => Ok(()),
        faults => bail!("{}", faults.join("\n          ")),
    }
}

/// The workloads to check, with their files.
fn selected(app: &App, args: &Args, config: &Config) -> Result<Vec<(String, IdentityFiles)>> {
    let with_files = |name: &String| (name.clone(), config.identity_files(name));
    if !args.names.is_empty() {
        return Ok(args.names.iter().map(with_files).collect());
    }
    let mut workloads: Vec<_> = config.contracts(app)?.workloads().iter().map(with_files).collect();
    workloads.retain(|(_, files)| files.certificate.exists());
    // One file for whichever service runs here.
    if workloads.len() > 1 && workloads.iter().all(|(_, files)| files.certificate == workloads[0].1.certificate) {
        bail!(
            "certificates.certificate is one file for every workload; name the workload, such as `drystone certs check auth`"
        );
    }
    if workloads.is_empty() {
        bail!(
            "there is no certificate in {}; issue some with `drystone certs init`, or set `certs_dir`",
            config.mesh.certs_dir.display()
        );
    }
    Ok(workloads)
}

/// Checks what [`Identity::load`] does not.
fn check(svid: &Svid, own: &SpiffeId, denylist: &Denylist, within: ConfigDuration) -> Result<(), String> {
    if svid.id != *own {
        return Err(format!("the certificate is for {}, not for {own}; replace it", svid.id));
    }
    if denylist.contains(svid) {
        return Err("the certificate is on the denylist; issue a new one with a new key".to_owned());
    }
    let left = (svid.not_after - Clock::system().now()).to_std().unwrap_or_default();
    if left < within.duration() {
        return Err(format!("the certificate expires within {within}; issue a new one"));
    }
    Ok(())
}
