//! What lies around the policies: paths, parameters, addresses, `setpoint.toml`, the state folder.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use insta::assert_snapshot;

use super::settled;
use crate::support::{GENEROUS, Scratch, Setpoint, command, tool};

const GOOD: &str = r#"local p = require("setpoint.params") { max = 4, list = "jobs", fast = false }
return { interval = "100ms", workload = { command = "exec sleep 600", min = 1, max = p.max },
  control = { law = "count", n = 1 } }"#;

/// Each command with what it ended with.
async fn asked(scratch: &Scratch, commands: &[&[&str]]) -> String {
    let mut text = String::new();
    for arguments in commands {
        let done = Setpoint::output(scratch, *arguments).await;
        text.push_str(&format!("$ setpoint {}\n{}\n", arguments.join(" "), done.told(scratch)));
    }
    settled(scratch, &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_parameters() {
    let scratch = Scratch::new();
    for name in ["good", "one/twin", "two/twin"] {
        scratch.policy(name, GOOD);
    }
    scratch.write("empty/good_test.lua", "return {}");
    scratch.write("folder.lua/readme", "");
    scratch.write("wrong.toml", "[params]\nlist = \"other\"\n[params.good]\nmax = \"many\"\n");
    scratch.write("unknown.toml", "[params]\nmx = 3\n");
    let said = asked(
        &scratch,
        &[
            &["run", "missing.lua", "--no-listen"],
            &["run", "empty", "--no-listen"],
            &["run", "folder.lua", "--no-listen"],
            &["run", "one", "two", "--no-listen"],
            &["run", "good.lua", "--no-listen", "--set", "mx=3"],
            &["run", "good.lua", "--no-listen", "--set", "good.lst=other"],
            &["run", "good.lua", "--no-listen", "--set", "goood.max=3"],
            &["run", "good.lua", "--no-listen", "--set", "max=many"],
            &["run", "good.lua", "--no-listen", "--set", "max=inf"],
            &["run", "good.lua", "--no-listen", "--set", "fast=yes"],
            &["run", "good.lua", "--no-listen", "--set", "max=0"],
            &["check", "good.lua", "--set", "mx=3"],
            &["check", "good.lua", "--set", "max=many"],
            &["check", "good.lua", "--set", "good.max=5"],
            &["eval", "good.lua", "--set", "mx=3"],
            &["run", "good.lua", "--no-listen", "--config", "wrong.toml"],
            &["run", "good.lua", "--no-listen", "--config", "unknown.toml"],
            &["check", "good.lua", "--config", "unknown.toml"],
        ],
    )
    .await;
    assert_snapshot!("paths_and_parameters", said);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read() {
    let scratch = Scratch::new();
    scratch.policy("closed/good", GOOD);
    scratch.policy("good", GOOD);
    scratch.write("setpoint.conf", "");
    let Some(mut run) = without_privileges(&scratch) else { return };
    let close = |name: &str, mode| {
        fs::set_permissions(scratch.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let mut text = String::new();
    close("closed", 0o000);
    close("good.lua", 0o000);
    for arguments in [&["run", "closed", "--no-listen"][..], &["run", "good.lua", "--no-listen"]] {
        let mut setpoint = Setpoint::spawn(&scratch, {
            run.args(arguments);
            run
        });
        let code = setpoint.exit(GENEROUS).await.code().unwrap_or(-1);
        let said = settled(&scratch, &setpoint.stderr());
        text.push_str(&format!("$ setpoint {}\nexit {code}\n{said}\n", arguments.join(" ")));
        run = without_privileges(&scratch).unwrap();
    }
    close("closed", 0o700);
    assert_snapshot!("may_not_be_read", text);
}

/// The command as a user whom permissions hold back: root is not, unless it gives that up.
fn without_privileges(scratch: &Scratch) -> Option<Command> {
    let plain = command(scratch);
    if !rustix::process::geteuid().is_root() {
        return Some(plain);
    }
    let mut given = Command::new(tool("setpriv")?);
    given.args(["--bounding-set=-dac_override,-dac_read_search", "--"]).arg(plain.get_program());
    given.current_dir(scratch.folder());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => given.env(name, value),
            None => given.env_remove(name),
        };
    }
    Some(given)
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses() {
    let scratch = Scratch::new();
    scratch.policy("good", GOOD);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    scratch.write("open.toml", "listen = \"0.0.0.0:0\"\n");
    let mut said = asked(
        &scratch,
        &[
            &["run", "good.lua", "--listen", &taken],
            &["run", "good.lua", "--listen", "0.0.0.0:0"],
            &["run", "good.lua", "--config", "open.toml"],
        ],
    )
    .await;
    let mut by_environment = command(&scratch);
    by_environment.args(["run", "good.lua"]).env("SETPOINT_LISTEN", "0.0.0.0:0");
    let code = Setpoint::spawn(&scratch, by_environment).exit(GENEROUS).await.code();
    said.push_str(&format!("$ SETPOINT_LISTEN=0.0.0.0:0 setpoint run good.lua\nexit {}\n", code.unwrap_or(-1)));
    assert!(scratch.living_tasks().is_empty());
    assert_snapshot!("addresses", said.replace(&taken, "127.0.0.1:TAKEN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_file() {
    let scratch = Scratch::new();
    scratch.policy("good", GOOD);
    scratch.write(
        "setpoint.toml",
        "listen = 8080\nstat_dir = \"state\"\nscript_threads = 0\ndry_run = \"yes\"\n\n[limits]\ncpu = \"50\"\nmemry = \
         \"16MiB\"\n\n[policy]\nallow_backends = \"local\"\n\n[polcy]\nexec = true\n",
    );
    scratch.write("broken.toml", "listen = \"127.0.0.1:8080\"\n[limits\ncpu = \"50ms\"\n");
    scratch.write("narrow.toml", "[policy]\nallow_backends = [\"docker\"]\n");
    let said = asked(
        &scratch,
        &[
            &["run", "good.lua"],
            &["run", "good.lua", "--config", "broken.toml"],
            &["run", "good.lua", "--config", "missing.toml"],
            &["run", "good.lua", "--config", "narrow.toml", "--no-listen"],
        ],
    )
    .await;
    assert_snapshot!("configuration_file", said);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_folder() {
    let scratch = Scratch::new();
    scratch.policy("good", GOOD);
    scratch.write("file", "mine\n");
    let mut text = asked(
        &scratch,
        &[
            &["run", "good.lua", "--no-listen", "--state-dir", "file"],
            &["run", "good.lua", "--no-listen", "--state-dir", "file/below"],
            &["eval", "good.lua", "--state-dir", "nowhere"],
        ],
    )
    .await;
    assert_eq!(scratch.read("file"), "mine\n");

    let mut holder = Setpoint::run(&scratch, ["good.lua", "--state-dir", "state"]);
    holder.running("good", 1).await;
    let second = asked(&scratch, &[&["run", "good.lua", "--no-listen", "--state-dir", "state"]]).await;
    text.push_str(&second.replace(&format!("process {}", holder.pid()), "process HOLDER"));
    let task = scratch.living_tasks();
    holder.ticks("good", 3).await;
    holder.stop().await;
    assert_eq!(scratch.living_tasks(), task, "neither the second run nor the end of the first has touched the task");

    let store = scratch.path("state/setpoint.redb");
    let whole = fs::read(&store).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged.truncate(middle);
    for (what, bytes) in [("cut in half", damaged), ("another file", b"# notes\n".to_vec())] {
        fs::write(&store, &bytes).unwrap();
        let said = asked(&scratch, &[&["run", "good.lua", "--no-listen", "--state-dir", "state"]]).await;
        text.push_str(&format!("\n# the store is {what}\n{said}"));
        assert!(fs::read(&store).unwrap() == bytes, "{what}: the file was changed");
        assert_eq!(scratch.living_tasks(), task, "{what}: the task is not touched");
    }
    assert_snapshot!("state_folder", text);

    // The backup goes back in its place, as the hint says, and the task is the same one.
    fs::write(&store, &whole).unwrap();
    let mut again = Setpoint::run(&scratch, ["good.lua", "--state-dir", "state"]);
    again.running("good", 1).await;
    assert_eq!(scratch.living_tasks(), task);
    again.stop().await;
    // Or it is moved aside.
    fs::rename(&store, scratch.path("state/aside")).unwrap();
    let mut anew = Setpoint::run(&scratch, ["good.lua", "--state-dir", "state"]);
    anew.running("good", 1).await;
}
