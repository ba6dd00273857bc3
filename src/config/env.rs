//! The environment as a layer of settings, and every `SETPOINT_*` name there is.
//!
//! The environment comes in as a map: only the command line reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::file::parse_listen;
use super::problem::{Problem, did_you_mean};
use super::settings::{Origin, Setting, Settings, TokenSource};
use super::units::parse_duration;

/// A variable that setpoint reads, or sets for its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
}

const fn variable(name: &'static str, doc: &'static str) -> Variable {
    Variable { name, doc }
}

/// Address that the API listens on.
pub const LISTEN: Variable = variable("SETPOINT_LISTEN", "address that the API listens on, as `--listen`");
/// The state folder.
pub const STATE_DIR: Variable = variable("SETPOINT_STATE_DIR", "folder that state is kept in, as `--state-dir`");
/// The configuration file.
pub const CONFIG: Variable = variable("SETPOINT_CONFIG", "configuration file, as `--config`");
/// The log's filter.
pub const LOG: Variable = variable("SETPOINT_LOG", "filter of the log, as `--log`");
/// The API that client verbs talk to.
pub const SERVER: Variable = variable("SETPOINT_SERVER", "API that client verbs talk to, as `--server`");
/// The API's token, of the host and of clients.
pub const TOKEN: Variable = variable("SETPOINT_TOKEN", "token of the API, for the host and for its clients");
/// Carry nothing out.
pub const DRY_RUN: Variable = variable("SETPOINT_DRY_RUN", "`true`: carry nothing out, as `--dry-run`");
/// Stop all tasks on the way out.
pub const STOP_TASKS: Variable = variable("SETPOINT_STOP_TASKS", "`true`: stop tasks at the end, as `--stop-tasks`");
/// End with the first policy.
pub const EXIT_ON_STOP: Variable =
    variable("SETPOINT_EXIT_ON_STOP", "`true`: end when the first policy ends, as `--exit-on-stop`");
/// Threads for scripts.
pub const SCRIPT_THREADS: Variable = variable("SETPOINT_SCRIPT_THREADS", "threads that scripts run on");
/// Where Mesos's masters are: `host:5050`, a list, or `zk://…/path`.
pub const MESOS_MASTER: Variable =
    variable("SETPOINT_MESOS_MASTER", "where Mesos's masters are: `host:5050`, a list, or `zk://…/path`");
/// The Mesos framework's principal.
pub const MESOS_PRINCIPAL: Variable = variable("SETPOINT_MESOS_PRINCIPAL", "the Mesos framework's principal");
/// The secret of the Mesos framework's principal.
pub const MESOS_SECRET: Variable = variable("SETPOINT_MESOS_SECRET", "the secret of the Mesos framework's principal");
/// Role of policies on Mesos that name none.
pub const MESOS_ROLE: Variable = variable("SETPOINT_MESOS_ROLE", "role of policies on Mesos that name none");
/// User that tasks on Mesos run as.
pub const MESOS_USER: Variable = variable("SETPOINT_MESOS_USER", "user that tasks on Mesos run as");
/// The Mesos framework's name.
pub const MESOS_NAME: Variable = variable("SETPOINT_MESOS_NAME", "the Mesos framework's name");
/// Certificates of Mesos's masters and agents to trust besides the system's, in PEM.
pub const MESOS_CA: Variable =
    variable("SETPOINT_MESOS_CA", "certificates of Mesos's masters and agents to trust besides the system's, in PEM");
/// Ask Mesos's masters and agents over TLS.
pub const MESOS_TLS: Variable = variable("SETPOINT_MESOS_TLS", "`true`: ask Mesos's masters and agents over TLS");
/// This machine's name, for Mesos's page.
pub const MESOS_HOSTNAME: Variable = variable("SETPOINT_MESOS_HOSTNAME", "this machine's name, for Mesos's page");
/// Where setpoint's page is, for Mesos's.
pub const MESOS_WEBUI_URL: Variable = variable("SETPOINT_MESOS_WEBUI_URL", "where setpoint's page is, for Mesos's");
/// Whether offers of agents that have GPUs are taken.
pub const MESOS_GPUS: Variable =
    variable("SETPOINT_MESOS_GPUS", "`true`: offers of Mesos agents that have GPUs are taken, too");
/// Whether tasks survive a restart of their agent.
pub const MESOS_CHECKPOINT: Variable =
    variable("SETPOINT_MESOS_CHECKPOINT", "`false`: tasks do not survive a restart of their agent");
/// How long Mesos keeps the tasks of a host that is away.
pub const MESOS_FAILOVER_TIMEOUT: Variable =
    variable("SETPOINT_MESOS_FAILOVER_TIMEOUT", "how long Mesos keeps the tasks of a host that is away");
