//! Rust source as the architecture rules see it: code without comments, literals and tests, and the paths in it.
//!
//! A scanner, not a parser: it knows enough of the language to tell code from text and to follow `use` trees.

/// One source file.
#[derive(Debug)]
pub(super) struct Source {
    /// From the package's root, with slashes: `src/core/law/mod.rs`.
    pub(super) path: String,
    /// The file as it is.
    pub(super) text: String,
    /// The same length, with comments, literals and `#[cfg(test)]` items blanked out.
    pub(super) code: String,
    /// Where its `#[cfg(test)] mod name;` lie, without the extension.
    pub(super) test_modules: Vec<String>,
}

/// A path that the code names, resolved: `crate::core::model::Sample`, `std::env::var`, `mlua::Lua`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) line: usize,
    pub(super) path: String,
}

impl Source {
    pub(super) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let code = without_literals(&text);
        let test_modules = test_modules(&path, &code);
        let code = without_tests(&code);
        Self { path, text, code, test_modules }
    }

    /// The line, from 1, of a byte offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    /// Whether it lies in `folder`, or is that file, with or without its extension.
    pub(super) fn is_in(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
    }

    /// Every macro that it calls, as `println!`.
    pub(super) fn macros(&self) -> Vec<Named> {
        let tokens = tokens(&self.code);
        let calls = tokens.windows(2).filter(|pair| is_ident(pair[0].1) && pair[1].1 == "!");
        calls.map(|pair| Named { line: self.line(pair[0].0), path: format!("{}!", pair[0].1) }).collect()
    }

    /// Every path of two segments or more, and every bare `use`.
    pub(super) fn paths(&self) -> Vec<Named> {
        let tokens = tokens(&self.code);
        let mut paths = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let in_use = at > 0 && tokens[at - 1].1 == "use";
            // What follows a dot is a field or a method.
            if !is_ident(tokens[at].1) || (at > 0 && tokens[at - 1].1 == ".") {
                at += 1;
                continue;
            }
            let line = self.line(tokens[at].0);
            let mut found = Vec::new();
            at = tree(&tokens, at, "", &mut found);
            let named = found.into_iter().filter(|path| in_use || path.contains("::"));
            paths.extend(named.map(|path| Named { line, path: self.resolve(&path) }));
        }
        paths
    }

    /// Turns `self::` and `super::` into `crate::`.
    fn resolve(&self, path: &str) -> String {
        let mut module = self.module();
        let mut rest = path.split("::").peekable();
        match rest.peek() {
            Some(&"self") => drop(rest.next()),
            Some(&"super") => {}
            _ => return path.to_owned(),
        }
        while rest.peek() == Some(&"super") {
            rest.next();
            module.pop();
        }
        module.extend(rest);
        module.join("::")
    }

    /// The segments of its module: `src/core/law/mod.rs` is `crate`, `core`, `law`.
    fn module(&self) -> Vec<&str> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let path = path.strip_suffix(".rs").unwrap_or(path);
        let inner = path.split('/').filter(|segment| !matches!(*segment, "mod" | "lib" | "main"));
        std::iter::once("crate").chain(inner).collect()
    }
}

/// Reads one path or use tree from `tokens[at]` and gives the index after it.
fn tree(tokens: &[(usize, &str)], mut at: usize, prefix: &str, found: &mut Vec<String>) -> usize {
    let token = |at: usize| tokens.get(at).map_or("", |token| token.1);
    let mut path = prefix.to_owned();
    loop {
        match token(at) {
            "{" => {
                at += 1;
                while !matches!(token(at), "}" | "") {
                    at = if token(at) == "," { at + 1 } else { tree(tokens, at, &path, found) };
                }
                return at + 1;
            }
            segment if is_ident(segment) || segment == "*" => {
                if !path.is_empty() {
                    path.push_str("::");
                }
                path.push_str(segment);
                at += 1;
            }
            // Not a path after all; never stand still.
            _ => return at + 1,
        }
        if token(at) != "::" || token(at + 1) == "<" {
            // In a tree, `as name` belongs to the branch.
            if token(at) == "as" && !prefix.is_empty() {
                at += 2;
            }
            found.push(path);
            return at;
        }
        at += 1;
    }
}

