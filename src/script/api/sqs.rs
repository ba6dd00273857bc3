//! `setpoint.sqs`: how many messages a queue of Amazon SQS holds, or one of a server that speaks its API.
//!
//! One call, `GetQueueAttributes` in SQS's JSON protocol, signed with Signature Version 4. It sends, receives and changes
//! nothing. Requests go the way of `setpoint.http`, with its limits and allowed hosts; redirects are not followed, since
//! a signature is for one host.
//!
//! Invariant: the secret key and the session token are handles; their text is read for one signature and reaches neither
//! scripts nor errors.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use mlua::{Lua, Table};
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::hash::hex_sha256;
use reqsign_core::{Context, SignRequest as _};
use reqwest::header::HeaderName;
use reqwest::{Method, Url};
use serde::Deserialize;

use super::args::{Args, Options, Problem, outside, quoted, waiting};
use super::http::read_url;
use super::http_client::{self, Request};
use super::secret::SecretText;
use super::{Access, FunctionDoc, ModuleDoc};
use crate::script::call::{CallScope, HostShared};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Names of attributes and errors are short.
const MOST_BODY: usize = 64 << 10;
const OPTIONS: &[&str] = &["access_key", "secret_key", "session_token", "region", "timeout"];

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "sqs",
    doc: "Queues of Amazon SQS, and of servers that speak its API.",
    types: &[
        "@class (exact) setpoint.sqs.Options",
        "@field access_key string|setpoint.Secret The id of an access key.",
        "@field secret_key setpoint.Secret The secret of that key; text is refused.",
        "@field session_token? setpoint.Secret Of temporary credentials; text is refused.",
        "@field region? string Where the queue's URL does not tell it.",
        "@field timeout? string|number `\"5s\"` unless given; the tick's deadline holds anyway.",
        "@class (exact) setpoint.sqs.Depth",
        "@field visible integer Messages that can be received: ApproximateNumberOfMessages.",
        "@field in_flight integer Received and neither deleted nor back: ApproximateNumberOfMessagesNotVisible.",
        "@field delayed integer Not to be received yet: ApproximateNumberOfMessagesDelayed.",
    ],
    fields: &[],
    functions: &[FunctionDoc {
        name: "depth",
        params: &[("url", "string"), ("options", "setpoint.sqs.Options")],
        returns: &["setpoint.sqs.Depth"],
        access: Access::Read,
        doc: "How many messages a queue holds, about; `url` is the queue's, as in \
              `\"https://sqs.eu-west-1.amazonaws.com/123456789012/jobs\"`. Raises with the service's own words when it \
              refuses: an unknown queue, a wrong key, a wrong signature. Needs the right sqs:GetQueueAttributes. While a \
              file loads: zeros.",
    }],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    let depth = waiting(lua, "sqs.depth", 2, |lua, scope, args| async move { depth(&lua, &scope, &args).await })?;
    module.raw_set("depth", depth)?;
    Ok(module)
}

/// A call as the script asked for it.
struct Call {
    queue: Url,
    region: String,
    access_key: SecretText,
    secret_key: SecretText,
    session_token: Option<SecretText>,
    timeout: Duration,
}

async fn depth(lua: &Lua, scope: &Arc<CallScope>, args: &Args) -> mlua::Result<Table> {
    let call = read_call(args)?;
    if scope.trial {
        return Depth::default().table(lua);
    }
    let shared = HostShared::of(lua)?;
    http_client::check(&shared.permissions, &call.queue).map_err(|problem| problem.raise("sqs.depth"))?;
    let host = Arc::clone(&shared);
    let work = async move {
        let place = http_client::shown(&call.queue);
        let at = |problem: String| Problem::Failed(format!("{place}: {problem}"));
        let request = signed(call).await.map_err(at)?;
        let response = http_client::send(&host, request).await?;
        read_answer(response.status, &response.body).map_err(at)
    };
    outside(&shared, scope, "sqs.depth", work).await?.table(lua)
}

