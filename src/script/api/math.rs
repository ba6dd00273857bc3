//! `setpoint.math`: the arithmetic that policies keep needing, on finite numbers only.
//!
//! Lists of no values give nil, never 0: no data is not a number. A result that overflows raises, so that it
//! never becomes a sample.

use std::f64::consts::TAU;

use mlua::{Lua, Table};

use super::args::{Args, numbers, plain};
use super::{Access, FunctionDoc, ModuleDoc};

/// A function that computes; all of this module's are.
const fn pure(
    name: &'static str,
    params: &'static [(&'static str, &'static str)],
    returns: &'static [&'static str],
    doc: &'static str,
) -> FunctionDoc {
    FunctionDoc { name, params, returns, access: Access::Pure, doc }
}

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "math",
    doc: "Averages, percentiles and waves. Lists are of numbers, or of points as in `ctx.history` (their values count).",
    types: &[
        "@class (exact) setpoint.math.Wave",
        "@field period? number Length of one period, in the unit of `t`.",
        "@field base? number The middle of a sine.",
        "@field amplitude? number How far a sine goes from its base.",
        "@field phase? number Shift, as a fraction of the period.",
        "@field high? number First part of a square wave.",
        "@field low? number Second part of a square wave.",
        "@field duty? number Which fraction of the period is high.",
    ],
    fields: &[],
    functions: &[
        pure("mean", &[("values", "number[]|setpoint.Point[]")], &["number?"], "The mean; nil for no values."),
        pure(
            "stddev",
            &[("values", "number[]|setpoint.Point[]")],
            &["number?"],
            "The standard deviation of a sample (n − 1); 0 for one value, nil for none.",
        ),
        pure(
            "percentile",
            &[("values", "number[]|setpoint.Point[]"), ("p", "number")],
            &["number?"],
            "The p-th percentile (0 to 100), interpolated between neighbours; nil for no values.",
        ),
        pure(
            "ewma",
            &[("values", "number[]|setpoint.Point[]"), ("alpha", "number")],
            &["number?"],
            "Exponentially weighted mean, oldest first: each value counts `alpha` (above 0, at most 1) against what came before it; \
             nil for no values.",
        ),
        pure(
            "clamp",
            &[("x", "number"), ("low", "number"), ("high", "number")],
            &["number"],
            "x, but at least `low` and at most `high`.",
        ),
        pure(
            "lerp",
            &[("a", "number"), ("b", "number"), ("t", "number")],
            &["number"],
            "From a (t = 0) to b (t = 1), and beyond in the same line.",
        ),
        pure(
            "round",
            &[("x", "number"), ("digits?", "integer")],
            &["number"],
            "x to so many decimal places (0 unless given, at most 15), halves away from zero.",
        ),
        pure(
            "sine",
            &[("t", "number"), ("wave?", "setpoint.math.Wave")],
            &["number"],
            "base + amplitude · sin(2π(t/period + phase)). Defaults are Relay's sine target: period 200, base 60, amplitude 50.",
        ),
        pure(
            "square",
            &[("t", "number"), ("wave?", "setpoint.math.Wave")],
            &["number"],
            "`high` for the first `duty` of each period, then `low`. Defaults are Relay's square target: period 300, high 50, low 20, \
             duty 0.5.",
        ),
        pure(
            "oscillating",
            &[("t", "number"), ("wave?", "setpoint.math.Wave")],
            &["number"],
            "A sine with half as much of its third harmonic on top. Defaults are Relay's oscillating target: period 1000, base 20, \
             amplitude 10.",
        ),
    ],
    register,
};

