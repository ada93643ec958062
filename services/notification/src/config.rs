//! The section `[notification]` of the configuration.

use std::path::PathBuf;

use drystone_mesh::config::{ConfigDuration, Secret};
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};

use crate::{
    channel::webhook::EndpointConfig,
    template::{LoadError, Templates},
};

/// The longest time for which anything is kept.
const MAX_RETENTION: ConfigDuration = ConfigDuration::days(3650);

/// The maximum number of webhooks.
const MAX_WEBHOOKS: usize = 64;

/// The maximum of `max_attempts`.
const MAX_ATTEMPTS: u32 = 1000;

/// The configuration of the notification service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name of the product in messages.
    pub product: String,
    /// The language of messages to users whose language no template has.
    pub default_locale: String,
    /// A folder whose templates replace and extend the built-in ones; empty for none.
    pub templates: PathBuf,
    /// How long messages and deliveries are kept.
    pub retention: ConfigDuration,
    /// How long messages in inboxes are kept.
    pub inbox_retention: ConfigDuration,
    /// After how long a message is given up, if its sender does not say so.
    pub give_up_after: ConfigDuration,
    /// After how many failed attempts a message is given up. Pauses of a destination that does not answer are no attempts.
    pub max_attempts: u32,
    /// How many mails an instance sends to one domain in a minute; 0 for no limit.
    pub mails_per_minute: u32,
    /// How many calls an instance makes to one webhook in a minute; 0 for no limit.
    pub webhook_calls_per_minute: u32,
    /// The mail server. Without a host, mails are written into files.
    pub smtp: SmtpConfig,
    /// The webhooks.
    pub webhooks: Vec<EndpointConfig>,
}

/// The mail server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmtpConfig {
    /// Its host name; empty: mails are written into files.
    pub host: String,
    /// Its port; 0 for 587 with STARTTLS, 465 with TLS, 25 without.
    pub port: u16,
    /// How connections are encrypted.
    pub tls: SmtpTls,
    /// The user name; empty for none.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// A file with the password.
    pub password_file: PathBuf,
    /// A PEM file with the roots that its certificate is verified with; empty for those of the system.
    pub ca: PathBuf,
    /// The address that mails are from, such as `Acme <no-reply@acme.example>`.
    pub from: String,
    /// The maximum number of connections.
    pub connections: u32,
}

/// How connections to the mail server are encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// From the greeting on, by STARTTLS, which is required (RFC 3207).
    #[default]
    Starttls,
    /// From the start (RFC 8314).
    Tls,
    /// Not at all: for a server on this host or in this network alone.
    None,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            product: "Drystone".to_owned(),
            default_locale: "en".to_owned(),
            templates: PathBuf::new(),
            retention: ConfigDuration::days(30),
            inbox_retention: ConfigDuration::days(90),
            give_up_after: ConfigDuration::days(3),
            max_attempts: 16,
            mails_per_minute: 600,
            webhook_calls_per_minute: 600,
            smtp: SmtpConfig::default(),
            webhooks: Vec::new(),
        }
    }
}

impl Default for SmtpConfig {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 0,
            tls: SmtpTls::default(),
            username: String::new(),
            password: Secret::default(),
            password_file: PathBuf::new(),
            ca: PathBuf::new(),
            from: "Drystone <no-reply@drystone.invalid>".to_owned(),
            connections: 8,
        }
    }
}

impl Config {
    /// The templates: built in, and of the configured folder.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub fn load_templates(&self) -> Result<Templates, LoadError> {
        let folder = Some(self.templates.as_path()).filter(|folder| !folder.as_os_str().is_empty());
        Templates::load(&self.product, &self.default_locale, folder)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// A sentence that names the key and a valid value.
    pub fn check(&self) -> Result<(), String> {
        if self.product.is_empty() || self.product.len() > 64 || self.product.chars().any(char::is_control) {
            return Err("notification.product must be a name of at most 64 bytes, such as `Acme`".to_owned());
        }
        let durations = [
            ("retention", self.retention),
            ("inbox_retention", self.inbox_retention),
            ("give_up_after", self.give_up_after),
        ];
        for (key, duration) in durations {
            if duration < ConfigDuration::minutes(1) || duration > MAX_RETENTION {
                return Err(format!("notification.{key} must be from 1m to 3650d, such as 3d"));
            }
        }
        if self.give_up_after >= self.retention {
            return Err("notification.give_up_after must be shorter than notification.retention".to_owned());
        }
        if self.max_attempts == 0 || self.max_attempts > MAX_ATTEMPTS {
            return Err(format!("notification.max_attempts must be from 1 to {MAX_ATTEMPTS}, such as 16"));
        }
        if self.webhooks.len() > MAX_WEBHOOKS {
            return Err(format!("notification.webhooks may have at most {MAX_WEBHOOKS} entries"));
        }
        self.webhooks.iter().try_for_each(EndpointConfig::check)?;
        let mut names: Vec<_> = self.webhooks.iter().map(|webhook| webhook.name.as_str()).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.array_windows().find(|[one, other]| one == other) {
            return Err(format!("notification.webhooks has two entries with the name `{twice}`; rename one"));
        }
        self.smtp.check()
    }
}

