//! What a scheduler and a master say to each other: all calls and all events.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::framework::{FrameworkInfo, MasterInfo};
use super::resource::{InverseOffer, Offer, Resource};
use super::task::{ExecutorInfo, KillPolicy, TaskGroupInfo, TaskInfo, TaskStatus};
use super::{AgentId, Bytes, ExecutorId, FrameworkId, OfferId, OperationId, TaskId, UnreadableMessage};

message! {
    Filters {
        /// How long what was declined is not offered again; without it 5 s.
        refuse_seconds: Option<f64>,
    }
    Subscribe {
        framework_info: FrameworkInfo,
        /// Old; Mesos 1 takes over from an earlier subscription in any case.
        force: Option<bool>,
        /// Roles for which no offers are wanted for now.
        suppressed_roles: Vec<String>,
        offer_constraints: Option<Value>,
    }
    Decline { offer_ids: Vec<OfferId>, filters: Option<Filters>, }
    InverseOffers { inverse_offer_ids: Vec<OfferId>, filters: Option<Filters>, }
    /// For these roles, or for all.
    Roles { roles: Vec<String>, }
    Kill { task_id: TaskId, agent_id: Option<AgentId>, kill_policy: Option<KillPolicy>, }
    Shutdown { executor_id: ExecutorId, agent_id: AgentId, }
    Acknowledge { agent_id: AgentId, task_id: TaskId, uuid: Bytes, }
    AcknowledgeOperationStatus {
        agent_id: Option<AgentId>,
        resource_provider_id: Option<Value>,
        uuid: Bytes,
        operation_id: OperationId,
    }
    ReconcileTask { task_id: TaskId, agent_id: Option<AgentId>, }
    /// The tasks in question, or all.
    Reconcile { tasks: Vec<ReconcileTask>, }
    ReconcileOperation { operation_id: OperationId, agent_id: Option<AgentId>, resource_provider_id: Option<Value>, }
    ReconcileOperations { operations: Vec<ReconcileOperation>, }
    Message { agent_id: AgentId, executor_id: ExecutorId, data: Bytes, }
    ResourceRequest { agent_id: Option<AgentId>, resources: Vec<Resource>, }
    Request { requests: Vec<ResourceRequest>, }
    UpdateFramework {
        framework_info: FrameworkInfo,
        suppressed_roles: Vec<String>,
        offer_constraints: Option<Value>,
    }
    Launch { task_infos: Vec<TaskInfo>, }
    LaunchGroup { executor: ExecutorInfo, task_group: TaskGroupInfo, }
    Resources { resources: Vec<Resource>, }
    Volumes { volumes: Vec<Resource>, }
    /// The first answer to SUBSCRIBE.
    Subscribed {
        framework_id: FrameworkId,
        heartbeat_interval_seconds: Option<f64>,
        master_info: Option<MasterInfo>,
    }
    Offers { offers: Vec<Offer>, }
    InverseOffersEvent { inverse_offers: Vec<InverseOffer>, }
    Rescind { offer_id: OfferId, }
    RescindInverseOffer { inverse_offer_id: OfferId, }
    Update { status: TaskStatus, }
    UpdateOperationStatus { status: Value, }
    /// An agent that has gone (no `executor_id`), or an executor that ended (with its wait `status`).
    Failure { agent_id: Option<AgentId>, executor_id: Option<ExecutorId>, status: Option<i64>, }
    ErrorEvent { message: String, }
}

/// Takes offers, which share agent and role, and says what to do with them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Accept {
    pub offer_ids: Vec<OfferId>,
    pub operations: Vec<Operation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filters: Option<Filters>,
}

/// What to do with accepted offers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    Launch(Launch),
    LaunchGroup(Box<LaunchGroup>),
    Reserve(Resources),
    Unreserve(Resources),
    Create(Volumes),
    Destroy(Volumes),
}