fn read_call(args: &Args) -> mlua::Result<Call> {
    let options = args.options(2, OPTIONS)?;
    let queue = read_url(args, 1)?;
    let given = options.text("region", "the name of a region")?.filter(|region| !region.is_empty());
    let Some(region) = given.or_else(|| region_of(&queue).map(str::to_owned)) else {
        return Err(args.error("expected the option region, since the queue's URL names none"));
    };
    let needed = |key: &str| args.error(format!("option {key}: expected a secret, as secret.get(…) gives it, got nil"));
    let access_key = options.secret_text("access_key", "text or a secret")?.ok_or_else(|| needed("access_key"))?;
    let secret_key = handle(args, &options, "secret_key")?.ok_or_else(|| needed("secret_key"))?;
    let session_token = handle(args, &options, "session_token")?;
    let timeout = options.duration("timeout")?.unwrap_or(DEFAULT_TIMEOUT);
    Ok(Call { queue, region, access_key, secret_key, session_token, timeout })
}

/// A secret that must be a handle. What else it is does not show: it may be the secret itself.
fn handle(args: &Args, options: &Options, key: &str) -> mlua::Result<Option<SecretText>> {
    match options.secret_text(key, "a secret, as secret.get(…) gives it")? {
        Some(text) if !text.is_secret() => {
            Err(args.error(format!("option {key}: expected a secret, as secret.get(…) gives it, got text")))
        }
        other => Ok(other),
    }
}

/// The region in the name of one of Amazon's hosts: `sqs.REGION.amazonaws.com`, `REGION.queue.amazonaws.com` and those of
/// private endpoints, `….sqs.REGION.vpce.amazonaws.com`.
fn region_of(queue: &Url) -> Option<&str> {
    let host = queue.host_str()?;
    let host = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let labels: Vec<&str> = host.split('.').collect();
    let after = |name: &str| labels.iter().position(|label| *label == name).and_then(|at| labels.get(at + 1).copied());
    after("sqs").or_else(|| after("sqs-fips")).or(match labels[..] {
        [region, "queue"] => Some(region),
        _ => None,
    })
}

/// The request with its signature.
async fn signed(call: Call) -> Result<Request, String> {
    let mut endpoint = call.queue.clone();
    endpoint.set_path("/");
    endpoint.set_query(None);
    let body = serde_json::json!({
        "QueueUrl": call.queue.as_str(),
        "AttributeNames": [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ],
    })
    .to_string()
    .into_bytes();
    let credential = Credential {
        access_key_id: revealed("access_key", &call.access_key).await?,
        secret_access_key: revealed("secret_key", &call.secret_key).await?,
        session_token: match &call.session_token {
            Some(token) => Some(revealed("session_token", token).await?),
            None => None,
        },
        expires_in: None,
    };
    let unsigned = http::Request::post(endpoint.as_str())
        .header(CONTENT_TYPE, "application/x-amz-json-1.0")
        .header("x-amz-target", "AmazonSQS.GetQueueAttributes")
        .header("x-amz-content-sha256", hex_sha256(&body))
        .body(());
    let mut head = unsigned.map_err(|error| format!("cannot be signed: {error}"))?.into_parts().0;
    RequestSigner::new("sqs", &call.region)
        .sign_request(&Context::new(), &mut head, Some(&credential), None)
        .await
        .map_err(|error| format!("cannot be signed: {error}"))?;
    let mut headers: Vec<(HeaderName, SecretText)> = Vec::new();
    for (name, value) in &head.headers {
        // The client writes that one itself, as it was signed.
        if name != HOST {
            let text = value.to_str().map_err(|_| format!("cannot be signed: header {name} would not be text"))?;
            headers.push((name.clone(), SecretText::Plain(text.to_owned())));
        }
    }
    Ok(Request {
        method: Method::POST,
        url: endpoint,
        headers,
        auth: None,
        body,
        timeout: call.timeout,
        most_body: MOST_BODY,
        follow: false,
    })
}

