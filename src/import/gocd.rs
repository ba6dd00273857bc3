//! The settings file of gocd-mesos as the bundled policy `gocd` with its parameters set.

use super::error::Problem;
use super::hocon;
use super::lua::{self, Field, Lua};
use super::policy::head;
use super::report::Report;
use super::spec::{LOAD, Spec};
use super::tree::Section;
use super::{Backend, Imported, Options, policy_name};

/// The bundled policy, which the imported one is a copy of.
const BUNDLED: &str = include_str!("../../scripts/gocd.lua");

/// Imports a settings file.
pub(super) fn import(text: &str, options: &Options) -> Result<Vec<Imported>, Problem> {
    let root = hocon::document(text)?;
    let place = root.place;
    let mut root = Section::new(root, "")?;
    let Some(mut settings) = root.section("gocd-mesos")? else {
        let keys: Vec<_> = root.keys().into_iter().take(5).collect();
        let got =
            if keys.is_empty() { "an empty text".to_owned() } else { format!("the sections {}", keys.join(", ")) };
        return Err(Problem::at(place, format!("expected the section `gocd-mesos`, got {got}")));
    };
    let mut report = Report::default();
    report.rest(root);
    let backend = options.backend.unwrap_or(Backend::Mesos);
    if backend == Backend::None {
        let text = "expected local, docker, swarm or mesos: agents are what this policy runs, got the backend none";
        return Err(Problem::at(place, text));
    }
    let mut params = vec![("backend", Lua::text(backend.name()))];
    master(&mut settings, backend, &mut report)?;
    server(&mut settings, &mut params, &mut report)?;
    let bounds = agent(&mut settings, backend, &mut params, &mut report)?;
    report.rest(settings);
    let name = options.name.clone().unwrap_or_else(|| policy_name("gocd-agents"));
    let policy = text_of(&name, &params, &report)?;
    Ok(vec![Imported { policy, spec: spec(bounds).text(&name), name, report }])
}

fn master(settings: &mut Section, backend: Backend, report: &mut Report) -> Result<(), Problem> {
    let line = settings.place.line;
    if let Some(master) = settings.text("mesos-master")? {
        if backend == Backend::Mesos {
            report.fill_in(format!("setpoint.toml: [mesos] master = {}", lua::quote(&master)));
            report.carried("gocd-mesos.mesos-master", "[mesos] master in setpoint.toml");
        } else {
            let why = format!("agents run on the backend \"{}\"", backend.name());
            report.lost(format!("gocd-mesos.mesos-master = {master}"), line, why);
        }
    }
    Ok(())
}