/// A call of a scheduler. The client adds the framework's id.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Sent by the client itself.
    Subscribe(Box<Subscribe>),
    /// Ends the framework and all of its tasks.
    Teardown,
    Accept(Accept),
    Decline(Decline),
    AcceptInverseOffers(InverseOffers),
    DeclineInverseOffers(InverseOffers),
    /// Asks for offers again: of these roles, or of all. Also takes back filters.
    Revive(Roles),
    /// Asks for no more offers.
    Suppress(Roles),
    Kill(Kill),
    /// Ends an executor and its tasks.
    Shutdown(Shutdown),
    Acknowledge(Acknowledge),
    AcknowledgeOperationStatus(AcknowledgeOperationStatus),
    Reconcile(Reconcile),
    ReconcileOperations(ReconcileOperations),
    /// Bytes for an executor, delivered at most once.
    Message(Message),
    Request(Request),
    UpdateFramework(Box<UpdateFramework>),
}

/// What a master tells a scheduler.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    Subscribed(Box<Subscribed>),
    Offers(Vec<Offer>),
    InverseOffers(Vec<InverseOffer>),
    Rescind(OfferId),
    RescindInverseOffer(OfferId),
    Update(Box<TaskStatus>),
    UpdateOperationStatus(Value),
    /// Bytes from an executor, delivered at most once.
    Message(Message),
    Failure(Failure),
    /// The subscription is over for good.
    Error(String),
    Heartbeat,
    /// One that this version does not know, by its name.
    Unknown(String),
}

impl Call {
    /// Mesos's name for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Subscribe(_) => "SUBSCRIBE",
            Self::Teardown => "TEARDOWN",
            Self::Accept(_) => "ACCEPT",
            Self::Decline(_) => "DECLINE",
            Self::AcceptInverseOffers(_) => "ACCEPT_INVERSE_OFFERS",
            Self::DeclineInverseOffers(_) => "DECLINE_INVERSE_OFFERS",
            Self::Revive(_) => "REVIVE",
            Self::Suppress(_) => "SUPPRESS",
            Self::Kill(_) => "KILL",
            Self::Shutdown(_) => "SHUTDOWN",
            Self::Acknowledge(_) => "ACKNOWLEDGE",
            Self::AcknowledgeOperationStatus(_) => "ACKNOWLEDGE_OPERATION_STATUS",
            Self::Reconcile(_) => "RECONCILE",
            Self::ReconcileOperations(_) => "RECONCILE_OPERATIONS",
            Self::Message(_) => "MESSAGE",
            Self::Request(_) => "REQUEST",
            Self::UpdateFramework(_) => "UPDATE_FRAMEWORK",
        }
    }

    /// The body of the request.
    pub fn to_json(&self, framework_id: Option<&FrameworkId>) -> Vec<u8> {
        let body = CallBody { call: self, framework_id };
        // Calls have texts as keys and nothing else that JSON lacks. An empty body would be refused, not misread.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

struct CallBody<'a> {
    call: &'a Call,
    framework_id: Option<&'a FrameworkId>,
}

