//! The flags that make a world up, for `simulate` and `tune`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use setpoint::script::spec::Fakes;
use setpoint::sim::{Failures, Load, Outage, OutageKind, Plant, Room, Setup, Shape, SpecStage};

use super::super::exit::{CliError, Exit};
use super::duration;

/// How long a made-up load goes on unless told.
const HOUR: Duration = Duration::from_secs(3600);

/// How many requests may wait; `None`: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct QueueRoom(Option<u64>);

/// Form of a made-up load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// `--low`, then `--high` from `--period` on.
    Step,
    /// From `--low` to `--high` in `--period`.
    Ramp,
    /// Round and round in `--period`.
    Sine,
    /// Half of `--period` each.
    Square,
    /// `--high` for the last twentieth of `--period`.
    Spike,
    /// Another value each second.
    Noise,
}

/// The world of a simulation.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "The world")]
pub(super) struct WorldArgs {
    /// A recorded load: `seconds,value` rows.
    #[arg(long, value_name = "FILE.csv", conflicts_with = "load")]
    trace: Option<PathBuf>,

    /// Hold each row's value until the next, instead of going there in a straight line.
    #[arg(long, requires = "trace", conflicts_with = "interpolate")]
    hold: bool,

    /// Go from row to row in a straight line, which is the default.
    #[arg(long, requires = "trace")]
    interpolate: bool,

    /// A made-up load.
    #[arg(long, value_name = "FORM", value_enum)]
    load: Option<Form>,

    /// Its low value.
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    low: f64,

    /// Its high value.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    high: f64,

    /// Its period.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    period: Duration,

    /// Factor on the load.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,

    /// End after so long; a trace ends with its last row otherwise, a made-up load after an hour.
    #[arg(long, visible_alias = "for", value_name = "DURATION", value_parser = duration)]
    until: Option<Duration>,

    /// Load that one task serves a second. Without a load, the number of tasks is all there is.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    rate_per_task: f64,

    /// Let requests wait in a queue (M/M/c), at most N of them if given, instead of losing them.
    #[arg(long, value_name = "N", num_args = 0..=1, value_parser = queue_room, default_missing_value = "unbounded")]
    queue: Option<QueueRoom>,

    /// Time from asking for a task to its running.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    startup: Duration,

    /// Time from telling a task to end to its being gone.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    stop: Duration,

    /// Age of the metric.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    metric_lag: Duration,

    /// Relative noise on the metric (0.05 is 5 %).
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    noise: f64,

    /// Share of tasks that fail to start.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    fail_start: f64,

    /// Mean time after which a running task fails.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    mean_life: Option<Duration>,

    /// Tasks end by themselves after a time between these.
    #[arg(long, value_name = "FROM..TO", value_parser = span)]
    lifetime: Option<(Duration, Duration)>,

    /// A time in which there is room for no task, or for N.
    #[arg(long, value_name = "FROM..TO[=N]", value_parser = room)]
    starve: Vec<Room>,

    /// A time without the metric: refused, hang, 500, garbage, nan, missing, time-jump or stale.
    #[arg(long, value_name = "FORM=FROM..TO", value_parser = outage)]
    outage: Vec<Outage>,

    /// Tasks that run at the start; as many as are needed unless given.
    #[arg(long, value_name = "N")]
    start: Option<u32>,

    /// Seed of all that is left to chance.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Let the `fakes` of this spec take the place of the modules that reach outside.
    #[arg(long, value_name = "SPEC")]
    fakes: Option<PathBuf>,

    /// Call the policy's own `metric`, which the fakes answer, where its `simulate.metric` would take its place.
    #[arg(long, requires = "fakes")]
    own_metric: bool,
}

impl WorldArgs {
    /// Whether a load was asked for.
    pub(super) const fn has_load(&self) -> bool {
        self.trace.is_some() || self.load.is_some()
    }

    /// Whose fakes stand in for modules.
    pub(super) fn fakes(&self) -> Option<Fakes> {
        self.fakes.clone().map(|path| Fakes { path, stage: Arc::new(SpecStage) })
    }

    /// Whether `simulate.metric` stays aside.
    pub(super) const fn own_metric(&self) -> bool {
        self.own_metric
    }

    /// When to end, where that was said.
    pub(super) const fn until(&self) -> Option<Duration> {
        self.until
    }

