//! The addresses of an endpoint: resolved once for each attempt, and checked.

use std::{fmt, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use tokio::time::timeout;
use url::Host;

use super::address::{self, Refusal};
use crate::channel::SendError;

/// Resolves names.
pub(super) trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of a name, each with this port.
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a>;
}

pub(super) type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// The resolver of the system.
#[derive(Debug)]
pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }
}

/// Where an endpoint is, and where it may be.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) allow_private: bool,
    pub(super) resolver: Arc<dyn Resolve>,
}

impl Destination {
    /// The addresses to connect to, after one resolution within `limit`.
    ///
    /// If one address is refused, all are: an attacker who controls the name could otherwise choose which one is used.
    pub(super) async fn addresses(&self, limit: Duration) -> Result<Vec<SocketAddr>, SendError> {
        let addresses = match &self.host {
            Host::Ipv4(address) => vec![SocketAddr::from((*address, self.port))],
            Host::Ipv6(address) => vec![SocketAddr::from((*address, self.port))],
            Host::Domain(name) => self.resolve(name, limit).await?,
        };
        let refused = addresses.iter().find_map(|to| address::check(to.ip(), self.allow_private).err());
        // An operator can correct a wrong DNS record, so the message is not lost.
        refused.map_or(Ok(addresses), |reason| Err(SendError::temporary(format!("{} {}", self.host, refusal(reason)))))
    }

    async fn resolve(&self, name: &str, limit: Duration) -> Result<Vec<SocketAddr>, SendError> {
        let unreachable = |text: &str| SendError::Unreachable(format!("{name} cannot be resolved: {text}"));
        match timeout(limit, self.resolver.resolve(name, self.port)).await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(unreachable("it has no address")),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(unreachable(&error.to_string())),
            Err(_elapsed) => Err(unreachable("the resolver does not answer in time")),
        }
    }
}

/// A text that says why an address is refused, to follow the name of the host. It does not show the address, which
/// tells of the network.
pub(super) fn refusal(reason: Refusal) -> &'static str {
    match reason {
        Refusal::Private => {
            "has a private or reserved address; for a receiver in your own network, set `allow_private = true` in its \
             entry of notification.webhooks"
        }
        Refusal::Always => {
            "has an address that webhooks are never sent to (unspecified, multicast, metadata of a cloud, or IPv6 \
             transition); use another host"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Mutex};

    use super::*;

    /// Gives one of these answers after another.
    #[derive(Debug)]
    struct Answers(Mutex<Vec<Vec<SocketAddr>>>);

    impl Resolve for Answers {
        fn resolve<'a>(&'a self, _name: &'a str, _port: u16) -> Resolving<'a> {
            Box::pin(std::future::ready(Ok(self.0.lock().unwrap().remove(0))))
        }
    }

    #[derive(Debug)]
    struct Fails;

    impl Resolve for Fails {
        fn resolve<'a>(&'a self, _name: &'a str, _port: u16) -> Resolving<'a> {
            Box::pin(std::future::ready(Err(io::Error::other("no such name"))))
        }
    }

    #[derive(Debug)]
    struct Hangs;

    impl Resolve for Hangs {
        fn resolve<'a>(&'a self, _name: &'a str, _port: u16) -> Resolving<'a> {
            Box::pin(std::future::pending())
        }
    }

    fn to(host: &str, resolver: Arc<dyn Resolve>) -> Destination {
        Destination { host: Host::parse(host).unwrap(), port: 443, allow_private: false, resolver }
    }

    fn answers(answers: &[&[&str]]) -> Arc<dyn Resolve> {
        let address = |text: &&str| SocketAddr::from((text.parse::<IpAddr>().unwrap(), 443));
        Arc::new(Answers(Mutex::new(answers.iter().map(|answer| answer.iter().map(address).collect()).collect())))
    }

    fn error(result: Result<Vec<SocketAddr>, SendError>) -> SendError {
        result.unwrap_err()
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn the_addresses_are_those_of_one_resolution() {
        let destination = to("hooks.test", answers(&[&["1.1.1.1", "2606:4700::1"], &["127.0.0.1"]]));
        let addresses = destination.addresses(LIMIT).await.unwrap();
        assert_eq!(addresses, ["1.1.1.1:443".parse().unwrap(), "[2606:4700::1]:443".parse().unwrap()]);
        // The next attempt resolves again, and checks again.
        assert!(matches!(error(destination.addresses(LIMIT).await), SendError::Temporary { .. }));
    }

    #[tokio::test]
    async fn one_refused_address_refuses_them_all() {
        for answer in
            [&["10.0.0.1"][..], &["1.1.1.1", "127.0.0.1"], &["::1", "1.1.1.1"], &["1.1.1.1", "::ffff:1.1.1.1"]]
        {
            let error = error(to("hooks.test", answers(&[answer])).addresses(LIMIT).await);
            let SendError::Temporary { text, retry_after: None } = error else { panic!("{error:?}") };
            assert!(text.starts_with("hooks.test has a private") && text.contains("allow_private = true"), "{text}");
            assert!(!answer.iter().any(|address| text.contains(address)), "{text}");
        }
        let mut internal = to("hooks.test", answers(&[&["10.0.0.1", "::1"], &["10.0.0.1", "169.254.169.254"]]));
        internal.allow_private = true;
        assert_eq!(internal.addresses(LIMIT).await.unwrap().len(), 2);
        assert!(error(internal.addresses(LIMIT).await).to_string().contains("never"));
    }

    #[tokio::test]
    async fn an_address_in_the_url_is_checked_without_a_resolver() {
        assert!(matches!(error(to("127.0.0.1", Arc::new(Fails)).addresses(LIMIT).await), SendError::Temporary { .. }));
        assert!(matches!(error(to("[::1]", Arc::new(Fails)).addresses(LIMIT).await), SendError::Temporary { .. }));
        assert_eq!(to("1.1.1.1", Arc::new(Fails)).addresses(LIMIT).await.unwrap(), ["1.1.1.1:443".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_unreachable() {
        let limit = Duration::from_millis(10);
        for (resolver, text) in [
            (Arc::new(Fails) as Arc<dyn Resolve>, "no such name"),
            (Arc::new(Hangs), "the resolver does not answer in time"),
            (answers(&[&[]]), "it has no address"),
        ] {
            let expected = SendError::Unreachable(format!("hooks.test cannot be resolved: {text}"));
            assert_eq!(error(to("hooks.test", resolver).addresses(limit).await), expected);
        }
        // The system knows no `.invalid` (RFC 6761), and has only loopback addresses for `localhost`.
        let system = |host| to(host, Arc::new(SystemResolver));
        assert!(matches!(error(system("localhost").addresses(LIMIT).await), SendError::Temporary { .. }));
    }
}
