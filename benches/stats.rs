//! What it costs to know what containers use: `cargo bench --bench stats -- [CONTAINERS] [SECONDS] [IMAGE]`.
//!
//! CONTAINERS (200) sleep on the machine's own engine; IMAGE has a `sleep` and is there already (unless given, one that the
//! tests have made). For SECONDS (60) each: nothing asks; the binary of the same build runs a policy that asks
//! `docker.stats` for all of them each second; `docker stats` watches the same ones. CPU time is read from /proc, that of
//! the engine over dockerd, containerd and all of its shims. Whatever else the engine does counts too, so the first
//! figure is what the others are to be compared with. The containers are removed at the end.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

mod support;

use std::error::Error;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{arguments, cpu_seconds, load};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How many containers are started at once.
const AT_ONCE: usize = 4;

fn main() -> Outcome<()> {
    let arguments = arguments();
    let number = |at: usize, default: u64| arguments.get(at).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (count, time) = (number(0, 200) as usize, Duration::from_secs(number(1, 60)));
    let image = match arguments.get(2) {
        Some(image) => image.clone(),
        None => docker(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "setpoint-test/busybox"])?
            .lines()
            .next()
            .ok_or("no image; give one that has a `sleep`, or run the tests first")?
            .to_owned(),
    };
    let label = format!("setpoint.bench=stats-{}", std::process::id());
    let fleet = Fleet::start(&label, &image, count)?;
    println!("{count} containers, {} s each, load averages {}", time.as_secs(), load());

    let idle = measure(None, time);
    println!("nobody asks:    engine {:.2} % of a core", idle.engine);

    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("stats.lua");
    fs::write(&policy, script(&label))?;
    let log = folder.path().join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_setpoint"));
    command.arg("run").arg(&policy).args(["--no-listen", "--log", "warn"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
    let ours = Running::start(command)?;
    let cost = measure(Some(&ours), time);
    drop(ours);
    let text = fs::read_to_string(&log)?;
    let whole = text.lines().filter(|line| line.contains(&format!("figures={count}"))).count();
    cost.print("setpoint", &idle);
    println!("                {whole} ticks had figures of all {count}");

    let mut command = Command::new("docker");
    command.args(["stats", "--format", "{{.CPUPerc}}"]).args(&fleet.containers);
    let words = folder.path().join("words");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&words)?);
    let mut theirs = Running::start(command)?;
    let cost = measure(Some(&theirs), time);
    if let Some(status) = theirs.0.try_wait()? {
        return Err(format!("`docker stats` ended ({status}): {}", fs::read_to_string(&words)?.trim()).into());
    }
    drop(theirs);
    cost.print("docker stats", &idle);
    println!("load averages {}", load());
    Ok(())
}

/// A policy that reads figures of all containers each second and says of how many it has them.
fn script(label: &str) -> String {
    format!(
        r#"
        local docker = require("setpoint.docker")
        local log = require("setpoint.log")
        return {{
          interval = "1s",
          workload = {{ backend = "none", max = 1, count = function() return 1 end }},
          metric = function()
            local cpu, figures = 0, 0
            for _, container in ipairs(docker.stats({{ label = "{label}" }})) do
              if container.cpu_percent and container.memory_bytes then
                cpu, figures = cpu + container.cpu_percent, figures + 1
              end
            end
            log.warn("read", {{ figures = figures }})
            return cpu
          end,
          target = 0,
          control = {{ tolerance = 1e9 }},
        }}"#
    )
}

/// Shares of a core over a stretch of time, in percent.
struct Cost {
    own: f64,
    engine: f64,
}

impl Cost {
    fn print(&self, name: &str, idle: &Self) {
        let engine = (self.engine - idle.engine).max(0.0);
        println!(
            "{:<15} own {:.2} %, engine {:.2} % ({engine:.2} % more than when nobody asks): {:.2} % of a core",
            format!("{name}:"),
            self.own,
            self.engine,
            self.own + engine
        );
    }
}

fn measure(process: Option<&Running>, time: Duration) -> Cost {
    // What comes first (connecting, listing, looking each one up) is not what each second costs.
    std::thread::sleep(Duration::from_secs(5));
    let own = || process.map_or(0.0, |running| cpu_seconds(&running.0.id().to_string()));
    let (before, engine, begun) = (own(), engine_seconds(), Instant::now());
    std::thread::sleep(time);
    let share = |seconds: f64| 100.0 * seconds / begun.elapsed().as_secs_f64();
    Cost { own: share(own() - before), engine: share(engine_seconds() - engine) }
}

/// CPU time of everything that belongs to the engine.
fn engine_seconds() -> f64 {
    let Ok(entries) = fs::read_dir("/proc") else { return f64::NAN };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let engine = pids.filter(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("dockerd") || name.starts_with("containerd")
    });
    engine.map(|pid| cpu_seconds(&pid)).sum()
}

/// A process that is ended with this value.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Outcome<Self> {
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Containers that are removed with this value.
struct Fleet {
    label: String,
    containers: Vec<String>,
}

impl Fleet {
    fn start(label: &str, image: &str, count: usize) -> Outcome<Self> {
        let mut fleet = Self { label: label.to_owned(), containers: Vec::new() };
        while fleet.containers.len() < count {
            let more = (count - fleet.containers.len()).min(AT_ONCE);
            let children: Vec<Child> = (0..more)
                .map(|_| {
                    let mut command = Command::new("docker");
                    command.args([
                        "run", "--detach", "--init", "--memory", "32m", "--label", label, image, "sleep", "3600",
                    ]);
                    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
                })
                .collect::<Result<_, _>>()?;
            for child in children {
                let output = child.wait_with_output()?;
                if !output.status.success() {
                    return Err("a container could not be started".into());
                }
                fleet.containers.push(String::from_utf8(output.stdout)?.trim().to_owned());
            }
        }
        Ok(fleet)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let filter = format!("label={}", self.label);
        let all = docker(&["ps", "--all", "--quiet", "--filter", &filter]).unwrap_or_default();
        let mut arguments = vec!["rm", "--force"];
        arguments.extend(all.lines());
        if arguments.len() > 2 {
            drop(docker(&arguments));
        }
    }
}

fn docker(arguments: &[&str]) -> Outcome<String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
