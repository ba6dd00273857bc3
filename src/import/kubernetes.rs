//! What all of Kubernetes' manifests share: documents by kind, what a workload's containers are, selectors.

use super::error::Problem;
use super::quantity::positive;
use super::report::Report;
use super::tree::{Node, Section, Value};
use super::workload::{Outside, OutsideFake, Task};
use super::{lua, yaml};

/// Kinds that hold a template of pods.
const WORKLOADS: &[&str] = &["Deployment", "StatefulSet", "ReplicaSet", "DaemonSet", "Job"];

/// What another importer is for.
const IMPORTERS: &[(&str, &str)] = &[("HorizontalPodAutoscaler", "hpa"), ("ScaledObject", "keda")];

/// Every object of a text, with the items of lists among them.
pub(super) fn objects(text: &str) -> Result<Vec<Node>, Problem> {
    let mut objects = Vec::new();
    for document in yaml::documents(text)? {
        match kind(&document).as_deref() {
            Some("List") => {
                let mut section = Section::new(document, "")?;
                objects.extend(section.list("items")?);
            }
            _ => objects.push(document),
        }
    }
    Ok(objects)
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|(other, _)| other == key).map(|(_, node)| node),
        _ => None,
    }
}

pub(super) fn kind(node: &Node) -> Option<String> {
    entry(node, "kind")?.scalar()
}

fn name(node: &Node) -> Option<String> {
    entry(entry(node, "metadata")?, "name")?.scalar()
}

/// Parts the objects of a kind from the others. None of that kind is a problem that says what fits.
pub(super) fn of_kind(objects: Vec<Node>, wanted: &str) -> Result<(Vec<Node>, Vec<Node>), Problem> {
    let (found, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|node| kind(node).as_deref() == Some(wanted));
    if !found.is_empty() {
        return Ok((found, others));
    }
    let Some(first) = others.first() else {
        return Err(Problem::new(1, 1, format!("expected a manifest of kind {wanted}, got an empty text")));
    };
    let kinds: Vec<_> = others.iter().filter_map(kind).map(|kind| lua::plain(&kind)).take(5).collect();
    let got = if kinds.is_empty() { first.described() + " without a kind" } else { kinds.join(", ") };
    let problem = Problem::at(first.place, format!("expected a manifest of kind {wanted}, got {got}"));
    let fitting = IMPORTERS.iter().find(|(kind, _)| kinds.iter().any(|other| other == kind));
    Err(match fitting {
        Some((kind, verb)) => problem.hint(format!("`setpoint import {verb}` reads a {kind}")),
        None => problem,
    })
}

/// What a scaler scales.
#[derive(Clone, Debug)]
pub(super) struct Scaled {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
    api: String,
}

impl Scaled {
    /// Reads `scaleTargetRef`.
    pub(super) fn read(mut section: Section, namespace: &str, report: &mut Report) -> Result<Self, Problem> {
        let name = section.needed("name", "the name of what is scaled")?;
        let kind = section.text("kind")?.unwrap_or_else(|| "Deployment".to_owned());
        let api = section.text("apiVersion")?.unwrap_or_else(|| "apps/v1".to_owned());
        report.carried(section.path.clone(), "workload");
        report.rest(section);
        Ok(Self { kind, name, namespace: namespace.to_owned(), api })
    }

    /// `Deployment web in the namespace shop`.
    pub(super) fn told(&self) -> String {
        let Self { kind, name, namespace, .. } = self;
        format!("{kind} {name} in the namespace {namespace}")
    }

