//! What `check` says of the words of containers, without an engine.

use crate::support::{Scratch, Setpoint};

async fn check(words: &str) -> (Option<i32>, String) {
    let scratch = Scratch::new();
    let policy = format!("return {{ control = {{ law = \"count\", n = 1 }}, workload = {{ {words} }} }}");
    scratch.policy("p", &policy);
    // An engine that nobody could reach.
    scratch.write("setpoint.toml", "[docker]\nhost = \"unix:///nonexistent/docker.sock\"\n");
    let done = Setpoint::output(&scratch, ["check", "p.lua"]).await;
    (done.code, done.stdout + &done.stderr)
}

#[tokio::test]
async fn check_knows_the_words_and_needs_no_engine() {
    let docker = r#"backend = "docker", image = "redis:7","#;
    let (code, said) = check(docker).await;
    assert_eq!((code, said.as_str()), (Some(0), "p.lua: ok\n"));
    for (words, expected) in [
        (r#"backend = "docker""#.to_owned(), "expected a command"),
        (r#"backend = "docker", command = "x""#.to_owned(), "workload.image: backend \"docker\" runs images"),
        (format!("{docker} entrypiont = \"x\""), "did you mean `entrypoint`?"),
        (format!("{docker} volumes = {{ \"data\" }}"), "expected \"source:/target\""),
        (format!("{docker} tmpfs = {{ \"tmp\" }}"), "expected \"/path\""),
        (format!("{docker} health = true"), "workload.health: expected a command"),
        (format!("{docker} health = {{ comand = \"x\" }}"), "did you mean `command`?"),
        (
            format!("{docker} health = {{ interval = \"1s\" }}"),
            "expected one of `command`, `http` and `tcp`, got none of them",
        ),
        (format!("{docker} health = {{ http = 80, tcp = 80 }}"), "got http and tcp"),
        (format!("{docker} health = {{ tcp = \"web\" }}"), "workload.health: the task has no port \"web\""),
        (
            format!("{docker} health = {{ http = {{ port = 80, path = \"ok\" }} }}"),
            "workload.health.http.path: expected a path that begins with a slash",
        ),
        (format!("{docker} health = {{ tcp = 70000 }}"), "expected a port from 1 to 65535"),
        (format!("{docker} pull = \"sometimes\""), "workload.pull: expected \"missing\""),
        (format!("{docker} pids = 0"), "workload.pids"),
        (
            format!("{docker} ports = {{ a = {{ outside = \"9-8\" }} }}"),
            "workload.ports.a.outside: expected a port, or a range",
        ),
        (format!("{docker} ports = {{ a = {{ inside = 0 }} }}"), "expected a port from 1 to 65535"),
        (format!("{docker} ports = {{ a = {{ outsid = 1 }} }}"), "did you mean `outside`?"),
        (format!("{docker} parameters = {{ \"x\" }}"), "expected \"option=value\""),
        (format!("{docker} engine = \"\""), "workload.engine: expected text"),
    ] {
        let (code, said) = check(&words).await;
        assert_eq!(code, Some(78), "{words}: {said}");
        assert!(said.contains(expected), "{words}: {said}");
    }
    for (words, expected) in [
        (format!("{docker} output = \"null\""), "workload.output means nothing to the backend \"docker\""),
        (
            format!("{docker} health = {{ tcp = \"web\" }}, ports = {{ web = 80 }}"),
            "workload.health.tcp means nothing to the backend \"docker\"",
        ),
        (r#"command = "x", init = true"#.to_owned(), "workload.init means nothing to the backend \"local\""),
    ] {
        let (code, said) = check(&words).await;
        assert_eq!(code, Some(0), "{words}: {said}");
        assert!(said.contains(expected), "{words}: {said}");
    }
    let (code, said) = check(r#"command = "x", user = "me""#).await;
    assert_eq!((code, said.as_str()), (Some(0), "p.lua: ok\n"), "commands have users, too");
}
