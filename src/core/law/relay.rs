//! `relay`: the formula of sailthru/relay 0.1.9 (Apache-2.0), described in our own words and written anew.
//!
//! With the window h of the last N deviations, the present one last:
//!
//! ```text
//!   MV  = round(err − K · mean(h)), half to even
//!   X_j = DFT(h), bins j = 1 ‥ ⌊N/2⌋ − 1         A_j = |X_j|, φ_j = arg X_j
//!   K   = Σ_j (A_j / ΣA) · sin φ_j / S_j         S_j = Σ_{k=0‥⌈N/j⌉} |sin(φ_j − 2πjk/N)|
//! ```
//!
//! MV is positive where the metric is to be raised; it is negated where more tasks lower it. Where Σ X_j
//! vanishes (a window without variation, or one that is shorter than four) the original leaves K to rounding
//! noise or sets it to 1, which means giving up at full error. Here that case is defined: ΣX counts as zero
//! up to 1e-9 · Σ|h|, and K is then 1 with `compat` and 0 (so that MV = err) without.
//!
//! With `compat`, the first `ramp` samples stand as 0 in the window and MV is the truncated error during
//! them, as the original had it; and nothing in flight is taken off. Without, the present deviation is
//! corrected by what is in flight, and the window keeps what was measured.
//!
//! S_j needs no sine per term: sin(φ − θ) · A = Im X · cos θ − Re X · sin θ, and the angles θ depend on N only,
//! so a table for each length serves all windows of it. A window is real, so a transform of half its length does
//! where that is even.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlannerScalar};

use super::{Input, to_count};
use crate::core::model::{Effect, Point};

/// ΣX counts as zero up to this share of Σ|h|.
const NO_VARIATION: f64 = 1e-9;

/// Angles that a thread keeps, over all lengths (4 MiB). Policies that started together have windows of the same
/// length, and in the end the length is their lookback.
const ANGLES: usize = 1 << 18;

/// Terms of S_j that are summed side by side.
const LANES: usize = 4;

thread_local! {
    static SPECTRA: RefCell<Spectra> = RefCell::default();
}

/// The proposed number.
pub(super) fn propose(compat: bool, input: &Input<'_>) -> u32 {
    let Some(point) = input.point else { return input.desired };
    let desired = f64::from(input.desired);
    let sign = match input.effect {
        Effect::Heats => 1.0,
        Effect::Cools => -1.0,
    };
    if compat {
        let variable = if input.seen <= input.ramp { point.deviation().trunc() } else { variable(input, true) };
        to_count(desired + sign * variable.round_ties_even(), input.desired)
    } else {
        let pending = input.in_flight.net() as f64;
        to_count((desired + sign * variable(input, false) - pending).round_ties_even(), input.desired)
    }
}

/// Relay's manipulated variable before it is rounded: err − K · mean(h).
fn variable(input: &Input<'_>, compat: bool) -> f64 {
    let Some(point) = input.point else { return 0.0 };
    let error = point.deviation();
    // The oldest point of the window was this many samples after the first start.
    let skipped = input.seen as usize - input.history.len().min(input.seen as usize);
    let ramp = if compat { (input.ramp as usize).saturating_sub(skipped) } else { 0 };
    SPECTRA.with_borrow_mut(|spectra| {
        spectra.window.clear();
        spectra.window.extend(input.history.iter().map(Point::deviation));
        for early in spectra.window.iter_mut().take(ramp) {
            *early = 0.0;
        }
        let mean = spectra.window.iter().sum::<f64>() / spectra.window.len().max(1) as f64;
        let correction = spectra.weight(compat) * mean;
        // A window of figures near the end of the range has no finite mean; the error alone still has a sign.
        if correction.is_finite() { error - correction } else { error }
    })
}

/// What one thread keeps from window to window.
#[derive(Default)]
struct Spectra {
    plans: BTreeMap<usize, Plan>,
    window: Vec<f64>,
    buffer: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
}

/// What depends on the length of a window only.
struct Plan {
    /// Of the window's length, or of half of it where that is whole.
    fft: Arc<dyn Fft<f64>>,
    /// cos and sin of 2πj/N.
    circle: Vec<Complex<f64>>,
    /// cos and sin of 2πjk/N for each bin j and each k of its cycle, [`LANES`] at a time; zeros at the end of a bin.
    angles: Vec<([f64; LANES], [f64; LANES])>,
    /// Where each bin's angles end, from bin 1.
    ends: Vec<usize>,
}

