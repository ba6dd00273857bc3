//! What the documentation shows is true: every command is run, every policy is checked, every shown output is compared.
//!
//! A page is walked in one scratch folder and one shell, as a reader would follow it. `page.rs` says what the words
//! behind a block's language mean. Addresses of the pages (`127.0.0.1:8080`) are others in a test, since many run at once.

mod page;
mod shell;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use setpoint::config;
use setpoint::config::relay;

use crate::support::{
    Cluster, ClusterSpec, Docker, GENEROUS, Port, Redis, Scratch, Setpoint, client, command, setting, wait_until,
};

use page::{Block, blocks, is_like};
use shell::Shell;

/// Every page, and how many of its blocks no test can run.
const PAGES: [(&str, usize); 9] = [
    ("README.md", 1),
    ("docs/cookbook.md", 0),
    ("docs/from-gocd-mesos.md", 0),
    ("docs/from-mesos-http-scheduler.md", 0),
    ("docs/from-mesos-memcached.md", 0),
    ("docs/from-relay.md", 0),
    ("docs/operations.md", 1),
    ("docs/reference.md", 0),
    ("docs/tutorial.md", 1),
];

/// Where the page's own setpoint listens.
const API: u16 = 8080;
const REDIS: u16 = 6379;
const MESOS: u16 = 5050;

/// Images that the pages name, and those of the tests that stand for them.
const IMAGES: [(&str, &str); 2] = [("memcached:1.6", "memcached"), ("redis:7", "redis")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn every_page_is_walked_and_what_is_not_run_says_why() {
    let folder = fs::read_dir(root().join("docs")).unwrap();
    let mut found: Vec<_> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"));
    found.sort();
    let walked: Vec<_> = PAGES.iter().filter_map(|(path, _)| path.strip_prefix("docs/")).collect();
    assert_eq!(found, walked);
    for (path, most) in PAGES {
        let reasons: Vec<String> =
            blocks(&read(path)).iter().filter_map(|block| block.word("not-run").map(str::to_owned)).collect();
        assert_eq!(reasons.len(), most, "{path}: {reasons:?}");
        assert!(reasons.iter().all(|reason| reason.len() > 20), "{path}: {reasons:?}");
    }
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for (path, _) in PAGES {
        let folder = root().join(path).parent().unwrap().to_owned();
        let text = read(path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(path) } else { folder.join(file) };
            assert!(target.exists(), "{path}: a link to `{link}`");
            let known = || anchors(&fs::read_to_string(&target).unwrap());
            assert!(anchor.is_empty() || known().iter().any(|known| known == anchor), "{path}: a link to `{link}`");
        }
    }
}

/// The names under which a page's headings are linked to.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    headings.map(anchor).collect()
}

#[tokio::test]
async fn the_readme_does_what_it_says() {
    walk("README.md").await;
}

#[tokio::test]
async fn the_tutorial_can_be_followed_to_the_letter() {
    if setting("SETPOINT_FRESH_CLONE", 0) == 0 {
        return walk("docs/tutorial.md").await;
    }
    let scratch = Scratch::new();
    let (clone, setpoint) = fresh_clone(&scratch);
    walk_at(&clone, "docs/tutorial.md", &setpoint).await;
}

/// Clones the repository and installs the command from there, as the tutorial begins: the clone, and the command.
fn fresh_clone(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let (clone, installed) = (scratch.path("clone"), scratch.path("installed"));
    let run = |command: &mut Command| {
        let status = command.env_remove("CARGO_TARGET_DIR").status().unwrap();
        assert!(status.success(), "{command:?}: {status}");
    };
    run(Command::new("git").args(["clone", "--quiet", env!("CARGO_MANIFEST_DIR")]).arg(&clone));
    let block = blocks(&fs::read_to_string(clone.join("docs/tutorial.md")).unwrap())
        .into_iter()
        .find(|block| block.has("not-run"))
        .expect("the tutorial says how to install the command");
    let mut install = Command::new("bash");
    run(install.args(["-ec", &block.text]).current_dir(&clone).env("CARGO_INSTALL_ROOT", &installed));
    (clone, installed.join("bin/setpoint"))
}