impl Serialize for CallBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = self.framework_id {
            map.serialize_entry("framework_id", id)?;
        }
        map.serialize_entry("type", self.call.name())?;
        match self.call {
            Call::Subscribe(subscribe) => map.serialize_entry("subscribe", subscribe)?,
            Call::Teardown => {}
            Call::Accept(accept) => map.serialize_entry("accept", accept)?,
            Call::Decline(decline) => map.serialize_entry("decline", decline)?,
            Call::AcceptInverseOffers(offers) => map.serialize_entry("accept_inverse_offers", offers)?,
            Call::DeclineInverseOffers(offers) => map.serialize_entry("decline_inverse_offers", offers)?,
            Call::Revive(roles) => map.serialize_entry("revive", roles)?,
            Call::Suppress(roles) => map.serialize_entry("suppress", roles)?,
            Call::Kill(kill) => map.serialize_entry("kill", kill)?,
            Call::Shutdown(shutdown) => map.serialize_entry("shutdown", shutdown)?,
            Call::Acknowledge(acknowledge) => map.serialize_entry("acknowledge", acknowledge)?,
            Call::AcknowledgeOperationStatus(status) => map.serialize_entry("acknowledge_operation_status", status)?,
            Call::Reconcile(reconcile) => map.serialize_entry("reconcile", reconcile)?,
            Call::ReconcileOperations(reconcile) => map.serialize_entry("reconcile_operations", reconcile)?,
            Call::Message(message) => map.serialize_entry("message", message)?,
            Call::Request(request) => map.serialize_entry("request", request)?,
            Call::UpdateFramework(update) => map.serialize_entry("update_framework", update)?,
        }
        map.end()
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", self.name())?;
        match self {
            Self::Launch(launch) => map.serialize_entry("launch", launch)?,
            Self::LaunchGroup(group) => map.serialize_entry("launch_group", group)?,
            Self::Reserve(reserve) => map.serialize_entry("reserve", reserve)?,
            Self::Unreserve(unreserve) => map.serialize_entry("unreserve", unreserve)?,
            Self::Create(create) => map.serialize_entry("create", create)?,
            Self::Destroy(destroy) => map.serialize_entry("destroy", destroy)?,
        }
        map.end()
    }
}

impl Operation {
    /// Mesos's name for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Launch(_) => "LAUNCH",
            Self::LaunchGroup(_) => "LAUNCH_GROUP",
            Self::Reserve(_) => "RESERVE",
            Self::Unreserve(_) => "UNRESERVE",
            Self::Create(_) => "CREATE",
            Self::Destroy(_) => "DESTROY",
        }
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawEvent::deserialize(deserializer)?;
        let lacks = |field: &'static str| move || de::Error::missing_field(field);
        Ok(match raw.kind.as_str() {
            "SUBSCRIBED" => Self::Subscribed(Box::new(raw.subscribed.ok_or_else(lacks("subscribed"))?)),
            "OFFERS" => Self::Offers(raw.offers.ok_or_else(lacks("offers"))?.offers),
            "INVERSE_OFFERS" => {
                Self::InverseOffers(raw.inverse_offers.ok_or_else(lacks("inverse_offers"))?.inverse_offers)
            }
            "RESCIND" => Self::Rescind(raw.rescind.ok_or_else(lacks("rescind"))?.offer_id),
            "RESCIND_INVERSE_OFFER" => Self::RescindInverseOffer(
                raw.rescind_inverse_offer.ok_or_else(lacks("rescind_inverse_offer"))?.inverse_offer_id,
            ),
            "UPDATE" => Self::Update(Box::new(raw.update.ok_or_else(lacks("update"))?.status)),
            "UPDATE_OPERATION_STATUS" => Self::UpdateOperationStatus(
                raw.update_operation_status.ok_or_else(lacks("update_operation_status"))?.status,
            ),
            "MESSAGE" => Self::Message(raw.message.ok_or_else(lacks("message"))?),
            "FAILURE" => Self::Failure(raw.failure.ok_or_else(lacks("failure"))?),
            "ERROR" => Self::Error(raw.error.ok_or_else(lacks("error"))?.message),
            "HEARTBEAT" => Self::Heartbeat,
            _ => Self::Unknown(raw.kind),
        })
    }
}

impl Event {
    /// Reads a record of the stream.
    pub fn read(record: &[u8]) -> Result<Self, UnreadableMessage> {
        super::read(record)
    }
}

/// An event as it is on the wire: its kind beside a field for each.
#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: String,
    subscribed: Option<Subscribed>,
    offers: Option<Offers>,
    inverse_offers: Option<InverseOffersEvent>,
    rescind: Option<Rescind>,
    rescind_inverse_offer: Option<RescindInverseOffer>,
    update: Option<Update>,
    update_operation_status: Option<UpdateOperationStatus>,
    message: Option<Message>,
    failure: Option<Failure>,
    error: Option<ErrorEvent>,
}
