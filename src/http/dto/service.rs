//! Services as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::services::{Member, Service};

use super::Time;

/// The answer of `GET /v1/services`.
#[derive(Debug, Serialize)]
pub struct ServicesJson<'a> {
    /// Every policy whose tasks have ports, in the order of their names.
    pub services: Vec<ServiceJson<'a>>,
}

/// One service.
#[derive(Debug, Serialize)]
pub struct ServiceJson<'a> {
    /// Its policy.
    pub policy: &'a str,
    /// Names of its ports, the main one first.
    pub ports: &'a [String],
    /// The tasks that can be used now, by slot.
    pub tasks: Vec<MemberJson<'a>>,
}

/// One task that can be used.
#[derive(Debug, Serialize)]
pub struct MemberJson<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its place, from 0; a replacement gets that of the task that it stands in for.
    pub slot: u32,
    /// Where it runs.
    pub host: &'a str,
    /// Port name → number outside.
    pub ports: &'a BTreeMap<String, u16>,
    /// Container id, where there is one.
    pub container: Option<&'a str>,
    /// When it was asked for.
    pub started: Time,
    /// Share of one core, in percent.
    pub cpu_percent: Option<f64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// The same in percent of its limit.
    pub memory_percent: Option<f64>,
}

impl<'a> From<&'a Service> for ServiceJson<'a> {
    fn from(service: &'a Service) -> Self {
        Self {
            policy: service.policy.as_str(),
            ports: &service.ports,
            tasks: service.members.iter().map(Into::into).collect(),
        }
    }
}

impl<'a> From<&'a Member> for MemberJson<'a> {
    fn from(member: &'a Member) -> Self {
        Self {
            id: member.id.as_str(),
            slot: member.slot,
            host: &member.host,
            ports: &member.ports,
            container: member.container.as_deref(),
            started: Time(member.started),
            cpu_percent: member.cpu_percent,
            memory_bytes: member.memory_bytes,
            memory_percent: member.memory_percent,
        }
    }
}