fn server(settings: &mut Section, params: &mut Vec<(&'static str, Lua)>, report: &mut Report) -> Result<(), Problem> {
    let server = settings.section("go-server")?;
    let mut server = server.ok_or_else(|| settings.missing("go-server", "the address of the GoCD server"))?;
    let host = server.needed("host", "the server's host name")?;
    let port = server.text("port")?.unwrap_or_else(|| "8153".to_owned());
    report.carried("go-server.host, go-server.port", "params.server");
    params.push(("server", Lua::text(format!("http://{host}:{port}"))));
    let user = server.text("user-name")?.filter(|user| !user.is_empty());
    let password = server.text("password")?.filter(|password| !password.is_empty());
    let asks = server.flag("auth-enabled")?;
    if asks == Some(false) && (user.is_some() || password.is_some()) {
        let why = "a user and a password that are given are used";
        report.lost("go-server.auth-enabled = false", server.place.line, why);
    } else if asks.is_some() {
        report.carried("go-server.auth-enabled", "params.user, params.password: used where they are given");
    }
    if let Some(user) = user {
        params.push(("user", Lua::text(user)));
        report.carried("go-server.user-name", "params.user");
    }
    if password.is_some() {
        params.push(("password", Lua::text("gocd")));
        report.fill_in("setpoint.toml: the secret `gocd`, the password of the server's user; a policy never holds one");
        report.carried("go-server.password", "params.password, the name of a secret");
    }
    report.rest(server);
    Ok(())
}

fn agent(
    settings: &mut Section,
    backend: Backend,
    params: &mut Vec<(&'static str, Lua)>,
    report: &mut Report,
) -> Result<(u32, u32), Problem> {
    let (mut min, mut max) = (0, 4);
    let place = settings.place;
    let Some(mut agent) = settings.section("go-agent")? else {
        report.fill_in("params.max: gocd-mesos knew no most; 4 is the bundled policy's");
        return Ok((min, max));
    };
    match agent.text("auto-register-key")? {
        Some(key) => {
            params.push(("agent_key", Lua::text(key)));
            report.carried("go-agent.auto-register-key", "params.agent_key");
        }
        None => {
            report
                .fill_in("params.agent_key: agentAutoRegisterKey of the server, without which agents cannot register");
        }
    }
    if let Some(image) = agent.text("docker-image")? {
        if backend == Backend::Local {
            report.lost(
                format!("go-agent.docker-image = {image}"),
                agent.place.line,
                "processes have none; see params.command",
            );
        } else {
            params.push(("image", Lua::text(image)));
            report.carried("go-agent.docker-image", "params.image");
        }
    } else if backend != Backend::Local {
        params.push(("image", Lua::text("fill-in:latest")));
        report.fill_in("params.image: the image of an agent");
    }
    min = agent.whole("min-agents")?.unwrap_or(min);
    if let Some(most) = agent.whole("max-agents")? {
        max = most;
    } else {
        max = max.max(min);
        report.fill_in("params.max: gocd-mesos knew no most");
    }
    if max == 0 || max < min {
        let text = format!("go-agent.max-agents: expected at least 1 and min-agents ({min}), got {max}");
        return Err(Problem::at(place, text));
    }
    report.carried("go-agent.min-agents, go-agent.max-agents", "params.min, params.max");
    params.push(("min", Lua::whole(min)));
    params.push(("max", Lua::whole(max)));
    report.rest(agent);
    Ok((min, max))
}

/// The bundled policy with other defaults, under a head of its own.
fn text_of(name: &str, params: &[(&'static str, Lua)], report: &Report) -> Result<String, Problem> {
    let about = [
        "Imported from the settings of gocd-mesos: the bundled policy `gocd` (`setpoint policies show gocd` tells about it) \
         with other defaults."
            .to_owned(),
        "gocd-mesos launched one agent whenever six polls, two minutes apart, had seen a job, and never ended one. This \
         launches what is missing at once and ends idle agents. The old rule is still there: rule = \"polls\", confirm = 6, \
         poll and poll_max = \"2m\"."
            .to_owned(),
    ];
    let mut text = head(name, "elastic GoCD agents, as many as there are jobs without one.", &about, report);
    text.push('\n');
    let changed = || Problem::new(1, 1, "the bundled policy is not as the importer expects it");
    let code = BUNDLED.find("\nlocal http = require").map(|at| &BUNDLED[at + 1..]).ok_or_else(changed)?;
    let mut set = 0;
    for line in code.lines() {
        let given = params.iter().find(|(key, _)| line.starts_with(&format!("  {key} = ")) && line.contains(','));
        if let Some((key, value)) = given {
            let note = line.split_once(", -- ").map_or("", |(_, note)| note);
            text.push_str(&lua::fields_text(&[Field::new(*key, value.clone()).noted(note)], 2));
            set += 1;
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    if set == params.len() { Ok(text) } else { Err(changed()) }
}

fn spec((min, max): (u32, u32)) -> Spec {
    let most = max.min(200);
    let min = if min > most { 0 } else { min };
    let bounds = format!("params = {{ min = {min}, max = {most} }}");
    let mut spec = Spec::default();
    spec.local("local jobs = 0");
    spec.fake(
        "http",
        "{\n  get = function(url)\n    \
         local feed = \"<scheduledJobs>\" .. (\"<job name='build'/>\"):rep(jobs) .. \"</scheduledJobs>\"\n    \
         local agents = { _embedded = { agents = {} } }\n    \
         return { status = 200, ok = true, url = url, body = feed, json = function() return agents end }\n  end,\n}",
    );
    spec.fake("secret", "{\n  get = function(name)\n    return name\n  end,\n}");
    spec.case(
        "launches an agent for each job that waits, and no more than it may",
        &format!(
            "jobs = 3\nlocal policy = {LOAD}{{ {bounds} }})\npolicy:tick()\nexpect(policy:running()).to_equal({})",
            3.clamp(min, most)
        ),
    );
    spec.case(
        "has its fewest agents while nothing waits",
        &format!(
            "jobs = 0\nlocal policy = {LOAD}{{ {bounds} }})\npolicy:tick()\nexpect(policy:running()).to_equal({min})"
        ),
    );
    spec
}