/// How long tasks on agents out of Mesos's reach are waited for.
pub const MESOS_UNREACHABLE_TIMEOUT: Variable =
    variable("SETPOINT_MESOS_UNREACHABLE_TIMEOUT", "how long tasks on agents out of Mesos's reach are waited for");
/// Our executor's program on Mesos's agents.
pub const MESOS_EXECUTOR_PATH: Variable =
    variable("SETPOINT_MESOS_EXECUTOR_PATH", "our executor's program on Mesos's agents");
/// Where Mesos's agents fetch our executor from.
pub const MESOS_EXECUTOR_URI: Variable =
    variable("SETPOINT_MESOS_EXECUTOR_URI", "where Mesos's agents fetch our executor from");

/// Every variable that setpoint reads.
pub const VARIABLES: [Variable; 26] = [
    LISTEN,
    STATE_DIR,
    CONFIG,
    LOG,
    SERVER,
    TOKEN,
    DRY_RUN,
    STOP_TASKS,
    EXIT_ON_STOP,
    SCRIPT_THREADS,
    MESOS_MASTER,
    MESOS_PRINCIPAL,
    MESOS_SECRET,
    MESOS_ROLE,
    MESOS_USER,
    MESOS_NAME,
    MESOS_CA,
    MESOS_TLS,
    MESOS_HOSTNAME,
    MESOS_WEBUI_URL,
    MESOS_GPUS,
    MESOS_CHECKPOINT,
    MESOS_FAILOVER_TIMEOUT,
    MESOS_UNREACHABLE_TIMEOUT,
    MESOS_EXECUTOR_PATH,
    MESOS_EXECUTOR_URI,
];

/// Variables that setpoint sets for its tasks; one of those may be another setpoint.
pub const FOR_TASKS: [Variable; 2] = [
    variable("SETPOINT_TASK_ID", "in a task's environment: its id"),
    variable("SETPOINT_POLICY", "in a task's environment: its policy"),
];

/// What the environment says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment {
    /// Its layer.
    pub settings: Settings,
    /// Values that cannot be.
    pub problems: Vec<Problem>,
    /// Names that are probably not meant.
    pub warnings: Vec<Problem>,
}

/// Reads the layer out of the environment. An empty value is as good as none.
#[must_use]
pub fn read(vars: &BTreeMap<String, String>) -> Environment {
    let mut reader = Reader { vars, problems: Vec::new() };
    let settings = Settings {
        listen: reader.get(LISTEN, parse_listen),
        state_dir: reader.get(STATE_DIR, |text| Ok(PathBuf::from(text))),
        config: reader.get(CONFIG, |text| Ok(PathBuf::from(text))),
        log: reader.get(LOG, |text| Ok(text.to_owned())),
        server: reader.get(SERVER, |text| Ok(text.to_owned())),
        token: reader.get(TOKEN, |text| Ok(TokenSource::Literal(text.to_owned()))),
        dry_run: reader.get(DRY_RUN, boolean),
        stop_tasks: reader.get(STOP_TASKS, boolean),
        exit_on_stop: reader.get(EXIT_ON_STOP, boolean),
        script_threads: reader.get(SCRIPT_THREADS, threads),
        mesos_master: reader.get(MESOS_MASTER, |text| Ok(text.to_owned())),
        mesos_principal: reader.get(MESOS_PRINCIPAL, |text| Ok(text.to_owned())),
        mesos_secret: reader.get(MESOS_SECRET, |text| Ok(TokenSource::Literal(text.to_owned()))),
        mesos_role: reader.get(MESOS_ROLE, |text| Ok(text.to_owned())),
        mesos_user: reader.get(MESOS_USER, |text| Ok(text.to_owned())),
        mesos_name: reader.get(MESOS_NAME, |text| Ok(text.to_owned())),
        mesos_ca: reader.get(MESOS_CA, |text| Ok(PathBuf::from(text))),
        mesos_tls: reader.get(MESOS_TLS, boolean),
        mesos_hostname: reader.get(MESOS_HOSTNAME, |text| Ok(text.to_owned())),
        mesos_webui_url: reader.get(MESOS_WEBUI_URL, |text| Ok(text.to_owned())),
        mesos_gpus: reader.get(MESOS_GPUS, boolean),
        mesos_checkpoint: reader.get(MESOS_CHECKPOINT, boolean),
        mesos_failover_timeout: reader.get(MESOS_FAILOVER_TIMEOUT, duration),
        mesos_unreachable_timeout: reader.get(MESOS_UNREACHABLE_TIMEOUT, duration),
        mesos_executor_path: reader.get(MESOS_EXECUTOR_PATH, |text| Ok(text.to_owned())),
        mesos_executor_uri: reader.get(MESOS_EXECUTOR_URI, |text| Ok(text.to_owned())),
        ..Settings::default()
    };
    let problems = reader.problems;
    let known = || VARIABLES.iter().chain(&FOR_TASKS).map(|variable| variable.name);
    let strangers = vars.keys().filter(|name| name.starts_with("SETPOINT_") && !known().any(|known| known == *name));
    let warnings = strangers.map(|name| {
        Problem::new(name.clone(), "is not a variable that setpoint knows, and is ignored")
            .with_hint(did_you_mean(name, known()))
    });
    Environment { settings, problems, warnings: warnings.collect() }
}

