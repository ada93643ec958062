//! `drystone certs rotate-root`: one step of a rotation of the development CA's root.

use anyhow::Result;
use drystone_mesh::{
    clock::Clock,
    config::ConfigError,
    identity::{Authority, RotationStep},
};

use crate::{App, certificates, output};

/// The flags of `drystone certs rotate-root`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The step; it fails if it is not the next one
    #[arg(value_enum, value_name = "STEP")]
    step: Step,

    #[command(flatten)]
    directory: certificates::CertsDir,
}

/// [`RotationStep`] on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Step {
    /// Trust a new root as well
    Add,
    /// Issue every certificate anew, from the new root
    Issue,
    /// Trust the old root no longer
    Remove,
}

impl From<Step> for RotationStep {
    fn from(step: Step) -> Self {
        match step {
            Step::Add => Self::Add,
            Step::Issue => Self::Issue,
            Step::Remove => Self::Remove,
        }
    }
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = args.directory.config(app)?;
    config.mesh.certificates.check_names().map_err(ConfigError::new)?;
    let mut authority = Authority::open(&config.mesh.certs_dir, &config.mesh.trust_domain, Clock::system())?;
    let step = args.step.into();
    let issued = authority.rotate(step)?;
    let roots = authority.certificate();
    let roots = roots.display();
    output::print(match step {
        RotationStep::Add => format!(
            "1 of 3: {roots} has a new root beside the old one, which still issues.\n\
             Give that file to every process; once all have read it (a line `certificate replaced`), run \
             `drystone certs rotate-root issue`.\n"
        ),
        RotationStep::Issue => format!(
            "2 of 3: the new root has issued the certificates of {}.\n\
             Replace copies of them elsewhere; once every process has read its own, run \
             `drystone certs rotate-root remove`.\n",
            issued.join(", ")
        ),
        RotationStep::Remove => format!(
            "3 of 3: {roots} has the new root alone. Give that file to every process; connections of the old root end.\n"
        ),
    })
}
