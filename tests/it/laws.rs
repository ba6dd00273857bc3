//! The laws against what they are to reach: the HPA's algorithm, Relay's demo with a lag, loads, starvation.

mod demo;
mod hpa;
mod on_loads;
