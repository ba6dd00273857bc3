//! The command line through the real binary: texts, exit codes, and the verbs that ask a running host. The host is the
//! real API over a played engine, so that what a verb sends is what arrives as a command.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use insta::assert_snapshot;
use setpoint::core::decision::{Bounds, Decision, Detail, Guard, Reason};
use setpoint::core::model::{Counts, Placement, PolicyName, Sample, TaskId, TaskState, TaskStats};
use setpoint::core::time::Timestamp;
use setpoint::http::{self, HttpConfig};
use setpoint::runtime::handle::EngineHandle;
use setpoint::runtime::record::{Override, Pause};
use setpoint::runtime::view::{Command as EngineCommand, CommandError, PolicySnapshot, ScriptView};
use setpoint::script::error::ScriptErrorKind;
use setpoint::script::{Hook, ScriptError, TaskView};

use crate::support::{Scratch, Setpoint};

/// The binary with nothing of this process's environment, so that no variable of the tester changes a test.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_setpoint"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn setpoint(args: &[&str]) -> String {
    shown(&command(args).output().unwrap())
}

fn setpoint_in(dir: &Path, args: &[&str]) -> String {
    shown(&command(args).current_dir(dir).output().unwrap())
}

/// Exit code, standard output and standard error as one text.
fn shown(output: &Output) -> String {
    let code = output.status.code().map_or_else(|| output.status.to_string(), |code| code.to_string());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let err = if err.is_empty() { String::new() } else { format!("--- stderr\n{err}") };
    format!("exit {code}\n{out}{err}")
}

/// A child that a failing test does not leave behind.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

const VERBS: [&str; 19] = [
    "run",
    "check",
    "eval",
    "test",
    "simulate",
    "tune",
    "explain",
    "replay",
    "init",
    "import",
    "policies",
    "status",
    "pause",
    "resume",
    "override",
    "reload",
    "types",
    "completion",
    "man",
];

#[test]
fn every_verb_has_its_help() {
    let mut text = setpoint(&["--help"]);
    for verb in VERBS {
        text.push_str(&format!("\n===== setpoint {verb} --help\n{}", setpoint(&[verb, "--help"])));
    }
    assert_snapshot!("help", text);
}

#[test]
fn exit_codes_are_a_contract() {
    let help = setpoint(&["--help"]);
    assert_snapshot!(help.split_once("Exit codes:\n").unwrap().1, @r"
     0  all is well
     1  it ran, and found or failed something
     2  the command line is wrong
    69  a service is not available: no setpoint at the address, a locked state folder
    70  a bug in setpoint
    74  a file or a socket failed
    77  refused: a wrong token, a bind beyond loopback without one, a command that is not allowed now
    78  a policy or the configuration is wrong
    ");
}

#[test]
fn a_wrong_command_line_says_what_was_expected() {
    let lines: Vec<_> = [
        &["rum"][..],
        &["run"],
        &["run", "thermostat", "--for", "30"],
        &["run", "thermostat", "--set", "max"],
        &["run", "thermostat", "--listen", "8080"],
        &["override", "queue"],
        &["override", "queue", "--clear", "--max", "3"],
        &["status", "--server", "ftp://somewhere"],
        &["status", "--log", "setpoint=loud"],
        &["init", "--name", "a/b"],
    ]
    .into_iter()
    .map(|args| format!("$ setpoint {}\n{}", args.join(" "), setpoint(args)))
    .collect();
    assert_snapshot!("usage", lines.join("\n"));
}

#[test]
fn paths_that_give_no_policy_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["one/queue.lua", "two/queue.lua", "specs/queue_test.lua"] {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "return {}").unwrap();
    }
    let text: String =
        [&["check", "thermostatt"][..], &["check", "one", "two"], &["check", "specs"], &["eval", "missing.lua"]]
            .into_iter()
            .map(|args| setpoint_in(dir.path(), args))
            .collect();
    assert_snapshot!(text, @r"
    exit 74
    --- stderr
    error: there is no file, folder or bundled policy `thermostatt`
    hint: did you mean the bundled policy `thermostat`?
    exit 78
    --- stderr
    error: two policies are called `queue`
      caused by: one/queue.lua and two/queue.lua
    hint: rename one of the files
    exit 78
    --- stderr
    error: there is no policy in the folder `specs`
    hint: a policy is a file that ends in `.lua` and not in `_test.lua`
    exit 74
    --- stderr
    error: there is no file, folder or bundled policy `missing.lua`
    hint: `setpoint policies list` shows the bundled ones, `setpoint init` writes a first one
    ");
}