fn is_ident(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Identifiers, `::`, and every other character that is not a blank, each with its offset.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = code[at..].chars().next() {
        let rest = &code[at..];
        let length = if c.is_alphanumeric() || c == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        if !c.is_whitespace() {
            tokens.push((at, &rest[..length]));
        }
        at += length;
    }
    tokens
}

/// Blanks comments, strings and characters, byte for byte.
fn without_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let length = literal(rest, code.chars().next_back());
        match length {
            Some(length) => blank(&rest[..length], &mut code),
            None => code.extend(rest.chars().next()),
        }
        at = if length.is_some() { at + length.unwrap_or_default() } else { code.len() };
    }
    code
}

/// The length of the comment or literal that `rest` begins with.
fn literal(rest: &str, before: Option<char>) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')).filter(|_| !in_word);
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let opened = rest.len() - raw.len() + hashes + 1;
            return Some(rest[opened..].find(&end).map_or(rest.len(), |found| opened + found + end.len()));
        }
    }
    if rest.starts_with('"') {
        return Some(quoted(rest, '"'));
    }
    // `'a'` and `'\n'` are characters, `'a` alone is a lifetime.
    let mut chars = rest.strip_prefix('\'')?.chars();
    match (chars.next()?, chars.next()) {
        ('\\', _) | (_, Some('\'')) => Some(quoted(rest, '\'')),
        _ => None,
    }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (offset, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return offset + 1,
            _ => {}
        }
    }
    rest.len()
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn blank(text: &str, into: &mut String) {
    into.extend(text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
}

/// The files or folders, without an extension, of modules that only tests have.
fn test_modules(path: &str, code: &str) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = match file.trim_end_matches(".rs") {
        "mod" | "lib" | "main" => folder.to_owned(),
        own => format!("{folder}/{own}"),
    };
    let after = code.split("#[cfg(test)]").skip(1).filter_map(|item| item.split_once(';'));
    let names = after.filter_map(|(item, _)| item.trim().rsplit_once("mod ").map(|(_, name)| name));
    names.filter(|name| is_ident(name) && !name.contains('{')).map(|name| format!("{folder}/{name}")).collect()
}

/// Blanks what `#[cfg(test)]` stands before.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(start);
        let end = match item.find(['{', ';']) {
            Some(open) if item[open..].starts_with('{') => open + block(&item[open..]),
            Some(end) => end + 1,
            None => item.len(),
        };
        kept.push_str(before);
        blank(&item[..end], &mut kept);
        rest = &item[end..];
    }
    kept + rest
}

/// The length of the block that `rest` begins with.
fn block(rest: &str) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return offset + 1;
        }
    }
    rest.len()
}

#[test]
fn code_is_told_from_text() {
    let source = Source::new(
        "src/core/law/mod.rs",
        concat!(
            "//! std::fs in a comment\n",
            "use super::{model::{Sample, Counts as C}, time};\n",
            "/* /* nested */ std::net */ const A: &str = r#\"std::env \"quoted\" \"#;\n",
            "fn f<'a>(x: &'a str) -> char { self::g::h(); x.std::<u8>(); '\"' }\n",
            "use mlua;\n",
            "#[cfg(test)]\nmod tests { use tempfile::tempdir; fn g() { {} } }\n",
            "fn last() { Vec::<u8>::new(); println!(\"{}\", std::env::args()); }\n",
        ),
    );
    let paths: Vec<_> = source.paths().into_iter().map(|named| (named.line, named.path)).collect();
    let expected = [
        (2, "crate::core::model::Sample"),
        (2, "crate::core::model::Counts"),
        (2, "crate::core::time"),
        (4, "crate::core::law::g::h"),
        (5, "mlua"),
        (8, "std::env::args"),
    ];
    assert_eq!(paths, expected.map(|(line, path)| (line, path.to_owned())));
    assert_eq!(source.macros(), [Named { line: 8, path: "println!".to_owned() }]);
    assert_eq!(source.code.len(), source.text.len());
    let source =
        Source::new("src/a/mod.rs", "#[cfg(test)]\npub(crate) mod testing;\n#[cfg(test)]\nmod inline { a; }\nmod b;");
    assert_eq!(source.test_modules, ["src/a/testing"]);
    assert!(Source::new("src/a/testing.rs", "").is_in("src/a/testing"));
}
