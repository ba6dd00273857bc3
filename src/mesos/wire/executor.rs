//! What an executor and its agent say to each other: all calls and all events.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serializer, de};

use super::container::ContainerId;
use super::framework::{AgentInfo, FrameworkInfo};
use super::task::{ExecutorInfo, KillPolicy, TaskGroupInfo, TaskInfo, TaskStatus};
use super::{Bytes, ExecutorId, FrameworkId, TaskId, UnreadableMessage};

message! {
    Update { status: TaskStatus, }
    Subscribe { unacknowledged_tasks: Vec<TaskInfo>, unacknowledged_updates: Vec<Update>, }
    Data { data: Bytes, }
    Subscribed {
        executor_info: ExecutorInfo,
        framework_info: FrameworkInfo,
        agent_info: AgentInfo,
        container_id: Option<ContainerId>,
    }
    Acknowledged { task_id: TaskId, uuid: Bytes, }
    Launch { task: TaskInfo, }
    LaunchGroup { task_group: TaskGroupInfo, }
    Kill { task_id: TaskId, kill_policy: Option<KillPolicy>, }
    ErrorEvent { message: String, }
}

/// A call of an executor. The client adds the ids of framework and executor.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Sent by the client itself.
    Subscribe(Box<Subscribe>),
    /// Sent by the client itself.
    Update(Box<Update>),
    /// Bytes for the scheduler, delivered at most once.
    Message(Data),
    Heartbeat,
}

/// What an agent tells an executor.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    Subscribed(Box<Subscribed>),
    /// An update has arrived where it should; it is not to be sent again.
    Acknowledged(Acknowledged),
    Launch(Box<TaskInfo>),
    LaunchGroup(Vec<TaskInfo>),
    Kill(Kill),
    /// Bytes from the scheduler.
    Message(Bytes),
    /// End all tasks, then the executor.
    Shutdown,
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
            Self::Update(_) => "UPDATE",
            Self::Message(_) => "MESSAGE",
            Self::Heartbeat => "HEARTBEAT",
        }
    }

    /// The body of the request.
    pub fn to_json(&self, framework_id: &FrameworkId, executor_id: &ExecutorId) -> Vec<u8> {
        let body = CallBody { call: self, framework_id, executor_id };
        // Calls have texts as keys and nothing else that JSON lacks. An empty body would be refused, not misread.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

struct CallBody<'a> {
    call: &'a Call,
    framework_id: &'a FrameworkId,
    executor_id: &'a ExecutorId,
}

impl serde::Serialize for CallBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("framework_id", self.framework_id)?;
        map.serialize_entry("executor_id", self.executor_id)?;
        map.serialize_entry("type", self.call.name())?;
        match self.call {
            Call::Subscribe(subscribe) => map.serialize_entry("subscribe", subscribe)?,
            Call::Update(update) => map.serialize_entry("update", update)?,
            Call::Message(message) => map.serialize_entry("message", message)?,
            Call::Heartbeat => {}
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawEvent::deserialize(deserializer)?;
        let lacks = |field: &'static str| move || de::Error::missing_field(field);
        Ok(match raw.kind.as_str() {
            "SUBSCRIBED" => Self::Subscribed(Box::new(raw.subscribed.ok_or_else(lacks("subscribed"))?)),
            "ACKNOWLEDGED" => Self::Acknowledged(raw.acknowledged.ok_or_else(lacks("acknowledged"))?),
            "LAUNCH" => Self::Launch(Box::new(raw.launch.ok_or_else(lacks("launch"))?.task)),
            "LAUNCH_GROUP" => Self::LaunchGroup(raw.launch_group.ok_or_else(lacks("launch_group"))?.task_group.tasks),
            "KILL" => Self::Kill(raw.kill.ok_or_else(lacks("kill"))?),
            "MESSAGE" => Self::Message(raw.message.ok_or_else(lacks("message"))?.data),
            "SHUTDOWN" => Self::Shutdown,
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
    acknowledged: Option<Acknowledged>,
    launch: Option<Launch>,
    launch_group: Option<LaunchGroup>,
    kill: Option<Kill>,
    message: Option<Data>,
    error: Option<ErrorEvent>,
}
