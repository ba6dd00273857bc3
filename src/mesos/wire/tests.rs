//! What a genuine master said, and that what it offered goes back whole.

use serde_json::{Value, json};

use super::scheduler::{Accept, Call, Event, Launch, Operation};
use super::{CommandInfo, FrameworkId, Offer, Resource, TaskId, TaskInfo, TaskState};

fn offer() -> Value {
    json!({
        "agent_id": { "value": "a-S0" }, "framework_id": { "value": "f-0001" }, "hostname": "localhost",
        "id": { "value": "o-O1" }, "allocation_info": { "role": "ops" },
        "attributes": [{ "name": "rack", "type": "TEXT", "text": { "value": "r1" } }],
        "url": { "address": { "hostname": "localhost", "ip": "127.0.0.1", "port": 5051 }, "path": "/slave(1)", "scheme": "http" },
        "of a newer Mesos": { "x": [1] },
        "resources": [
            { "allocation_info": { "role": "ops" }, "name": "cpus", "type": "SCALAR", "scalar": { "value": 2.0 },
              "reservations": [{ "role": "ops", "type": "STATIC" }] },
            { "allocation_info": { "role": "ops" }, "name": "ports", "type": "RANGES",
              "ranges": { "range": [{ "begin": 31000, "end": 31999 }] }, "role": "*" },
            { "name": "disk", "type": "SCALAR", "scalar": { "value": 5.0 },
              "disk": { "persistence": { "id": "p" }, "volume": { "container_path": "d", "mode": "RW" } } },
        ],
    })
}

#[test]
fn an_offer_is_read_and_its_resources_go_back_as_they_came() {
    let event = json!({ "type": "OFFERS", "offers": { "offers": [offer()] } });
    let Event::Offers(offers) = Event::read(event.to_string().as_bytes()).unwrap() else { panic!() };
    let [Offer { resources, attributes, .. }] = &offers[..] else { panic!() };
    assert_eq!(offers[0].role(), Some("ops"));
    assert_eq!(resources[0].reserved_for(), Some("ops"));
    assert_eq!(resources[1].reserved_for(), None);
    assert_eq!(attributes[0].text.as_ref().unwrap().value, "r1");
    assert_eq!(serde_json::to_value(resources).unwrap(), offer()["resources"]);
}

#[test]
fn calls_are_what_the_documentation_shows() {
    let task = TaskInfo {
        name: "sleep".to_owned(),
        task_id: TaskId::new("t-1"),
        resources: vec![Resource::scalar("cpus", 0.5), Resource::ranges("ports", [(31000, 31001)])],
        command: Some(CommandInfo::argv(vec!["sleep".to_owned(), "60".to_owned()])),
        ..TaskInfo::default()
    };
    let launch = Operation::Launch(Launch { task_infos: vec![task] });
    let accept =
        Call::Accept(Accept { offer_ids: vec![super::OfferId::new("o")], operations: vec![launch], filters: None });
    let sent: Value = serde_json::from_slice(&accept.to_json(Some(&FrameworkId::new("f")))).unwrap();
    let expected = json!({
        "framework_id": { "value": "f" }, "type": "ACCEPT",
        "accept": { "offer_ids": [{ "value": "o" }], "operations": [{ "type": "LAUNCH", "launch": { "task_infos": [{
            "name": "sleep", "task_id": { "value": "t-1" }, "agent_id": { "value": "" },
            "resources": [
                { "name": "cpus", "type": "SCALAR", "scalar": { "value": 0.5 } },
                { "name": "ports", "type": "RANGES", "ranges": { "range": [{ "begin": 31000, "end": 31001 }] } },
            ],
            "command": { "shell": false, "value": "sleep", "arguments": ["sleep", "60"] },
        }] } }] },
    });
    assert_eq!(sent, expected);
    let teardown: Value = serde_json::from_slice(&Call::Teardown.to_json(Some(&FrameworkId::new("f")))).unwrap();
    assert_eq!(teardown, json!({ "framework_id": { "value": "f" }, "type": "TEARDOWN" }));
}

#[test]
fn what_is_not_known_is_passed_over() {
    let read = |text: &str| Event::read(text.as_bytes());
    assert_eq!(read(r#"{"type":"MARVEL","marvel":{"x":1}}"#).unwrap(), Event::Unknown("MARVEL".to_owned()));
    let update =
        r#"{"type":"UPDATE","update":{"status":{"task_id":{"value":"t"},"state":"TASK_DREAMING","uuid":"AAECAw=="}}}"#;
    let Event::Update(status) = read(update).unwrap() else { panic!() };
    assert_eq!(status.state, TaskState::Other("TASK_DREAMING".into()));
    assert_eq!(status.uuid.unwrap().0, [0, 1, 2, 3]);
    for bad in ["", "null", "[]", "{}", r#"{"type":"OFFERS"}"#, r#"{"type":"ERROR","error":7}"#] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_text_that_is_not_utf_8_spoils_nothing_else() {
    // In Latin-1, as a program may have printed it, with a letter of it for each `~`.
    let read = |text: &str| {
        let bytes: Vec<u8> = text.bytes().map(|byte| if byte == b'~' { 0xe9 } else { byte }).collect();
        Event::read(&bytes)
    };
    let update =
        r#"{"type":"UPDATE","update":{"status":{"task_id":{"value":"t"},"state":"TASK_FAILED","message":"caf~"}}}"#;
    let Event::Update(status) = read(update).unwrap() else { panic!() };
    assert_eq!(status.state, TaskState::Failed);
    assert_eq!(status.message.as_deref(), Some("caf\u{fffd}"));
    let offer = offer().to_string().replace("r1", "r~");
    let offers = format!(r#"{{"type":"OFFERS","offers":{{"offers":[{offer}]}}}}"#);
    let Event::Offers(offers) = read(&offers).unwrap() else { panic!() };
    assert_eq!(offers[0].attributes[0].text.as_ref().unwrap().value, "r\u{fffd}");
    assert_eq!(offers[0].resources.len(), 3);
    for bad in ["~", "{~", r#"{"type":"OFFERS","~":1"#] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
