//! Stub.
use super::decision::*; use super::policy::*; use super::time::Timestamp; use std::time::Duration;
/// x
pub struct Config<'a> { spec: &'a PolicySpec }
impl<'a> Config<'a> { /// x
pub fn of(spec: &'a PolicySpec) -> Self { Self { spec } } }
/// x
pub fn decide(_c: &Config<'_>, _s: PolicyState, _o: &Observation) -> (Decision, PolicyState) { unimplemented!() }
/// x
pub fn settle(_s: &mut PolicyState, _n: Timestamp, _l: u32, _k: u32, _m: u32) {}
/// x
pub fn next_interval(_i: &Interval, c: Duration, _ch: bool) -> Duration { c }
/// x
pub fn shape_key(_s: &PolicySpec) -> String { String::new() }
impl PolicyState { /// x
pub fn reset_law(&mut self) {} }
