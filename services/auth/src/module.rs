//! The service as a module of a binary.

use drystone::{
    notification::v1::notification_service_client::NotificationServiceClient,
    property::v1::property_service_client::PropertyServiceClient,
    session::v1::session_service_client::SessionServiceClient, user::v1::user_service_client::UserServiceClient,
};
use drystone_mesh::{
    health::Kind,
    module::{Context, Service as Module, StartError, Started},
    server::Server,
};
use drystone_store::{ContextExt, Migration};

use crate::{AttemptLimits, AuthStore, Config, Deps, MIGRATIONS, NAME, Service};

/// The limits that this service applies itself: of sign-ins by address, account and device, and of refreshes by session.
const SIGN_IN_LIMIT: &str = "sign_in";
const REFRESH_LIMIT: &str = "refresh";

impl Module for Service {
    const NAME: &'static str = NAME;
    const MIGRATIONS: &'static [Migration] = MIGRATIONS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), String> {
        config.check()
    }

    async fn start(context: Context<Config>) -> Result<Started, StartError> {
        let node = context.node()?;
        let per_minute = |name| context.shared.limits_per_minute.get(name).copied().unwrap_or_default();
        let attempts = AttemptLimits::new(&context.limits()?, per_minute(SIGN_IN_LIMIT), per_minute(REFRESH_LIMIT));
        let keys_health = context.shared.health.component(format!("{NAME} keys"), Kind::Vital);
        let service = Self::new(Deps {
            store: AuthStore::new(context.database()?),
            sealer: context.sealer().await?,
            users: UserServiceClient::new(node.dialer.dependency("user", Kind::Optional)?),
            properties: PropertyServiceClient::new(node.dialer.dependency("property", Kind::Optional)?),
            sessions: SessionServiceClient::new(node.dialer.channel("session")?),
            notifications: NotificationServiceClient::new(node.dialer.channel("notification")?),
            clock: node.clock.clone(),
            metrics: node.metrics.clone(),
            keys_health,
            withdrawn_keys: node.verifier.withdrawn_keys(),
            attempts,
            issuer: context.shared.issuer.clone(),
            public_url: context.shared.issuer.clone(),
            config: context.config,
            tasks: node.tasks.clone(),
            stop: node.stop.clone(),
        })
        .await?;
        let (auth, keys, passwords, emails, sign_ins, mfa, passkeys) = service.into_servers();
        let server = Server::new(&node)?.add_service(auth).add_service(keys).add_service(passwords);
        Ok(server.add_service(emails).add_service(sign_ins).add_service(mfa).add_service(passkeys).into())
    }
}