#[tokio::test]
async fn the_cookbook_does_what_it_says() {
    walk("docs/cookbook.md").await;
}

#[tokio::test]
async fn the_operations_guide_does_what_it_says() {
    walk("docs/operations.md").await;
}

#[tokio::test]
async fn the_ways_over_do_what_they_say() {
    for path in [
        "docs/from-relay.md",
        "docs/from-gocd-mesos.md",
        "docs/from-mesos-memcached.md",
        "docs/from-mesos-http-scheduler.md",
    ] {
        walk(path).await;
    }
}

/// One line for each, at the start of a run and nowhere else.
#[tokio::test]
async fn a_run_names_the_counterparts_of_relays_variables() {
    let scratch = Scratch::new();
    scratch.policy("p", "return { workload = { command = \"true\" }, control = { law = \"count\", n = 0 } }");
    let with_relay = |arguments: &[&str]| {
        let mut command = command(&scratch);
        command
            .args(arguments)
            .env("RELAY_DELAY", "60")
            .env("RELAY_MESOS_URIS", "/etc/profile")
            .env("RELAY_DELAYS", "1");
        Setpoint::spawn(&scratch, command)
    };
    let mut run = with_relay(&["run", "p.lua", "--no-listen", "--for", "100ms"]);
    assert!(run.exit(GENEROUS).await.success(), "{}", run.stderr());
    let log = run.stderr();
    for said in [
        "RELAY_DELAY: is Relay's `--delay` and is not read here; it is `interval` of a policy",
        "RELAY_MESOS_URIS: is Relay's `--uris` and is not read here; it is `workload.mesos.uris` of a policy",
        "RELAY_DELAYS: begins like a variable of Relay's",
    ] {
        assert_eq!(log.matches(said).count(), 1, "{said}\n{log}");
    }
    let mut check = with_relay(&["check", "p.lua"]);
    assert!(check.exit(GENEROUS).await.success());
    assert_eq!(check.stderr(), "");
}

