//! The layers together, through the door that the command line uses.

use super::*;

const FULL: &str = r#"
listen = "127.0.0.1:9001"
state_dir = "state"
stop_tasks = true
dry_run = false
exit_on_stop = true
log = "info,setpoint=debug"
script_threads = 3

[params]
max = 40
ratio = 0.25
greeting = "hallo"
[params.queue]
max = 0x10
fast = true

[limits]
cpu = "20ms"
load_cpu = "1s"
memory = "32MiB"
source = "2MiB"
output = "8KiB"
state = "1MiB"
body = "1MB"

[policy]
allow_backends = ["local"]
allow_hosts = ["example.org", "10.0.0.1:6379"]
read_dirs = ["/var/spool", "data"]
exec = true

[secrets]
api = { env = "API_KEY" }
[secrets.db]
file = "db.secret"

[budget]
changes = 20
per = "1m"

[local]
ports = "31000-32000"
log_max = "1MiB"
log_keep = 3

[decision_log]
enabled = true
folder = "past"
max_size = "1MiB"
max_age = "1h"
keep = 5

[http]
token = { env = "MY_TOKEN" }
hosts = ["scale.example.org"]

[mesos]
gpus = true
"#;

fn load_text(text: &str, flags: Settings, vars: &[(&str, &str)]) -> Result<HostConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE_NAME), text).unwrap();
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let folder = format!("{}/", dir.path().display());
    load(flags, &vars, dir.path()).map_err(|error| error.to_string().replace(&folder, ""))
}

#[test]
fn every_key_of_the_file_arrives() {
    let config = load_text(FULL, Settings::default(), &[("MY_TOKEN", "abc\n")]).unwrap();
    assert_eq!(config.listen.port(), 9001);
    assert!(config.state_dir.as_ref().unwrap().ends_with("state") && config.state_dir.unwrap().is_absolute());
    assert!(config.stop_tasks && !config.dry_run && config.exit_on_stop);
    assert_eq!(config.log.as_deref(), Some("info,setpoint=debug"));
    assert_eq!(config.script_threads, Some(3));
    let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(config.params.of("other"), text(&[("max", "40"), ("ratio", "0.25"), ("greeting", "hallo")]));
    assert_eq!(
        config.params.of("queue"),
        text(&[("max", "16"), ("ratio", "0.25"), ("greeting", "hallo"), ("fast", "true")])
    );
    let Limits { cpu, load_cpu, memory, source, output, state, body } = config.limits;
    assert_eq!((cpu, load_cpu), (Duration::from_millis(20), Duration::from_secs(1)));
    assert_eq!((memory, source, output, state, body), (32 << 20, 2 << 20, 8 << 10, 1 << 20, 1_000_000));
    assert!(config.permissions.exec);
    assert_eq!(config.permissions.allow_backends, Some(vec!["local".to_owned()]));
    assert_eq!(config.permissions.allow_hosts.as_ref().map(Vec::len), Some(2));
    assert_eq!(config.permissions.read_dirs[0], Path::new("/var/spool"));
    assert!(config.permissions.read_dirs[1].is_absolute());
    assert_eq!(config.permissions.secrets["api"], SecretSource::Env("API_KEY".into()));
    assert!(matches!(&config.permissions.secrets["db"], SecretSource::File(path) if path.is_absolute()));
    assert_eq!(config.budget, Some(Budget { changes: 20, per: Duration::from_secs(60) }));
    assert_eq!(config.ports, Some(31_000..=32_000));
    assert_eq!((config.log_max, config.log_keep), (Some(1 << 20), Some(3)));
    let decisions = &config.decision_log;
    assert_eq!((decisions.enabled, decisions.max_size, decisions.keep), (Some(true), Some(1 << 20), Some(5)));
    assert_eq!(decisions.max_age, Some(Duration::from_secs(3600)));
    assert!(decisions.folder.as_ref().is_some_and(|folder| folder.ends_with("past")));
    assert_eq!(config.token.as_ref().map(Token::reveal), Some("abc"));
    assert_eq!(format!("{:?}", config.token), "Some(Token(…))");
    assert_eq!(config.hosts, ["scale.example.org"]);
    assert!(config.mesos.gpus);
    assert_eq!(config.warnings, []);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let flags = Settings {
        listen: Some(Setting::new("127.0.0.1:1".parse().unwrap(), Origin::Flag("--listen"))),
        ..Settings::default()
    };
    let vars = [("SETPOINT_LISTEN", "127.0.0.1:2"), ("SETPOINT_DRY_RUN", "1"), ("MY_TOKEN", "x")];
    let config = load_text(FULL, flags, &vars).unwrap();
    assert_eq!(config.listen.port(), 1);
    assert!(config.dry_run);
    assert_eq!(config.script_threads, Some(3));
    assert_eq!(config.origins["listen"].to_string(), "--listen");
    assert_eq!(config.origins["dry_run"].to_string(), "SETPOINT_DRY_RUN");
    assert!(config.origins["script_threads"].to_string().ends_with("setpoint.toml:8"));
    assert!(!config.origins.contains_key("server"));
}

