//! A real Chromium, driven through chromedriver.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::support::tool;

/// Long enough for a machine that has a lot else to do.
const GENEROUS: Duration = Duration::from_secs(60);

/// The driver's process and its scratch folder; both end with it.
struct Driver {
    child: Child,
    port: u16,
    profile: tempfile::TempDir,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _reaped = self.child.wait();
    }
}

impl Driver {
    fn start(chromedriver: &Path) -> Self {
        let mut child = Command::new(chromedriver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split("started successfully on port ").nth(1)?.trim_end_matches('.').parse().ok())
            .expect("chromedriver says its port");
        // The pipe is read to its end, so that the driver never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port, profile: tempfile::tempdir().unwrap() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// One browser session.
#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) client: Client,
    session: String,
}

/// Runs `story` in a browser of its own and ends that whatever comes of it. Without chromedriver it is skipped, but
/// for CI, where that is a failure.
pub(crate) async fn with_browser<F: Future<Output = ()> + Send + 'static>(story: impl FnOnce(Browser) -> F) {
    let (Some(chromedriver), Some(chromium)) = (tool("chromedriver"), tool("chromium")) else { return };
    let driver = Driver::start(&chromedriver);
    let options = json!({ "binary": chromium, "args": [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900",
        "--disable-background-networking", "--disable-component-update", "--no-first-run", "--no-proxy-server",
        format!("--user-data-dir={}", driver.profile.path().display()),
    ]});
    let capabilities = json!({
        "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
    });
    let Value::Object(capabilities) = capabilities else { unreachable!() };
    let client =
        ClientBuilder::new(HttpConnector::new()).capabilities(capabilities).connect(&driver.url("")).await.unwrap();
    let id = client.session_id().await.unwrap().expect("the session is new");
    let browser = Browser { client: client.clone(), session: driver.url(&format!("/session/{id}")) };
    let outcome = tokio::spawn(story(browser)).await;
    let closed = client.close().await;
    drop(driver);
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
    closed.unwrap();
}

impl Browser {
    /// What a piece of JavaScript returns.
    pub(crate) async fn js(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until an expression is truthy, and gives its value.
    pub(crate) async fn wait_for(&self, expression: &str) -> Value {
        let until = Instant::now() + GENEROUS;
        loop {
            let value = self.js(&format!("return {expression}")).await;
            if !matches!(value, Value::Null | Value::Bool(false)) && value != json!("") {
                return value;
            }
            if Instant::now() > until {
                let page = self.js("return document.body.innerText").await;
                panic!("`{expression}` never became true on:\n{}", page.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Makes the page think that the system is light or dark.
    pub(crate) async fn colour_scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let body = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.driver("/goog/cdp/execute", &body).await;
    }

    /// Everything that the browser complained about since the last call of this.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let entries = self.driver("/se/log", &json!({ "type": "browser" })).await;
        entries.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// Keeps a screenshot under target/tmp and gives its number of colours and its mean brightness from 0 to 1.
    /// Leaves the page: the picture is measured on an empty one, whose policy allows it.
    pub(crate) async fn measure_screenshots(&self, shots: &[(&str, Vec<u8>)]) -> Vec<(u64, f64)> {
        self.client.goto("about:blank").await.unwrap();
        let mut measured = Vec::new();
        for (name, png) in shots {
            std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png")), png).unwrap();
            let script = "
                const [bytes, done] = arguments;
                const blob = new Blob([new Uint8Array(bytes)], { type: 'image/png' });
                createImageBitmap(blob).then((image) => {
                  const canvas = new OffscreenCanvas(image.width, image.height);
                  const context = canvas.getContext('2d');
                  context.drawImage(image, 0, 0);
                  const data = context.getImageData(0, 0, image.width, image.height).data;
                  const colours = new Set();
                  let sum = 0;
                  for (let i = 0; i < data.length; i += 4) {
                    colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
                    sum += data[i] + data[i + 1] + data[i + 2];
                  }
                  done([colours.size, sum / (data.length * 0.75 * 255)]);
                });";
            let value = self.client.execute_async(script, vec![json!(png)]).await.unwrap();
            measured.push((value[0].as_u64().unwrap(), value[1].as_f64().unwrap()));
        }
        measured
    }

    async fn driver(&self, path: &str, body: &Value) -> Value {
        let request = crate::http::client().post(format!("{}{path}", self.session)).json(body);
        let mut answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert!(answer["value"]["error"].is_null(), "{answer}");
        answer["value"].take()
    }
}
