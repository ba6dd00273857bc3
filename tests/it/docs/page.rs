//! The fenced blocks of a Markdown page, and what the words behind their languages say.
//!
//! | words | meaning |
//! |---|---|
//! | `sh` | the commands are run, one after the other, in the page's folder |
//! | `sh exit=78` | the last one ends with this code |
//! | `sh needs=redis` | the page is given that service |
//! | `sh not-run="why"` | they cannot be run by a test |
//! | `lua file=NAME`, or any language | the text is written there first; a policy must `check` without a warning |
//! | `lua module file=NAME` | likewise, but it is no policy of its own |
//! | `lua fields` | keys of a policy's table; with what they lack they must `check` |
//! | `toml` | the host's configuration must take it; `toml cargo` is part of a Cargo.toml |
//! | `text` after `sh` | what that prints: `…` is anything within a line, a line of it any lines |

use std::collections::BTreeMap;

/// The languages that blocks may have.
const LANGUAGES: [&str; 8] = ["sh", "lua", "toml", "text", "ini", "yaml", "csv", "python"];

/// One fenced block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The line of its fence, from 1.
    pub(super) line: usize,
    pub(super) language: String,
    /// What stands behind the language, flags with an empty value.
    words: BTreeMap<String, String>,
    pub(super) text: String,
}

impl Block {
    /// The value of a word.
    pub(super) fn word(&self, name: &str) -> Option<&str> {
        self.words.get(name).map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.words.contains_key(name)
    }
}

/// The blocks of a page, in order.
pub(super) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in page.lines().enumerate() {
        match &mut open {
            Some(block) if line.trim_end() == "```" => {
                blocks.push(block.clone());
                open = None;
            }
            Some(block) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {
                if let Some(info) = line.strip_prefix("```") {
                    open = Some(opened(index + 1, info));
                }
            }
        }
    }
    assert!(open.is_none(), "the block of line {} is not closed", open.unwrap().line);
    blocks
}

fn opened(line: usize, info: &str) -> Block {
    let mut words = BTreeMap::new();
    let mut rest = info.trim();
    let (language, behind) = rest.split_once(' ').unwrap_or((rest, ""));
    assert!(LANGUAGES.contains(&language), "line {line}: a block without a language that is known: `{info}`");
    rest = behind.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let name = rest[..end].to_owned();
        rest = &rest[end..];
        let value = if let Some(quoted) = rest.strip_prefix("=\"") {
            let (value, behind) = quoted.split_once('"').expect("a quote that is closed");
            rest = behind;
            value
        } else {
            let value = rest.strip_prefix('=').map_or("", |rest| rest.split(' ').next().unwrap_or(rest));
            rest = if value.is_empty() { rest } else { &rest[1 + value.len()..] };
            value
        };
        let known = ["file", "exit", "needs", "not-run", "module", "fields", "cargo"];
        assert!(known.contains(&name.as_str()), "line {line}: `{name}` means nothing here");
        words.insert(name, value.to_owned());
        rest = rest.trim_start();
    }
    Block { line, language: language.to_owned(), words, text: String::new() }
}

/// Whether `got` is `expected`, in which `…` stands for anything within a line and a line of it for any lines.
pub(super) fn is_like(expected: &str, got: &str) -> bool {
    let expected: Vec<&str> = expected.lines().map(str::trim_end).collect();
    let got: Vec<&str> = got.lines().map(str::trim_end).collect();
    lines_are_like(&expected, &got)
}

fn lines_are_like(expected: &[&str], got: &[&str]) -> bool {
    match expected.split_first() {
        None => got.is_empty(),
        Some((first, rest)) if first.trim() == "…" => (0..=got.len()).any(|skip| lines_are_like(rest, &got[skip..])),
        Some((first, rest)) => {
            got.split_first().is_some_and(|(line, behind)| line_is_like(first, line) && lines_are_like(rest, behind))
        }
    }
}

fn line_is_like(expected: &str, got: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = got.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[test]
fn blocks_and_their_words_are_read() {
    let page = "# A\n\n```sh needs=redis exit=1\na\nb\n```\n\n```lua module file=lib/x.lua\n```\n\
                ```sh not-run=\"needs a real host\"\nc\n```\n";
    let blocks = blocks(page);
    let told: Vec<_> = blocks.iter().map(|block| (block.line, block.language.as_str(), block.text.as_str())).collect();
    assert_eq!(told, [(3, "sh", "a\nb\n"), (8, "lua", ""), (10, "sh", "c\n")]);
    assert_eq!((blocks[0].word("needs"), blocks[0].word("exit")), (Some("redis"), Some("1")));
    assert!(blocks[1].has("module"));
    assert_eq!(blocks[1].word("file"), Some("lib/x.lua"));
    assert_eq!(blocks[2].word("not-run"), Some("needs a real host"));
}

#[test]
fn dots_stand_for_anything_and_nothing_else_does() {
    assert!(is_like("a … c\n", "a b c\n"));
    assert!(is_like("…\nend …\n", "one\ntwo\nend 7\n"));
    assert!(is_like("…\n", ""));
    assert!(is_like("x=…, y=… z\n", "x=1, y=2, y=3 z\n"));
    assert!(!is_like("a … c\n", "a b d\n"));
    assert!(!is_like("a\n", "a\nb\n"));
    assert!(!is_like("a\n…b\n", "a\n"));
}
