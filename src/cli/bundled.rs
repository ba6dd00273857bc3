//! The policies that come with the command.

/// A policy file in the binary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bundled {
    /// Its name: the file's stem.
    pub(crate) name: &'static str,
    /// Its text.
    pub(crate) source: &'static str,
}

macro_rules! bundled {
    ($($name:literal,)*) => {
        &[$(Bundled { name: $name, source: include_str!(concat!("../../scripts/", $name, ".lua")) },)*]
    };
}

/// All of them, one line each, in the order of their names.
pub(crate) const POLICIES: &[Bundled] = bundled![
    "by-hour",
    "cpu",
    "gocd",
    "jobs",
    "keep",
    "labelled",
    "marathon",
    "memcached",
    "prometheus",
    "queue",
    "spool",
    "sqs",
    "thermostat",
    "webhook",
];

impl Bundled {
    /// The one with this name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        POLICIES.iter().find(|policy| policy.name == name)
    }

    /// The comment at its top, without the dashes.
    pub(crate) fn header(&self) -> Vec<&'static str> {
        let comments = self.source.lines().map_while(|line| line.strip_prefix("--"));
        comments.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect()
    }

    /// What it does, in one line: its header's first, without the file's name.
    pub(crate) fn summary(&self) -> &'static str {
        let first = self.header().into_iter().next().unwrap_or_default();
        first.split_once(": ").map_or(first, |(_, summary)| summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_of_the_folder_is_in_the_table() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut stems: Vec<_> = files
            .filter_map(|name| name.to_str()?.strip_suffix(".lua").map(str::to_owned))
            .filter(|stem| !stem.ends_with("_test"))
            .collect();
        stems.sort();
        assert_eq!(stems, POLICIES.iter().map(|policy| policy.name).collect::<Vec<_>>());
    }

    #[test]
    fn every_policy_says_what_it_does_and_how_to_run_it() {
        for policy in POLICIES {
            let header = policy.header();
            assert!(header[0].starts_with(&format!("{}.lua: ", policy.name)), "{}: {}", policy.name, header[0]);
            assert!(header[1].contains(&format!("setpoint run {}", policy.name)), "{}: {}", policy.name, header[1]);
            assert!(policy.summary().len() > 20);
        }
    }
}
