//! JUnit's XML, as continuous integration reads it: a suite for each spec, a case for each `it`.

use quick_xml::escape::escape;
use setpoint::script::ScriptError;
use setpoint::script::spec::Outcome;

use super::{Ran, show};

/// The whole file.
pub(super) fn xml(all: &[Ran]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"setpoint\">\n");
    for ran in all {
        let path = clean(&ran.path.display().to_string());
        match &ran.result {
            Ok(report) => {
                let seconds: f64 = report.cases.iter().map(|case| case.elapsed.as_secs_f64()).sum();
                let skipped = report.cases.iter().filter(|case| matches!(case.outcome, Outcome::Skipped)).count();
                text += &format!(
                    "  <testsuite name=\"{path}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{skipped}\" \
                     time=\"{seconds:.6}\">\n",
                    report.cases.len(),
                    show::failed(report),
                );
                for case in &report.cases {
                    let name = clean(&case.names.join(" > "));
                    let seconds = case.elapsed.as_secs_f64();
                    let head = format!(
                        "    <testcase classname=\"{path}\" name=\"{name}\" file=\"{path}\" line=\"{}\" \
                         time=\"{seconds:.6}\"",
                        case.line
                    );
                    text += &match &case.outcome {
                        Outcome::Passed => format!("{head}/>\n"),
                        Outcome::Skipped => format!("{head}><skipped/></testcase>\n"),
                        Outcome::Failed(failure) => format!(
                            "{head}>\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n",
                            clean(&failure.error.message),
                            clean(&show::told(failure)),
                        ),
                    };
                }
            }
            Err(errors) => {
                let reports: Vec<_> = errors.iter().map(ScriptError::report).collect();
                text += &format!(
                    "  <testsuite name=\"{path}\" tests=\"1\" failures=\"0\" errors=\"1\">\n    <testcase \
                     classname=\"{path}\" name=\"load\">\n      <error message=\"the spec does not load\">{}</error>\n    \
                     </testcase>\n",
                    clean(&reports.join("\n")),
                );
            }
        }
        text += "  </testsuite>\n";
    }
    text + "</testsuites>\n"
}

/// Escaped, and without the characters that XML cannot have at all.
fn clean(text: &str) -> String {
    let allowed = |c: &char| matches!(c, '\n' | '\t') || (!c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}'));
    escape(text.chars().filter(allowed).collect::<String>()).into_owned()
}
