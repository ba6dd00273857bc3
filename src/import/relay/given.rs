//! The options of Relay as they were given: flags over environment, from a command line, a file of variables, or a JSON of
//! Marathon that holds either.

use crate::import::error::Problem;
use crate::import::report::Report;
use crate::import::shell::{self, Word};
use crate::import::tree::{Node, Place, Section};
use crate::import::yaml;

/// Options, by their names without `mesos_`.
const OPTIONS: &[&str] = &[
    "metric",
    "target",
    "warmer",
    "cooler",
    "delay",
    "lookback",
    "ramp",
    "sendstats",
    "stop_condition",
    "master",
    "framework_name",
    "framework_principal",
    "framework_role",
    "checkpoint",
    "task_resources",
    "environment",
    "uris",
    "max_failures",
    "docker_image",
    "docker_network",
    "docker_parameters",
    "force_pull_image",
    "volumes",
    "init_timeout",
    "attribute_matches_all",
    "failover_timeout",
    "master_state_for_demo",
];

/// Those of them that only Relay.Mesos has.
const OF_MESOS: &[&str] = &[
    "master",
    "framework_name",
    "framework_principal",
    "framework_role",
    "checkpoint",
    "task_resources",
    "environment",
    "uris",
    "max_failures",
    "docker_image",
];

const SHORT: &[(&str, &str)] =
    &[("-m", "metric"), ("-t", "target"), ("-w", "warmer"), ("-c", "cooler"), ("-d", "delay")];

/// Options that need no value on a command line.
const FLAGS: &[&str] = &["checkpoint", "force_pull_image"];

/// Programs that are Relay.
const PROGRAMS: &[&str] = &["relay", "relay.mesos", "relay_mesos", "relay.runner"];

/// Words before it that say how it is started.
const STARTERS: &[&str] = &[
    "docker",
    "run",
    "env",
    "export",
    "sudo",
    "exec",
    "nohup",
    "python",
    "python2",
    "python2.7",
    "python3",
    "-m",
    "-e",
    "--env",
    "-it",
    "-d",
    "--rm",
    "-i",
    "-t",
];

#[derive(Clone, Debug)]
struct Value {
    key: &'static str,
    text: String,
    place: Place,
    by_flag: bool,
}

/// What was given, and what of it has been asked for.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: Vec<Value>,
    /// Asked for, and there.
    taken: Vec<&'static str>,
    unknown: Vec<(String, usize)>,
    /// Relay.Mesos, whose warmer and cooler are commands.
    pub(super) is_mesos: bool,
    /// The id of the Marathon app.
    pub(super) app: Option<String>,
    /// Whether warmer or cooler are functions of Python, which launch no tasks of the policy.
    pub(super) calls_python: bool,
    first: Option<Place>,
}

fn canonical(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    let known = |name: &str| OPTIONS.iter().copied().find(|option| *option == name);
    known(&name).or_else(|| known(name.strip_prefix("mesos_")?))
}

impl Given {
    /// Reads any of the forms.
    pub(super) fn read(text: &str, report: &mut Report) -> Result<Self, Problem> {
        let mut given = Self::default();
        if text.trim_start().starts_with('{') {
            given.marathon(text, report)?;
        } else {
            given.lines(text)?;
        }
        if given.values.is_empty() {
            let told = "expected options of Relay: RELAY_… variables or flags such as --metric, got none";
            return Err(
                Problem::new(1, 1, told).hint("`setpoint import gocd-mesos`, hpa, keda and nomad read other systems")
            );
        }
        let of_mesos = |value: &Value| OF_MESOS.contains(&value.key);
        given.is_mesos = given.is_mesos || given.values.iter().any(of_mesos);
        given.first = given.values.first().map(|value| value.place);
        let python = |key: &str, given: &Self| {
            let path = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_');
            let text = given.peek(key).map(|value| value.text.clone()).unwrap_or_default();
            let bundled = text.ends_with("bash_echo_warmer");
            !text.is_empty() && text.chars().all(path) && !bundled
        };
        given.calls_python = !given.is_mesos && (python("warmer", &given) || python("cooler", &given));
        Ok(given)
    }

