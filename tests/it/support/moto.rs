//! The server of moto on a loopback port of its own: queues behind the API of SQS, with keys and signatures.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::port::Port;
use super::scratch::Scratch;
use super::server::Server;
use super::tool::tool;
use super::wait::{GENEROUS, wait_until};

/// More calls than a test makes.
const ALL: u32 = 1_000_000;

/// A moto, without the data of any other.
#[derive(Debug)]
pub(crate) struct Moto {
    pub(crate) server: Server,
    port: Port,
    client: reqwest::Client,
    _folder: Scratch,
}

impl Moto {
    /// Starts one that believes everybody; none when there is no program (see [`tool`]).
    pub(crate) async fn start_new() -> Option<Self> {
        let program = tool("moto_server")?;
        let (folder, port) = (Scratch::new(), Port::new());
        let arguments = ["-H", "127.0.0.1", "-p", &port.number().to_string()].map(str::to_owned).to_vec();
        let environment = [("TEST_SCRATCH", folder.mark()), ("INITIAL_NO_AUTH_ACTION_COUNT", "1000000")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let mut server = Server::new(program, arguments, environment, folder.path("log"));
        server.start();
        let moto = Self { server, port, client: super::setpoint::client(), _folder: folder };
        let url = moto.url("/moto-api/");
        let ready = async || moto.client.get(&url).send().await.ok().filter(|answer| answer.status().is_success());
        wait_until(GENEROUS, "moto answers", ready).await;
        Some(moto)
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port.number())
    }

    /// Makes a user who may do anything with queues: the id of a key, and its secret.
    pub(crate) async fn user(&self) -> (String, String) {
        let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sqs:*","Resource":"*"}]}"#;
        self.iam(&[("Action", "CreateUser")]).await;
        self.iam(&[("Action", "PutUserPolicy"), ("PolicyName", "queues"), ("PolicyDocument", policy)]).await;
        let key = self.iam(&[("Action", "CreateAccessKey")]).await;
        let between = |tag: &str| {
            let (_, rest) = key.split_once(&format!("<{tag}>")).unwrap();
            rest.split_once("</").unwrap().0.to_owned()
        };
        (between("AccessKeyId"), between("SecretAccessKey"))
    }

    /// Makes a queue; its URL.
    pub(crate) async fn queue(&self, name: &str) -> String {
        let made = self.sqs("CreateQueue", &json!({ "QueueName": name })).await;
        made["QueueUrl"].as_str().unwrap().to_owned()
    }

    /// A call of SQS's, as one who is believed.
    pub(crate) async fn sqs(&self, action: &str, body: &Value) -> Value {
        self.believe(true).await;
        let target = format!("AmazonSQS.{action}");
        let request = self.client.post(self.url("/")).header("X-Amz-Target", target);
        let request = request.header("Content-Type", "application/x-amz-json-1.0").body(body.to_string());
        let text = signed("sqs", request).send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
        self.believe(false).await;
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Whether it takes calls without a look at their signatures, for a while.
    async fn believe(&self, yes: bool) {
        let calls = if yes { ALL } else { 0 };
        let asked = self.client.post(self.url("/moto-api/reset-auth")).body(calls.to_string()).send().await.unwrap();
        assert!(asked.status().is_success());
    }

    async fn iam(&self, form: &[(&str, &str)]) -> String {
        let form = form.iter().chain(&[("UserName", "scaler"), ("Version", "2010-05-08")]);
        let form: Vec<String> = form.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let request = self.client.post(self.url("/")).header("Content-Type", "application/x-www-form-urlencoded");
        let answer = signed("iam", request.body(form.join("&"))).send().await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    }
}

/// With a header that only says which service is meant.
fn signed(service: &str, request: RequestBuilder) -> RequestBuilder {
    let scope = format!("AKIA/20260101/us-east-1/{service}/aws4_request");
    request.header("Authorization", format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"))
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => escaped + &char::from(byte).to_string(),
        byte => escaped + &format!("%{byte:02X}"),
    })
}