impl SmtpConfig {
    /// Whether there is a mail server.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        !self.host.is_empty()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match (self.port, self.tls) {
            (0, SmtpTls::Starttls) => 587,
            (0, SmtpTls::Tls) => 465,
            (0, SmtpTls::None) => 25,
            (port, _) => port,
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.from.parse::<Mailbox>().is_err() {
            return Err("notification.smtp.from must be an address, such as `Acme <no-reply@acme.example>`".to_owned());
        }
        if self.connections == 0 || self.connections > 64 {
            return Err("notification.smtp.connections must be from 1 to 64".to_owned());
        }
        if !self.is_configured() {
            return Ok(());
        }
        if self.from == Self::default().from {
            return Err("notification.smtp.from must be set with notification.smtp.host, such as `Acme <no-reply@acme.example>`"
                .to_owned());
        }
        let has_password = !self.password.is_empty() || !self.password_file.as_os_str().is_empty();
        if !self.password.is_empty() && !self.password_file.as_os_str().is_empty() {
            return Err("set notification.smtp.password or notification.smtp.password_file, not both".to_owned());
        }
        if self.username.is_empty() == has_password {
            return Err("notification.smtp.username and a password (notification.smtp.password_file) belong together"
                .to_owned());
        }
        if has_password && self.tls == SmtpTls::None {
            return Err("notification.smtp.tls must be `starttls` or `tls` with a password, which would be readable on the network"
                .to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(change: impl FnOnce(&mut SmtpConfig)) -> Result<(), String> {
        let mut smtp = SmtpConfig {
            host: "mail.example.org".to_owned(),
            from: "Acme <no-reply@acme.example>".to_owned(),
            ..SmtpConfig::default()
        };
        change(&mut smtp);
        Config { smtp, ..Config::default() }.check()
    }

    #[test]
    fn the_defaults_are_valid_and_write_files() {
        Config::default().check().unwrap();
        assert!(!Config::default().smtp.is_configured());
    }

    #[test]
    fn a_wrong_value_is_reported_with_its_key() {
        let error = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(error(|config| config.product = String::new()).starts_with("notification.product"));
        assert!(error(|config| config.product = "a\nb".to_owned()).starts_with("notification.product"));
        assert!(error(|config| config.retention = ConfigDuration::days(4000)).starts_with("notification.retention"));
        assert!(error(|config| config.inbox_retention = ConfigDuration::seconds(1)).starts_with("notification.inbox"));
        assert!(error(|config| config.give_up_after = ConfigDuration::days(30)).starts_with("notification.give_up"));
        assert!(error(|config| config.max_attempts = 0).starts_with("notification.max_attempts"));
        assert!(error(|config| config.smtp.from = "nobody".to_owned()).starts_with("notification.smtp.from"));
        assert!(error(|config| config.smtp.connections = 0).starts_with("notification.smtp.connections"));
    }

    #[test]
    fn a_mail_server_needs_an_address_and_encryption_for_a_password() {
        smtp(|_| ()).unwrap();
        assert!(smtp(|smtp| smtp.from = SmtpConfig::default().from).unwrap_err().starts_with("notification.smtp.from"));
        let password = |smtp: &mut SmtpConfig| smtp.password = Secret::from("secret".to_owned());
        assert!(smtp(password).unwrap_err().starts_with("notification.smtp.username"));
        let with_user = |tls| {
            smtp(|smtp| {
                smtp.username = "acme".to_owned();
                password(smtp);
                smtp.tls = tls;
            })
        };
        with_user(SmtpTls::Starttls).unwrap();
        with_user(SmtpTls::Tls).unwrap();
        assert!(with_user(SmtpTls::None).unwrap_err().starts_with("notification.smtp.tls"));
        let both = smtp(|smtp| {
            password(smtp);
            smtp.password_file = "password".into();
        });
        assert!(both.unwrap_err().contains("not both"));
    }

    #[test]
    fn the_port_follows_from_the_encryption() {
        let port = |tls, port| SmtpConfig { port, tls, ..SmtpConfig::default() }.port();
        assert_eq!(port(SmtpTls::Starttls, 0), 587);
        assert_eq!(port(SmtpTls::Tls, 0), 465);
        assert_eq!(port(SmtpTls::None, 0), 25);
        assert_eq!(port(SmtpTls::Tls, 2525), 2525);
    }
}