/// A function of this module: full name, most arguments, body.
type Entry = (&'static str, usize, fn(&Args) -> mlua::Result<Option<f64>>);

const ENTRIES: &[Entry] = &[
    ("math.mean", 1, |args| Ok(mean(&numbers(args, 1)?))),
    ("math.stddev", 1, |args| Ok(stddev(&numbers(args, 1)?))),
    ("math.percentile", 2, |args| {
        let p = args.number(2, "a percentage from 0 to 100")?;
        if (0.0..=100.0).contains(&p) {
            Ok(percentile(numbers(args, 1)?, p))
        } else {
            Err(args.wrong(2, "a percentage from 0 to 100"))
        }
    }),
    ("math.ewma", 2, |args| {
        let expected = "a weight above 0 and at most 1";
        let alpha = args.number(2, expected)?;
        if alpha > 0.0 && alpha <= 1.0 { Ok(ewma(&numbers(args, 1)?, alpha)) } else { Err(args.wrong(2, expected)) }
    }),
    ("math.clamp", 3, |args| {
        let (x, low, high) = (finite(args, 1)?, finite(args, 2)?, finite(args, 3)?);
        if low <= high { Ok(Some(x.clamp(low, high))) } else { Err(args.wrong(3, &format!("at least {low}"))) }
    }),
    ("math.lerp", 3, |args| {
        let (a, b, t) = (finite(args, 1)?, finite(args, 2)?, finite(args, 3)?);
        Ok(Some(a.mul_add(1.0 - t, b * t)))
    }),
    ("math.round", 2, |args| {
        let x = finite(args, 1)?;
        let digits = if args.value(2).is_nil() { 0.0 } else { args.number(2, "a whole number from 0 to 15")? };
        if digits.fract() != 0.0 || !(0.0..=15.0).contains(&digits) {
            return Err(args.wrong(2, "a whole number from 0 to 15"));
        }
        Ok(Some(round(x, digits as i32)))
    }),
    ("math.sine", 2, |args| {
        let wave = Wave::read(args, &["period", "base", "amplitude", "phase"], [200.0, 60.0, 50.0])?;
        Ok(Some(wave.amplitude.mul_add((TAU * wave.turns).sin(), wave.base)))
    }),
    ("math.oscillating", 2, |args| {
        let wave = Wave::read(args, &["period", "base", "amplitude", "phase"], [1000.0, 20.0, 10.0])?;
        let angle = TAU * wave.turns;
        Ok(Some(wave.amplitude.mul_add(angle.sin() + 0.5 * (3.0 * angle).sin(), wave.base)))
    }),
    ("math.square", 2, |args| {
        let wave = args.options(2, &["period", "high", "low", "duty", "phase"])?;
        let value = |key, default| Ok::<_, mlua::Error>(wave.number(key, "a number")?.unwrap_or(default));
        let turns = turns(args, value("period", 300.0)?, value("phase", 0.0)?)?;
        Ok(Some(if turns < value("duty", 0.5)? { value("high", 50.0)? } else { value("low", 20.0)? }))
    }),
];

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    for (name, most, body) in ENTRIES {
        let function = plain(lua, name, *most, move |_, args| match body(args)? {
            Some(result) if !result.is_finite() => Err(args.error(format!("expected a finite result, got {result}"))),
            result => Ok(result),
        })?;
        module.raw_set(name.trim_start_matches("math."), function)?;
    }
    Ok(module)
}

fn finite(args: &Args, n: usize) -> mlua::Result<f64> {
    args.number(n, "a number")
}

/// A sine's settings at one `t`.
struct Wave {
    turns: f64,
    base: f64,
    amplitude: f64,
}

impl Wave {
    fn read(args: &Args, keys: &[&str], [period, base, amplitude]: [f64; 3]) -> mlua::Result<Self> {
        let wave = args.options(2, keys)?;
        let value = |key, default| Ok::<_, mlua::Error>(wave.number(key, "a number")?.unwrap_or(default));
        Ok(Self {
            turns: turns(args, value("period", period)?, value("phase", 0.0)?)?,
            base: value("base", base)?,
            amplitude: value("amplitude", amplitude)?,
        })
    }
}

/// Where in its period `t` is, from 0 to 1.
fn turns(args: &Args, period: f64, phase: f64) -> mlua::Result<f64> {
    if period <= 0.0 {
        return Err(args.error(format!("option period: expected a number above 0, got {period}")));
    }
    Ok((finite(args, 1)? / period + phase).rem_euclid(1.0))
}

fn mean(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    // Dividing first keeps the sum of huge values finite.
    (!values.is_empty()).then(|| values.iter().map(|value| value / n).sum())
}

fn stddev(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    if values.len() == 1 {
        return Some(0.0);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

fn percentile(mut values: Vec<f64>, p: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let rank = p / 100.0 * last as f64;
    let below = rank.floor() as usize;
    let above = (below + 1).min(last);
    let share = rank - below as f64;
    Some(values[below].mul_add(1.0 - share, values[above] * share))
}

fn ewma(values: &[f64], alpha: f64) -> Option<f64> {
    values.iter().copied().reduce(|before, value| alpha.mul_add(value, (1.0 - alpha) * before))
}

fn round(x: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    let scaled = x * scale;
    // Beyond 2^52 a double has no fraction left, and the product may have overflowed.
    if scaled.abs() < 4_503_599_627_370_496.0 { scaled.round() / scale } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_known_lists() {
        assert_eq!(mean(&[]), None);
        assert_eq!(stddev(&[]), None);
        assert_eq!(percentile(vec![], 50.0), None);
        assert_eq!(ewma(&[], 0.5), None);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(stddev(&[3.0]), Some(0.0));
        assert!((stddev(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap() - 2.138_089_935).abs() < 1e-9);
        assert_eq!(percentile(vec![4.0, 1.0, 3.0, 2.0], 50.0), Some(2.5));
        assert_eq!(percentile(vec![4.0, 1.0], 100.0), Some(4.0));
        assert_eq!(ewma(&[0.0, 10.0, 10.0], 0.5), Some(7.5));
        assert_eq!(mean(&[f64::MAX, f64::MAX]), Some(f64::MAX));
    }

    #[test]
    fn rounding_goes_away_from_zero_and_survives_huge_numbers() {
        assert!((round(2.345, 1) - 2.3).abs() < 1e-12);
        assert!((round(-2.5, 0) + 3.0).abs() < 1e-12);
        assert!((round(1e308, 15) - 1e308).abs() < 1.0);
    }
}
