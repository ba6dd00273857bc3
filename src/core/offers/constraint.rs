//! Constraints on an agent's attributes.

use std::collections::BTreeMap;
use std::fmt;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};

/// The name under which an agent's host name is an attribute.
pub(super) const HOSTNAME: &str = "hostname";

/// An agent's attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attribute {
    /// A word.
    Text(String),
    /// A number.
    Scalar(f64),
    /// Numbers, as ranges with both ends included.
    Ranges(Vec<(u64, u64)>),
}

impl Attribute {
    /// The value as constraints compare and count it.
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Scalar(number) => number.to_string(),
            Self::Ranges(ranges) => {
                let ranges: Vec<String> = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
                format!("[{}]", ranges.join(","))
            }
        }
    }

    fn equals(&self, wanted: &str) -> bool {
        match self {
            Self::Text(text) => text == wanted,
            Self::Scalar(number) => wanted.parse() == Ok(*number),
            Self::Ranges(ranges) => {
                let within = |number: u64| ranges.iter().any(|(first, last)| (*first..=*last).contains(&number));
                wanted.parse().is_ok_and(within) || self.text() == wanted
            }
        }
    }
}

/// The attributes of one agent; a name may be there more than once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attributes(Vec<(String, Attribute)>);

impl Attributes {
    /// Attributes of an agent; its host name is one of them, unless the cluster gives that name to something else.
    #[must_use]
    pub fn new(hostname: &str, attributes: impl IntoIterator<Item = (String, Attribute)>) -> Self {
        let mut all: Vec<_> = attributes.into_iter().collect();
        if !all.iter().any(|(name, _)| name == HOSTNAME) {
            all.push((HOSTNAME.to_owned(), Attribute::Text(hostname.to_owned())));
        }
        Self(all)
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Attribute> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value)
    }

    /// The value that tasks are counted by.
    pub(super) fn group(&self, name: &str) -> Option<String> {
        self.values(name).next().map(Attribute::text)
    }
}

/// A regular expression that has been compiled; it has to match the whole value.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    compiled: Regex,
}

/// A text that is no regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPattern(String);

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadPattern {}

impl Pattern {
    /// Compiles a regular expression.
    ///
    /// # Errors
    /// A text that is none.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        // Compiled by itself first, so that what is wrong is told of the text as it was given.
        Regex::new(text).map_err(|error| BadPattern(error.to_string()))?;
        let compiled = Regex::new(&format!("^(?:{text})$")).map_err(|error| BadPattern(error.to_string()))?;
        Ok(Self { text: text.to_owned(), compiled })
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl TryFrom<String> for Pattern {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<Self, BadPattern> {
        Self::new(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

/// What an attribute has to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// This value.
    Equal(String),
    /// Not this value; an agent without the attribute will do.
    NotEqual(String),
    /// One of these.
    In(Vec<String>),
    /// A value that this matches as a whole.
    Matches(Pattern),
    /// A value that no other task of the policy has.
    Unique,
    /// Tasks are spread evenly over the values; with a number, over at least so many of them.
    GroupBy(Option<u32>),
}

/// A constraint on one attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Constraint {
    /// The attribute's name; `hostname` is the agent's host name.
    pub attribute: String,
    /// What it has to be.
    pub rule: Rule,
}

impl Constraint {
    /// Whether an agent may be used at all. What depends on where other tasks are is not looked at.
    pub(super) fn allows(&self, attributes: &Attributes) -> bool {
        let mut values = attributes.values(&self.attribute);
        match &self.rule {
            Rule::Equal(wanted) => values.any(|value| value.equals(wanted)),
            Rule::NotEqual(wanted) => !values.any(|value| value.equals(wanted)),
            Rule::In(wanted) => values.any(|value| wanted.iter().any(|wanted| value.equals(wanted))),
            Rule::Matches(pattern) => values.any(|value| pattern.compiled.is_match(&value.text())),
            Rule::Unique | Rule::GroupBy(_) => values.next().is_some(),
        }
    }

    /// Whether it depends on where other tasks are.
    pub(super) const fn counts(&self) -> bool {
        matches!(self.rule, Rule::Unique | Rule::GroupBy(_))
    }
}

/// How many tasks of a policy there are at each value of an attribute.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(BTreeMap<String, u32>);

impl Tally {
    /// A value that could be used.
    pub(super) fn know(&mut self, group: String) {
        self.0.entry(group).or_default();
    }

    /// A task that is there.
    pub(super) fn add(&mut self, group: String) {
        *self.0.entry(group).or_default() += 1;
    }

    /// Whether one more may go there.
    pub(super) fn has_room(&self, rule: &Rule, group: &str) -> bool {
        let here = self.0.get(group).copied().unwrap_or(0);
        match rule {
            Rule::Unique => here == 0,
            Rule::GroupBy(least) => {
                let used = self.0.values().filter(|count| 0 < **count).count();
                let unseen = least.is_some_and(|least| (used as u64) < u64::from(least));
                // While there are fewer values in use than wanted, the next task opens a new one.
                if unseen { here == 0 } else { self.0.values().all(|count| here <= *count) }
            }
            _ => true,
        }
    }
}