#[test]
fn nothing_at_all_gives_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let config = load(Settings::default(), &BTreeMap::new(), dir.path()).unwrap();
    assert_eq!(config.listen, DEFAULT_LISTEN);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.permissions, Permissions::default());
    assert_eq!((config.state_dir, config.token, config.budget), (None, None, None));
    assert!(!config.mesos.gpus);
    assert!(config.origins.is_empty());

    let flags =
        Settings { config: Some(Setting::new("none.toml".into(), Origin::Flag("--config"))), ..Settings::default() };
    let error = load(flags, &BTreeMap::new(), dir.path()).unwrap_err();
    assert!(matches!(error, ConfigError::Io { .. }));
    assert_eq!(error.exit_code(), 74);
}

#[test]
fn every_problem_is_told_at_once() {
    let text = "\
listen = 8080
lisen = \"127.0.0.1:1\"
script_threads = 0

[limits]
cpu = \"50\"
memory = \"64KiB\"
stack = 1

[policy]
allow_hosts = [\"ok\", \"http://no\"]

[secrets]
a = { env = \"A\", file = \"b\" }

[local]
ports = \"9-1\"

[params.web]
list = [1]

[budget]
changes = 4
";
    let message = load_text(text, Settings::default(), &[("SETPOINT_DRY_RUN", "perhaps")]).unwrap_err();
    insta::assert_snapshot!(message);
}

#[test]
fn syntax_errors_show_their_line() {
    let message = load_text("listen = \"x\nfoo = = 2\n", Settings::default(), &[]).unwrap_err();
    insta::assert_snapshot!(message);
}

#[test]
fn beyond_loopback_a_token_is_needed() {
    let message = load_text("listen = \"0.0.0.0:80\"\n", Settings::default(), &[]).unwrap_err();
    assert_eq!(
        message,
        "setpoint.toml:1: listening on `0.0.0.0:80`, beyond loopback, needs a token; nothing was started\n\
         hint: set `SETPOINT_TOKEN`, or `token` in `[http]` of `setpoint.toml`"
    );
    let refused = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), text).unwrap();
        load(Settings::default(), &BTreeMap::new(), dir.path()).unwrap_err().exit_code()
    };
    assert_eq!(refused("listen = \"0.0.0.0:80\"\n"), 77, "refused");
    assert_eq!(refused("listen = \"0.0.0.0:80\"\nstop_tasks = 1\n"), 78, "wrong besides");
    let token = [("SETPOINT_TOKEN", "secret")];
    assert!(load_text("listen = \"0.0.0.0:80\"\n", Settings::default(), &token).is_ok());
    let message = load_text("[http]\ntoken = { env = \"NONE\" }\n", Settings::default(), &[]).unwrap_err();
    assert_eq!(message, "setpoint.toml:2: `http.token`: the environment has no `NONE`");
}

#[test]
fn masters_over_tls_are_not_named_in_the_clear() {
    let with =
        |master: &str| load_text(&format!("[mesos]\nmaster = \"{master}\"\ntls = true\n"), Settings::default(), &[]);
    let message = with("a:5050, HTTP://b:5050").unwrap_err();
    assert_eq!(
        message,
        "setpoint.toml:3: `mesos.tls` is true and `mesos.master` says `http://`: expected `https://`, or no scheme"
    );
    for master in ["a:5050", "https://a:5050", "zk://a:2181/mesos"] {
        assert!(with(master).unwrap().mesos.tls, "{master}");
    }
}

#[test]
fn settings_that_do_nothing_are_warned_of() {
    let text = "stop_tasks = true\n[budget]\nchanges = 0\nper = \"1s\"\n[local]\nports = \"80-90\"\n[mesos]\nfailover_timeout = \"1d\"\n";
    let config = load_text(text, Settings::default(), &[("SETPOINT_STATEDIR", "x")]).unwrap();
    assert_eq!(config.warnings.len(), 5);
    let kept = load_text(&format!("state_dir = \"state\"\n{text}"), Settings::default(), &[]).unwrap();
    assert!(kept.warnings.iter().all(|warning| !warning.to_string().contains("failover_timeout")));
    assert_eq!(config.warnings[0].hint.as_deref(), Some("did you mean `SETPOINT_STATE_DIR`?"));
}
