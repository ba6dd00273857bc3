//! Pieces of configuration for HAProxy and nginx: a backend, or an upstream, for each service.
//!
//! Servers are named after their slots, so that a replacement is the same server with another address: HAProxy keeps
//! its statistics and, with `hash-type consistent`, the keys.

use std::fmt::Write as _;

use super::Service;

/// `backend NAME` sections with a `server` line for each member.
#[must_use]
pub fn haproxy(services: &[Service], port: Option<&str>) -> String {
    let mut text = String::new();
    for service in services {
        let name = service.plain_name();
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "backend {name}");
        for (slot, address) in addresses(service, port) {
            let _infallible = writeln!(text, "    server {name}-{slot} {address} id {} check", slot.saturating_add(1));
        }
        text.push('\n');
    }
    text
}

/// `upstream NAME` blocks. One without members has a server that is down: nginx takes no empty ones.
#[must_use]
pub fn nginx(services: &[Service], port: Option<&str>) -> String {
    let mut text = String::new();
    for service in services {
        let _infallible = writeln!(text, "upstream {} {{", service.plain_name());
        let mut empty = true;
        for (slot, address) in addresses(service, port) {
            let _infallible = writeln!(text, "    server {address}; # slot {slot}");
            empty = false;
        }
        if empty {
            text.push_str("    server 127.0.0.1:9 down; # no task can be used\n");
        }
        text.push_str("}\n\n");
    }
    text
}

fn addresses<'a>(service: &'a Service, port: Option<&'a str>) -> impl Iterator<Item = (u32, String)> + 'a {
    let port = port.or(service.main_port());
    service.members.iter().filter_map(move |member| Some((member.slot, member.address(port?)?)))
}

#[cfg(test)]
mod tests {
    use super::super::examples::service;
    use super::*;

    #[test]
    fn servers_are_named_by_slot() {
        let mut row = service(&[(0, 0), (7, 2)]);
        row.policy = "fleet/a".into();
        assert_eq!(
            haproxy(&[row.clone()], None),
            "backend fleet__a\n    server fleet__a-0 127.0.0.1:31000 id 1 check\n    server fleet__a-2 127.0.0.1:31007 id 3 check\n\n"
        );
        assert_eq!(
            nginx(&[row], None),
            "upstream fleet__a {\n    server 127.0.0.1:31000; # slot 0\n    server 127.0.0.1:31007; # slot 2\n}\n\n"
        );
        assert!(nginx(&[service(&[])], None).contains("server 127.0.0.1:9 down;"));
        assert!(haproxy(&[service(&[(0, 0)])], Some("other")).ends_with("backend cache\n\n"));
    }
}
