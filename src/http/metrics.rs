//! `/metrics`, in the Prometheus text format.
//!
//! Nothing is counted in here: each scrape reads the engine's published snapshots and totals, so that the control
//! loop knows nothing of metrics and a metric cannot disagree with the API.
//!
//! `setpoint_policy_sample` is absent while the sample is not fresh: an error is never a number.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::core::model::Sample;
use crate::runtime::handle::EngineHandle;
use crate::runtime::view::{PolicySnapshot, Totals};

use super::Api;
use super::error::Problem;

/// One scrape.
pub(super) async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape::of(&api.handle)));
    let mut open_metrics = String::new();
    text::encode(&mut open_metrics, &registry).map_err(|error| {
        Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}"))
    })?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], to_prometheus(&open_metrics)))
}

/// The engine at one moment.
#[derive(Debug)]
struct Scrape {
    policies: Vec<Arc<PolicySnapshot>>,
    totals: Totals,
    ready: bool,
    degraded: bool,
}

impl Scrape {
    fn of(handle: &EngineHandle) -> Self {
        let health = handle.health();
        Self {
            policies: handle.policies(),
            totals: handle.totals(),
            ready: health.ready && handle.is_running(),
            degraded: health.degraded,
        }
    }
}

type Encoded = Result<(), fmt::Error>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let encoder = &mut encoder;
        gauge(encoder, "setpoint_build_info", "The version that runs; always 1.", |metric| {
            metric.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1u32)
        })?;
        gauge(encoder, "setpoint_ready", "1 while the engine does its work, as /readyz says.", |metric| {
            metric.encode_gauge(&u32::from(self.ready))
        })?;
        gauge(encoder, "setpoint_degraded", "1 while a script fails or differs from the disk.", |metric| {
            metric.encode_gauge(&u32::from(self.degraded))
        })?;
        gauge(encoder, "setpoint_sources", "Policy files that are known, whether they load or not.", |metric| {
            metric.encode_gauge(&self.totals.sources)
        })?;
        self.encode_policies(encoder)?;
        encode_totals(&self.totals, encoder)?;
        encode_lag(&self.totals, encoder)
    }
}

impl Scrape {
    fn encode_policies(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        self.each(encoder, "setpoint_policy_sample", "The last sample, while it is fresh.", |policy| {
            policy.sample.as_ref().and_then(Sample::fresh)
        })?;
        self.each(encoder, "setpoint_policy_sample_fresh", "1 when the last sample could be acted on.", |policy| {
            Some(flag(policy.sample.as_ref().is_some_and(|sample| sample.fresh().is_some())))
        })?;
        self.each(encoder, "setpoint_policy_setpoint", "The last setpoint.", |policy| policy.setpoint)?;
        self.encode_task_counts(encoder)?;
        self.each(encoder, "setpoint_policy_desired", "Tasks that are wanted.", |policy| {
            Some(f64::from(policy.counts.desired()))
        })?;
        self.each(encoder, "setpoint_policy_min", "Fewest tasks, as narrowed by an override.", |policy| {
            Some(f64::from(policy.bounds.min))
        })?;
        self.each(encoder, "setpoint_policy_max", "Most tasks, as narrowed by an override.", |policy| {
            Some(f64::from(policy.bounds.max))
        })?;
        counter(encoder, "setpoint_policy_ticks", "Ticks so far.", |metric| {
            self.policies.iter().try_for_each(|policy| count(metric, &[("policy", policy.name.as_str())], policy.ticks))
        })?;
        self.each(
            encoder,
            "setpoint_policy_last_tick_timestamp_seconds",
            "When the last tick began, in seconds since 1970.",
            |policy| Some(policy.last_tick?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64()),
        )?;
        self.each(encoder, "setpoint_policy_generation", "Counts up with each script that took effect.", |policy| {
            Some(policy.generation as f64)
        })?;
        self.each(encoder, "setpoint_policy_script_differs", "1 while the file on disk is not what runs.", |policy| {
            Some(flag(policy.script.refused.is_some()))
        })?;
        self.each(encoder, "setpoint_policy_script_failing", "1 while a hook of the script fails.", |policy| {
            Some(flag(policy.script.error.is_some()))
        })?;
        self.each(encoder, "setpoint_policy_paused", "1 while decisions are paused.", |policy| {
            Some(flag(policy.paused.is_some()))
        })?;
        self.each(encoder, "setpoint_policy_overridden", "1 while an operator's bounds hold.", |policy| {
            Some(flag(policy.bounds_override.is_some()))
        })?;
        self.each(encoder, "setpoint_policy_stalled", "1 when it has missed three intervals.", |policy| {
            Some(flag(policy.stalled))
        })?;
        self.each(encoder, "setpoint_policy_failures", "Failed tasks net of successful ones.", |policy| {
            Some(f64::from(policy.failures))
        })?;
        self.encode_shadows(encoder)
    }

