//! Chance, from a seed: each source of it draws from its own stream, so that more noise does not mean other failures.

use std::f64::consts::TAU;

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(fastrand::Rng);

impl Random {
    /// Stream `stream` of a run's seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(fastrand::Rng::with_seed(mix(seed ^ mix(stream))))
    }

    /// Evenly from [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        self.0.f64()
    }

    /// From the standard normal distribution (Box and Muller, 1958).
    pub(super) fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
    }

    /// From the exponential distribution.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// From the Poisson distribution: Knuth's product for small means, the normal approximation above.
    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        if 30.0 < mean {
            return mean.sqrt().mul_add(self.normal(), mean).round().max(0.0) as u64;
        }
        let (limit, mut product, mut n) = ((-mean).exp(), self.unit(), 0);
        while limit < product {
            product *= self.unit();
            n += 1;
        }
        n
    }
}

/// A number that depends on every bit of another one (the finalizer of SplitMix64).
pub(super) const fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_their_means_and_streams_are_their_own() {
        let mut random = Random::new(7, 1);
        let mean = |draw: &mut dyn FnMut() -> f64| (0..20_000).map(|_| draw()).sum::<f64>() / 20_000.0;
        assert!(mean(&mut || random.normal()).abs() < 0.05);
        assert!((mean(&mut || random.exponential(3.0)) - 3.0).abs() < 0.15);
        assert!((mean(&mut || random.poisson(4.0) as f64) - 4.0).abs() < 0.1);
        assert!((mean(&mut || random.poisson(400.0) as f64) - 400.0).abs() < 1.0);
        assert_ne!(Random::new(7, 1).unit().to_bits(), Random::new(7, 2).unit().to_bits());
        assert_eq!(Random::new(7, 1).unit().to_bits(), Random::new(7, 1).unit().to_bits());
    }
}