struct Reader<'a> {
    vars: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn get<T>(&mut self, variable: Variable, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<Setting<T>> {
        let text = self.vars.get(variable.name).filter(|text| !text.is_empty())?;
        match parse(text) {
            Ok(value) => Some(Setting::new(value, Origin::Env(variable.name))),
            Err(message) => {
                self.problems.push(Problem::new(variable.name, message));
                None
            }
        }
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(format!("expected `true` or `false`, got `{text}`")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=1024).contains(n));
    number.ok_or_else(|| format!("expected a whole number from 1 to 1024, got `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Environment {
        read(&vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn variables_become_settings_and_slips_are_told() {
        let read = env(&[
            ("SETPOINT_LISTEN", "localhost:9000"),
            ("SETPOINT_DRY_RUN", "Yes"),
            ("SETPOINT_STATE_DIR", ""),
            ("SETPOINT_TOKEN", "hunter2"),
            ("SETPOINT_POLICY", "outer"),
            ("SETPOINT_LISTENS", "x"),
            ("HOME", "/root"),
        ]);
        assert_eq!(read.problems, []);
        assert_eq!(read.settings.listen.as_ref().unwrap().value.to_string(), "127.0.0.1:9000");
        assert!(read.settings.dry_run.as_ref().unwrap().value);
        assert_eq!(read.settings.state_dir, None);
        assert!(!format!("{read:?}").contains("hunter2"), "a token is never printed");
        let warning = read.warnings.iter().map(Problem::to_string).collect::<Vec<_>>();
        assert_eq!(
            warning,
            ["SETPOINT_LISTENS: is not a variable that setpoint knows, and is ignored\n\
              hint: did you mean `SETPOINT_LISTEN`?"]
        );

        let read = env(&[
            ("SETPOINT_MESOS_CA", "/etc/ca.pem"),
            ("SETPOINT_MESOS_TLS", "1"),
            ("SETPOINT_MESOS_HOSTNAME", "h"),
            ("SETPOINT_MESOS_WEBUI_URL", "http://h:8080"),
            ("SETPOINT_MESOS_GPUS", "yes"),
            ("SETPOINT_MESOS_CHECKPOINT", "no"),
            ("SETPOINT_MESOS_FAILOVER_TIMEOUT", "1d"),
            ("SETPOINT_MESOS_UNREACHABLE_TIMEOUT", "5s"),
            ("SETPOINT_MESOS_EXECUTOR_PATH", "/bin/setpoint"),
            ("SETPOINT_MESOS_EXECUTOR_URI", "http://files/setpoint"),
        ]);
        assert_eq!((read.problems, read.warnings), (vec![], vec![]));
        let set = read.settings;
        let is = |setting: &Option<Setting<bool>>| setting.as_ref().unwrap().value;
        assert_eq!((is(&set.mesos_tls), is(&set.mesos_gpus), is(&set.mesos_checkpoint)), (true, true, false));
        let lasts = |setting: &Option<Setting<Duration>>| setting.as_ref().unwrap().value.as_secs();
        assert_eq!((lasts(&set.mesos_failover_timeout), lasts(&set.mesos_unreachable_timeout)), (86_400, 5));
        let texts = [set.mesos_hostname, set.mesos_webui_url, set.mesos_executor_path, set.mesos_executor_uri];
        let texts = texts.map(|setting| setting.unwrap().value);
        assert_eq!(texts, ["h", "http://h:8080", "/bin/setpoint", "http://files/setpoint"]);
        assert_eq!(set.mesos_ca.unwrap().value, PathBuf::from("/etc/ca.pem"));

        let read = env(&[("SETPOINT_LISTEN", "8080"), ("SETPOINT_DRY_RUN", "maybe"), ("SETPOINT_SCRIPT_THREADS", "0")]);
        let problems = read.problems.iter().map(Problem::to_string).collect::<Vec<_>>();
        assert_eq!(
            problems,
            [
                "SETPOINT_LISTEN: expected an address such as `127.0.0.1:8080`, got `8080`",
                "SETPOINT_DRY_RUN: expected `true` or `false`, got `maybe`",
                "SETPOINT_SCRIPT_THREADS: expected a whole number from 1 to 1024, got `0`",
            ]
        );
    }
}
