//! A genuine Prometheus on a loopback port of its own, scraping what a test serves.

use super::port::Port;
use super::scratch::Scratch;
use super::server::Server;
use super::tool::tool;
use super::wait::{GENEROUS, wait_until};

/// A Prometheus, and its data with it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Prometheus {
    pub(crate) server: Server,
    port: Port,
    _folder: Scratch,
}

impl Prometheus {
    /// Starts one that scrapes `host:port` four times a second; none when there is no program (see [`tool`]).
    pub(crate) async fn start_new(target: &str) -> Option<Self> {
        let program = tool("prometheus")?;
        let (folder, port) = (Scratch::new(), Port::new());
        let config = format!(
            "global: {{ scrape_interval: 250ms, scrape_timeout: 250ms }}\n\
             scrape_configs: [{{ job_name: test, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
        );
        let config = folder.write("prometheus.yml", &config);
        let arguments = vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", folder.path("data").display()),
            format!("--web.listen-address=127.0.0.1:{}", port.number()),
            // What is scraped shows at once, and what is not scraped any more is gone soon.
            "--query.lookback-delta=2s".to_owned(),
        ];
        let environment = vec![("TEST_SCRATCH".to_owned(), folder.mark().to_owned())];
        let server = Server::new(program, arguments, environment, folder.path("log"));
        let mut prometheus = Self { server, port, _folder: folder };
        prometheus.start().await;
        Some(prometheus)
    }

    /// Starts it, for the first time or after it was killed, and waits until it answers.
    pub(crate) async fn start(&mut self) {
        self.server.start();
        let (client, url) = (super::setpoint::client(), self.url() + "/-/ready");
        let ready = async || client.get(&url).send().await.ok().filter(|answer| answer.status().is_success());
        wait_until(GENEROUS, "Prometheus is ready", ready).await;
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }
}
