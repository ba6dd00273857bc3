//! A configuration for mcrouter.
//!
//! mcrouter spreads keys by a server's *place* in its pool (`furc_hash` over the number of servers), so the order is
//! what keeps a cache's contents where clients look for them. A pool therefore lists its members by slot, and a slot
//! that is empty for the moment repeats the next member's address: the lost server's keys move there, everybody
//! else's stay. A member more at the end moves 1/n of the keys, and no others.
//!
//! Members that are younger than `warm_up` are cold. While there are any, the route is a `WarmUpRoute`: what is not
//! found is asked of the old pool, which is the present one without the cold members, and copied. That this follows
//! from when tasks were started makes it hold over a restart of setpoint, too. `exptime` is how long a copied value
//! lives, since memcached does not tell what it had left.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::{Member, Service};

/// What stands in a configuration beside the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options<'a> {
    /// Which port; none is each policy's first.
    pub port: Option<&'a str>,
    /// How long a new member is cold; zero turns warming up off.
    pub warm_up: Duration,
    /// How long a value lives that warming up copied.
    pub exptime: Duration,
    /// The wall clock.
    pub now: SystemTime,
}

/// The whole configuration. One service is the route for every key; several have one each, under the routing prefix
/// `/setpoint/NAME/`.
#[must_use]
pub fn config(services: &[Service], options: Options<'_>) -> Value {
    let mut pools = Map::new();
    let routes: Vec<(String, Value)> =
        services.iter().map(|service| (service.plain_name(), route(service, options, &mut pools))).collect();
    if let [(_, route)] = routes.as_slice() {
        return json!({ "pools": pools, "route": route });
    }
    let routes: Vec<Value> = routes
        .into_iter()
        .map(|(name, route)| json!({ "aliases": [format!("/setpoint/{name}/")], "route": route }))
        .collect();
    json!({ "pools": pools, "routes": routes })
}

/// Adds a service's pools and gives the route through them.
fn route(service: &Service, options: Options<'_>, pools: &mut Map<String, Value>) -> Value {
    let Some(port) = options.port.or(service.main_port()) else { return json!("ErrorRoute") };
    let name = service.plain_name();
    let is_warm = |member: &Member| {
        // A clock that was set back makes a member look young, never old.
        options.now.duration_since(member.started).is_ok_and(|age| options.warm_up <= age)
    };
    let present = servers(service, port, |_| true);
    if present.is_empty() {
        return json!("ErrorRoute");
    }
    pools.insert(name.clone(), json!({ "servers": present }));
    let old = servers(service, port, is_warm);
    if old.is_empty() || old == present {
        return json!(format!("PoolRoute|{name}"));
    }
    let old_name = format!("{name}.old");
    pools.insert(old_name.clone(), json!({ "servers": old }));
    json!({
        "type": "WarmUpRoute",
        "cold": format!("PoolRoute|{name}"),
        "warm": format!("PoolRoute|{old_name}"),
        "exptime": options.exptime.as_secs(),
    })
}

/// The addresses by slot, empty slots filled.
fn servers(service: &Service, port: &str, takes: impl Fn(&Member) -> bool) -> Vec<String> {
    let present: Vec<(u32, String)> = service
        .members
        .iter()
        .filter(|member| takes(member))
        .filter_map(|member| Some((member.slot, member.address(port)?)))
        .collect();
    let mut servers = Vec::new();
    for (slot, address) in &present {
        // The slots up to this one that nobody has.
        while servers.len() <= *slot as usize && servers.len() < MOST_SERVERS {
            servers.push(address.clone());
        }
    }
    servers
}

/// Most servers of one pool: slots come from tasks, and tasks from policies.
const MOST_SERVERS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::super::examples::{at, service};
    use super::*;

    const WARM_UP: Duration = Duration::from_secs(10);

    fn of(members: &[(u16, u32)], now: u64) -> Value {
        let options = Options { port: None, warm_up: WARM_UP, exptime: Duration::from_secs(3600), now: at(now) };
        config(&[service(members)], options)
    }

    fn pool(config: &Value, name: &str) -> Vec<u64> {
        let servers = config["pools"][name]["servers"].as_array().unwrap();
        servers.iter().map(|server| server.as_str().unwrap()["127.0.0.1:31".len()..].parse().unwrap()).collect()
    }

    #[test]
    fn a_place_in_the_pool_is_kept_while_others_come_and_go() {
        assert_eq!(pool(&of(&[(0, 0), (1, 1), (2, 2)], 100), "cache"), [0, 1, 2]);
        let lost = of(&[(0, 0), (2, 2)], 100);
        assert_eq!(pool(&lost, "cache"), [0, 2, 2], "the next one stands in");
        let lost_last = of(&[(0, 0), (1, 1)], 100);
        assert_eq!(pool(&lost_last, "cache"), [0, 1]);
        let replaced = of(&[(0, 0), (7, 1), (2, 2)], 100);
        assert_eq!(pool(&replaced, "cache"), [0, 7, 2]);
    }

    #[test]
    fn new_members_are_warmed_up_from_the_old_pool_for_a_while() {
        let grown = of(&[(0, 0), (1, 1), (95, 2)], 100);
        assert_eq!(pool(&grown, "cache"), [0, 1, 95]);
        assert_eq!(pool(&grown, "cache.old"), [0, 1]);
        assert_eq!(
            grown["route"],
            json!({ "type": "WarmUpRoute", "cold": "PoolRoute|cache", "warm": "PoolRoute|cache.old", "exptime": 3600 })
        );
        let later = of(&[(0, 0), (1, 1), (95, 2)], 105);
        assert_eq!(later["route"], "PoolRoute|cache");
        let all_new = of(&[(95, 0), (96, 1)], 100);
        assert_eq!(all_new["route"], "PoolRoute|cache", "there is nothing to warm up from");
        let replaced = of(&[(95, 0), (1, 1)], 100);
        assert_eq!((pool(&replaced, "cache"), pool(&replaced, "cache.old")), (vec![95, 1], vec![1, 1]));
    }

    #[test]
    fn several_services_have_prefixes_and_an_empty_one_answers_with_errors() {
        assert_eq!(of(&[], 0)["route"], "ErrorRoute");
        let mut other = service(&[(3, 0)]);
        other.policy = "fleet/b".into();
        let options = Options { port: None, warm_up: Duration::ZERO, exptime: WARM_UP, now: at(5) };
        let both = config(&[service(&[(0, 0)]), other], options);
        assert_eq!(
            both["routes"],
            json!([
                { "aliases": ["/setpoint/cache/"], "route": "PoolRoute|cache" },
                { "aliases": ["/setpoint/fleet__b/"], "route": "PoolRoute|fleet__b" },
            ])
        );
    }
}
