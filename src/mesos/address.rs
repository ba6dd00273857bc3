//! Where the masters are: one address, a list, a URL, or a place in ZooKeeper; and where a redirect leads.
//!
//! Pure: nothing is looked up here.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

use super::error::MesosError;

/// Where to look for the leading master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Masters {
    /// Masters of one cluster, tried in turn: those that do not lead say who does. Never empty.
    List(Vec<Url>),
    /// Whoever leads according to ZooKeeper.
    ZooKeeper(ZooKeeperUrl),
}

/// `zk://user:password@host:port,host:port/path`.
#[derive(Clone, PartialEq, Eq)]
pub struct ZooKeeperUrl {
    /// `host:port,host:port`.
    pub hosts: String,
    /// The folder of the masters' nodes, from `/` on.
    pub path: String,
    /// `user:password` of ZooKeeper's digest scheme.
    pub(super) digest: Option<String>,
}

impl FromStr for Masters {
    type Err = MesosError;

    fn from_str(text: &str) -> Result<Self, MesosError> {
        Self::read(text, false)
    }
}

impl Masters {
    /// Reads a place of masters that are to be asked over TLS: addresses without a scheme are `https`.
    ///
    /// # Errors
    /// Those of reading any place of masters, and an address that says `http://`.
    pub fn over_tls(text: &str) -> Result<Self, MesosError> {
        Self::read(text, true)
    }

    fn read(text: &str, tls: bool) -> Result<Self, MesosError> {
        let text = text.trim();
        let wrong = |problem: String| MesosError::Masters { text: without_password(text), problem };
        if let Some(rest) = text.strip_prefix("zk://") {
            return zookeeper(rest).map(Self::ZooKeeper).map_err(wrong);
        }
        let urls = text.split(',').map(|one| master(one.trim(), tls)).collect::<Result<Vec<_>, _>>();
        Ok(Self::List(urls.map_err(wrong)?))
    }
}

impl fmt::Display for Masters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(urls) => f.write_str(&urls.iter().map(super::error::shown).collect::<Vec<_>>().join(",")),
            Self::ZooKeeper(url) => write!(f, "{url}"),
        }
    }
}

impl fmt::Display for ZooKeeperUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zk://{}{}", self.hosts, self.path)
    }
}

impl fmt::Debug for ZooKeeperUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ZooKeeperUrl({self})")
    }
}

/// `host:port`, `http://host:port` or `https://host:port/prefix`.
fn master(text: &str, tls: bool) -> Result<Url, String> {
    if text.is_empty() {
        return Err("an address is empty".to_owned());
    }
    let given = text.contains("://");
    let scheme = if tls { "https" } else { "http" };
    let url = if given { Url::parse(text) } else { Url::parse(&format!("{scheme}://{text}")) };
    let url = url.map_err(|error| format!("`{}`: {error}", without_password(text)))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme `{}` is not known", url.scheme()));
    }
    if tls && url.scheme() != "https" {
        return Err("`http://` beside TLS would send everything in the clear".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("principal and secret are given apart".to_owned());
    }
    if !given && (url.path() != "/" || text.rsplit(':').next().is_none_or(|port| port.parse::<u16>().is_err())) {
        return Err(format!("`{text}` has no port"));
    }
    Ok(url)
}

fn zookeeper(rest: &str) -> Result<ZooKeeperUrl, String> {
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    let (digest, hosts) = match authority.rsplit_once('@') {
        Some((digest, hosts)) if digest.contains(':') => (Some(digest.to_owned()), hosts),
        Some(_) => return Err("expected `user:password` before the `@`".to_owned()),
        None => (None, authority),
    };
    let whole = |host: &str| match host.rsplit_once(':') {
        Some((name, port)) => !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0),
        None => !host.is_empty(),
    };
    if !hosts.split(',').all(whole) {
        return Err("expected `host:port,host:port` after `zk://`".to_owned());
    }
    let path = path.trim_end_matches('/');
    if path.split('/').any(|part| part == "." || part == ".." || (part.is_empty() && !path.is_empty())) {
        return Err(format!("`/{path}` is no path of ZooKeeper"));
    }
    if path.is_empty() {
        return Err("expected the path of the masters' nodes, such as `/mesos`, at its end".to_owned());
    }
    Ok(ZooKeeperUrl { hosts: hosts.to_owned(), path: format!("/{path}"), digest })
}

/// For messages: what stands between `//` and `@` may be a password.
fn without_password(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(begin), Some(end)) if begin + 3 <= end => format!("{}…{}", &text[..begin + 3], &text[end..]),
        (None, Some(end)) => format!("…{}", &text[end..]),
        _ => text.to_owned(),
    }
}

/// The URL of whoever answers at that port of a host, a name or an address; none when that makes no URL, or more than that.
pub(super) fn url_at(host: &str, port: u16, tls: bool) -> Option<Url> {
    let scheme = if tls { "https" } else { "http" };
    let is_bare_v6 = host.contains(':') && !host.starts_with('[');
    let host = if is_bare_v6 { format!("[{host}]") } else { host.to_owned() };
    let url = Url::parse(&format!("{scheme}://{host}:{port}/")).ok()?;
    // A host with a slash or an `@` in it would have made something else of the URL.
    let whole = url.path() == "/" && url.username().is_empty() && url.query().is_none() && url.fragment().is_none();
    whole.then_some(url)
}

