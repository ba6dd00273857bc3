//! Golden timelines: what `NAME_test.golden` holds, a section for each name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Before a section's name.
const MARK: &str = "== ";

/// The golden timelines of a spec.
#[derive(Debug, Default)]
pub(super) struct Goldens {
    path: PathBuf,
    known: BTreeMap<String, String>,
    /// What came in this run, where it may be written.
    seen: BTreeMap<String, String>,
    update: bool,
}

/// How a timeline differs from its golden one.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) expected: String,
    pub(super) got: String,
    /// All of it.
    pub(super) detail: Option<String>,
}

impl Goldens {
    /// Those beside a spec; none where there is no file.
    pub(super) fn beside(spec: &Path, update: bool) -> Result<Self, std::io::Error> {
        let path = spec.with_extension("golden");
        let known = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, known, seen: BTreeMap::new(), update })
    }

    /// Compares; in an update takes what came.
    pub(super) fn compare(&mut self, name: &str, text: &str) -> Option<Difference> {
        let text = tidy(text);
        if self.update {
            let before = self.seen.insert(name.to_owned(), text.clone());
            return before.filter(|before| *before != text).map(|before| Difference {
                expected: format!("one golden timeline called {name:?}"),
                got: "two that differ".to_owned(),
                detail: Some(diff(&before, &text)),
            });
        }
        let Some(known) = self.known.get(name) else {
            return Some(Difference {
                expected: format!("a golden timeline {name:?} in {}", self.path.display()),
                got: "none: `setpoint test --update` writes it".to_owned(),
                detail: None,
            });
        };
        if *known == text {
            return None;
        }
        let line = known.lines().zip(text.lines()).position(|(a, b)| a != b);
        let line = line.unwrap_or_else(|| known.lines().count().min(text.lines().count()));
        let shown =
            |text: &str| text.lines().nth(line).map_or_else(|| "its end".to_owned(), |line| format!("{line:?}"));
        Some(Difference {
            expected: format!("the golden timeline {name:?}, at its line {} {}", line + 1, shown(known)),
            got: shown(&text),
            detail: Some(diff(known, &text)),
        })
    }

    /// The file as it has to be written. What did not come in this run stays where not `all` of it ran.
    pub(super) fn written(self, all: bool) -> Option<(PathBuf, String)> {
        if !self.update {
            return None;
        }
        let mut next = if all { BTreeMap::new() } else { self.known.clone() };
        next.extend(self.seen);
        if next == self.known {
            return None;
        }
        let mut text = String::from("Golden timelines, written by `setpoint test --update`.\n");
        for (name, timeline) in &next {
            text += &format!("\n{MARK}{name}\n{timeline}\n");
        }
        Some((self.path, text))
    }
}

fn parse(text: &str) -> BTreeMap<String, String> {
    let mark = format!("\n{MARK}");
    let parts = text.split(&mark).skip(1).filter_map(|section| section.split_once('\n'));
    parts.map(|(name, text)| (name.trim().to_owned(), tidy(text))).collect()
}

/// Without blanks at the ends of lines and empty lines around.
fn tidy(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// Lines of both, those that are only in one marked.
fn diff(expected: &str, got: &str) -> String {
    let (a, b): (Vec<_>, Vec<_>) = (expected.lines().collect(), got.lines().collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let left = (a.len() - same).min(b.len() - same);
    let tail = a.iter().rev().zip(b.iter().rev()).take(left).take_while(|(a, b)| a == b).count();
    let parts = [
        (" ", &a[same.saturating_sub(3)..same]),
        ("-", &a[same..a.len() - tail]),
        ("+", &b[same..b.len() - tail]),
        (" ", &a[a.len() - tail..(a.len() - tail + 3).min(a.len())]),
    ];
    let mut text = String::new();
    for (mark, lines) in parts {
        for line in lines {
            text += &format!("{mark} {line}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found_again_and_differences_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let spec = folder.path().join("a_test.lua");
        let mut update = Goldens::beside(&spec, true).unwrap();
        assert!(update.compare("up and down", "0s a\n1s b  \n").is_none());
        assert!(update.compare("up and down", "0s a\n1s c\n").is_some(), "one name, two timelines");
        assert!(update.compare("other", "x").is_none());
        let (path, text) = update.written(true).unwrap();
        std::fs::write(path, text).unwrap();
        let mut again = Goldens::beside(&spec, false).unwrap();
        assert!(again.compare("other", "x\n").is_none());
        let difference = again.compare("up and down", "0s a\n1s b\n2s d\n").unwrap();
        assert_eq!(
            (difference.got.as_str(), difference.detail.as_deref()),
            ("\"1s b\"", Some("  0s a\n- 1s c\n+ 1s b\n+ 2s d\n"))
        );
        assert!(again.compare("new", "x").unwrap().got.contains("--update"));
        assert!(again.written(true).is_none(), "only an update writes");
        let mut partial = Goldens::beside(&spec, true).unwrap();
        assert!(partial.compare("other", "y").is_none());
        let (_, text) = partial.written(false).unwrap();
        assert!(text.contains("== other\ny\n") && text.contains("== up and down\n0s a\n1s c\n"), "{text}");
    }
}
