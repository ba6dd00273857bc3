//! Frameworks, masters and agents.

use super::resource::{Attribute, Resource};
use super::{AgentId, FrameworkId, Labels};

enumeration! {
    CapabilityKind {
        RevocableResources = "REVOCABLE_RESOURCES",
        TaskKillingState = "TASK_KILLING_STATE",
        GpuResources = "GPU_RESOURCES",
        SharedResources = "SHARED_RESOURCES",
        PartitionAware = "PARTITION_AWARE",
        MultiRole = "MULTI_ROLE",
        ReservationRefinement = "RESERVATION_REFINEMENT",
        RegionAware = "REGION_AWARE",
    }
}

message! {
    Capability {
        #[serde(rename = "type")]
        kind: CapabilityKind,
    }
    FrameworkInfo {
        user: String,
        name: String,
        id: Option<FrameworkId>,
        /// Seconds.
        failover_timeout: Option<f64>,
        checkpoint: Option<bool>,
        /// Only without `MULTI_ROLE`.
        role: Option<String>,
        roles: Vec<String>,
        hostname: Option<String>,
        principal: Option<String>,
        webui_url: Option<String>,
        capabilities: Vec<Capability>,
        labels: Option<Labels>,
    }
    Address { hostname: Option<String>, ip: Option<String>, port: u32, }
    Named { name: String, }
    FaultDomain { region: Named, zone: Named, }
    DomainInfo { fault_domain: Option<FaultDomain>, }
    MasterInfo {
        id: String,
        /// An IPv4 address in network order, read as a little-endian number. Old, but required.
        ip: Option<u32>,
        port: Option<u32>,
        pid: Option<String>,
        hostname: Option<String>,
        version: Option<String>,
        address: Option<Address>,
        domain: Option<DomainInfo>,
    }
    AgentInfo {
        id: Option<AgentId>,
        hostname: String,
        port: Option<u32>,
        resources: Vec<Resource>,
        attributes: Vec<Attribute>,
        domain: Option<DomainInfo>,
    }
    VersionInfo { version: String, }
}

impl FrameworkInfo {
    /// Whether it asks for that capability.
    pub fn has(&self, capability: &CapabilityKind) -> bool {
        self.capabilities.iter().any(|one| one.kind == *capability)
    }
}

impl From<CapabilityKind> for Capability {
    fn from(kind: CapabilityKind) -> Self {
        Self { kind }
    }
}
