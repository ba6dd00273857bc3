//! Policies in which several things ask for tasks and the greatest number counts: KEDA's triggers, Nomad's checks. Their
//! sample is that number, and `decide` makes it so.

use super::lua::{Field, Lua, comment, indented};
use super::policy::Policy;

/// Something that asks for tasks.
#[derive(Clone, Debug)]
pub(super) struct Trigger {
    /// What it is.
    pub(super) about: String,
    /// The body of a function of `ctx` that gives how many tasks it wants, and where that matters whether it is active;
    /// indented from 0.
    pub(super) body: String,
    /// The same with the load of a simulation in the place of what it reads; none where it reads nothing.
    pub(super) simulated: Option<String>,
}

/// What the triggers of a source have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// What they are called there.
    pub(super) what: &'static str,
    /// Whether they also say whether they are active.
    pub(super) active: bool,
    /// Whether one that fails makes all of them fail.
    pub(super) fails: bool,
}

/// Writes the functions, `metric` and `simulate`.
pub(super) fn write(policy: &mut Policy, triggers: &[Trigger], rules: Rules) {
    let Rules { active, what, .. } = rules;
    let also = if active { ", and whether it is active" } else { "; false: it has no say now" };
    let mut code = format!(
        "-- A function for each {what}: how many tasks it wants{also}. nil: not known now.\nlocal triggers = {{\n"
    );
    for trigger in triggers {
        code.push_str(&comment(&trigger.about, 2));
        code.push_str(&function(&trigger.body));
    }
    code.push_str("}\n");
    if let Some(simulated) = triggers.iter().find_map(|trigger| trigger.simulated.as_ref()) {
        code.push_str("\n-- The first of them that reads something, with the load of `setpoint simulate` in its place");
        code.push_str(if triggers.iter().all(|trigger| trigger.simulated.is_some()) {
            ".\n"
        } else {
            ",\n-- and those that read nothing.\n"
        });
        code.push_str("local simulated = {\n");
        code.push_str(&function(simulated));
        for trigger in triggers.iter().filter(|trigger| trigger.simulated.is_none()) {
            code.push_str(&function(&trigger.body));
        }
        code.push_str("}\n");
    }
    policy.code(code);
    if active {
        policy.code("-- Whether one of them was active at the last look.\nlocal active = false\n");
    }
    policy.code(ask(rules));
    policy.field(
        Field::new("metric", Lua::raw("function(ctx)\n  return ask(ctx, triggers)\nend"))
            .told(format!("How many tasks the {what}s want: the sample is a number of tasks.")),
    );
    if triggers.iter().any(|trigger| trigger.simulated.is_some()) {
        super::metric::simulate(policy, "function(ctx)\n  return ask(ctx, simulated)\nend", "");
    }
}

fn function(body: &str) -> String {
    let head = head(body);
    format!("  {head}\n    {}\n  end,\n", indented(body, 4))
}

/// The head of a function whose body may need what the policy sees.
pub(super) fn head(body: &str) -> &'static str {
    if body.contains("ctx") { "function(ctx)" } else { "function()" }
}

fn ask(rules: Rules) -> String {
    let Rules { active, what, fails } = rules;
    let (local, told, keep, reset) = if active {
        (", any", ", is_active", "      any = any or is_active\n", "  active = any or false\n")
    } else {
        ("", "", "", "")
    };
    let guard =
        if fails { "failure or most == nil or most <= ctx.desired" } else { "most == nil or most <= ctx.desired" };
    format!(
        "\
-- The greatest number that any {what} wants. One that is not known must not lead to fewer tasks.
local function ask(ctx, list)
  local most, failure, unknown{local}
  for _, trigger in ipairs(list) do
    local ok, tasks{told} = pcall(trigger, ctx)
    if not ok then
      failure = tostring(tasks)
    elseif tasks == nil then
      unknown = true
    elseif tasks ~= false then
      most = math.max(most or 0, tasks)
{keep}    end
  end
  if {guard} then
    if failure then
      error(failure, 0)
    elseif unknown then
      return nil
    end
  end
{reset}  return most or ctx.desired
end
"
    )
}
