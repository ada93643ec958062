//! The service as a module of a binary.

use std::{fs, path::Path};

use drystone_mesh::{
    module::{Context, Notice, Service as Module, StartError, Started},
    server::Server,
};
use drystone_store::{ContextExt, Migration};

use crate::{Config, Deps, MIGRATIONS, NAME, NotificationStore, Service};

/// The folder for mails in the data directory.
const MAIL_FOLDER: &str = "mail";

impl Module for Service {
    const NAME: &'static str = NAME;
    const MIGRATIONS: &'static [Migration] = MIGRATIONS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), String> {
        config.check()
    }

    async fn start(context: Context<Config>) -> Result<Started, StartError> {
        let node = context.node()?;
        let folder = context.shared.data_dir.join(MAIL_FOLDER);
        let config = with_password(context.config.clone())?;
        let notice = if config.smtp.is_configured() {
            format!("by {}:{}", config.smtp.host, config.smtp.port())
        } else {
            format!("written to {}; set notification.smtp.host to send it", folder.display())
        };
        let service = Service::new(Deps {
            templates: config.load_templates()?,
            store: NotificationStore::new(context.database()?),
            sealer: context.sealer().await?,
            limits: context.limits()?,
            mail_folder: folder,
            clock: node.clock.clone(),
            metrics: node.metrics.clone(),
            tasks: node.tasks.clone(),
            stop: node.stop.clone(),
            stop_serving: context.stop_serving.clone(),
            config,
        })?;
        let (notifications, inboxes) = service.into_servers();
        let server = Server::new(&node)?.add_service(notifications).add_service(inboxes);
        Ok(Started::from(server).with_notice(Notice { subject: "mail", text: notice }))
    }
}

/// The configuration with the password of its file.
fn with_password(mut config: Config) -> Result<Config, StartError> {
    let file: &Path = &config.smtp.password_file;
    if !file.as_os_str().is_empty() && config.smtp.is_configured() {
        let text = fs::read_to_string(file)
            .map_err(|error| format!("notification.smtp.password_file, {}: {error}", file.display()))?;
        config.smtp.password = text.trim_end_matches(['\r', '\n']).to_owned().into();
    }
    Ok(config)
}
