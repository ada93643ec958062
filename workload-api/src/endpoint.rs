//! The address of the Workload API.

use std::{ffi::OsString, fmt, path::PathBuf, str::FromStr};

/// What stands for the endpoint in [`Endpoint::VARIABLE`].
const FROM_VARIABLE: &str = "env";

/// The bytes of a socket's path that every system takes (`sun_path` without its final zero).
const MAX_PATH_BYTES: usize = 103;

/// The Unix domain socket of an agent, such as `unix:///run/spire/sockets/agent.sock`.
///
/// The standard has TCP as well. It is not supported: keys would be sent without encryption, and an agent identifies a process by
/// its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

/// The text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is not the URI of a socket.
    #[error("`{0}` is not the absolute path of a socket, such as `unix:///run/spire/sockets/agent.sock`")]
    Uri(String),
    /// The path is longer than a socket's may be.
    #[error("the path of a socket has at most {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// The variable is not set, or not UTF-8.
    #[error("the environment variable {} does not name a socket; set it, or write `unix:///PATH`", Endpoint::VARIABLE)]
    Variable,
}

impl Endpoint {
    /// The environment variable in which the standard has the endpoint.
    pub const VARIABLE: &'static str = "SPIFFE_ENDPOINT_SOCKET";

    /// Parses a setting: an endpoint, or `env` for the one in `variable`, the value of [`Endpoint::VARIABLE`].
    ///
    /// # Errors
    /// It is not an endpoint.
    pub fn from_setting(text: &str, variable: Option<OsString>) -> Result<Self, EndpointError> {
        if text != FROM_VARIABLE {
            return text.parse();
        }
        let value = variable.and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
        value.ok_or(EndpointError::Variable)?.parse()
    }

    /// As the client of the Workload API takes it.
    pub(crate) fn to_client(&self) -> spiffe::transport::Endpoint {
        spiffe::transport::Endpoint::Unix(self.0.clone())
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("unix:").unwrap_or_default();
        // `unix:/PATH` is common, too.
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let is_valid = |byte: u8| byte.is_ascii_graphic() && !b"?#%".contains(&byte);
        if !path.starts_with('/') || path.ends_with('/') || !path.bytes().all(is_valid) {
            return Err(EndpointError::Uri(text.to_owned()));
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(EndpointError::TooLong);
        }
        Ok(Self(path.into()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_the_absolute_path_of_a_socket() {
        let endpoint: Endpoint = "unix:///run/spire/agent.sock".parse().unwrap();
        assert_eq!(endpoint.to_string(), "unix:///run/spire/agent.sock");
        assert_eq!("unix:/run/spire/agent.sock".parse(), Ok(endpoint));
        let others = ["", "unix:", "unix://", "unix:///", "unix://run/a", "unix:a", "/run/a", "tcp://127.0.0.1:8081"];
        for text in
            others.into_iter().chain(["unix:///a?b", "unix:///a#b", "unix:///a%20b", "unix:///a b", "unix:///a/"])
        {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Uri(text.to_owned())), "{text}");
        }
        let long = format!("unix:///{}", "a".repeat(MAX_PATH_BYTES));
        assert_eq!(long.parse::<Endpoint>(), Err(EndpointError::TooLong));
    }

    #[test]
    fn the_setting_env_names_the_variable_of_the_standard() {
        let from_env = |value: Option<&str>| Endpoint::from_setting("env", value.map(Into::into));
        assert_eq!(from_env(Some("unix:///run/a")), "unix:///run/a".parse());
        assert_eq!((from_env(None), from_env(Some(""))), (Err(EndpointError::Variable), Err(EndpointError::Variable)));
        let set = Endpoint::from_setting("unix:///run/b", Some("unix:///run/a".into()));
        assert_eq!(set.unwrap().to_string(), "unix:///run/b");
    }
}
