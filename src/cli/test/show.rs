//! What came of specs, for people and as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use setpoint::script::ScriptError;
use setpoint::script::spec::{Case, Failure, FileCoverage, Outcome, SpecReport};

use super::super::term::Paint;
use super::Ran;

/// The last rows of a timeline that a failure shows.
const ROWS: usize = 20;

/// How many cases of a spec failed.
pub(super) fn failed(report: &SpecReport) -> usize {
    report.cases.iter().filter(|case| matches!(case.outcome, Outcome::Failed(_))).count()
}

fn skipped(report: &SpecReport) -> usize {
    report.cases.iter().filter(|case| matches!(case.outcome, Outcome::Skipped)).count()
}

/// The whole report.
pub(super) fn text(all: &[Ran], paint: Paint) -> String {
    let mut text = String::new();
    for ran in all {
        let path = ran.path.display();
        match &ran.result {
            Ok(report) => {
                let bad = failed(report);
                let mark = if bad == 0 { "ok  ".to_owned() } else { paint.red("FAIL") };
                text += &format!("{mark}  {path}  {}\n", counted(report.cases.len(), bad, skipped(report)));
            }
            Err(_) => text += &format!("{}  {path}  does not load\n", paint.red("FAIL")),
        }
    }
    for ran in all {
        match &ran.result {
            Ok(report) => {
                for case in &report.cases {
                    if let Outcome::Failed(failure) = &case.outcome {
                        let place = format!("{}:{}", ran.path.display(), case.line);
                        let name = paint.bold(&case.names.join(" > "));
                        text += &format!("\n{}  {name} ({place})\n{}", paint.red("FAIL"), indented(&told(failure)));
                    }
                }
            }
            Err(errors) => {
                let reports: Vec<_> = errors.iter().map(ScriptError::report).collect();
                text += &format!("\n{}  {}\n{}", paint.red("FAIL"), ran.path.display(), indented(&reports.join("\n")));
            }
        }
    }
    text += &covered(all);
    let reports = || all.iter().filter_map(|ran| ran.result.as_ref().ok());
    let (cases, bad) = (reports().map(|report| report.cases.len()).sum(), reports().map(failed).sum());
    text += &format!("\n{}", counted(cases, bad, reports().map(skipped).sum()));
    match all.iter().filter(|ran| ran.result.is_err()).count() {
        0 => {}
        1 => text += "; 1 spec does not load",
        n => text += &format!("; {n} specs do not load"),
    }
    text + "\n"
}

fn counted(cases: usize, failed: usize, skipped: usize) -> String {
    let mut text = if cases == 1 { "1 case".to_owned() } else { format!("{cases} cases") };
    if failed != 0 {
        text += &format!(", {failed} failed");
    }
    if skipped != 0 {
        text += &format!(", {skipped} skipped");
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}").trim_end().to_owned() + "\n").collect()
}

/// A failure over several lines: what and where, its details, what `for_all` drew, the timelines.
pub(super) fn told(failure: &Failure) -> String {
    let mut text = failure.error.report();
    if let Some(note) = &failure.note {
        text += &format!("\n{note}");
    }
    if let Some(detail) = &failure.detail {
        text += &format!("\n{}", detail.trim_end());
    }
    for (name, rows) in &failure.timelines {
        text += &format!("\ntimeline of {name}:");
        let left_out = rows.len().saturating_sub(ROWS);
        if left_out != 0 {
            text += &format!("\n  … {left_out} earlier ticks");
        }
        for row in &rows[left_out..] {
            text += &format!("\n  {row}");
        }
    }
    text
}

/// The lines that can run and those that did not, by file, over all specs.
fn merged(all: &[Ran]) -> BTreeMap<PathBuf, FileCoverage> {
    let mut files: BTreeMap<PathBuf, FileCoverage> = BTreeMap::new();
    for file in all.iter().filter_map(|ran| ran.result.as_ref().ok()).flat_map(|report| &report.coverage) {
        // What one spec did not run another may have.
        files
            .entry(file.path.clone())
            .and_modify(|known| known.missed.retain(|line| file.missed.contains(line)))
            .or_insert_with(|| file.clone());
    }
    files
}

fn covered(all: &[Ran]) -> String {
    let mut text = String::new();
    for (path, file) in merged(all) {
        let hit = file.lines - file.missed.len() as u32;
        let percent = if file.lines == 0 { 100.0 } else { 100.0 * f64::from(hit) / f64::from(file.lines) };
        text += &format!("\ncoverage  {}  {hit} of {} lines ({percent:.0} %)", path.display(), file.lines);
        if !file.missed.is_empty() {
            text += &format!("; not {}", ranges(&file.missed));
        }
    }
    if text.is_empty() { text } else { text + "\n" }
}

/// `3, 5-8`.
fn ranges(lines: &[u32]) -> String {
    let groups = lines.chunk_by(|a, b| a + 1 == *b);
    let shown = groups.map(|group| match group {
        [first, .., last] => format!("{first}-{last}"),
        _ => group.first().map(u32::to_string).unwrap_or_default(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The same for programs.
pub(super) fn json(all: &[Ran]) -> Value {
    let reports = || all.iter().filter_map(|ran| ran.result.as_ref().ok());
    let files: Vec<Value> = all
        .iter()
        .map(|ran| {
            let (cases, errors) = match &ran.result {
                Ok(report) => (report.cases.iter().map(case).collect(), Vec::new()),
                Err(errors) => (Vec::new(), errors.iter().map(error).collect()),
            };
            json!({ "path": ran.path.display().to_string(), "cases": cases, "errors": errors })
        })
        .collect();
    let coverage: Vec<Value> = merged(all)
        .into_values()
        .map(|file| json!({ "path": file.path.display().to_string(), "lines": file.lines, "missed": file.missed }))
        .collect();
    let (cases, failed): (usize, usize) =
        (reports().map(|report| report.cases.len()).sum(), reports().map(failed).sum());
    let skipped: usize = reports().map(skipped).sum();
    json!({
        "files": files,
        "cases": cases,
        "passed": cases - failed - skipped,
        "failed": failed,
        "skipped": skipped,
        "not_loaded": all.iter().filter(|ran| ran.result.is_err()).count(),
        "coverage": coverage,
    })
}

fn case(case: &Case) -> Value {
    let (outcome, failure) = match &case.outcome {
        Outcome::Passed => ("passed", Value::Null),
        Outcome::Skipped => ("skipped", Value::Null),
        Outcome::Failed(failure) => ("failed", failed_case(failure)),
    };
    json!({
        "names": case.names,
        "line": case.line,
        "outcome": outcome,
        "seconds": case.elapsed.as_secs_f64(),
        "failure": failure,
    })
}

fn failed_case(failure: &Failure) -> Value {
    let timelines: BTreeMap<&str, &[String]> =
        failure.timelines.iter().map(|(name, rows)| (name.as_str(), rows.as_slice())).collect();
    let mut value = error(&failure.error);
    value["detail"] = failure.detail.as_deref().into();
    value["note"] = failure.note.as_deref().into();
    value["timelines"] = json!(timelines);
    value
}

fn error(error: &ScriptError) -> Value {
    json!({
        "path": error.path.display().to_string(),
        "line": error.line,
        "message": error.message,
        "source_line": error.source_line.as_deref(),
        "calls": error.calls,
        "hint": error.hint,
    })
}
