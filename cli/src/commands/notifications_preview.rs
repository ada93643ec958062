//! `drystone notifications preview`: a message as its template makes it, with sample parameters.

use anyhow::Result;
use clap::ValueEnum;
use drystone_notification::template::{Channel, Template};

use crate::{
    App,
    command_line::WrongUsage,
    config::{Config, ConfigFile},
    output,
    table::Table,
};

/// The flags of `drystone notifications preview`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// The name of the template; without it, all templates are listed
    template: Option<String>,

    /// The language, such as de-CH; without it, the configured one
    #[arg(long, default_value = "")]
    locale: String,

    /// The name of the recipient
    #[arg(long, default_value = "Ada Lovelace")]
    name: String,

    /// Which part to show
    #[arg(long, value_enum, default_value_t = Part::Text)]
    part: Part,
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The subject and the plain text of the mail
    Text,
    /// The HTML of the mail
    Html,
    /// What is added to the inbox
    Inbox,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    let service = config.service(drystone_notification::NAME);
    let section = service.and_then(|service| service.own.values::<drystone_notification::Config>());
    let templates = section.cloned().unwrap_or_default().load_templates()?;
    let Some(name) = &args.template else {
        let mut table = Table::new(["TEMPLATE", "CATEGORY", "CHANNELS", "SENDERS", "LANGUAGES"]);
        for template in templates.iter() {
            let channels: Vec<_> = template.channels().iter().map(|channel| channel.name()).collect();
            let (senders, locales): (Vec<_>, Vec<_>) = (template.senders().collect(), template.locales().collect());
            let category = template.category().to_owned();
            let row = [template.name().to_owned(), category, channels.join(" "), senders.join(" "), locales.join(" ")];
            table.row(row);
        }
        return output::print(table.to_string());
    };
    let template = templates.get(name).ok_or_else(|| {
        WrongUsage(format!("there is no template `{name}`; `drystone notifications preview` lists those there are"))
    })?;
    output::print(render(template, args)?)
}

fn render(template: &Template, args: &Args) -> Result<String> {
    let channel = if args.part == Part::Inbox { Channel::Inbox } else { Channel::Mail };
    if !template.channels().contains(&channel) {
        let name = template.name();
        return Err(WrongUsage(format!("the template `{name}` has no {}; try another --part", channel.name())).into());
    }
    let samples = template.samples();
    let message = template.check(&samples)?;
    Ok(match args.part {
        Part::Text => {
            let mail = message.mail(&args.locale, &args.name)?;
            format!("Subject: {}\n\n{}\n", mail.subject, mail.text.trim_end())
        }
        Part::Html => message.mail(&args.locale, &args.name)?.html,
        Part::Inbox => {
            let inbox = message.inbox(&args.locale, &args.name)?;
            format!("{}\n\n{}\n", inbox.title, inbox.body)
        }
    })
}
