//! Shadows: their files, and their ticks behind those of the policies that act.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::core::compare::intended;
use crate::core::decide::{Config, decide};
use crate::core::decision::{Decision, Observation};
use crate::core::intent::{By, Intent};
use crate::core::model::Sample;
use crate::core::plan::{Situation, plan};
use crate::log::DecisionLog;
use crate::script::{
    Acted, Ctx, Hook, LoadRequest, LoadedShadow, Mode, Observed, PolicyScript, ReadFile, ScriptError, shadow_path,
};

use super::super::event::Event;
use super::super::policy::{Policy, own_bounds};
use super::super::shadow::{Basis, Shadow, ShadowAnswer, ShadowPhase, ShadowScript};
use super::action::{Action, action};
use super::tick::{deadline, penalty, with_plan};
use super::{Loop, SourceOrigin};

impl Loop {
    /// After a policy's script took over: its shadow is the one that it names, or none.
    pub(super) fn set_shadow(&mut self, key: usize) {
        self.births += 1;
        let births = self.births;
        let Some(policy) = self.policy(key) else { return };
        let named = policy.spec().and_then(|spec| spec.shadow.clone());
        let Some(active) = &policy.active else { return };
        let Some(file) = named else {
            if policy.shadow.take().is_some() {
                policy.dirty = true;
                self.watch_files();
            }
            return;
        };
        let path = shadow_path(&active.path, &file);
        let name = policy.name.clone();
        // A file may be named in more than one way.
        let is_same = |other: &Path| {
            other.file_name() == path.file_name()
                && (other == path
                    || path.canonicalize().is_ok_and(|path| other.canonicalize().is_ok_and(|it| it == path)))
        };
        if self.sources.iter().flatten().any(|source| is_same(&source.path())) {
            // It was asked for, as every file of a folder is, and may have tasks: another file's word does not end it.
            tracing::warn!(
                policy = %name,
                shadow = %path.display(),
                "the shadow is run as a policy of its own too; it would not in a folder below"
            );
        }
        let Some(policy) = self.policy(key) else { return };
        match &mut policy.shadow {
            Some(shadow) if shadow.file == file => {}
            other => *other = Some(Box::new(Shadow::new(file))),
        }
        if let Some(shadow) = &mut policy.shadow {
            if shadow.active.is_none() {
                // Numbers that no shadow before had: late answers to one that went are void.
                (shadow.load, shadow.serial) = (births << 32, births << 32);
            }
            shadow.path = path;
        }
        self.load_shadow(key);
    }

    /// Reads a policy's shadow again.
    pub(super) fn load_shadow(&mut self, key: usize) {
        let Some((acting, file)) = self.shadow_request(key) else { return };
        let Some(shadow) = self.policy(key).and_then(|policy| policy.shadow.as_mut()) else { return };
        shadow.load += 1;
        let (serial, host) = (shadow.load, self.host.clone());
        self.spawn(async move {
            let (result, read) = host.load_shadow_noting(acting, &file).await;
            Event::Shadow { key, serial, answer: ShadowAnswer::Loaded(result, read) }
        });
    }

    /// How the acting policy is loaded, and the file that it names.
    fn shadow_request(&self, key: usize) -> Option<(LoadRequest, String)> {
        let policy = self.policies.get(key)?.as_ref()?;
        let file = policy.shadow.as_ref()?.file.clone();
        let source = self.sources.get(policy.source?)?.as_ref()?;
        Some((source.request(&self.settings.params, self.backends.keys().cloned().collect()), file))
    }

    /// Reads those shadows again whose files changed.
    pub(super) fn shadows_changed(&mut self, paths: &[PathBuf]) {
        for key in 0..self.policies.len() {
            let shadow = self.policy(key).and_then(|policy| policy.shadow.as_ref());
            if shadow.is_some_and(|shadow| shadow.read.keys().any(|file| paths.contains(file))) {
                self.load_shadow(key);
            }
        }
    }

    /// A worker of a shadow answered.
    pub(super) fn on_shadow(&mut self, key: usize, serial: u64, answer: ShadowAnswer) {
        let Some(shadow) = self.policy(key).and_then(|policy| policy.shadow.as_mut()) else { return };
        let awaited = match &answer {
            ShadowAnswer::Loaded(..) => shadow.load,
            _ => shadow.serial,
        };
        if serial != awaited {
            return;
        }
        match answer {
            ShadowAnswer::Loaded(result, read) => self.on_shadow_loaded(key, result, read),
            ShadowAnswer::Migrated(result) => self.on_shadow_migrated(key, result),
            ShadowAnswer::Observed(observed) => self.on_shadow_observed(key, *observed),
            ShadowAnswer::Acted(acted) => self.on_shadow_acted(key, *acted),
        }
    }