impl Plan {
    fn new(length: usize) -> Self {
        // The scalar transform gives the same bits on every processor of an architecture, so that a recorded
        // decision replays exactly.
        let fft = FftPlannerScalar::new().plan_fft_forward(if length.is_multiple_of(2) { length / 2 } else { length });
        let circle: Vec<_> = (0..length).map(|k| Complex::cis(TAU * k as f64 / length as f64)).collect();
        let (mut angles, mut ends) = (Vec::with_capacity(Self::size(length)), Vec::new());
        for j in 1..length / 2 {
            let terms = length.div_ceil(j) + 1;
            for first in (0..terms).step_by(LANES) {
                let angle = |lane: usize| (first + lane < terms).then(|| circle[(first + lane) * j % length]);
                let lanes = std::array::from_fn::<_, LANES, _>(|lane| angle(lane).unwrap_or_default());
                angles.push((lanes.map(|angle| angle.re), lanes.map(|angle| angle.im)));
            }
            ends.push(angles.len());
        }
        Self { fft, circle, angles, ends }
    }

    /// About how many groups of angles a length needs.
    fn size(length: usize) -> usize {
        (1..length / 2).map(|j| (length.div_ceil(j) + 1).div_ceil(LANES)).sum()
    }
}

impl Spectra {
    /// K of the window.
    fn weight(&mut self, compat: bool) -> f64 {
        let length = self.window.len();
        let undefined = if compat { 1.0 } else { 0.0 };
        if length < 4 {
            return undefined;
        }
        if !self.plans.contains_key(&length) {
            let kept: usize = self.plans.values().map(|plan| plan.angles.len() * LANES).sum();
            if kept > ANGLES {
                self.plans.clear();
            }
        }
        let plan = self.plans.entry(length).or_insert_with(|| Plan::new(length));
        transform(plan, &self.window, &mut self.buffer, &mut self.scratch);
        let bins = &self.buffer[1..length / 2];
        let sum: Complex<f64> = bins.iter().sum();
        let size: f64 = self.window.iter().map(|h| h.abs()).sum();
        if sum.norm() <= NO_VARIATION * size {
            return undefined;
        }
        let (mut amplitudes, mut weight, mut start) = (0.0, 0.0, 0);
        for (bin, end) in bins.iter().zip(&plan.ends) {
            let amplitude = bin.norm_sqr().sqrt();
            amplitudes += amplitude;
            let cycle = cycle(*bin, &plan.angles[start..*end]);
            if cycle > 0.0 {
                // A · sin φ / S, where `cycle` is A · S and Im X is A · sin φ.
                weight += amplitude * bin.im / cycle;
            }
            start = *end;
        }
        weight / amplitudes
    }
}

/// The window's transform in `buffer`, of which the first half is of use.
fn transform(plan: &Plan, window: &[f64], buffer: &mut Vec<Complex<f64>>, scratch: &mut Vec<Complex<f64>>) {
    buffer.clear();
    scratch.resize(plan.fft.get_inplace_scratch_len(), Complex::default());
    if !window.len().is_multiple_of(2) {
        buffer.extend(window.iter().map(Complex::from));
        plan.fft.process_with_scratch(buffer, scratch);
        return;
    }
    // Two real figures in one complex one: Z = E + i·O, of which X_j = E_j + e^(−2πij/N) · O_j.
    buffer.extend(window.chunks_exact(2).map(|pair| Complex::new(pair[0], pair[1])));
    plan.fft.process_with_scratch(buffer, scratch);
    let half = buffer.len();
    for j in 1..=half / 2 {
        let (one, two) = (buffer[j], buffer[half - j].conj());
        let even = (one + two) / 2.0;
        let odd = Complex::new(one.im - two.im, two.re - one.re) / 2.0 * plan.circle[j].conj();
        buffer[j] = even + odd;
        // E and O are transforms of real figures, and the twiddle at N/2 − j is the mirrored one.
        buffer[half - j] = (even - odd).conj();
    }
}

