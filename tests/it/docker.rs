//! Tasks in containers, on genuine engines: their life, what goes wrong with them, and what goes wrong with engines.

mod crash;
mod faults;
mod life;
mod registry;
mod several;
mod ssh;
mod trouble;
mod words;

use serde_json::Value;

use crate::support::{Docker, LABEL, Scratch};

/// A policy that holds as many containers as the file `n` in the scratch folder says; `words` go into the workload.
fn holding(scratch: &Scratch, image: &str, words: &str) -> String {
    scratch.write("n", "0");
    format!(
        r#"
        local fs = require("setpoint.fs")
        return {{
          interval = "200ms",
          workload = {{
            backend = "docker", image = "{image}", effect = "heats", min = 0, max = 50, grace = "1s",
            labels = {{ ["{LABEL}"] = "{mark}" }},
            {words}
          }},
          decide = function() return {{ desired = tonumber(fs.read("{mark}/n")) }} end,
          backoff = {{ min = "500ms", max = "2s" }},
        }}"#,
        mark = scratch.mark()
    )
}

/// Configuration for engines by name, with everything that such policies need.
fn configure(scratch: &Scratch, engines: &[(&str, &str)]) {
    let mut text = format!("[policy]\nread_dirs = [\"{}\"]\n", scratch.mark());
    for (name, host) in engines {
        text.push_str(&format!("[docker.engines.{name}]\nhost = \"{host}\"\n"));
    }
    scratch.write("setpoint.toml", &text);
}

/// The tasks of a test's containers, sorted; each must be there once.
fn tasks_of(docker: &Docker, scratch: &Scratch) -> Vec<String> {
    let tasks = docker.of_test(scratch).into_iter().filter_map(|id| docker.inspect(&id));
    let mut tasks: Vec<String> = tasks.map(|found| text(&found["Config"]["Labels"]["setpoint.task"])).collect();
    tasks.sort();
    tasks
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
