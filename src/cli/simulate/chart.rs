//! A run at a glance, in the terminal.

use setpoint::sim::Tick;

/// Columns of a line.
const COLUMNS: usize = 72;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is kept of a tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) seconds: f64,
    pub(super) load: f64,
    pub(super) tasks: f64,
    pub(super) value: Option<f64>,
    pub(super) setpoint: Option<f64>,
}

impl Row {
    pub(super) fn of(tick: &Tick<'_>) -> Self {
        Self {
            seconds: tick.at.as_secs_f64(),
            load: tick.load,
            tasks: tick.counts.running.into(),
            value: tick.sample.fresh(),
            setpoint: tick.setpoint,
        }
    }
}

/// Load, tasks and metric, a line each.
pub(super) fn sparklines(rows: &[Row]) -> String {
    let line = |name: &str, of: &dyn Fn(&Row) -> Option<f64>| {
        let values = buckets(rows, COLUMNS, of);
        let known = values.iter().flatten();
        let (least, most) = known.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
        let bar = |value: &Option<f64>| match value {
            Some(value) if least < most => BARS[(((value - least) / (most - least)) * 7.0).round() as usize],
            Some(_) => BARS[3],
            None => ' ',
        };
        let range = if least <= most { format!("{least:.1} to {most:.1}") } else { "none".to_owned() };
        format!("  {name:<7}{}  {range}\n", values.iter().map(bar).collect::<String>())
    };
    line("load", &|row| Some(row.load)) + &line("tasks", &|row| Some(row.tasks)) + &line("metric", &|row| row.value)
}

/// The means of equally long parts of a run.
pub(super) fn buckets(rows: &[Row], n: usize, of: &dyn Fn(&Row) -> Option<f64>) -> Vec<Option<f64>> {
    let n = n.min(rows.len());
    (0..n)
        .map(|part| {
            let (from, to) = (part * rows.len() / n, (part + 1) * rows.len() / n);
            let values: Vec<f64> = rows[from..to].iter().filter_map(of).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        })
        .collect()
}
