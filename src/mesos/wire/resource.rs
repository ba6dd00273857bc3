//! Resources, offers and attributes.

use serde_json::Value;

use super::framework::DomainInfo;
use super::{AgentId, DurationInfo, ExecutorId, FrameworkId, Labels, OfferId, TimeInfo};

enumeration! {
    ValueKind { Scalar = "SCALAR", Ranges = "RANGES", Set = "SET", Text = "TEXT", }
    ReservationKind { Static = "STATIC", Dynamic = "DYNAMIC", }
}

message! {
    Scalar { value: f64, }
    /// Both ends are included.
    Range { begin: u64, end: u64, }
    Ranges { range: Vec<Range>, }
    Set { item: Vec<String>, }
    Text { value: String, }
    AllocationInfo { role: Option<String>, }
    ReservationInfo {
        #[serde(rename = "type")]
        kind: Option<ReservationKind>,
        role: Option<String>,
        principal: Option<String>,
        labels: Option<Labels>,
    }
    Resource {
        provider_id: Option<Value>,
        name: String,
        #[serde(rename = "type")]
        kind: ValueKind,
        scalar: Option<Scalar>,
        ranges: Option<Ranges>,
        set: Option<Set>,
        /// The reservation's role, for frameworks without `RESERVATION_REFINEMENT`.
        role: Option<String>,
        allocation_info: Option<AllocationInfo>,
        reservation: Option<ReservationInfo>,
        /// The last one is in force.
        reservations: Vec<ReservationInfo>,
        disk: Option<Value>,
        revocable: Option<Value>,
        shared: Option<Value>,
    }
    Attribute {
        name: String,
        #[serde(rename = "type")]
        kind: ValueKind,
        scalar: Option<Scalar>,
        ranges: Option<Ranges>,
        set: Option<Set>,
        text: Option<Text>,
    }
    Unavailability { start: TimeInfo, duration: Option<DurationInfo>, }
    Offer {
        id: OfferId,
        framework_id: FrameworkId,
        agent_id: AgentId,
        hostname: String,
        /// Where the agent answers.
        url: Option<Value>,
        domain: Option<DomainInfo>,
        resources: Vec<Resource>,
        attributes: Vec<Attribute>,
        executor_ids: Vec<ExecutorId>,
        unavailability: Option<Unavailability>,
        allocation_info: Option<AllocationInfo>,
    }
    InverseOffer {
        #[serde(alias = "id")]
        inverse_offer_id: OfferId,
        url: Option<Value>,
        framework_id: FrameworkId,
        agent_id: Option<AgentId>,
        unavailability: Unavailability,
        resources: Vec<Resource>,
    }
}

impl Resource {
    /// So much of something: `cpus`, `mem` (megabytes), `disk` (megabytes), `gpus`.
    pub fn scalar(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), kind: ValueKind::Scalar, scalar: Some(Scalar { value }), ..Self::default() }
    }

    /// Ranges of numbers, both ends included: `ports`.
    pub fn ranges(name: impl Into<String>, ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let range = ranges.into_iter().map(|(begin, end)| Range { begin, end }).collect();
        Self { name: name.into(), kind: ValueKind::Ranges, ranges: Some(Ranges { range }), ..Self::default() }
    }

    /// The role that it is reserved for; none when it is anybody's.
    pub fn reserved_for(&self) -> Option<&str> {
        let refined = self.reservations.last().and_then(|reservation| reservation.role.as_deref());
        refined.or_else(|| self.role.as_deref().filter(|role| *role != "*"))
    }

    /// The role that it is offered to.
    pub fn allocated_to(&self) -> Option<&str> {
        self.allocation_info.as_ref()?.role.as_deref()
    }
}

impl Offer {
    /// The role that it is for.
    pub fn role(&self) -> Option<&str> {
        self.allocation_info.as_ref()?.role.as_deref()
    }
}