#[test]
fn a_folder_of_other_things_does_not_hide_a_bundled_policy() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("spool")).unwrap();
    std::fs::write(dir.path().join("spool/job 1"), "").unwrap();
    assert_snapshot!(setpoint_in(dir.path(), &["check", "spool"]), @r"
    exit 0
    spool.lua: ok
    ");
    std::fs::write(dir.path().join("spool/mine.lua"), "return {}").unwrap();
    let shown = setpoint_in(dir.path(), &["check", "spool"]);
    assert!(shown.contains("spool/mine.lua"), "{shown}");
}

#[test]
fn a_host_that_is_not_there_is_unavailable() {
    // A port that was free a moment ago: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = address.to_string();
    let verbs = [&["status"][..], &["pause", "queue"], &["reload"], &["policies", "remove", "queue"]];
    let said = verbs.map(|verb| setpoint(&[verb, &["--server", &address]].concat()));
    assert!(said.iter().all(|other| *other == said[0]), "{said:?}");
    insta::with_settings!({ filters => [(r"127\.0\.0\.1:\d+", "ADDRESS")] }, {
        assert_snapshot!(said[0], @r"
        exit 69
        --- stderr
        error: cannot reach setpoint at http://ADDRESS
          caused by: Connection refused (os error 111)
        hint: start it with `setpoint run PATH`, or say where it is with --server or SETPOINT_SERVER
        ");
    });
}

#[test]
fn something_else_at_the_address_is_not_taken_for_a_host() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _head = stream.read(&mut [0; 4096]).unwrap();
            let body = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\nhello";
            stream.write_all(body.as_bytes()).unwrap();
        }
    });
    insta::with_settings!({ filters => [(r"127\.0\.0\.1:\d+", "ADDRESS")] }, {
        assert_snapshot!(setpoint(&["status", "--server", &address]), @r"
        exit 69
        --- stderr
        error: http://ADDRESS answered 200 OK, not as setpoint does
        hint: is the address right? something else may be listening there
        ");
    });
}