/// A_j · S_j: one whole cycle of bin j and one sample more.
fn cycle(bin: Complex<f64>, angles: &[([f64; LANES], [f64; LANES])]) -> f64 {
    let mut sums = [0.0; LANES];
    for (cos, sin) in angles {
        for lane in 0..LANES {
            sums[lane] += (bin.im * cos[lane] - bin.re * sin[lane]).abs();
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{deviations, input};
    use super::*;
    use crate::core::decision::InFlight;

    /// `prior-systems.md` §1.2: window, K, mean, MV.
    fn golden() -> Vec<(Vec<f64>, f64, f64, i64)> {
        let sawtooth = |n| std::iter::repeat_n([0.0, 1.0], n).flatten().collect();
        let mut late = vec![5.0; 16];
        late[0] = 0.0;
        vec![
            (vec![0.0, 20.0, 5.0, 3.0, 2.0, 1.0], -0.245_846_820, 5.166_666_667, 2),
            (vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 0.163_198_793, 4.5, 7),
            (vec![0.0, 10.0, 8.0, 6.0, 4.0, 2.0, 0.0, -2.0], -0.198_528_323, 3.5, -1),
            (vec![3.0, -1.0, 4.0, -1.0, 5.0, -9.0, 2.0, -6.0, 5.0, -3.0], -0.069_367_629, -0.1, -3),
            (late, 0.0, 4.6875, 5),
            (sawtooth(8), 1.0, 0.5, 0),
            (vec![5.0; 8], 1.0, 5.0, 0),
        ]
    }

    fn weight(window: &[f64], compat: bool) -> f64 {
        Spectra { window: window.to_vec(), ..Spectra::default() }.weight(compat)
    }

    #[test]
    fn a1_golden_vectors_of_the_original() {
        for (window, k, mean, mv) in golden() {
            let length = window.len() as f64;
            assert!((weight(&window, true) - k).abs() < 1e-8, "K of {window:?}: {}", weight(&window, true));
            assert!((window.iter().sum::<f64>() / length - mean).abs() < 1e-8);
            let history = deviations(&window);
            for (effect, sign) in [(Effect::Heats, 1), (Effect::Cools, -1)] {
                let proposed = propose(true, &input(&history, effect, 100));
                assert_eq!(i64::from(proposed) - 100, sign * mv, "{effect:?} {window:?}");
            }
        }
    }

    #[test]
    fn a1_a_metric_that_never_moves_gives_20_10_7_20_20_20_with_compat_and_ramp_1() {
        let expected = [20, 10, 7, 20, 20, 20];
        for n in 1..=expected.len() {
            let history = deviations(&vec![20.0; n]);
            let proposed = propose(true, &Input { ramp: 1, ..input(&history, Effect::Heats, 0) });
            assert_eq!(proposed, expected[n - 1], "sample {n}");
        }
    }

    #[test]
    fn without_compat_a_window_without_variation_leaves_the_error_as_it_is() {
        for window in [vec![5.0; 8], vec![5.0; 3], vec![5.0], vec![0.0; 16], vec![20.0; 1000]] {
            assert_eq!(weight(&window, false).to_bits(), 0.0_f64.to_bits(), "{} long", window.len());
            let history = deviations(&window);
            let proposed = propose(false, &input(&history, Effect::Heats, 100));
            assert!((f64::from(proposed) - 100.0 - window[0]).abs() < 1e-9);
        }
    }

    #[test]
    fn ramp_samples_that_left_the_window_are_not_zeroed() {
        let history = deviations(&[7.0, 1.0, 2.0, 9.0, 4.0, 3.0]);
        let recent = Input { seen: 100, ramp: 1, ..input(&history, Effect::Heats, 50) };
        let unramped = Input { ramp: 0, ..recent };
        assert_eq!(propose(true, &recent), propose(true, &unramped));
    }

    #[test]
    fn in_flight_is_taken_off_but_with_compat() {
        let history = deviations(&[20.0; 8]);
        let in_flight = InFlight { launches: 15, kills: 0 };
        for (effect, expected) in [(Effect::Heats, 105), (Effect::Cools, 65)] {
            let plain = Input { in_flight, ..input(&history, effect, 100) };
            assert_eq!(propose(false, &plain), expected);
            assert_eq!(propose(true, &plain), 100, "K is 1 there");
        }
    }

    #[test]
    fn huge_windows_neither_panic_nor_invert_the_error() {
        for scale in [1e300, 1e308, f64::MAX] {
            let window: Vec<f64> = (0..64).map(|i| if i % 3 == 0 { scale } else { -scale / 2.0 }).collect();
            let history = deviations(&window);
            assert_eq!(propose(false, &input(&history, Effect::Heats, 5)), u32::MAX);
        }
    }

    /// The formula as it is written, sine by sine.
    fn naive(h: &[f64]) -> f64 {
        let n = h.len();
        let bin = |j: usize| -> Complex<f64> {
            let angle = |i: usize| -TAU * ((i * j) % n) as f64 / n as f64;
            h.iter().enumerate().map(|(i, h)| Complex::from_polar(*h, angle(i))).sum()
        };
        let bins: Vec<(f64, Complex<f64>)> = (1..n / 2).map(|j| (j as f64, bin(j))).collect();
        let all: f64 = bins.iter().map(|(_, x)| x.norm()).sum();
        bins.iter()
            .map(|(j, x)| {
                let cycle: f64 = (0..=(n as f64 / j).ceil() as u32)
                    .map(|k| (x.arg() - TAU * j * f64::from(k) / n as f64).sin().abs())
                    .sum();
                x.norm() / all * x.arg().sin() / cycle
            })
            .sum()
    }

    #[test]
    fn agrees_with_the_formula_as_written_at_every_length() {
        let mut random = fastrand::Rng::with_seed(7);
        for length in (4..64).chain([97, 128, 243, 1000]) {
            let h: Vec<f64> = (0..length).map(|_| random.f64() * 40.0 - 20.0).collect();
            assert!((weight(&h, true) - naive(&h)).abs() < 1e-9, "length {length}");
        }
    }
}
