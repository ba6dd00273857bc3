//! What became of the input: carried over, left to be filled in, or lost.

use super::tree::{Node, Section};

/// Most leftover keys of one section that are told one by one.
const MOST: usize = 40;

/// Longest part of a lost value that is shown, in characters.
const SHOWN: usize = 80;

/// What became of the input.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What has its counterpart in the policy.
    pub carried: Vec<Carried>,
    /// What has none.
    pub lost: Vec<Lost>,
    /// What the input could not say, and the user has to.
    pub fill_in: Vec<String>,
}

/// Something that was carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its path in the input.
    pub from: String,
    /// What it is in the policy.
    pub to: String,
}

/// Something that was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its path in the input, with its value where it is short.
    pub what: String,
    /// Its line; 0 where there is none.
    pub line: usize,
    /// Why, and what to do instead.
    pub why: String,
}

impl Report {
    pub(super) fn carried(&mut self, from: impl Into<String>, to: impl Into<String>) {
        self.carried.push(Carried { from: from.into(), to: to.into() });
    }

    pub(super) fn lost(&mut self, what: impl Into<String>, line: usize, why: impl Into<String>) {
        self.lost.push(Lost { what: what.into(), line, why: why.into() });
    }

    pub(super) fn fill_in(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.fill_in.contains(&what) {
            self.fill_in.push(what);
        }
    }

    /// A value that has no counterpart.
    pub(super) fn lost_value(&mut self, path: &str, node: &Node, why: impl Into<String>) {
        self.lost(format!("{path} = {}", shortened(&node.compact())), node.place.line, why);
    }

    /// A key that is known and has no counterpart, if it is there.
    pub(super) fn lost_key(&mut self, section: &mut Section, key: &str, why: &str) {
        if let Some(node) = section.take(key) {
            self.lost_value(&section.at(key), &node, why);
        }
    }

    /// A key that needs no word of its own in the policy, if it is there: what is said of it.
    pub(super) fn carried_key(&mut self, section: &mut Section, key: &str, to: &str) {
        if section.take(key).is_some() {
            self.carried(section.at(key), to);
        }
    }

    /// Whatever of a section nobody has asked for.
    pub(super) fn rest(&mut self, section: Section) {
        let (path, entries) = section.into_rest();
        let more = entries.len().saturating_sub(MOST);
        for (key, node) in entries.iter().take(MOST) {
            self.lost_value(&join(&path, key), node, "not known to the importer");
        }
        if more > 0 {
            self.lost(format!("{more} more keys of {path}"), entries[MOST].1.place.line, "not known to the importer");
        }
    }
}

/// A key below a path.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}
