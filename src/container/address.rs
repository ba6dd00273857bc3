//! Where an engine is: what `DOCKER_HOST` holds.

use std::fmt;
use std::path::PathBuf;

/// An engine's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket on this machine.
    Unix(PathBuf),
    /// Host and port, without or with TLS.
    Tcp {
        /// Name or address; an IPv6 one without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `[user@]host` through the system's `ssh`, whose configuration says the rest.
    Ssh(String),
}

impl Address {
    /// Where Docker's engine is unless somebody says otherwise.
    pub const DEFAULT: &str = "unix:///var/run/docker.sock";

    /// Reads `unix:///path`, `tcp://host:port`, `http(s)://host:port`, `ssh://user@host`. Without a port, `tcp` means
    /// 2376 with `tls` and 2375 without.
    ///
    /// # Errors
    /// One line that says what was expected.
    pub fn parse(text: &str, tls: bool) -> Result<Self, String> {
        let wrong = || format!("expected `unix:///path`, `tcp://host:port` or `ssh://user@host`, got `{text}`");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "tcp" | "http" | "https" => {
                let default = if tls { 2376 } else { 2375 };
                host_and_port(rest.trim_end_matches('/'), default).ok_or_else(wrong)
            }
            // The client library hands the whole of it to `ssh` as a host's name.
            "ssh" if rest.contains(':') => {
                Err(format!("expected `ssh://user@host`, with a port in ssh's own configuration, got `{text}`"))
            }
            "ssh" if !rest.is_empty() && !rest.contains(['/', ' ']) && !rest.starts_with('-') => {
                Ok(Self::Ssh(rest.to_owned()))
            }
            _ => Err(wrong()),
        }
    }

    /// Whether the engine certainly runs on this machine.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// The machine's name or address, as clients of its containers would use it.
    #[must_use]
    pub fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "127.0.0.1",
            Self::Tcp { host, .. } => host,
            Self::Ssh(target) => target.rsplit_once('@').map_or(target.as_str(), |(_, host)| host),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ssh(target) => write!(f, "ssh://{target}"),
        }
    }
}

fn host_and_port(text: &str, default: u16) -> Option<Address> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (host, rest.strip_prefix(':'))
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = port.map_or(Some(default), |port| port.parse().ok().filter(|port| *port != 0))?;
    let plain =
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'));
    plain.then(|| Address::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_docker_host_holds() {
        let parse = |text| Address::parse(text, false);
        for text in ["unix:///var/run/docker.sock", "tcp://10.0.0.5:2375", "tcp://[::1]:2376", "ssh://me@there"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Address::parse("tcp://there", true).unwrap().to_string(), "tcp://there:2376");
        assert_eq!(parse("https://there:1/").unwrap().to_string(), "tcp://there:1");
        assert_eq!((parse("ssh://me@there").unwrap().host(), parse("tcp://[::1]:1").unwrap().host()), ("there", "::1"));
        assert!(parse("unix:///a").unwrap().is_local());
        for text in [
            "",
            "there:1",
            "unix://a",
            "tcp://",
            "tcp://a:0",
            "tcp://a:x",
            "tcp://a b",
            "npipe:////./pipe",
            "ssh://-oX",
            "ssh://me@there:22",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
