//! What masters write into ZooKeeper, and who leads according to it. Pure.
//!
//! Each master has an ephemeral node `json.info_SEQUENCE` in the masters' folder, whose content is its `MasterInfo`. The
//! lowest sequence leads. Nodes of other names belong to others (the replicated log), or to Mesos before 0.24.

use std::net::Ipv4Addr;

use reqwest::Url;

use super::address::url_at;
use super::wire::{self, MasterInfo, UnreadableMessage};

/// How a master's node begins.
const PREFIX: &str = "json.info_";

/// Why a node gives no master.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Not the JSON of a `MasterInfo`.
    #[error(transparent)]
    Unreadable(#[from] UnreadableMessage),
    /// A `MasterInfo` without a place that can be called.
    #[error("the leading master's node names no address and port")]
    NoAddress,
}

/// The node of the leader among the names in the masters' folder.
pub fn leader<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let sequence = |name: &&str| -> Option<i64> {
        let digits = name.strip_prefix(PREFIX)?;
        // ZooKeeper's counter is a signed number of 32 bits that wraps, printed with ten digits.
        if digits.len() > 11 { None } else { digits.parse().ok() }
    };
    names.into_iter().filter_map(|name| Some((sequence(&name)?, name))).min().map(|(_, name)| name)
}

/// Reads a node.
pub fn read(content: &[u8]) -> Result<MasterInfo, NodeError> {
    Ok(wire::read(content)?)
}

/// Where a master answers. Without TLS its IP address is best, since its name may mean something to itself only; with
/// TLS the certificate is for the name.
pub fn url(info: &MasterInfo, tls: bool) -> Result<Url, NodeError> {
    let address = info.address.clone().unwrap_or_default();
    let port = if address.port == 0 { info.port } else { Some(address.port) };
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).ok_or(NodeError::NoAddress)?;
    // In network order, read as if it were little-endian.
    let old = info.ip.map(|ip| Ipv4Addr::from(ip.to_le_bytes()).to_string());
    let ip = address.ip.filter(|ip| !ip.is_empty()).or(old);
    let name =
        address.hostname.or_else(|| info.hostname.clone()).filter(|name| !name.is_empty() && name != "localhost");
    let host = if tls { name.or(ip) } else { ip.or(name) };
    host.and_then(|host| url_at(&host, port, tls)).ok_or(NodeError::NoAddress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_sequence_leads() {
        let names = ["json.info_0000000012", "log_replicas", "json.info_0000000003", "info_0000000001", "json.info_x"];
        assert_eq!(leader(names), Some("json.info_0000000003"));
        assert_eq!(leader(["json.info_0000000002", "json.info_-000000007"]), Some("json.info_-000000007"));
        assert_eq!(leader(["json.info_", "json.info_99999999999999", "log_replicas"]), None);
    }

    #[test]
    fn where_a_master_answers() {
        let at = |text: &str, tls| url(&read(text.as_bytes()).unwrap(), tls).map(|url| url.to_string()).ok();
        let genuine = r#"{"address":{"hostname":"m1.example","ip":"10.0.0.7","port":5050},"capabilities":[],
            "hostname":"m1.example","id":"1f","ip":117440522,"pid":"master@10.0.0.7:5050","port":5050,"version":"1.11.0"}"#;
        assert_eq!(at(genuine, false).as_deref(), Some("http://10.0.0.7:5050/"));
        assert_eq!(at(genuine, true).as_deref(), Some("https://m1.example:5050/"));
        assert_eq!(at(r#"{"ip":117440522,"port":5050}"#, false).as_deref(), Some("http://10.0.0.7:5050/"));
        let local = r#"{"address":{"hostname":"localhost","ip":"127.0.0.1","port":5051}}"#;
        assert_eq!(at(local, true).as_deref(), Some("https://127.0.0.1:5051/"));
        assert_eq!(at(r#"{"address":{"ip":"::1","port":1}}"#, false).as_deref(), Some("http://[::1]:1/"));
        for bad in [
            "{}",
            r#"{"port":5050}"#,
            r#"{"address":{"ip":"1.2.3.4","port":70000}}"#,
            r#"{"hostname":"a/b@c","port":1}"#,
        ] {
            assert_eq!(at(bad, false), None, "{bad}");
        }
        assert!(matches!(read(b"\x0a\x02no"), Err(NodeError::Unreadable(_))));
        assert!(read(b"[1]").is_err());
    }
}