    /// An app of Marathon: its variables and its command.
    fn marathon(&mut self, text: &str, report: &mut Report) -> Result<(), Problem> {
        let mut documents = yaml::documents(text)?;
        let Some(document) = documents.pop().filter(|_| documents.is_empty()) else {
            return Err(Problem::new(1, 1, "expected one JSON document, got several"));
        };
        let mut app = Section::new(document, "")?;
        self.app = app.text("id")?.map(|id| id.trim_matches('/').to_owned());
        if let Some(env) = app.section("env")? {
            for (name, node) in env.into_rest().1 {
                let value = node.text(&name)?;
                self.variable(&name, value, node.place);
            }
        }
        if let Some(node) = app.take("args") {
            self.arguments(node)?;
        }
        if let Some(command) = app.take("cmd") {
            let (line, place) = (command.text("cmd")?, command.place);
            let unquoted = |_| Problem::at(place, "cmd: expected a command with every quote closed, got one left open");
            let (words, _) = shell::command(&line, 0).map_err(unquoted)?;
            let words: Vec<_> = words.into_iter().map(|word| Word { place, ..word }).collect();
            self.command(&words)?;
        }
        report.rest(app);
        Ok(())
    }

    fn arguments(&mut self, node: Node) -> Result<(), Problem> {
        let words: Result<Vec<_>, _> =
            node.list("args")?.iter().map(|item| Ok(Word { text: item.text("args")?, place: item.place })).collect();
        self.flags(&words?)
    }

