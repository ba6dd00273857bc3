//! What comes in: a recorded trace, or a synthetic load.

use std::time::Duration;

use super::random::mix;

/// A load over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Its form.
    pub shape: Shape,
    /// Factor on every value.
    pub scale: f64,
}

/// The form of a load.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Recorded: seconds since its first row, and values; at least one row, times ascending.
    Trace {
        /// The rows.
        points: Vec<(f64, f64)>,
        /// Each value holds until the next row, instead of going there in a straight line.
        hold: bool,
    },
    /// `low`, and from `period` on `high`.
    Step {
        /// Before.
        low: f64,
        /// After.
        high: f64,
        /// Seconds until then.
        period: f64,
    },
    /// From `low` to `high` in `period` seconds, and on at `high`.
    Ramp {
        /// At the start.
        low: f64,
        /// At the end.
        high: f64,
        /// Seconds that it takes.
        period: f64,
    },
    /// Between `low` and `high` and back in `period` seconds, from the middle upwards.
    Sine {
        /// Lowest.
        low: f64,
        /// Highest.
        high: f64,
        /// Seconds of one round.
        period: f64,
    },
    /// `low` for half of `period`, `high` for the other half.
    Square {
        /// First.
        low: f64,
        /// Then.
        high: f64,
        /// Seconds of one round.
        period: f64,
    },
    /// `low`, but `high` for the last twentieth of each `period`.
    Spike {
        /// Mostly.
        low: f64,
        /// In the spike.
        high: f64,
        /// Seconds from one to the next.
        period: f64,
    },
    /// Each second another value, drawn evenly.
    Noise {
        /// Lowest.
        low: f64,
        /// Highest.
        high: f64,
        /// Seed.
        seed: u64,
    },
}

/// A trace that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum TraceError {
    /// A row is not two numbers.
    #[error("line {line}: expected `seconds,value`, got `{text}`")]
    Row {
        /// From 1.
        line: usize,
        /// What is there.
        text: String,
    },
    /// Times go backwards.
    #[error("line {line}: expected a time after the line before it")]
    Order {
        /// From 1.
        line: usize,
    },
    /// There is no row.
    #[error("expected rows of `seconds,value`, got none")]
    Empty,
}

impl Load {
    /// A load of this form.
    #[must_use]
    pub const fn new(shape: Shape) -> Self {
        Self { shape, scale: 1.0 }
    }

    /// The same value for ever.
    #[must_use]
    pub const fn constant(value: f64) -> Self {
        Self::new(Shape::Step { low: value, high: value, period: 0.0 })
    }

    /// Reads `seconds,value` rows. A first row that is not numbers is a header; times count from the first row.
    ///
    /// # Errors
    /// The first row that is wrong.
    pub fn parse(text: &str, hold: bool) -> Result<Self, TraceError> {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (index, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
            let Some((seconds, value)) = numbers(row) else {
                if index == 0 {
                    continue;
                }
                let text = row.chars().take(60).collect();
                return Err(TraceError::Row { line: index + 1, text });
            };
            if points.last().is_some_and(|(before, _)| seconds <= *before) {
                return Err(TraceError::Order { line: index + 1 });
            }
            points.push((seconds, value));
        }
        let first = points.first().ok_or(TraceError::Empty)?.0;
        for (seconds, _) in &mut points {
            *seconds -= first;
        }
        Ok(Self::new(Shape::Trace { points, hold }))
    }

    /// How long a trace is; none for a synthetic load.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        let Shape::Trace { points, .. } = &self.shape else { return None };
        points.last().and_then(|(seconds, _)| Duration::try_from_secs_f64(*seconds).ok())
    }

    /// The value at a time. `hint` is where in a trace the last look was; times that ascend cost next to nothing.
    #[must_use]
    pub fn at(&self, seconds: f64, hint: &mut usize) -> f64 {
        let value = match &self.shape {
            Shape::Trace { points, hold } => trace(points, *hold, seconds, hint),
            Shape::Step { low, high, period } => {
                if seconds < *period {
                    *low
                } else {
                    *high
                }
            }
            Shape::Ramp { low, high, period } => low + (high - low) * (seconds / period.max(1e-9)).clamp(0.0, 1.0),
            Shape::Sine { low, high, period } => {
                let swing = (std::f64::consts::TAU * seconds / period).sin();
                low.midpoint(*high) + (high - low) / 2.0 * swing
            }
            Shape::Square { low, high, period } => {
                if seconds.rem_euclid(*period) < period / 2.0 {
                    *low
                } else {
                    *high
                }
            }
            Shape::Spike { low, high, period } => {
                if seconds.rem_euclid(*period) < period * 0.95 {
                    *low
                } else {
                    *high
                }
            }
            Shape::Noise { low, high, seed } => {
                let drawn = mix(seed ^ mix(seconds.max(0.0) as u64)) >> 11;
                low + (high - low) * (drawn as f64 / (1_u64 << 53) as f64)
            }
        };
        value * self.scale
    }
}

