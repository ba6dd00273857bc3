//! Which hosts scripts may reach: checked by name, before any look-up, and again at each redirect.

use super::args::{Problem, quoted};
use crate::script::Permissions;

/// Refuses a host that `[policy] allow_hosts` does not list. An entry is `name` (any port) or `name:port`;
/// an IPv6 address stands in brackets.
///
/// # Errors
/// [`Problem::Refused`], which names the host and the setting.
pub(super) fn check(permissions: &Permissions, host: &str, port: u16) -> Result<(), Problem> {
    let Some(allowed) = &permissions.allow_hosts else { return Ok(()) };
    // A trailing dot names the same host in the DNS, and must not name another one here.
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let with_port = format!("{host}:{port}");
    let listed =
        allowed.iter().map(|entry| entry.to_ascii_lowercase()).any(|entry| entry == host || entry == with_port);
    if listed {
        Ok(())
    } else {
        Err(Problem::Refused(format!("the host's allow_hosts does not list {}", quoted(&with_port))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_hosts_with_or_without_port() {
        let allow_hosts = Some(vec!["Metrics.example".to_owned(), "127.0.0.1:6379".to_owned(), "[::1]".to_owned()]);
        let permissions = Permissions { allow_hosts, ..Permissions::default() };
        for (host, port, expected) in [
            ("metrics.example", 80, true),
            ("METRICS.example.", 8080, true),
            ("metrics.example.evil", 80, false),
            ("127.0.0.1", 6379, true),
            ("127.0.0.1", 6380, false),
            ("[::1]", 1, true),
            ("", 80, false),
        ] {
            assert_eq!(check(&permissions, host, port).is_ok(), expected, "{host}:{port}");
        }
        assert!(check(&Permissions::default(), "anything", 1).is_ok());
    }
}