    fn lines(&mut self, text: &str) -> Result<(), Problem> {
        let mut at = 0;
        while at < text.len() {
            let line = text[at..].lines().next().unwrap_or_default();
            let next = text[at..].find('\n').map_or(text.len(), |length| at + length + 1);
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                at = next;
            } else if let Some((name, value)) = variable(trimmed) {
                let begin = at + line.len() - line.trim_start().len();
                self.variable(name, value, Place::of_byte(text, begin));
                at = next;
            } else {
                let (words, end) = shell::command(text, at)?;
                self.command(&words)?;
                at = end.max(at + 1);
                while !text.is_char_boundary(at) {
                    at += 1;
                }
            }
        }
        Ok(())
    }

    fn variable(&mut self, name: &str, text: String, place: Place) {
        match name.strip_prefix("RELAY_").and_then(canonical) {
            Some(key) => self.add(Value { key, text, place, by_flag: false }),
            None => self.unknown.push((format!("{name} = {text}"), place.line)),
        }
    }

    /// A command: variables before the program, flags behind it.
    fn command(&mut self, words: &[Word]) -> Result<(), Problem> {
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let base = word.text.rsplit('/').next().unwrap_or_default();
            if PROGRAMS.contains(&base) {
                self.is_mesos |= base.contains("mesos");
                return self.flags(&words[at + 1..]);
            }
            if let Some((name, value)) = word.text.split_once('=').filter(|(name, _)| is_name(name)) {
                self.variable(name, value.to_owned(), word.place);
            } else if word.text.starts_with('-') && !STARTERS.contains(&word.text.as_str()) && at == 0 {
                return self.flags(words);
            } else if !STARTERS.contains(&base) {
                self.unknown.push((word.text.clone(), word.place.line));
            }
            at += 1;
        }
        Ok(())
    }

    fn flags(&mut self, words: &[Word]) -> Result<(), Problem> {
        let mut at = 0;
        while let Some(word) = words.get(at) {
            at += 1;
            let short = SHORT.iter().find(|(flag, _)| *flag == word.text).map(|(_, key)| *key);
            let long = word.text.strip_prefix("--").unwrap_or_default();
            let (name, inline) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let Some(key) = short.or_else(|| canonical(name)) else {
                self.unknown.push((word.text.clone(), word.place.line));
                continue;
            };
            let text = match (inline, words.get(at)) {
                (Some(value), _) => value.to_owned(),
                (None, next) if FLAGS.contains(&key) => match next {
                    Some(next) if matches!(next.text.to_lowercase().as_str(), "true" | "false") => {
                        at += 1;
                        next.text.clone()
                    }
                    _ => "true".to_owned(),
                },
                (None, Some(next)) => {
                    at += 1;
                    next.text.clone()
                }
                (None, None) => {
                    return Err(Problem::at(word.place, format!("{}: expected a value, got nothing", word.text)));
                }
            };
            self.add(Value { key, text, place: word.place, by_flag: true });
        }
        Ok(())
    }

    /// The command line beats the environment; of two alike the later one counts.
    fn add(&mut self, value: Value) {
        let value = Value { text: value.text.replace('\0', "\u{fffd}"), ..value };
        match self.values.iter_mut().find(|other| other.key == value.key) {
            Some(there) if value.by_flag || !there.by_flag => *there = value,
            Some(_) => {}
            None => self.values.push(value),
        }
    }

    fn peek(&self, key: &str) -> Option<&Value> {
        self.values.iter().find(|value| value.key == key)
    }

    /// Whether an option is there and has not been taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.peek(key).is_some()
    }

    /// Whether one was there.
    pub(super) fn had(&self, key: &str) -> bool {
        self.has(key) || self.taken.contains(&key)
    }

    /// Takes an option.
    pub(super) fn text(&mut self, key: &str) -> Option<(String, Place)> {
        let at = self.values.iter().position(|value| value.key == key)?;
        let Value { key, text, place, .. } = self.values.remove(at);
        self.taken.push(key);
        Some((text, place))
    }

    pub(super) fn needed(&mut self, key: &str, expected: &str) -> Result<String, Problem> {
        self.text(key)
            .map(|(text, _)| text)
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| self.problem(&format!("{key}: expected {expected}, got nothing")))
    }

    pub(super) fn number(&mut self, key: &str, least: f64, most: f64) -> Result<Option<f64>, Problem> {
        let Some((text, place)) = self.text(key) else { return Ok(None) };
        let number = text.trim().parse().ok().filter(|number| (least..=most).contains(number));
        number
            .map(Some)
            .ok_or_else(|| Problem::at(place, format!("{key}: expected a number from {least} to {most}, got {text:?}")))
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, Problem> {
        let Some((text, place)) = self.text(key) else { return Ok(None) };
        match text.trim().to_lowercase().as_str() {
            "true" | "1" | "yes" | "" => Ok(Some(true)),
            "false" | "0" | "no" => Ok(Some(false)),
            _ => Err(Problem::at(place, format!("{key}: expected true or false, got {text:?}"))),
        }
    }

    /// A problem with all of it.
    pub(super) fn problem(&self, text: &str) -> Problem {
        Problem::at(self.first.unwrap_or(Place { line: 1, column: 1 }), text)
    }

    /// What nobody asked for.
    pub(super) fn rest(&self) -> Vec<(String, usize)> {
        self.unknown.clone()
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// A line of a file of variables: `NAME=value` to the end of the line, or `NAME: value`. A command that begins with
/// variables is none.
fn variable(line: &str) -> Option<(&str, String)> {
    let exported = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let split = |mark: char| exported.split_once(mark).filter(|(name, _)| is_name(name));
    let (name, value) = match split('=') {
        Some(parts) => parts,
        None => split(':').filter(|(name, _)| name.starts_with("RELAY_"))?,
    };
    let value = value.trim();
    let (words, _) = shell::command(value, 0).ok()?;
    let command = words.iter().skip(1).any(|word| {
        let base = word.text.rsplit('/').next().unwrap_or_default();
        PROGRAMS.contains(&base) || word.text.starts_with("RELAY_") && word.text.contains('=')
    });
    if command || line.ends_with('\\') {
        return None;
    }
    // One quoted word is what is between its quotes; anything else is as it is.
    match &words[..] {
        [word] if value.starts_with(['"', '\'']) => Some((name, word.text.clone())),
        _ => Some((name, value.to_owned())),
    }
}