#[test]
fn status_is_a_table_a_policy_or_json() {
    let host = Host::start(None);
    let filters = [(r"\d+(ms|s) ago", "N ago"), (r" +\d+(ms|s)  127", " AGE  127")];
    insta::with_settings!({ filters => filters }, {
        assert_snapshot!(host.ask(&["status"]), @r"
        exit 0
        POLICY     TASKS  IN FLIGHT  SAMPLE  SETPOINT  LAST DECISION
        caches/eu    4/5          1   error         0  the file differs from what runs: policies/caches.lua: expected `end` · override max=5 · paused (deploy) · -
        queue        4/5          1    7.25         0  launch 1: at most 1 at once: +2 → +1
        ");
        assert_snapshot!(host.ask(&["status", "queue"]), @r"
        exit 0
             policy  queue
             script  policies/queue.lua
            version  generation 3, 0123456789ab
              ticks  812, the last one N ago
             sample  7.25
           setpoint  0
              tasks  4 running of 5 wanted, 1 in flight, 0 being killed
           decision  launch 1 (the law asked for +2)
                       step          at most 1 at once: +2 → +1

        TASK        STATE         PID     CPU    MEMORY    AGE  PLACE
        queue.01JZ  running      4242  12.5 %    3.0MiB AGE  127.0.0.1
        ");
        assert_snapshot!(host.ask(&["status", "caches/eu"]), @r"
        exit 0
             policy  caches/eu
             script  policies/caches.lua
            version  generation 3, 0123456789ab
              ticks  812, the last one N ago
             sample  error: no such host
           setpoint  0
              tasks  4 running of 5 wanted, 1 in flight, 0 being killed
             paused  yes (deploy)
           override  max=5
         not loaded  policies/caches.lua: expected `end`
              error  policies/caches.lua:12: metric: no such host
                        |
                     12 |   return http.get(url).body
                        |   ^^^^^^^^^^^^^^^^^^^^^^^^^
        ");
        assert_snapshot!(host.ask(&["status", "qeue"]), @r"
        exit 1
        --- stderr
        error: there is no policy `qeue`, did you mean `queue`?
        hint: `setpoint status` lists the policies
        ");
    });
    let json = command(&["status", "--json", "--server", &host.address]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["policies"][1]["name"], "queue");
    let json = command(&["status", "queue", "--json", "--server", &host.address]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["tasks"]["running"], 4);
}

#[test]
fn status_watches_until_it_is_interrupted() {
    let host = Host::start(None);
    let mut command = command(&["status", "--watch=100ms", "--server", &host.address]);
    let mut child = Child(command.stdout(Stdio::piped()).spawn().unwrap());
    let tables = BufReader::new(child.0.stdout.take().unwrap())
        .lines()
        .filter(|line| line.as_ref().is_ok_and(|line| line.starts_with("POLICY")));
    assert_eq!(tables.take(3).count(), 3);
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.0.wait().unwrap().success());
}

#[test]
fn commands_arrive_as_they_were_meant() {
    let host = Host::start(None);
    let mut text = String::new();
    for args in [
        &["pause", "queue"][..],
        &["pause", "caches/eu", "--for", "1m30s", "--reason", "data base move"],
        &["resume", "queue"],
        &["override", "queue", "--max", "5", "--for", "2h"],
        &["override", "queue", "--min", "10", "--max", "90", "--force", "--reason", "load test"],
        &["override", "queue", "--clear"],
        &["reload"],
        &["reload", "queue"],
        &["reload", "caches/eu"],
        &["policies", "adopt", "queue", "caches/eu"],
        &["policies", "remove", "queue"],
    ] {
        let said = host.ask(args);
        text.push_str(&format!("$ setpoint {}\n{said}→ {}\n\n", args.join(" "), host.commands.recv().unwrap()));
    }
    assert_snapshot!("commands", text);
}

#[test]
fn refusals_are_shown_as_the_host_says_them() {
    let host = Host::start(None);
    let mut text = String::new();
    for args in [
        &["pause", "qeue"][..],
        &["override", "queue", "--min", "5", "--max", "3"],
        &["override", "queue", "--max", "1000"],
        &["policies", "remove", "caches/eu"],
    ] {
        text.push_str(&format!("$ setpoint {}\n{}\n", args.join(" "), host.ask(args)));
    }
    assert_snapshot!(text, @r"
    $ setpoint pause qeue
    exit 1
    --- stderr
    error: there is no policy `qeue`, did you mean `queue`?
    hint: `setpoint status` lists the policies

    $ setpoint override queue --min 5 --max 3
    exit 2
    --- stderr
    error: `min` (5) is more than `max` (3)

    $ setpoint override queue --max 1000
    exit 2
    --- stderr
    error: max 1000 is above the policy's own max of 40

    $ setpoint policies remove caches/eu
    exit 77
    --- stderr
    error: `caches/eu` is not retired: its file is there
    ");
}

#[test]
fn a_token_is_asked_for_and_given() {
    let host = Host::start(Some("s3cret"));
    assert_snapshot!(host.ask(&["resume", "queue"]), @r"
    exit 77
    --- stderr
    error: a bearer token is needed: send `Authorization: Bearer TOKEN`
    hint: give the token that `run` was started with: --token or SETPOINT_TOKEN
    ");
    assert!(host.ask(&["resume", "queue", "--token", "wrong"]).starts_with("exit 77\n"));
    assert!(host.ask(&["resume", "queue", "--token", "s3cret"]).starts_with("exit 0\n"));
    let by_variable = command(&["resume", "queue"])
        .env("SETPOINT_TOKEN", "s3cret")
        .env("SETPOINT_SERVER", format!("http://{}/", host.address))
        .output()
        .unwrap();
    assert_eq!(by_variable.status.code(), Some(0), "{}", shown(&by_variable));
}

#[test]
fn init_writes_what_an_editor_needs_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert_snapshot!(setpoint_in(dir.path(), &["init", "policies", "--name", "mail"]), @r"
    exit 0
    wrote policies/mail.lua
    wrote policies/mail_test.lua
    wrote policies/.luarc.json
    wrote policies/types/

    next: setpoint check policies/mail.lua
          setpoint run policies/mail.lua
    ");
    let read = |file: &str| std::fs::read_to_string(dir.path().join("policies").join(file)).unwrap();
    assert!(read("mail.lua").starts_with("-- mail.lua: "));
    assert!(read("mail_test.lua").contains("describe(\"mail\""));
    assert!(read("types/setpoint.lua").starts_with("---@meta"));
    let luarc: serde_json::Value = serde_json::from_str(&read(".luarc.json")).unwrap();
    assert_eq!(luarc["runtime.version"], "Lua 5.1");

    std::fs::write(dir.path().join("policies/mail.lua"), "mine").unwrap();
    // One file of types for each module.
    let more = format!("{} more", setpoint::script::api::modules().len() + 3);
    let refused = setpoint_in(dir.path(), &["init", "policies", "--name", "mail"]).replace(&more, "MORE");
    assert_snapshot!(refused, @r"
    exit 74
    --- stderr
    error: already there, so nothing was written: `policies/mail.lua`, `policies/mail_test.lua`, `policies/.luarc.json`, MORE
    hint: --force overwrites
    ");
    assert_eq!(read("mail.lua"), "mine");
    assert!(setpoint_in(dir.path(), &["init", "policies", "--name", "other"]).contains("already there"));
    assert!(!dir.path().join("policies/other.lua").exists(), "half of the files were written");
    assert!(setpoint_in(dir.path(), &["init", "policies", "--name", "mail", "--force"]).starts_with("exit 0\n"));
    assert!(read("mail.lua").starts_with("-- mail.lua: "));

    std::fs::remove_file(dir.path().join("policies/types/setpoint.lua")).unwrap();
    assert!(setpoint_in(dir.path(), &["types", "policies"]).starts_with("exit 0\n"));
    assert_eq!(setpoint(&["types"]), format!("exit 0\n{}", read("types/setpoint.lua")));
}

#[test]
fn bundled_policies_are_listed_shown_and_copied() {
    let dir = tempfile::tempdir().unwrap();
    let list = command(&["policies", "list", "--json"]).output().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let names: Vec<_> = list["policies"].as_array().unwrap().iter().map(|policy| &policy["name"]).collect();
    assert!(names.contains(&&serde_json::json!("thermostat")), "{names:?}");
    let source = setpoint(&["policies", "show", "thermostat", "--source"]);
    assert!(setpoint(&["policies", "list"]).contains("thermostat  hold the number of its own short-lived tasks"));
    assert_eq!(setpoint_in(dir.path(), &["policies", "copy", "thermostat"]), "exit 0\nwrote ./thermostat.lua\n");
    let copy = std::fs::read_to_string(dir.path().join("thermostat.lua")).unwrap();
    assert_eq!(source, format!("exit 0\n{copy}"));
    assert!(setpoint_in(dir.path(), &["policies", "copy", "thermostat"]).starts_with("exit 74\n"));
    assert!(setpoint_in(dir.path(), &["policies", "copy", "thermostat", ".", "--force"]).starts_with("exit 0\n"));
    assert_snapshot!(setpoint(&["policies", "show", "nothing"]), @r"
    exit 2
    --- stderr
    error: there is no bundled policy `nothing`
    hint: `setpoint policies list` shows them
    ");
}

#[test]
fn shells_and_manual_pages_know_every_verb() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = setpoint(&["completion", shell]);
        assert!(VERBS.iter().all(|verb| script.contains(verb)), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    assert!(setpoint(&["man", pages.to_str().unwrap()]).starts_with("exit 0\n"));
    for verb in VERBS {
        assert!(pages.join(format!("setpoint-{verb}.1")).exists(), "{verb}");
    }
    assert!(pages.join("setpoint-policies-copy.1").exists());
    assert!(setpoint(&["man"]).contains(".TH setpoint 1"));
}

#[test]
fn a_run_that_cannot_listen_starts_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let filters = [(r"127\.0\.0\.1:[1-79]\d{3,4}", "ADDRESS")];
    insta::with_settings!({ filters => filters }, {
        assert_snapshot!(setpoint(&["run", "thermostat", "--listen", &address]), @r"
        exit 69
        --- stderr
        error: `ADDRESS` is in use by another process: stop it, or listen on another port; nothing was started
        hint: --listen takes another address, 127.0.0.1:0 any free port; --no-listen does without
        ");
        assert_snapshot!(setpoint(&["run", "thermostat", "--listen", "0.0.0.0:0"]), @r"
        exit 77
        --- stderr
        error: --listen: listening on `0.0.0.0:0`, beyond loopback, needs a token; nothing was started
        hint: set `SETPOINT_TOKEN`, or `token` in `[http]` of `setpoint.toml`
        ");
    });
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = command(&["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(shown(&output), "exit 0\n");
}

const HOLD: &str =
    "return { interval = \"50ms\", workload = { command = \"sleep 60\", effect = \"heats\", min = 0, max = 3 },
  metric = function(ctx) return ctx.running end, target = 2 }";

#[test]
fn check_and_eval_say_what_a_policy_is_and_would_do() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
    write("hold.lua", HOLD);
    write("hold_test.lua", "this is a spec and not even Lua");
    assert_eq!(setpoint_in(dir.path(), &["check", "."]), "exit 0\n./hold.lua: ok\n");
    let json = command(&["eval", "hold.lua", "--json"]).current_dir(dir.path()).output().unwrap();
    let policy: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&policy["name"], &policy["decision"]["raw"]), (&"hold".into(), &2.into()));
    assert_eq!(policy["sample"]["value"], 0.0);

    write("wrong.lua", "return {\n  interval = \"1s\",\n  metrik = 1,\n}\n");
    let said = setpoint_in(dir.path(), &["check", "."]);
    assert!(said.starts_with("exit 78\n") && said.contains("./hold.lua: ok"), "{said}");
    assert!(said.contains("did you mean `metric`?"), "{said}");
    let json = command(&["check", ".", "--json"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(json.status.code(), Some(78));
    let checked: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&checked["files"][0]["ok"], &checked["files"][1]["ok"]), (&true.into(), &false.into()));
    assert!(setpoint_in(dir.path(), &["eval", "wrong.lua"]).starts_with("exit 78\n"));
    assert!(setpoint_in(dir.path(), &["run", ".", "--no-listen"]).starts_with("exit 78\n"));
    assert!(setpoint_in(dir.path(), &["run", "hold.lua", "--no-listen", "--set", "max=3"]).starts_with("exit 2\n"));
}

#[test]
fn check_says_what_the_local_backend_does_not_do() {
    let dir = tempfile::tempdir().unwrap();
    let check = |workload: &str| {
        let text = format!("return {{ control = {{ law = 'count', n = 1 }}, workload = {{ max = 1, {workload} }} }}");
        std::fs::write(dir.path().join("p.lua"), text).unwrap();
        setpoint_in(dir.path(), &["check", "p.lua"])
    };
    let said = check("command = 'true', disk = '1MiB', ready = 'healthy'");
    assert!(said.starts_with("exit 0\n"), "legal, and probably not meant: {said}");
    for warning in ["workload.disk means nothing to the backend \"local\"", "so its tasks never count as ready"] {
        assert!(said.contains(warning), "{warning}: {said}");
    }
    // The backend would refuse each launch.
    let said = check("command = 'true', image = 'busybox'");
    assert!(said.starts_with("exit 78\n") && said.contains("runs commands and no images"), "{said}");
}

/// Its functions are its own: what they do to the world is told, and not done.
const OWN: &str = "local http = require('setpoint.http')
local p = require('setpoint.params') { target = 3 }
return { interval = '50ms', max_helpers = 1,
  workload = { command = 'exec sleep 600', effect = 'heats', min = 0, max = 4 },
  metric = function(ctx) return ctx.running end, target = p.target,
  warmer = function(n, ctx)
    http.post('http://127.0.0.1:1/scaled', { json = { by = n } })
    ctx.workload:launch(n + 2)
    ctx.workload:launch(1, { command = 'true', count = false })
  end,
  cooler = function(n, ctx) ctx.workload:kill(n) end }";

#[tokio::test(flavor = "multi_thread")]
async fn eval_tells_what_a_tick_would_have_done() {
    let scratch = Scratch::new();
    scratch.policy("own", OWN);
    let eval = async |arguments: &[&str]| {
        let done = Setpoint::output(&scratch, [&["eval", "own.lua"], arguments].concat()).await;
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stdout
    };
    let json = async |arguments: &[&str]| {
        let text = eval(&[&["--json"], arguments].concat()).await;
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let policy = json(&[]).await;
    assert_eq!(policy["name"], "own", "the object of the API, and beside it: {policy}");
    let calls = ["http.post POST http://127.0.0.1:1/scaled"];
    let would =
        serde_json::json!({ "launch": 4, "helpers": 1, "kill": 0, "tasks": [], "calls": calls, "accepted": null });
    assert_eq!(policy["would"], would, "cut to max, as a real tick would: {policy}");
    assert_eq!((&policy["decision"]["raw"], &policy["decision"]["adjustment"]), (&3.into(), &4.into()));
    let text = eval(&[]).await;
    let told = "      would  launch 4 tasks\n             launch 1 helper\n             http.post POST http://127.0.0.1:1/scaled\n";
    assert!(text.ends_with(told), "{text}");
    assert!(eval(&["--set", "target=0"]).await.ends_with("      would  nothing\n"));

    // With a state folder the tasks are known, and so is which of them would go.
    scratch.policy("own", &OWN.replace("http.post", "-- http.post").replace("n + 2", "n").replace("1, {", "0, {"));
    let mut setpoint = Setpoint::run(&scratch, ["own.lua", "--state-dir", "state"]);
    setpoint.running("own", 3).await;
    setpoint.stop().await;
    let tasks = scratch.living_tasks();
    let policy = json(&["--state-dir", "state", "--set", "target=1"]).await;
    let would = &policy["would"];
    assert_eq!((&would["launch"], &would["kill"]), (&0.into(), &2.into()), "{policy}");
    assert_eq!(would["tasks"].as_array().map(Vec::len), Some(2), "{policy}");
    assert_eq!(scratch.living_tasks(), tasks, "and nobody went");
}

#[test]
fn a_run_takes_its_settings_from_the_layers_and_ends_when_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hold.lua"), HOLD).unwrap();
    std::fs::write(dir.path().join("setpoint.toml"), "lisen = \"127.0.0.1:0\"\n").unwrap();
    let said = setpoint_in(dir.path(), &["run", "hold.lua", "--for", "1s"]);
    assert!(said.starts_with("exit 78\n") && said.contains("did you mean `listen`?"), "{said}");
    std::fs::write(dir.path().join("setpoint.toml"), "listen = \"127.0.0.1:0\"\ndry_run = true\n").unwrap();
    let said = setpoint_in(dir.path(), &["run", "hold.lua", "--for", "200ms", "--log", "error"]);
    assert_eq!(said, "exit 0\n");

    let mut command = command(&["run", "hold.lua"]);
    let mut child = Child(command.current_dir(dir.path()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let listening = lines.find(|line| line.contains("listening")).unwrap();
    let listening: serde_json::Value = serde_json::from_str(&listening).unwrap();
    let server = listening["address"].as_str().unwrap();
    // It may listen before its policies are loaded.
    let mut status = String::new();
    for _ in 0..1_000 {
        status = setpoint(&["status", "--server", server]);
        if status.contains("\nhold ") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(status.starts_with("exit 0\n") && status.contains("\nhold "), "{status}");
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // Reading on until the end keeps the pipe from filling.
    assert!(lines.any(|line| line.contains("\"code\":0")));
    assert!(child.0.wait().unwrap().success());
}

/// The real API over an engine that is played: it shows two policies and says yes to most commands.
struct Host {
    address: String,
    /// What arrived, as text.
    commands: mpsc::Receiver<String>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Host {
    fn start(token: Option<&str>) -> Self {
        let config = HttpConfig { token: token.map(str::to_owned), ..HttpConfig::default() };
        let (ready, address) = mpsc::channel();
        let (arrived, commands) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(play(config, ready, arrived, stopped));
        });
        let address = address.recv_timeout(Duration::from_secs(60)).unwrap().to_string();
        Self { address, commands, stop: Some(stop) }
    }

    fn ask(&self, args: &[&str]) -> String {
        setpoint(&[args, &["--server", &self.address]].concat())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.take().unwrap().send(()).ok();
    }
}

async fn play(
    config: HttpConfig,
    ready: mpsc::Sender<SocketAddr>,
    arrived: mpsc::Sender<String>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) {
    let (handle, mut engine) = EngineHandle::detached();
    let publisher = engine.publisher();
    publisher.set_policy(queue());
    publisher.set_policy(caches());
    publisher.set_tasks([task()]);
    let listener = http::bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    ready.send(listener.local_addr().unwrap()).unwrap();
    tokio::spawn(async move {
        while let Some((command, reply)) = engine.next_command().await {
            let answer = match &command {
                EngineCommand::Override { max: Some(1000), .. } => {
                    Err(CommandError::Invalid("max 1000 is above the policy's own max of 40".to_owned()))
                }
                EngineCommand::Remove { policy } if policy.as_str() == "caches/eu" => {
                    Err(CommandError::Conflict("`caches/eu` is not retired: its file is there".to_owned()))
                }
                EngineCommand::Reload { policy: Some(policy) } if policy.as_str() == "caches/eu" => Ok(Some(caches())),
                EngineCommand::Reload { policy: None } => Ok(None),
                _ => Ok(Some(queue())),
            };
            arrived.send(format!("{command:?}")).ok();
            reply.send(answer).ok();
        }
    });
    let stopped = async { stopped.await.unwrap_or(()) };
    http::serve(listener, http::router(handle, config), stopped).await.unwrap();
}

fn snapshot(name: &str) -> PolicySnapshot {
    PolicySnapshot {
        name: PolicyName::from(name),
        generation: 3,
        script: ScriptView {
            path: format!("policies/{}.lua", name.split('/').next().unwrap()).into(),
            sha256: "0123456789abcdef".into(),
            error: None,
            refused: None,
        },
        spec: None,
        params: Vec::new().into(),
        ticks: 812,
        last_tick: Some(SystemTime::now()),
        next_tick: None,
        sample: Some(Sample::value(7.25)),
        setpoint: Some(0.0),
        counts: Counts { running: 4, ready: 4, staging: 1, ..Counts::default() },
        bounds: Bounds { min: 1, max: 40 },
        decision: None,
        acted: 0,
        paused: None,
        bounds_override: None,
        ended: None,
        stalled: false,
        failures: 0,
        shadow: None,
    }
}

fn queue() -> std::sync::Arc<PolicySnapshot> {
    let limit = Detail::Limit { limit: 1, per: None };
    let reasons = vec![Reason { guard: Guard::Step, from: 2, to: 1, detail: limit }];
    let decision = Decision { at: Timestamp::ZERO, desired: 4, raw: 2, adjustment: 1, to_min: 0, reasons };
    PolicySnapshot { decision: Some(decision.into()), ..snapshot("queue") }.into()
}

fn caches() -> std::sync::Arc<PolicySnapshot> {
    let mut policy = snapshot("caches/eu");
    let mut error = ScriptError::new("policies/caches.lua", Hook::Metric, ScriptErrorKind::Runtime, "no such host");
    error.line = Some(12);
    error.source_line = Some("  return http.get(url).body".into());
    policy.script.error = Some(error.into());
    let refused = ScriptError::new("policies/caches.lua", Hook::Load, ScriptErrorKind::Syntax, "expected `end`");
    policy.script.refused = Some(refused.into());
    policy.sample = Some(Sample::Error { message: "no such host".into() });
    policy.paused = Some(Pause { until: None, reason: Some("deploy".to_owned()) });
    policy.bounds_override = Some(Override { min: None, max: Some(5), until: None, reason: None });
    policy.into()
}

fn task() -> TaskView {
    TaskView {
        id: TaskId::from("queue.01JZ"),
        policy: PolicyName::from("queue"),
        backend: "local".into(),
        state: TaskState::Running,
        ready: true,
        helper: false,
        placement: Placement { host: Some("127.0.0.1".to_owned()), pid: Some(4242), ..Placement::default() },
        started: SystemTime::now(),
        stats: TaskStats { cpu_percent: Some(12.5), memory_bytes: Some(3 << 20), ..TaskStats::default() },
        by: "law",
        slot: Some(0),
    }
}