async fn revealed(key: &str, text: &SecretText) -> Result<String, String> {
    let text = text.reveal().await?;
    if text.is_empty() {
        Err(format!("option {key}: expected a secret with something in it, got an empty one"))
    } else {
        Ok(text)
    }
}

/// What a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Depth {
    visible: u64,
    in_flight: u64,
    delayed: u64,
}

impl Depth {
    fn table(self, lua: &Lua) -> mlua::Result<Table> {
        let table = lua.create_table()?;
        table.raw_set("visible", self.visible)?;
        table.raw_set("in_flight", self.in_flight)?;
        table.raw_set("delayed", self.delayed)?;
        Ok(table)
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Attributes")]
    attributes: Attributes,
}

/// Numbers come as text.
#[derive(Deserialize)]
struct Attributes {
    #[serde(rename = "ApproximateNumberOfMessages")]
    visible: String,
    #[serde(rename = "ApproximateNumberOfMessagesNotVisible")]
    in_flight: String,
    // Some servers of the API do not know it.
    #[serde(rename = "ApproximateNumberOfMessagesDelayed")]
    delayed: Option<String>,
}

fn read_answer(status: u16, body: &[u8]) -> Result<Depth, String> {
    if status != 200 {
        return Err(format!("expected status 200, got {status}: {}", refusal(body)));
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("expected the attributes of a queue, got {}: {error}", shown(body)))?;
    let number = |text: &str| text.parse().map_err(|_| format!("expected a number of messages, got {}", quoted(text)));
    let Attributes { visible, in_flight, delayed } = &answer.attributes;
    Ok(Depth {
        visible: number(visible)?,
        in_flight: number(in_flight)?,
        delayed: delayed.as_deref().map_or(Ok(0), number)?,
    })
}

/// An error as the service puts it: in JSON, or, from what stands before it, in XML.
fn refusal(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let in_json = |keys: &[&str]| keys.iter().find_map(|key| json[*key].as_str()).map(str::to_owned);
    let in_xml = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner.trim().to_owned())
    };
    let Some(code) = in_json(&["__type"]).or_else(|| in_xml("Code")) else { return shown(body) };
    // `com.amazonaws.sqs#QueueDoesNotExist`
    let code: String =
        code.rsplit('#').next().unwrap_or_default().chars().take(80).filter(|c| !c.is_control()).collect();
    match in_json(&["message", "Message"]).or_else(|| in_xml("Message")) {
        Some(message) => format!("{code}: {}", quoted(&message)),
        None => code,
    }
}