    /// The set-up that the flags ask for.
    pub(super) fn setup(&self) -> Result<Setup, CliError> {
        let usage = |text: &str| CliError::new(Exit::Usage, text);
        if !(0.0 < self.rate_per_task && self.rate_per_task.is_finite()) {
            return Err(usage("--rate-per-task takes a number above 0"));
        }
        if self.period.is_zero() {
            return Err(usage("--period takes more than 0 seconds"));
        }
        let shares = [self.noise, self.fail_start].iter().all(|share| (0.0..=1.0).contains(share));
        if !shares || ![self.low, self.high, self.scale].iter().all(|number| number.is_finite()) {
            return Err(usage("shares go from 0 to 1, and loads are finite numbers"));
        }
        let (mut load, loaded) = self.load()?;
        load.scale = self.scale;
        let plant = match self.queue {
            _ if !loaded => Plant::Own,
            Some(QueueRoom(limit)) => Plant::Queue { per_task: self.rate_per_task, limit },
            None => Plant::Rate { per_task: self.rate_per_task },
        };
        let duration = self.until.or(load.length()).unwrap_or(HOUR);
        Ok(Setup {
            startup: self.startup,
            stop: self.stop,
            metric_lag: self.metric_lag,
            noise: self.noise,
            failures: Failures { start: self.fail_start, mean_life: self.mean_life },
            lifetime: self.lifetime,
            rooms: self.starve.clone(),
            outages: self.outage.clone(),
            start: self.start,
            seed: self.seed,
            ..Setup::new(load, plant, duration)
        })
    }

    /// The load, and whether there is one.
    fn load(&self) -> Result<(Load, bool), CliError> {
        if let Some(path) = &self.trace {
            let text = std::fs::read_to_string(path)
                .map_err(|error| CliError::io(format!("cannot read `{}`", path.display()), error))?;
            let load = Load::parse(&text, self.hold).map_err(|error| {
                CliError::new(Exit::Config, format!("`{}` is no trace", path.display())).because(error)
            })?;
            return Ok((load, true));
        }
        let (low, high, period) = (self.low, self.high, self.period.as_secs_f64());
        let Some(form) = self.load else { return Ok((Load::constant(0.0), false)) };
        let shape = match form {
            Form::Step => Shape::Step { low, high, period },
            Form::Ramp => Shape::Ramp { low, high, period },
            Form::Sine => Shape::Sine { low, high, period },
            Form::Square => Shape::Square { low, high, period },
            Form::Spike => Shape::Spike { low, high, period },
            Form::Noise => Shape::Noise { low, high, seed: self.seed },
        };
        Ok((Load::new(shape), true))
    }
}

fn span(text: &str) -> Result<(Duration, Duration), String> {
    let (from, to) = text.split_once("..").ok_or("expected FROM..TO, as in 10m..12m")?;
    let (from, to) = (duration(from)?, duration(to)?);
    if to < from {
        return Err("expected FROM..TO with TO not before FROM".to_owned());
    }
    Ok((from, to))
}

fn queue_room(text: &str) -> Result<QueueRoom, String> {
    match text {
        "unbounded" => Ok(QueueRoom(None)),
        _ => text
            .parse()
            .map(|limit| QueueRoom(Some(limit)))
            .map_err(|_| format!("expected a whole number or `unbounded`, got `{text}`")),
    }
}

fn room(text: &str) -> Result<Room, String> {
    let (times, n) = match text.split_once('=') {
        Some((times, n)) => (times, n.parse().map_err(|_| format!("expected a number of tasks, got `{n}`"))?),
        None => (text, 0),
    };
    let (from, to) = span(times)?;
    Ok(Room { from, to, n })
}

fn outage(text: &str) -> Result<Outage, String> {
    let forms = OutageKind::ALL.map(OutageKind::as_str).join(", ");
    let (form, times) = text.split_once('=').ok_or_else(|| format!("expected FORM=FROM..TO; forms: {forms}"))?;
    let kind = OutageKind::ALL.into_iter().find(|kind| kind.as_str() == form);
    let kind = kind.ok_or_else(|| format!("expected one of {forms}, got `{form}`"))?;
    let (from, to) = span(times)?;
    Ok(Outage { from, to, kind })
}