    /// The tasks as the manifest of what is scaled has them, if it is among the others.
    pub(super) fn task(&self, others: &[Node], container: Option<&str>, report: &mut Report) -> Result<Task, Problem> {
        let own = |node: &&Node| kind(node).as_deref() == Some(&self.kind) && name(node).as_deref() == Some(&self.name);
        let Some(node) = others.iter().find(own).filter(|_| WORKLOADS.contains(&self.kind.as_str())) else {
            return Ok(Task::default());
        };
        let mut root = Section::new(node.clone(), self.kind.clone())?;
        metadata(&mut root, report)?;
        let Some(mut spec) = root.section("spec")? else { return Ok(Task::default()) };
        report.rest(root);
        let Some(mut template) = spec.section("template")? else { return Ok(Task::default()) };
        let Some(mut pod) = template.section("spec")? else { return Ok(Task::default()) };
        let path = pod.at("containers");
        let mut containers = pod.list("containers")?;
        if containers.is_empty() {
            return Ok(Task::default());
        }
        let at = containers
            .iter()
            .position(|node| container.is_some() && entry(node, "name").and_then(Node::scalar).as_deref() == container);
        let task = containers.remove(at.unwrap_or(0));
        for other in &containers {
            report.lost_value(&path, other, "a task is one container");
        }
        report.lost_key(&mut spec, "replicas", "a policy starts with its fewest tasks, or with those that it finds");
        let selector = spec.section("selector")?;
        if selector.is_some() {
            report.carried(spec.at("selector"), "a policy knows its own tasks");
        }
        let selected = labels(selector, "matchLabels", report)?;
        let mut labels = labels(template.section("metadata")?, "labels", report)?;
        labels.retain(|label| !selected.contains(label));
        for section in [spec, template, pod] {
            report.rest(section);
        }
        Ok(Task { labels, ..of_container(Section::new(task, path)?, report)? })
    }

    /// How the object itself is scaled, where its tasks stay with Kubernetes.
    pub(super) fn outside(&self) -> Outside {
        let plural = format!("{}s", self.kind.to_lowercase());
        let api = if self.api.contains('/') { format!("apis/{}", self.api) } else { format!("api/{}", self.api) };
        let path = format!("/{api}/namespaces/{}/{plural}/{}/scale", self.namespace, self.name);
        let code = format!(
            "-- The object itself, through the API of Kubernetes.\nlocal SCALE = p.kubernetes .. {}\n\n\
             local function running()\n  return http.get(SCALE):json().status.replicas\nend\n\n\
             local function scale(n)\n  local response = http.patch(SCALE, {{\n    \
             headers = {{ [\"Content-Type\"] = \"application/merge-patch+json\" }},\n    \
             body = json.encode({{ spec = {{ replicas = n }} }}),\n  }})\n  return response.ok\nend\n",
            lua::Lua::text(path).write(0, 32, 0)
        );
        Outside {
            modules: &["http", "json"],
            params: vec![(
                "kubernetes",
                "http://127.0.0.1:8001".to_owned(),
                "the API; this is where `kubectl proxy` is",
            )],
            code,
            fake: OutsideFake {
                verb: "patch",
                told: "json.decode(request.body).spec.replicas",
                module: Some("json"),
                answer: "{ status = { replicas = replicas } }".to_owned(),
            },
        }
    }

    /// Whatever else is in the file.
    pub(super) fn others(&self, others: &[Node], report: &mut Report) {
        for node in others {
            let (kind, called) = (kind(node).unwrap_or_default(), name(node).unwrap_or_default());
            if kind != self.kind || called != self.name {
                report.lost(format!("{kind} {called}"), node.place.line, "another document of the file");
            } else if !WORKLOADS.contains(&kind.as_str()) {
                report.lost(format!("{kind} {called}"), node.place.line, "the importer knows no pods of that kind");
            }
        }
    }
}

/// The labels under a key of a section.
fn labels(section: Option<Section>, key: &str, report: &mut Report) -> Result<Vec<(String, String)>, Problem> {
    let mut labels = Vec::new();
    let Some(mut section) = section else { return Ok(labels) };
    if let Some(inner) = section.section(key)? {
        for (name, node) in inner.into_rest().1 {
            let value = node.scalar().unwrap_or_default();
            labels.push((name.replace('\0', "\u{fffd}"), value));
        }
    }
    report.rest(section);
    Ok(labels)
}

