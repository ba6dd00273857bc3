//! YAML and JSON (which is YAML) to trees, document by document.
//!
//! Hostile documents end in an error, not in an exhausted machine: depth and the number of nodes are limited, where a
//! node that an alias repeats counts each time.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::error::Problem;
use super::tree::{Node, Place, Value};

/// Deepest nesting.
const DEEPEST: usize = 64;

/// Most nodes of all documents, those that aliases repeat included.
const MOST: usize = 100_000;

/// The documents of a text; empty ones are left out.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, Problem> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|error| {
            let (place, info) = (place_of(*error.marker()), error.info());
            Problem::at(place, format!("expected YAML or JSON, got a text that is neither: {info}"))
        })?;
        builder.event(event, place(span))?;
    }
    Ok(builder.documents)
}

fn place(span: Span) -> Place {
    place_of(span.start)
}

fn place_of(marker: saphyr_parser::Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A collection that is being read.
struct Open {
    place: Place,
    anchor: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    /// Entries, and the key that waits for its value.
    Map(Vec<(String, Node)>, Option<String>),
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                self.count(place, 1)?;
                let value = scalar(&text, style);
                self.add(Node { place, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(place, anchor, Items::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(place, anchor, Items::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { place, anchor, items }) = self.open.pop() else { return Ok(()) };
                let value = match items {
                    Items::List(items) => Value::List(items),
                    Items::Map(entries, _) => Value::Map(entries),
                };
                self.add(Node { place, value }, anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err(Problem::at(place, "expected an anchor that has ended before its alias, got none"));
                };
                let (node, size) = (node.clone(), *size);
                self.count(place, size)?;
                self.add(Node { place, value: node.value }, 0)
            }
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    /// Counts before anything is kept, so that the limit holds for what is to come.
    fn count(&mut self, place: Place, nodes: usize) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MOST {
            return Err(Problem::at(place, format!("expected at most {MOST} values, aliases counted, got more")));
        }
        Ok(())
    }

    fn open(&mut self, place: Place, anchor: usize, items: Items) -> Result<(), Problem> {
        self.count(place, 1)?;
        if self.open.len() == DEEPEST {
            return Err(Problem::at(place, format!("expected at most {DEEPEST} levels of nesting, got more")));
        }
        self.open.push(Open { place, anchor, items });
        Ok(())
    }

    /// Puts a node where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if anchor != 0 {
            let (size, depth) = measure(&node);
            if depth + self.open.len() > DEEPEST {
                return Err(Problem::at(node.place, format!("expected at most {DEEPEST} levels of nesting, got more")));
            }
            // What an anchor keeps is a copy.
            self.count(node.place, size)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut() {
            None if matches!(node.value, Value::Null) => {}
            None => self.documents.push(node),
            Some(Open { items: Items::List(items), .. }) => items.push(node),
            Some(Open { items: Items::Map(entries, waiting), .. }) => match waiting.take() {
                None => {
                    let Some(key) = node.scalar() else {
                        let got = node.described();
                        return Err(Problem::at(node.place, format!("expected a key that is text, got {got}")));
                    };
                    if entries.iter().any(|(other, _)| *other == key) {
                        return Err(Problem::at(node.place, format!("expected each key once, got `{key}` twice")));
                    }
                    *waiting = Some(key);
                }
                Some(key) => entries.push((key, node)),
            },
        }
        Ok(())
    }
}

/// How many nodes there are in one, and how deep they are.
fn measure(node: &Node) -> (usize, usize) {
    let fold = |(size, depth): (usize, usize), node: &Node| {
        let (more, deeper) = measure(node);
        (size + more, depth.max(deeper))
    };
    let (size, depth) = match &node.value {
        Value::List(items) => items.iter().fold((0, 0), fold),
        Value::Map(entries) => entries.iter().map(|(_, node)| node).fold((0, 0), fold),
        _ => (0, 0),
    };
    (size + 1, depth + 1)
}

/// A scalar by YAML 1.2's core schema; what is quoted is text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => {
            let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
                && text.bytes().any(|byte| byte.is_ascii_digit());
            match text.parse::<f64>() {
                // A number that does not come out as it was written (an id, a version) is text.
                Ok(number) if numeric && number.is_finite() && faithful(text, number) => Value::Number(number),
                _ => Value::Text(text.to_owned()),
            }
        }
    }
}

fn faithful(text: &str, number: f64) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let padded = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    !padded && number.abs() < 9e15
}
