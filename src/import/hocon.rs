//! The part of HOCON that settings files of gocd-mesos use: objects, dotted keys, `=` and `:`, quoted and bare values,
//! lists, comments. Substitutions (`${NAME}`) stay as they are written; `include` is not known.

use super::error::Problem;
use super::tree::{Node, Place, Value};

/// Deepest nesting.
const DEEPEST: usize = 64;

/// The document as a mapping. Keys with dots are nested; of a key that is given twice the later value counts, and objects
/// are merged.
pub(super) fn document(text: &str) -> Result<Node, Problem> {
    let mut reader = Reader { text, chars: text.char_indices().collect(), at: 0 };
    reader.blank(true);
    let braced = reader.take('{');
    let entries = reader.entries(braced, 0)?;
    reader.blank(true);
    if reader.peek().is_some() {
        return Err(reader.wrong("the end of the text"));
    }
    Ok(Node { place: Place { line: 1, column: 1 }, value: Value::Map(entries) })
}

struct Reader<'a> {
    text: &'a str,
    chars: Vec<(usize, char)>,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).map(|(_, c)| *c)
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    fn place(&self) -> Place {
        Place::of_byte(self.text, self.chars.get(self.at).map_or(self.text.len(), |(byte, _)| *byte))
    }

    fn wrong(&self, expected: &str) -> Problem {
        let got = self.peek().map_or_else(|| "the end of the text".to_owned(), |c| format!("{c:?}"));
        Problem::at(self.place(), format!("expected {expected}, got {got}"))
    }

    /// Skips blanks and comments; commas too where `separators`.
    fn blank(&mut self, separators: bool) {
        while let Some(c) = self.peek() {
            let comment = c == '#' || (c == '/' && self.chars.get(self.at + 1).is_some_and(|(_, c)| *c == '/'));
            if comment {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else if c.is_whitespace() || c == '\u{feff}' || (separators && c == ',') {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn entries(&mut self, braced: bool, depth: usize) -> Result<Vec<(String, Node)>, Problem> {
        if depth == DEEPEST {
            return Err(self.wrong("at most 64 levels of nesting"));
        }
        let mut entries = Vec::new();
        loop {
            self.blank(true);
            if self.peek().is_none() && !braced {
                return Ok(entries);
            }
            if braced && self.take('}') {
                return Ok(entries);
            }
            let place = self.place();
            let path = self.key()?;
            self.blank(false);
            let value = if self.peek() == Some('{') {
                self.value(depth)?
            } else if self.take('=') || self.take(':') {
                self.blank(false);
                self.value(depth)?
            } else {
                return Err(self.wrong("`=`, `:` or `{` after a key"));
            };
            merge(&mut entries, &path, value, place);
        }
    }

    /// A key: words and quoted texts with dots between them.
    fn key(&mut self) -> Result<Vec<String>, Problem> {
        let mut path = Vec::new();
        loop {
            let part = if self.peek() == Some('"') {
                self.quoted()?
            } else {
                let begin = self.at;
                while self.peek().is_some_and(|c| c.is_alphanumeric() || matches!(c, '-' | '_')) {
                    self.at += 1;
                }
                self.chars[begin..self.at].iter().map(|(_, c)| *c).collect()
            };
            if part.is_empty() || path.len() == DEEPEST / 2 {
                return Err(self.wrong("a key"));
            }
            path.push(part);
            if !self.take('.') {
                return Ok(path);
            }
        }
    }

    fn quoted(&mut self) -> Result<String, Problem> {
        let place = self.place();
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.peek() else {
                return Err(Problem::at(place, "expected a closing \", got the end of the text"));
            };
            self.at += 1;
            match c {
                '"' => return Ok(text),
                '\\' => {
                    match self.peek() {
                        Some('n') => text.push('\n'),
                        Some('t') => text.push('\t'),
                        Some('r') => text.push('\r'),
                        Some(other) => text.push(other),
                        None => {}
                    }
                    self.at += 1;
                }
                c => text.push(c),
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, Problem> {
        let place = self.place();
        let value = match self.peek() {
            Some('{') => {
                self.at += 1;
                Value::Map(self.entries(true, depth + 1)?)
            }
            Some('[') => {
                self.at += 1;
                Value::List(self.items(depth + 1)?)
            }
            Some('"') => Value::Text(self.quoted()?),
            _ => bare(&self.line()),
        };
        Ok(Node { place, value })
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        if depth == DEEPEST {
            return Err(self.wrong("at most 64 levels of nesting"));
        }
        let mut items = Vec::new();
        loop {
            self.blank(true);
            if self.take(']') {
                return Ok(items);
            }
            if matches!(self.peek(), None | Some('}' | '=' | ':')) {
                return Err(self.wrong("a value or `]`"));
            }
            items.push(self.value(depth)?);
        }
    }

    /// The rest of a bare value, up to what ends it.
    fn line(&mut self) -> String {
        let begin = self.at;
        let mut braces = 0_usize;
        while let Some(c) = self.peek() {
            let before = self.at.checked_sub(1).and_then(|at| self.chars.get(at)).map(|(_, c)| *c);
            match c {
                '{' if before == Some('$') => braces += 1,
                '}' if braces > 0 => braces -= 1,
                '\n' | ',' | '}' | ']' | '#' | '{' | '[' => break,
                // An address has slashes in it; a comment has a blank before them.
                '/' if before.is_some_and(char::is_whitespace)
                    && self.chars.get(self.at + 1).is_some_and(|(_, c)| *c == '/') =>
                {
                    break;
                }
                _ => {}
            }
            self.at += 1;
        }
        // A character that nothing can begin with would stop the reading for good.
        if begin == self.at && self.peek().is_some_and(|c| !matches!(c, '\n' | ',' | '}' | ']' | '#')) {
            self.at += 1;
        }
        let text: String = self.chars[begin..self.at].iter().map(|(_, c)| *c).collect();
        text.trim().to_owned()
    }
}

fn bare(text: &str) -> Value {
    match text {
        "" | "null" => Value::Null,
        "true" | "yes" | "on" => Value::Bool(true),
        "false" | "no" | "off" => Value::Bool(false),
        _ => match text.parse::<f64>() {
            Ok(number) if number.is_finite() && text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                Value::Number(number)
            }
            _ => Value::Text(text.to_owned()),
        },
    }
}

/// Puts a value where its path leads.
fn merge(entries: &mut Vec<(String, Node)>, path: &[String], node: Node, place: Place) {
    let Some((first, rest)) = path.split_first() else { return };
    let at = entries.iter().position(|(key, _)| key == first);
    if rest.is_empty() {
        match (at, node.value) {
            (Some(at), Value::Map(more)) if matches!(entries[at].1.value, Value::Map(_)) => {
                if let Value::Map(inner) = &mut entries[at].1.value {
                    for (key, node) in more {
                        let place = node.place;
                        merge(inner, &[key], node, place);
                    }
                }
            }
            (Some(at), value) => entries[at].1 = Node { place: node.place, value },
            (None, value) => entries.push((first.clone(), Node { place: node.place, value })),
        }
        return;
    }
    let at = at.unwrap_or_else(|| {
        entries.push((first.clone(), Node { place, value: Value::Map(Vec::new()) }));
        entries.len() - 1
    });
    if !matches!(entries[at].1.value, Value::Map(_)) {
        entries[at].1.value = Value::Map(Vec::new());
    }
    if let Value::Map(inner) = &mut entries[at].1.value {
        merge(inner, rest, node, place);
    }
}

#[cfg(test)]
mod tests {
    use super::document;

    #[test]
    fn the_forms_that_settings_have() {
        let text = "a { b = 1, c: \"x // y\" // no\n d.e = http://h:1/p # why\n}\na.b = 2\nf = [1, two\n\"three\"]\ng = ${?HOME}/x";
        let node = document(text).unwrap();
        assert_eq!(
            node.compact(),
            r#"{a: {b: 2, c: "x // y", d: {e: "http://h:1/p"}}, f: [1,"two","three"], g: "${?HOME}/x"}"#
        );
        for wrong in ["a {", "a = \"x", "= 3", "a b", "a = [1", "}"] {
            assert!(document(wrong).is_err(), "{wrong}");
        }
    }
}
