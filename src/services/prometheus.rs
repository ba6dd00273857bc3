//! Targets for Prometheus' `http_sd_configs`: one group for each port of each task.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Service;

/// One target with its labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its address, the only one.
    pub targets: [String; 1],
    /// `__meta_setpoint_policy`, `_task`, `_port` (the port's name) and `_slot`.
    pub labels: BTreeMap<&'static str, String>,
}

/// The targets of all services; with `port`, only those ports.
#[must_use]
pub fn targets(services: &[Service], port: Option<&str>) -> Vec<Target> {
    let mut targets = Vec::new();
    for service in services {
        for member in &service.members {
            for name in member.ports.keys().filter(|name| port.is_none_or(|port| port == name.as_str())) {
                let Some(address) = member.address(name) else { continue };
                let labels = BTreeMap::from([
                    ("__meta_setpoint_policy", service.policy.to_string()),
                    ("__meta_setpoint_port", name.clone()),
                    ("__meta_setpoint_slot", member.slot.to_string()),
                    ("__meta_setpoint_task", member.id.to_string()),
                ]);
                targets.push(Target { targets: [address], labels });
            }
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::super::examples::service;
    use super::*;

    #[test]
    fn each_port_is_a_target() {
        let mut service = service(&[(2, 5)]);
        service.members[0].ports.insert("metrics".into(), 9);
        service.members[0].host = "fd00::1".into();
        let all = targets(std::slice::from_ref(&service), None);
        assert_eq!(all.len(), 2);
        assert_eq!(
            serde_json::to_value(targets(&[service], Some("metrics"))).unwrap(),
            serde_json::json!([{ "targets": ["[fd00::1]:9"], "labels": {
                "__meta_setpoint_policy": "cache", "__meta_setpoint_port": "metrics",
                "__meta_setpoint_slot": "5", "__meta_setpoint_task": "cache.2",
            } }])
        );
    }
}