/// Every option of the old systems that is not Relay's, whose are in `config::relay`.
const FORMER: [(&str, &[&str]); 3] = [
    (
        "docs/from-gocd-mesos.md",
        &[
            "mesos-master",
            "go-server.host",
            "go-server.port",
            "go-server.user-name",
            "go-server.password",
            "go-server.auth-enabled",
            "go-agent.auto-register-key",
            "go-agent.docker-image",
            "go-agent.min-agents",
            "go-agent.max-agents",
            "LIBPROCESS_IP",
            "GO_SERVER",
            "AGENT_KEY",
            "GO_AGENT_UUID",
            "-Dconfig.file",
        ],
    ),
    (
        "docs/from-mesos-memcached.md",
        &["-master", "-min", "-port", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"],
    ),
    (
        "docs/from-mesos-http-scheduler.md",
        &["-master", "-cmd", "-cpu", "-mem", "-maxtasks", "-wait", "-user", "-img", "-debug", "-executor", "/health"],
    ),
];

#[test]
fn every_option_of_the_old_systems_has_its_line() {
    let text = read("docs/from-relay.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    for option in relay::OPTIONS {
        let row = rows.iter().find(|row| row.contains(&format!("`{}`", option.flag)));
        let row = row.unwrap_or_else(|| panic!("docs/from-relay.md: a row for `{}`", option.flag));
        for variable in option.variables {
            assert!(row.contains(&format!("`{variable}`")), "`{variable}` in {row}");
        }
    }
    for (path, options) in FORMER {
        let text = read(path);
        for option in options {
            let has_row = text.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{option}`")));
            assert!(has_row, "{path}: a row for `{option}`");
        }
    }
}

#[test]
fn every_metric_is_in_the_operations_guide() {
    let (source, guide) = (read("src/http/metrics.rs"), read("docs/operations.md"));
    let code = source.split("#[cfg(test)]").next().unwrap();
    let names: Vec<&str> = code.split('"').filter(|word| word.starts_with("setpoint_")).collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        assert!(guide.contains(&format!("`{name}")), "docs/operations.md: {name}");
    }
}

/// The services that a page is given, as long as it is walked.
#[derive(Default)]
struct Services {
    redis: Option<Redis>,
    mesos: Option<Cluster>,
    /// What the page calls an image, and what it is called here.
    images: Vec<(&'static str, String)>,
}

impl Services {
    /// Those that the page's blocks need; none where one of them cannot be had.
    async fn of(blocks: &[Block]) -> Option<Self> {
        let mut services = Self::default();
        let needs: BTreeSet<&str> = blocks.iter().filter_map(|block| block.word("needs")).collect();
        for service in needs {
            match service {
                "redis" => services.redis = Some(Redis::start_new()?),
                "mesos" => services.mesos = Some(Cluster::start_new(ClusterSpec::default()).await?),
                "docker" => {
                    let docker = Docker::main()?;
                    for (name, image) in IMAGES {
                        services.images.push((name, docker.image(image)?));
                    }
                }
                other => panic!("no test can give a page `{other}`"),
            }
        }
        Some(services)
    }

    /// The ports of the page that are those of a service.
    fn ports(&self) -> Vec<(u16, u16)> {
        let of_mesos = |cluster: &Cluster| {
            let address = cluster.masters[0].address();
            address.rsplit_once(':')?.1.parse().ok()
        };
        let redis = self.redis.as_ref().map(|redis| (REDIS, redis.port()));
        let mesos = self.mesos.as_ref().and_then(of_mesos).map(|port| (MESOS, port));
        redis.into_iter().chain(mesos).collect()
    }

    fn put_into(&self, text: &str) -> String {
        self.images.iter().fold(text.to_owned(), |text, (name, image)| text.replace(name, image))
    }
}

/// Walks a page of this repository with the command of this build.
async fn walk(path: &str) {
    walk_at(root(), path, Path::new(env!("CARGO_BIN_EXE_setpoint"))).await;
}

/// Walks a page: writes its files, checks its policies, runs its commands, compares their output.
async fn walk_at(repository: &Path, path: &str, setpoint: &Path) {
    let scratch = Scratch::new();
    let blocks = blocks(&fs::read_to_string(repository.join(path)).unwrap());
    let mut ports = Ports::of(&blocks);
    let Some(services) = Services::of(&blocks).await else { return };
    ports.numbers.extend(services.ports());
    let listen = format!("127.0.0.1:{}", ports.numbers[&API]);
    let mut shell = Shell::start(&scratch, setpoint, &[("SETPOINT_LISTEN", listen.clone())]);
    let mut printed: Option<String> = None;
    for block in &blocks {
        let place = format!("{path}:{}", block.line);
        let text = services.put_into(&ports.put_into(&block.text));
        if let Some(file) = block.word("file") {
            scratch.write(&format!("page/{file}"), &text);
            if block.language == "lua" && !file.ends_with("_test.lua") && !block.has("module") {
                check(&mut shell, &place, file).await;
            }
        } else {
            match block.language.as_str() {
                "sh" if block.has("not-run") => {}
                "sh" => {
                    printed = Some(run(&mut shell, &place, block, &text, &listen).await);
                    continue;
                }
                "lua" => {
                    assert!(block.has("fields"), "{place}: Lua is a file, or fields of a policy's table");
                    let name = format!("fields/line-{}.lua", block.line);
                    scratch.write(&format!("page/{name}"), &completed(&text));
                    check(&mut shell, &place, &name).await;
                }
                "toml" if !block.has("cargo") => configuration(&place, &text),
                "text" => {
                    if let Some(got) = &printed {
                        assert!(is_like(&text, got), "{place}: expected\n{text}\ngot\n{got}");
                    }
                }
                _ => {}
            }
        }
        printed = None;
    }
}

/// Runs a block of commands as a reader does; gives what it printed.
async fn run(shell: &mut Shell<'_>, place: &str, block: &Block, text: &str, listen: &str) -> String {
    let expected = block.word("exit").map_or(0, |code| code.parse().unwrap());
    let last = text.trim_end().lines().last().unwrap_or_default();
    // Somebody looks at a run in the foreground for a while, and then presses Ctrl-C.
    let looked_at =
        last.starts_with("setpoint run") && !last.ends_with('&') && !last.contains("--for") && expected == 0;
    let text = if looked_at { format!("{} &\n", text.trim_end()) } else { text.to_owned() };
    let (code, printed) = shell.run(&text, expected != 0).await;
    let read = || String::from_utf8_lossy(&fs::read(&printed).unwrap_or_default()).into_owned();
    assert_eq!(code, expected, "{place}: the exit code of\n{text}\nwhich printed\n{}", read());
    let started = text.lines().any(|line| line.starts_with("setpoint run") && line.ends_with('&'));
    if started && !text.contains("kill %") {
        let url = format!("http://{listen}/readyz");
        wait_until(GENEROUS, &format!("{place}: the run is ready, which printed\n{}", read()), async || {
            let answer = client().get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }
    if looked_at {
        let (code, end) = shell.run("kill $!\nwait $!\n", true).await;
        assert!(code == 0, "{place}: the run ended with {code}: {}{}", read(), fs::read_to_string(end).unwrap());
    }
    read()
}

/// A policy loads, and nothing about it is odd.
async fn check(shell: &mut Shell<'_>, place: &str, file: &str) {
    let (code, printed) = shell.run(&format!("setpoint check {file}\n"), true).await;
    let printed = fs::read_to_string(printed).unwrap();
    assert!(code == 0 && !printed.contains("warning:"), "{place}: {printed}");
}

/// The host's configuration takes it.
fn configuration(place: &str, text: &str) {
    let (_, problems) = config::parse_file(Path::new("setpoint.toml"), text);
    assert!(problems.is_empty(), "{place}: {problems:?}");
}

/// Fields of a policy's table, with what a policy needs besides.
fn completed(fields: &str) -> String {
    let has = |key: &str| fields.lines().any(|line| line.starts_with(&format!("{key} =")));
    let mut text = format!("return {{\n{}", fields.trim_end());
    if !text.ends_with(',') {
        text.push(',');
    }
    text.push('\n');
    for (key, value) in [
        ("workload", "{ command = \"sleep 60\", max = 4 }"),
        ("metric", "function(ctx) return ctx.running end"),
        ("target", "1"),
    ] {
        if !has(key) {
            text.push_str(&format!("{key} = {value},\n"));
        }
    }
    text + "}\n"
}

/// The ports that a page names, and those that they are in a test.
struct Ports {
    numbers: BTreeMap<u16, u16>,
    _reserved: Vec<Port>,
}

impl Ports {
    fn of(blocks: &[Block]) -> Self {
        let (mut numbers, mut reserved) = (BTreeMap::new(), Vec::new());
        let named = blocks
            .iter()
            .flat_map(|block| block.text.split("127.0.0.1:").skip(1))
            .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u16>().ok());
        for number in named.chain([API]) {
            numbers.entry(number).or_insert_with(|| {
                let port = Port::new();
                let number = port.number();
                reserved.push(port);
                number
            });
        }
        Self { numbers, _reserved: reserved }
    }

    /// The text with the test's ports: wherever one of the page's stands as a number of its own.
    fn put_into(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut digits = String::new();
        for c in text.chars().chain(['\0']) {
            if c.is_ascii_digit() {
                digits.push(c);
                continue;
            }
            let number = digits.parse().ok().and_then(|number: u16| self.numbers.get(&number));
            match number {
                Some(number) => out.push_str(&number.to_string()),
                None => out.push_str(&digits),
            }
            digits.clear();
            out.push(c);
        }
        out.pop();
        out
    }
}

#[test]
fn ports_are_replaced_where_they_are_numbers_of_their_own() {
    let block = "```sh\ncurl 127.0.0.1:9000/x\n```\n";
    let ports = Ports::of(&blocks(block));
    let port = ports.numbers[&9000];
    assert_eq!(ports.put_into("curl 127.0.0.1:9000/x; serve 9000; echo 19000"), {
        format!("curl 127.0.0.1:{port}/x; serve {port}; echo 19000")
    });
}
