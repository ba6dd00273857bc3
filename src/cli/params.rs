//! `--set`: parameters of policies.

use std::collections::BTreeMap;

/// One `--set`, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    /// The policy that it is for; every one that declares the parameter when left out.
    policy: Option<String>,
    key: String,
    value: String,
}

/// Reads `key=value` or `policy.key=value`. A value may contain anything, a policy's name may contain dots.
pub(crate) fn parse(text: &str) -> Result<Set, String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("expected key=value, got `{text}`"))?;
    let (policy, key) = match name.trim().rsplit_once('.') {
        Some((policy, key)) => (Some(policy.to_owned()), key),
        None => (None, name.trim()),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if key.is_empty() || !key.chars().all(word) || policy.as_deref() == Some("") {
        return Err(format!("expected key=value or policy.key=value, got `{text}`"));
    }
    Ok(Set { policy, key: key.to_owned(), value: value.to_owned() })
}

/// All parameters that were set from outside, as text; what type they are is for the policies to declare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params {
    /// For every policy that declares them.
    pub(crate) global: BTreeMap<String, String>,
    /// For one policy.
    pub(crate) by_policy: BTreeMap<String, BTreeMap<String, String>>,
}

impl Params {
    /// Of the same name, the last one counts.
    pub(crate) fn new(sets: &[Set]) -> Self {
        let mut params = Self::default();
        for set in sets {
            let map = match &set.policy {
                Some(policy) => params.by_policy.entry(policy.clone()).or_default(),
                None => &mut params.global,
            };
            map.insert(set.key.clone(), set.value.clone());
        }
        params
    }

    /// All of them under one key each: `key`, or `policy.key`.
    pub(crate) fn flat(&self) -> BTreeMap<String, String> {
        let mut flat = self.global.clone();
        for (policy, params) in &self.by_policy {
            flat.extend(params.iter().map(|(key, value)| (format!("{policy}.{key}"), value.clone())));
        }
        flat
    }

    /// Those that one policy gets: its own win over those for all.
    pub(crate) fn of(&self, policy: &str) -> BTreeMap<String, String> {
        let mut params = self.global.clone();
        params.extend(self.by_policy.get(policy).cloned().unwrap_or_default());
        params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_to_all_or_to_one() {
        let sets = ["max=10", "list=a=b.c", "my.queue.max=4", "max=12", "shape="].map(|text| parse(text).unwrap());
        let params = Params::new(&sets);
        let of =
            |policy| params.of(policy).into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
        assert_eq!(of("other"), ["list=a=b.c", "max=12", "shape="]);
        assert_eq!(of("my.queue"), ["list=a=b.c", "max=4", "shape="]);
        assert_eq!(params.flat().into_keys().collect::<Vec<_>>(), ["list", "max", "my.queue.max", "shape"]);
        for text in ["max", "=1", ".max=1", "queue.=1", "a b=1", ""] {
            assert!(parse(text).is_err(), "{text} was taken");
        }
    }
}