    fn on_shadow_loaded(&mut self, key: usize, result: Result<LoadedShadow, Vec<ScriptError>>, read: Vec<ReadFile>) {
        let Some(policy) = self.policy(key) else { return };
        let Some(shadow) = &mut policy.shadow else { return };
        shadow.note(read);
        let read = shadow.read.iter().filter_map(|(path, look)| Some((path.clone(), (*look)?))).collect();
        match result {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!(policy = %policy.name, shadow = %shadow.file, "{warning}");
                }
                shadow.next =
                    Some(Box::new(ShadowScript { policy: loaded.policy, sha256: loaded.sha256.as_str().into() }));
                self.warn_of_acting_shadow(key);
            }
            Err(errors) => {
                if let Some(error) = errors.into_iter().next() {
                    self.refuse_shadow(key, error);
                }
            }
        }
        self.watch_files();
        if let Some(watch) = &self.watch {
            watch.loaded(read);
        }
        self.begin_shadow_migration(key);
    }

    /// A shadow's file that is also run by itself acts, whatever is thought of it.
    fn warn_of_acting_shadow(&mut self, key: usize) {
        let Some(shadow) = self.policy(key).and_then(|policy| policy.shadow.as_ref()) else { return };
        let Ok(real) = shadow.path.canonicalize() else { return };
        let other = self.sources.iter().flatten().find(|source| match &source.origin {
            SourceOrigin::File(path) => path.canonicalize().is_ok_and(|path| path == real),
            SourceOrigin::Text(_) => false,
        });
        if let Some(other) = other {
            tracing::warn!(policy = %other.name, "the file is a shadow, and also runs as a policy of its own: keep it in a folder below");
        }
    }

    /// The file on the disk is not used: say so; the acting policy knows nothing of it.
    fn refuse_shadow(&mut self, key: usize, error: ScriptError) {
        let Some(policy) = self.policy(key) else { return };
        let Some(shadow) = &mut policy.shadow else { return };
        let kept = if shadow.active.is_some() { "its last version goes on" } else { "it is not evaluated" };
        if shadow.refused.as_deref() != Some(&error) {
            tracing::error!(policy = %policy.name, shadow = %shadow.file, "shadow refused, {kept}\n{}", error.report());
        }
        shadow.refused = Some(Arc::new(error));
        self.publish(key);
    }

    /// Lets a waiting script take over the shadow's `ctx.state`, between two of its ticks.
    fn begin_shadow_migration(&mut self, key: usize) {
        let Some(shadow) = self.policy(key).and_then(|policy| policy.shadow.as_mut()) else { return };
        if !shadow.is_idle() {
            return;
        }
        let Some(next) = shadow.next.take() else { return };
        let script = Arc::clone(&next.policy.script);
        let reload = shadow.active.is_some();
        let state = shadow.script().map_or_else(|| shadow.script_state.clone(), |old| old.state());
        let serial = shadow.next_serial();
        shadow.basis = None;
        shadow.phase = ShadowPhase::Migrating(next);
        self.spawn(async move {
            let result = script.restore(state.as_deref(), reload).await;
            Event::Shadow { key, serial, answer: ShadowAnswer::Migrated(result) }
        });
    }

    fn on_shadow_migrated(&mut self, key: usize, result: Result<(), ScriptError>) {
        let Some(policy) = self.policy(key) else { return };
        let acting = policy.active.as_ref().map(|active| Arc::clone(&active.sha256)).unwrap_or_default();
        let Some(shadow) = &mut policy.shadow else { return };
        let ShadowPhase::Migrating(next) = std::mem::replace(&mut shadow.phase, ShadowPhase::Idle) else { return };
        match result {
            Ok(()) => {
                shadow.adopt(*next, &acting);
                let generation = shadow.generation;
                tracing::info!(policy = %policy.name, shadow = %shadow.file, generation, "shadow loaded");
                policy.dirty = true;
                self.publish(key);
            }
            Err(error) => self.refuse_shadow(key, error),
        }
        self.begin_shadow_migration(key);
    }

    /// The acting policy has decided on `observation`: its shadow will, on the same.
    pub(super) fn prepare_shadow(
        &mut self,
        key: usize,
        wall: SystemTime,
        observation: &Observation,
        decision: &Decision,
    ) {
        let Some(policy) = self.policy(key).filter(|policy| policy.shadow.is_some()) else { return };
        let Some(situation) = policy.situation(0, By::Law, observation.now) else { return };
        let (ctx, tick) = (policy.ctx(wall), policy.ticks);
        let Some(shadow) = &mut policy.shadow else { return };
        let jumped = std::mem::take(&mut shadow.jumped);
        let observation = observation.clone();
        shadow.prepare(Basis { observation, situation, ctx, tick, wall, intended: intended(decision), jumped });
    }

    /// The acting policy's tick is over: its shadow's begins.
    pub(super) fn begin_shadow(&mut self, key: usize) {
        let now = Instant::now();
        if self.stopping.is_some() {
            return;
        }
        let Some(policy) = self.policy(key) else { return };
        let limit = deadline(policy.interval);
        let Some(Visit { ctx, script, penalty }) = visit(policy, now) else { return };
        let Some(shadow) = &mut policy.shadow else { return };
        let serial = shadow.next_serial();
        shadow.phase = ShadowPhase::Observing;
        if let Some(error) = penalty {
            // Left alone for breaking a limit, as an acting policy is.
            let sample = Sample::Error { message: error.headline().into() };
            shadow.fail(Some(error));
            self.decide_shadow(key, sample, None, None);
            return;
        }
        self.call_script(limit, move |left| async move {
            let observed = Box::new(script.observe(ctx, left).await);
            Event::Shadow { key, serial, answer: ShadowAnswer::Observed(observed) }
        });
    }

    fn on_shadow_observed(&mut self, key: usize, observed: Observed) {
        let now = Instant::now();
        let Some(policy) = self.policy(key) else { return };
        let Some(shadow) = policy.shadow.as_mut().filter(|shadow| matches!(shadow.phase, ShadowPhase::Observing))
        else {
            return;
        };
        if observed.errors.iter().any(|error| error.kind.is_limit()) {
            shadow.penalty = penalty(shadow.penalty.take(), &observed.errors, now);
        } else {
            shadow.penalty = shadow.penalty.take().filter(|penalty| now < penalty.until);
        }
        let mut sample = observed.sample;
        if shadow.basis.as_ref().is_some_and(|basis| basis.jumped)
            && let Sample::Value { value, age, .. } = sample
        {
            sample = Sample::Stale { value, age };
        }
        shadow.fail(observed.errors.into_iter().next().map(Arc::new));
        self.decide_shadow(key, sample, observed.setpoint, observed.scripted);
    }

    fn decide_shadow(
        &mut self,
        key: usize,
        sample: Sample,
        setpoint: Option<f64>,
        scripted: Option<crate::core::decision::Scripted>,
    ) {
        let epoch = self.log.as_ref().map(DecisionLog::epoch);
        let Some(policy) = self.policy(key) else { return };
        let overridden = policy.bounds.is_some();
        let Some((own, spec)) =
            policy.shadow.as_ref().and_then(|shadow| Some((shadow.bounds(), shadow.spec()?.clone())))
        else {
            return;
        };
        let bounds = policy.narrowed(own);
        let name = policy.name.clone();
        let Some(shadow) = &mut policy.shadow else { return };
        let Some(basis) = shadow.basis.clone() else { return };
        let observation = Observation {
            sample,
            setpoint,
            scripted,
            bounds: overridden.then_some(bounds),
            ..basis.observation.clone()
        };
        let keyframe = epoch.and_then(|epoch| shadow.trail.keyframe(epoch, key, &shadow.state));
        let (decision, state) = decide(&Config::from(&*spec), std::mem::take(&mut shadow.state), &observation);
        shadow.state = state;
        if epoch.is_some() {
            shadow.begin_trail(&name, keyframe, (basis.tick, basis.wall), &observation, &decision);
        }
        shadow.decided(observation.sample, observation.setpoint, &decision);
        policy.aged = true;
        self.act_shadow(key, decision);
    }

    /// What the shadow would ask for: its functions are called, and what they ask of others is recorded.
    fn act_shadow(&mut self, key: usize, mut decision: Decision) {
        let adjustment = intended(&decision);
        let Some(policy) = self.policy(key) else { return };
        let limit = deadline(policy.interval);
        let bounds = policy.shadow.as_ref().map(|shadow| policy.narrowed(shadow.bounds()));
        let Some((bounds, shadow)) = bounds.zip(policy.shadow.as_mut()) else { return };
        let Some((script, spec)) = shadow.script().zip(shadow.spec().cloned()) else { return };
        let Some(basis) = &shadow.basis else { return };
        if adjustment == 0 {
            self.conclude_shadow(key, decision, Vec::new());
            return;
        }
        match action(&spec, &decision, adjustment) {
            Action::Call { hook, n } => {
                let ctx = shadow.ctx(basis, bounds);
                let serial = shadow.next_serial();
                shadow.phase = ShadowPhase::Acting(decision);
                self.call_script(limit, move |left| async move {
                    let acted = Box::new(script.act(hook, n, ctx, Mode::Record, left).await);
                    Event::Shadow { key, serial, answer: ShadowAnswer::Acted(acted) }
                });
            }
            Action::Ask { intent, by, adjustment, reason } => {
                decision.reasons.extend(reason);
                self.plan_shadow(key, decision, intent.as_slice(), (by, adjustment), Vec::new());
            }
        }
    }

    fn on_shadow_acted(&mut self, key: usize, acted: Acted) {
        let now = Instant::now();
        let Some(policy) = self.policy(key) else { return };
        let external = policy.is_external();
        let Some(shadow) = &mut policy.shadow else { return };
        let ShadowPhase::Acting(mut decision) = std::mem::replace(&mut shadow.phase, ShadowPhase::Observing) else {
            return;
        };
        if let Some(error) = acted.error {
            if error.kind.is_limit() {
                shadow.penalty = penalty(shadow.penalty.take(), std::slice::from_ref(&error), now);
            }
            shadow.fail(Some(Arc::new(error)));
        }
        let adjustment = intended(&decision);
        if external {
            // What others run: the number that its function said would be accepted.
            let wanted = u32::try_from(adjustment.unsigned_abs()).unwrap_or(u32::MAX);
            let accepted = i64::from(acted.accepted.unwrap_or(wanted).min(wanted));
            decision.adjustment = if decision.adjustment == 0 { 0 } else { accepted * adjustment.signum() };
            self.conclude_shadow(key, decision, acted.recorded);
            return;
        }
        let effect = self.policy(key).and_then(|policy| Some(policy.shadow.as_ref()?.spec()?.workload.effect));
        let by = match super::action::hook_for(adjustment, effect.unwrap_or_default()) {
            Hook::Warmer => By::Warmer,
            _ => By::Cooler,
        };
        self.plan_shadow(key, decision, &acted.intents, (by, adjustment), acted.recorded);
    }

    /// What would be left of the shadow's intents.
    fn plan_shadow(
        &mut self,
        key: usize,
        decision: Decision,
        intents: &[Intent],
        (by, adjustment): (By, i64),
        effects: Vec<String>,
    ) {
        let Some(policy) = self.policy(key) else { return };
        let Some(shadow) = &mut policy.shadow else { return };
        let Some((spec, basis)) = shadow.spec().cloned().zip(shadow.basis.as_ref()) else { return };
        let (situation, dry_run) = (basis.situation, basis.observation.dry_run);
        shadow.trail.asked(intents);
        if dry_run {
            // It is held as the acting one was.
            self.conclude_shadow(key, decision, effects);
            return;
        }
        let bounds = policy.narrowed(own_bounds(&spec));
        let situation = Situation { adjustment, by, bounds, max_helpers: spec.max_helpers, ..situation };
        let plan = plan(&situation, intents, |id| policy.is_alive(id));
        let would = i64::from(plan.launched()) - i64::from(plan.killed());
        self.conclude_shadow(key, with_plan(decision, &plan, would), effects);
    }

    fn conclude_shadow(&mut self, key: usize, decision: Decision, effects: Vec<String>) {
        let Some(policy) = self.policy(key) else { return };
        let Some(shadow) = &mut policy.shadow else { return };
        let Some(basis) = shadow.basis.take() else { return };
        if shadow.settle_error()
            && let Some(error) = &shadow.error
        {
            tracing::error!(policy = %policy.name, shadow = %shadow.file, hook = error.hook.as_str(), "the shadow fails, the policy goes on\n{}", error.report());
        }
        let entry = shadow.conclude(&basis, decision, effects);
        if let Some(state) = shadow.script().and_then(|script| script.take_changed_state()) {
            shadow.script_state = Some(state);
            policy.dirty = true;
        }
        if let Some(entry) = entry
            && let Some(log) = &self.log
            && !log.submit(entry)
            && let Some(shadow) = self.policy(key).and_then(|policy| policy.shadow.as_mut())
        {
            shadow.trail.restart();
        }
        self.publish(key);
        self.begin_shadow_migration(key);
    }
}

/// A call that a shadow is due for.
struct Visit {
    ctx: Arc<Ctx>,
    script: Arc<dyn PolicyScript>,
    /// Why it is left alone instead.
    penalty: Option<Arc<ScriptError>>,
}

/// The call that a policy's shadow is due for, if it is.
fn visit(policy: &Policy, now: Instant) -> Option<Visit> {
    let shadow = policy.shadow.as_ref().filter(|shadow| shadow.is_idle())?;
    let ctx = shadow.ctx(shadow.basis.as_ref()?, policy.narrowed(shadow.bounds()));
    let penalty = shadow.penalty.as_ref().filter(|penalty| now < penalty.until);
    Some(Visit { ctx, script: shadow.script()?, penalty: penalty.map(|penalty| Arc::clone(&penalty.error)) })
}