fn numbers(row: &str) -> Option<(f64, f64)> {
    let mut cells = row.split(',').map(|cell| cell.trim().parse::<f64>().ok().filter(|number| number.is_finite()));
    Some((cells.next()??, cells.next()??))
}

fn trace(points: &[(f64, f64)], hold: bool, seconds: f64, hint: &mut usize) -> f64 {
    let mut at = (*hint).min(points.len() - 1);
    if seconds < points[at].0 {
        at = points.partition_point(|(time, _)| *time <= seconds).saturating_sub(1);
    }
    while points.get(at + 1).is_some_and(|(time, _)| *time <= seconds) {
        at += 1;
    }
    *hint = at;
    let (from, value) = points[at];
    match points.get(at + 1) {
        Some((to, next)) if !hold && from <= seconds => value + (next - value) * (seconds - from) / (to - from),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_interpolated_or_held_and_its_header_skipped() {
        let text = "seconds,value\n100, 10\n110,20\n\n130,0\n";
        let (mut hint, load) = (0, Load::parse(text, false).unwrap());
        let values = [0.0, 5.0, 10.0, 20.0, 30.0, 99.0, 5.0].map(|at| load.at(at, &mut hint).to_string());
        assert_eq!(values, ["10", "15", "20", "10", "0", "0", "15"]);
        let held = Load::parse(text, true).unwrap();
        assert_eq!([9.9, 10.0, 29.0].map(|at| held.at(at, &mut hint).to_string()), ["10", "20", "20"]);
        assert_eq!(load.length(), Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_wrong_trace_names_its_line() {
        let row = |line, text: &str| Err(TraceError::Row { line, text: text.to_owned() });
        assert_eq!(Load::parse("0,1\n1,x\n", false), row(2, "1,x"));
        assert_eq!(Load::parse("0,1\n1,NaN\n", false), row(2, "1,NaN"));
        assert_eq!(Load::parse("0,1\n1\n", false), row(2, "1"));
        assert_eq!(Load::parse("0,1\n0,2\n", false), Err(TraceError::Order { line: 2 }));
        assert_eq!(Load::parse("seconds,value\n", false), Err(TraceError::Empty));
    }

    #[test]
    fn synthetic_loads_have_their_forms() {
        let (low, high, period) = (10.0, 30.0, 100.0);
        let at =
            |shape: Shape, times: [f64; 4]| times.map(|time| Load::new(shape.clone()).at(time, &mut 0).round() as i64);
        assert_eq!(at(Shape::Step { low, high, period }, [0.0, 99.0, 100.0, 500.0]), [10, 10, 30, 30]);
        assert_eq!(at(Shape::Ramp { low, high, period }, [0.0, 50.0, 100.0, 500.0]), [10, 20, 30, 30]);
        assert_eq!(at(Shape::Sine { low, high, period }, [0.0, 25.0, 50.0, 75.0]), [20, 30, 20, 10]);
        assert_eq!(at(Shape::Square { low, high, period }, [0.0, 49.0, 50.0, 100.0]), [10, 10, 30, 10]);
        assert_eq!(at(Shape::Spike { low, high, period }, [0.0, 94.0, 96.0, 100.0]), [10, 10, 30, 10]);
        let noise = at(Shape::Noise { low, high, seed: 1 }, [0.0, 1.0, 2.0, 3.0]);
        assert!(noise.iter().all(|value| (10..=30).contains(value)) && noise[0] != noise[1], "{noise:?}");
    }
}