fn of_container(mut section: Section, report: &mut Report) -> Result<Task, Problem> {
    report.carried_key(&mut section, "name", "a task is one container, and is called by its id");
    let mut task = Task {
        image: section.text("image")?,
        entrypoint: section.texts("command")?,
        arguments: section.texts("args")?,
        ..Task::default()
    };
    if let Some(mut resources) = section.section("resources")? {
        if let Some(mut requests) = resources.section("requests")? {
            task.cpu_request = positive(&mut requests, "cpu")?;
            task.memory_request = positive(&mut requests, "memory")?;
            report.rest(requests);
        }
        if let Some(mut limits) = resources.section("limits")? {
            task.cpu_limit = positive(&mut limits, "cpu")?;
            task.memory_limit = positive(&mut limits, "memory")?;
            report.rest(limits);
        }
        report.rest(resources);
    }
    // What is limited and asks for nothing asks for its limit.
    task.cpu_request = task.cpu_request.or(task.cpu_limit);
    task.memory_request = task.memory_request.or(task.memory_limit);
    let path = section.at("env");
    for node in section.list("env")? {
        let line = node.place.line;
        let mut variable = Section::new(node, path.clone())?;
        let name = variable.needed("name", "a variable's name")?;
        match variable.text("value")? {
            Some(value) => task.env.push((name, value)),
            None => {
                report.lost(
                    format!("{path}: {name}"),
                    line,
                    "its value is not in the manifest; set it in workload.env",
                );
            }
        }
    }
    let path = section.at("ports");
    for node in section.list("ports")? {
        let mut port = Section::new(node, path.clone())?;
        let name = port.text("name")?;
        let inside = port.whole("containerPort")?.ok_or_else(|| port.missing("containerPort", "a port"))?;
        if let Some(node) = port.take("protocol")
            && node.scalar().as_deref() != Some("TCP")
        {
            report.lost_value(&port.at("protocol"), &node, "the port is one of TCP; `workload.ports` says otherwise");
        }
        task.ports.push((name.unwrap_or_else(|| format!("port{inside}")), inside));
        report.rest(port);
    }
    if let Some(node) = section.take("imagePullPolicy") {
        task.pull = match node.scalar().as_deref() {
            Some("IfNotPresent") => Some("missing"),
            Some("Always") => Some("always"),
            Some("Never") => Some("never"),
            _ => {
                report.lost_value(&section.at("imagePullPolicy"), &node, "expected Always, IfNotPresent or Never");
                None
            }
        };
    }
    report.rest(section);
    Ok(task)
}

/// A metric's name and selector as PromQL: names are letters, digits, `_` and `:` there.
pub(super) fn promql(name: &str, selector: Option<Section>, report: &mut Report) -> Result<String, Problem> {
    let series = |text: &str| -> String {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        text.chars().map(|c| if known(c) { c } else { '_' }).collect()
    };
    let mut matchers = Vec::new();
    if let Some(mut selector) = selector {
        if let Some(labels) = selector.section("matchLabels")? {
            for (label, node) in labels.into_rest().1 {
                let value = node.text(&label)?;
                matchers.push(format!("{}={}", series(&label).replace(':', "_"), quoted(&value)));
            }
        }
        report.rest(selector);
    }
    let name = series(name);
    let name = if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name };
    Ok(if matchers.is_empty() { name } else { format!("{name}{{{}}}", matchers.join(",")) })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The name and namespace of an object; the rest of its metadata has no counterpart.
pub(super) fn metadata(root: &mut Section, report: &mut Report) -> Result<(Option<String>, String), Problem> {
    for key in ["apiVersion", "kind", "status"] {
        root.take(key);
    }
    let Some(mut metadata) = root.section("metadata")? else { return Ok((None, "default".to_owned())) };
    let name = metadata.text("name")?;
    let namespace = metadata.text("namespace")?.unwrap_or_else(|| "default".to_owned());
    for key in ["creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"] {
        // What the server writes into its answers.
        metadata.take(key);
    }
    report.rest(metadata);
    Ok((name, namespace))
}