    fn encode_shadows(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let shadows = || {
            self.policies
                .iter()
                .filter_map(|policy| policy.shadow.as_deref().map(|shadow| (policy.name.as_str(), shadow)))
        };
        // A comparison begins anew when one of the two scripts changes, and a counter may.
        let help = "Ticks on which a shadow decided, by whether it agreed with the acting policy or wanted more or fewer tasks.";
        counter(encoder, "setpoint_shadow_ticks", help, |metric| {
            shadows().try_for_each(|(policy, shadow)| {
                let tally = &shadow.tally;
                [("agreed", tally.agreed), ("more", tally.more), ("fewer", tally.fewer)]
                    .into_iter()
                    .try_for_each(|(verdict, ticks)| count(metric, &[("policy", policy), ("verdict", verdict)], ticks))
            })
        })?;
        let help = "Tasks that a shadow wanted more (+) or fewer (-) than the acting policy on the last tick.";
        gauge(encoder, "setpoint_shadow_difference", help, |metric| {
            shadows().filter_map(|(policy, shadow)| Some((policy, shadow.difference?))).try_for_each(
                |(policy, difference)| metric.encode_family(&[("policy", policy)])?.encode_gauge(&difference),
            )
        })?;
        let help = "1 while a shadow is not what its file says, or one of its hooks fails.";
        gauge(encoder, "setpoint_shadow_failing", help, |metric| {
            shadows().try_for_each(|(policy, shadow)| {
                let failing = shadow.script.refused.is_some() || shadow.script.error.is_some();
                metric.encode_family(&[("policy", policy)])?.encode_gauge(&flag(failing))
            })
        })
    }

    fn encode_task_counts(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        gauge(encoder, "setpoint_policy_tasks", "Tasks by state; waiting is for a replacement's backoff.", |metric| {
            for policy in &self.policies {
                let counts = &policy.counts;
                let states = [
                    ("waiting", counts.waiting),
                    ("asked", counts.asked),
                    ("staging", counts.staging),
                    ("running", counts.running),
                    ("killing", counts.killing),
                ];
                for (state, number) in states {
                    let labels = [("policy", policy.name.as_str()), ("state", state)];
                    metric.encode_family(&labels)?.encode_gauge(&number)?;
                }
            }
            Ok(())
        })
    }

    /// A gauge with a figure for each policy that has one.
    fn each(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        figure: impl Fn(&PolicySnapshot) -> Option<f64>,
    ) -> Encoded {
        gauge(encoder, name, help, |metric| {
            for policy in &self.policies {
                if let Some(value) = figure(policy) {
                    metric.encode_family(&[("policy", policy.name.as_str())])?.encode_gauge(&value)?;
                }
            }
            Ok(())
        })
    }
}

fn encode_totals(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
    let plain = [
        ("setpoint_ticks", "Ticks of all policies.", totals.ticks),
        ("setpoint_ticks_missed", "Ticks that were skipped because the one before still ran.", totals.missed),
        ("setpoint_tasks_launched", "Tasks launched.", totals.launched),
        ("setpoint_tasks_killed", "Tasks told to end.", totals.killed),
        ("setpoint_tasks_failed", "Tasks that failed.", totals.failed),
        ("setpoint_decisions_lost", "Decisions that are not in the decision log.", totals.decisions_lost),
    ];
    for (name, help, value) in plain {
        counter(encoder, name, help, |metric| metric.encode_counter::<NoLabelSet, _, f64>(&value, None))?;
    }
    counter(encoder, "setpoint_reloads", "Reloads of scripts by result.", |metric| {
        count(metric, &[("result", "active")], totals.reloads)?;
        count(metric, &[("result", "refused")], totals.reloads_refused)
    })?;
    counter(encoder, "setpoint_script_errors", "Errors of scripts by hook and kind.", |metric| {
        totals
            .script_errors
            .iter()
            .try_for_each(|((hook, kind), errors)| count(metric, &[("hook", *hook), ("kind", *kind)], *errors))
    })?;
    counter(encoder, "setpoint_restricted", "How often each guard changed an adjustment.", |metric| {
        totals.restricted.iter().try_for_each(|(guard, times)| count(metric, &[("guard", *guard)], *times))
    })
}

/// The totals hold cumulative buckets; the encoder adds them up itself.
fn encode_lag(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
    let mut below = 0;
    let mut buckets: Vec<(f64, u64)> = totals
        .lag
        .iter()
        .map(|&(bound, cumulative)| {
            let own = cumulative.saturating_sub(below);
            below = below.max(cumulative);
            (bound, own)
        })
        .collect();
    if buckets.last().is_none_or(|(bound, _)| bound.is_finite()) {
        buckets.push((f64::INFINITY, 0));
    }
    encoder
        .encode_descriptor("setpoint_tick_lag_seconds", "How late ticks began.", None, MetricType::Histogram)?
        .encode_histogram::<NoLabelSet>(totals.lag_sum, below, &buckets, None)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl FnOnce(&mut MetricEncoder<'_>) -> Encoded,
) -> Encoded {
    values(&mut encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// A counter; the encoder puts `_total` behind its name.
fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl FnOnce(&mut MetricEncoder<'_>) -> Encoded,
) -> Encoded {
    values(&mut encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn count(metric: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> Encoded {
    metric.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}

/// OpenMetrics as the older Prometheus text format, which every scraper and `promtool` read: there a counter's
/// family is called `…_total` like its samples, and there is no `# EOF`.
fn to_prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            let text = help.take().map_or("", |(_, text)| text);
            // Writing to a string cannot fail.
            let _infallible = write!(out, "# HELP {name}{suffix} {text}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_renamed_and_the_end_mark_goes() {
        let given =
            "# HELP a b c\n# TYPE a counter\na_total{x=\"# TYPE\"} 1\n# HELP g h\n# TYPE g gauge\ng 2.0\n# EOF\n";
        let expected =
            "# HELP a_total b c\n# TYPE a_total counter\na_total{x=\"# TYPE\"} 1\n# HELP g h\n# TYPE g gauge\ng 2.0\n";
        assert_eq!(to_prometheus(given), expected);
    }
}
