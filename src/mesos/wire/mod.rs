//! The messages of the v1 API as JSON, under Mesos's own names.
//!
//! Every structure is a protobuf message of `mesos/v1`, whose documentation says what its fields mean; only what a
//! scheduler, an executor and a reader of a cluster's state need is here. What is not known is passed over: a field is
//! ignored, the value of an enumeration is kept as it came. So a newer Mesos can say more without being misread.
//!
//! - **Invariant:** whatever comes in, reading it gives a message or an error, never a panic.
//! - **Invariant:** resources go back as they were offered, their reservations and disks included.

#![allow(missing_docs, reason = "the fields are Mesos's, and its protobuf files say what they mean")]

#[macro_use]
mod macros;
mod container;
pub mod executor;
mod framework;
pub mod operator;
mod resource;
pub mod scheduler;
mod task;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use container::{
    CgroupInfo, CheckInfo, CheckKind, ContainerId, ContainerInfo, ContainerKind, ContainerStatus, DockerImage,
    DockerInfo, DockerNetwork, DockerPortMapping, HealthCheck, HealthCheckKind, HttpCheck, Image, ImageKind, IpAddress,
    MesosInfo, NetworkInfo, Parameter, Parameters, PortMapping, TcpCheck, Volume, VolumeMode,
};
pub use framework::{
    Address, AgentInfo, Capability, CapabilityKind, DomainInfo, FaultDomain, FrameworkInfo, MasterInfo, Named,
    VersionInfo,
};
pub use resource::{
    AllocationInfo, Attribute, InverseOffer, Offer, Range, Ranges, ReservationInfo, ReservationKind, Resource, Scalar,
    Set, Text, Unavailability, ValueKind,
};
pub use task::{
    CheckStatusInfo, CommandInfo, DiscoveryInfo, DiscoveryPort, DiscoveryPorts, Environment, ExecutorInfo,
    ExecutorKind, KillPolicy, TaskGroupInfo, TaskInfo, TaskResourceLimitation, TaskStatus, Uri, Variable, Visibility,
};
pub use task::{StatusReason, StatusSource, TaskState};

id! {
    FrameworkId, AgentId, OfferId, TaskId, ExecutorId, OperationId,
}

/// A record that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read a message of Mesos: it begins with `{beginning}`")]
pub struct UnreadableMessage {
    /// Its first characters.
    pub beginning: String,
    /// What is wrong with it.
    #[source]
    pub source: serde_json::Error,
}

/// Reads one message. Mesos writes the bytes of texts as it got them, in whatever encoding that was: what is not UTF-8 is
/// replaced, for the sake of all the rest.
pub(super) fn read<T: de::DeserializeOwned>(record: &[u8]) -> Result<T, UnreadableMessage> {
    let message = match serde_json::from_slice(record) {
        Err(_) if std::str::from_utf8(record).is_err() => serde_json::from_str(&String::from_utf8_lossy(record)),
        message => message,
    };
    message.map_err(|source| UnreadableMessage { beginning: super::error::excerpt(record), source })
}

/// Whether a field is left out of what is sent.
pub(crate) trait Unset {
    fn is_unset(&self) -> bool {
        false
    }
}

impl<T> Unset for Option<T> {
    fn is_unset(&self) -> bool {
        self.is_none()
    }
}

impl<T> Unset for Vec<T> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Unset for std::collections::BTreeMap<K, V> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl Unset for Bytes {}
impl Unset for serde_json::Value {}
impl Unset for String {}
impl Unset for bool {}
impl Unset for f64 {}
impl Unset for i64 {}
impl Unset for u64 {}
impl Unset for u32 {}

/// Raw bytes: base64 on the wire.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", STANDARD.encode(&self.0))
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Protobuf's own JSON may use the URL-safe alphabet.
        let bytes = STANDARD.decode(&text).or_else(|_| URL_SAFE.decode(&text));
        bytes.map(Self).map_err(|_| de::Error::custom("expected base64"))
    }
}

message! {
    Label { key: String, value: Option<String>, }
    Labels { labels: Vec<Label>, }
    TimeInfo { nanoseconds: i64, }
    DurationInfo { nanoseconds: i64, }
}

impl Labels {
    /// The value of the first label of that name.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|label| label.key == key)?.value.as_deref()
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self { labels: pairs.into_iter().map(|(key, value)| Label { key, value: Some(value) }).collect() }
    }
}

impl From<std::time::Duration> for DurationInfo {
    fn from(duration: std::time::Duration) -> Self {
        Self { nanoseconds: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX) }
    }
}

#[cfg(test)]
mod tests;
