//! HCL to trees: attributes are keys, and each block is a key's value with its labels under `__labels`.
//!
//! Expressions are not evaluated: what is not a plain value becomes the text that it was written as.

use hcl_edit::Span;
use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::structure::{Body, Structure};

use super::error::Problem;
use super::tree::{Node, Place, Value};

/// The key of a block's labels; not an identifier that HCL could have.
pub(super) const LABELS: &str = "(labels)";

/// The body of a file as a mapping. Blocks of one name are several entries of one key.
pub(super) fn document(text: &str) -> Result<Node, Problem> {
    let body = hcl_edit::parser::parse_body(text).map_err(|error| {
        let place = Place::of_byte(text, error.location().offset());
        Problem::at(place, format!("expected HCL, got a text that is not: {}", error.message()))
    })?;
    Ok(of_body(text, &body, Place { line: 1, column: 1 }))
}

fn place(text: &str, span: Option<std::ops::Range<usize>>, outer: Place) -> Place {
    span.map_or(outer, |span| Place::of_byte(text, span.start))
}

fn of_body(text: &str, body: &Body, outer: Place) -> Node {
    let mut entries = Vec::new();
    for structure in body {
        match structure {
            Structure::Attribute(attribute) => {
                let place = place(text, attribute.key.span(), outer);
                entries.push((attribute.key.as_str().to_owned(), of_expression(text, &attribute.value, place)));
            }
            Structure::Block(block) => {
                let place = place(text, block.ident.span(), outer);
                let mut node = of_body(text, &block.body, place);
                let label = |label: &hcl_edit::structure::BlockLabel| Node {
                    place,
                    value: Value::Text(label.as_str().to_owned()),
                };
                if let Value::Map(inner) = &mut node.value
                    && !block.labels.is_empty()
                {
                    let labels = Value::List(block.labels.iter().map(label).collect());
                    inner.insert(0, (LABELS.to_owned(), Node { place, value: labels }));
                }
                entries.push((block.ident.as_str().to_owned(), node));
            }
        }
    }
    Node { place: outer, value: Value::Map(entries) }
}

fn of_expression(text: &str, expression: &Expression, outer: Place) -> Node {
    let place = place(text, expression.span(), outer);
    let value = match expression {
        Expression::Null(_) => Value::Null,
        Expression::Bool(value) => Value::Bool(*value.value()),
        Expression::Number(number) => number.as_f64().map_or(Value::Null, Value::Number),
        Expression::String(value) => Value::Text(value.as_str().to_owned()),
        Expression::Array(items) => Value::List(items.iter().map(|item| of_expression(text, item, place)).collect()),
        Expression::Object(object) => Value::Map(
            object
                .iter()
                .map(|(key, value)| {
                    let name = match key {
                        ObjectKey::Ident(ident) => ident.as_str().to_owned(),
                        ObjectKey::Expression(Expression::String(text)) => text.as_str().to_owned(),
                        ObjectKey::Expression(other) => other.to_string().trim().to_owned(),
                    };
                    (name, of_expression(text, value.expr(), place))
                })
                .collect(),
        ),
        Expression::HeredocTemplate(heredoc) => Value::Text(heredoc.template.to_string().trim_end().to_owned()),
        other => Value::Text(other.to_string().trim().trim_matches('"').to_owned()),
    };
    Node { place, value }
}