/// The URL of an endpoint of a master or agent, such as `/api/v1/scheduler`.
pub(super) fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

/// Where a master sends us with its `Location`, given our request to `base` for `path`: the leader's base.
///
/// Mesos gives `//host:port`, with or without the path of the request; others may give whole URLs. A leader that
/// takes itself to be `localhost` means the machine that the answer came from, if that is where we asked.
pub fn redirected(base: &Url, path: &str, location: &str) -> Result<Url, &'static str> {
    let mut url = base.join(location.trim()).map_err(|_| "which is no URL")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("which is no URL of a master");
    }
    if base.scheme() == "https" && url.scheme() != "https" {
        return Err("which would give up TLS");
    }
    if is_loopback(&url) && url.host() != base.host() {
        if !is_loopback(base) {
            return Err("a name that only the master itself can use; give it a `--hostname`");
        }
        url.set_host(base.host_str()).map_err(|_| "which is no URL of a master")?;
    }
    let prefix = url.path().strip_suffix(path).unwrap_or("").to_owned();
    // `/master` is another name of the same endpoints, and no prefix of ours.
    url.set_path(if prefix == "/master" { "/" } else { &prefix });
    url.set_query(None);
    url.set_fragment(None);
    // Whatever it says of users, credentials are ours to give.
    url.set_username("").and_then(|()| url.set_password(None)).ok();
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    // As `host()` would need the `url` crate by name, its text is looked at: IPv6 is in brackets there.
    url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_masters() {
        let list = |text: &str| match text.parse::<Masters>() {
            Ok(Masters::List(urls)) => urls.iter().map(Url::to_string).collect::<Vec<_>>(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(list("10.0.0.1:5050"), ["http://10.0.0.1:5050/"]);
        assert_eq!(list(" a:5050, b:80 "), ["http://a:5050/", "http://b/"]);
        assert_eq!(list("https://m.example/mesos,[::1]:5050"), ["https://m.example/mesos", "http://[::1]:5050/"]);
        let over_tls = |text: &str| Masters::over_tls(text).map(|masters| masters.to_string());
        assert_eq!(over_tls("a:5050, b:443,https://c/mesos").unwrap(), "https://a:5050/,https://b/,https://c/mesos");
        assert_eq!(over_tls("zk://a:2181/mesos").unwrap(), "zk://a:2181/mesos");
        let error = over_tls("a:5050,HTTP://b:5050").unwrap_err().to_string();
        assert!(error.contains("in the clear"), "{error}");
        let Ok(Masters::ZooKeeper(zk)) = "zk://u:p@ss@a:2181,b/x/mesos/".parse::<Masters>() else { panic!() };
        assert_eq!((zk.hosts.as_str(), zk.path.as_str()), ("a:2181,b", "/x/mesos"));
        assert_eq!(zk.digest.as_deref(), Some("u:p@ss"));
        assert_eq!(format!("{zk:?} {zk}"), "ZooKeeperUrl(zk://a:2181,b/x/mesos) zk://a:2181,b/x/mesos");
        let bad = ["", "a", "a:b", "a:5050,", "ftp://a:1", "http://u:p@a:1", "a:5050/x", "zk://", "zk://a", "zk://a/"];
        for text in
            bad.into_iter().chain(["zk:///m", "zk://a:x/m", "zk://u@a/m", "zk://a//m", "zk://a/../m", "a:99999"])
        {
            assert!(matches!(text.parse::<Masters>(), Err(MesosError::Masters { .. })), "{text}");
        }
        let error = "zk://u:secret@:1/m".parse::<Masters>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn redirects() {
        const PATH: &str = "/api/v1/scheduler";
        let to = |base: &str, location: &str| {
            redirected(&Url::parse(base).unwrap(), PATH, location).map(|url| endpoint(&url, PATH).to_string())
        };
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(to("http://a:5050", "//b:5051"), ok("http://b:5051/api/v1/scheduler"));
        assert_eq!(to("http://a:5050", "//b:5051/api/v1/scheduler"), ok("http://b:5051/api/v1/scheduler"));
        assert_eq!(to("http://a:5050", "//b:5051/master/api/v1/scheduler"), ok("http://b:5051/api/v1/scheduler"));
        assert_eq!(to("https://a/mesos", "//b/mesos/api/v1/scheduler"), ok("https://b/mesos/api/v1/scheduler"));
        assert_eq!(to("http://a:5050", "http://b:1/?x#y"), ok("http://b:1/api/v1/scheduler"));
        assert_eq!(to("http://127.0.0.1:5050", "//localhost:5051"), ok("http://127.0.0.1:5051/api/v1/scheduler"));
        assert_eq!(to("http://localhost:5050", "//localhost:5051"), ok("http://localhost:5051/api/v1/scheduler"));
        assert!(to("http://10.0.0.1:5050", "//localhost:5051").unwrap_err().contains("--hostname"));
        assert!(to("https://a", "http://b/").unwrap_err().contains("TLS"));
        assert!(to("http://a", "mailto:x@y").is_err());
        assert!(to("http://a", "//").is_err());
    }
}