fn shown(body: &[u8]) -> String {
    quoted(&String::from_utf8_lossy(&body[..body.len().min(128)]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::script::{Permissions, SecretSource};

    #[test]
    fn regions_are_read_from_the_names_of_amazons_hosts_only() {
        for (url, expected) in [
            ("https://sqs.eu-west-1.amazonaws.com/123456789012/jobs", Some("eu-west-1")),
            ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/jobs", Some("cn-north-1")),
            ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/jobs", Some("us-gov-west-1")),
            ("https://eu-central-1.queue.amazonaws.com/1/jobs", Some("eu-central-1")),
            ("https://vpce-0a-1.sqs.us-east-1.vpce.amazonaws.com/1/jobs", Some("us-east-1")),
            ("https://queue.amazonaws.com/1/jobs", None),
            ("https://sqs.amazonaws.com/1/jobs", None),
            ("http://sqs.eu-west-1.example.com/1/jobs", None),
            ("http://127.0.0.1:4566/000000000000/jobs", None),
        ] {
            assert_eq!(region_of(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn answers_are_numbers_or_the_services_own_words() {
        let good = br#"{"Attributes":{"ApproximateNumberOfMessages":"7","ApproximateNumberOfMessagesNotVisible":"2"}}"#;
        assert_eq!(read_answer(200, good), Ok(Depth { visible: 7, in_flight: 2, delayed: 0 }));
        for (status, body, expected) in [
            (
                400,
                r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"No queue."}"#,
                "got 400: QueueDoesNotExist: \"No queue.\"",
            ),
            (
                403,
                r#"{"__type":"InvalidSignatureException","Message":"Not that key"}"#,
                "got 403: InvalidSignatureException: \"Not that key\"",
            ),
            (
                403,
                "<ErrorResponse><Error><Code>AccessDenied</Code><Message> no\n</Message></Error>",
                "got 403: AccessDenied: \"no\"",
            ),
            (400, r#"{"__type":"Throttled"}"#, "got 400: Throttled"),
            (503, "<html>busy</html>", "expected status 200, got 503: \"<html>busy</html>\""),
            (200, "{}", "expected the attributes of a queue, got \"{}\""),
            (
                200,
                r#"{"Attributes":{"ApproximateNumberOfMessages":"many","ApproximateNumberOfMessagesNotVisible":"2"}}"#,
                "expected a number of messages, got \"many\"",
            ),
            (
                200,
                r#"{"Attributes":{"ApproximateNumberOfMessages":"-1","ApproximateNumberOfMessagesNotVisible":"2"}}"#,
                "expected a number of messages, got \"-1\"",
            ),
        ] {
            let error = read_answer(status, body.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn secrets_are_handles_that_show_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        let source = |name: &str| (name.to_owned(), SecretSource::File(folder.path().join(name)));
        let permissions = Permissions { secrets: [source("empty"), source("gone")].into(), ..Permissions::default() };
        let bench = Bench::new(permissions);
        let call = |options: &str| {
            bench.error(&format!(
                "local secret = require('setpoint.secret').get
                 return require('setpoint.sqs').depth('http://127.0.0.1:1/1/jobs', {{ {options} }})"
            ))
        };
        let handle = "secret_key = secret('empty')";
        for (options, expected) in [
            (
                "region = 'r', access_key = 'A', secret_key = 'open sesame'",
                "option secret_key: expected a secret, as secret.get(…) gives it, got text",
            ),
            (
                &format!("region = 'r', access_key = 'A', {handle}, session_token = 'open sesame'"),
                "option session_token: expected a secret",
            ),
            (
                "region = 'r', access_key = 'A'",
                "option secret_key: expected a secret, as secret.get(…) gives it, got nil",
            ),
            (&format!("region = 'r', {handle}"), "option access_key: expected a secret"),
            (&format!("access_key = 'A', {handle}"), "expected the option region, since the queue's URL names none"),
            (
                &format!("region = 'r', access_key = 'A', {handle}"),
                "option secret_key: expected a secret with something in it",
            ),
            ("region = 'r', access_key = 'A', secret_key = secret('gone')", "secret(gone): "),
            (&format!("regoin = 'r', access_key = 'A', {handle}"), "did you mean `region`?"),
        ] {
            let error = call(options);
            assert!(error.starts_with("sqs.depth: ") && error.contains(expected), "{options}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn a_trial_and_a_host_that_is_not_allowed_send_nothing() {
        let allow_hosts = Some(vec!["sqs.example".to_owned()]);
        let secrets = [("key".to_owned(), SecretSource::Env("NO_SUCH_VARIABLE".to_owned()))].into();
        let mut bench = Bench::new(Permissions { allow_hosts, secrets, ..Permissions::default() });
        let chunk = "local key = require('setpoint.secret').get('key')
            local options = { region = 'r', access_key = key, secret_key = key }
            return require('setpoint.sqs').depth('http://127.0.0.1:1/1/jobs', options).visible";
        let error = bench.error(chunk);
        assert!(error.contains("allow_hosts does not list"), "{error}");
        bench.trial = true;
        assert_eq!(bench.run::<u64>(chunk).unwrap(), 0);
    }
}
