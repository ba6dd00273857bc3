//! The policies of a loaded file: its own, or those of a fleet's rows.

use setpoint::script::{Content, Fleet, FleetRow, LoadedPolicy};

use super::exit::{CliError, Exit};
use super::host;

/// Every policy of a file by its name, or the one of the row that is wanted. A fleet is asked for its rows, which may
/// reach what its `discover` asks.
pub(crate) async fn policies(
    content: Content,
    file: &str,
    wanted: Option<&str>,
) -> Result<Vec<(String, LoadedPolicy)>, CliError> {
    let fleet = match content {
        Content::Policy(policy) if wanted.is_none() => return Ok(vec![(file.to_owned(), policy)]),
        Content::Policy(_) => return Err(no_fleet(file)),
        Content::Fleet(fleet) => fleet,
    };
    let rows = discover(fleet.as_ref()).await?;
    if let Some(wanted) = wanted {
        return pick(rows, file, Some(wanted)).map(|policy| vec![policy]);
    }
    if rows.is_empty() {
        return Err(CliError::new(Exit::Usage, format!("`{file}` is a fleet, and has no rows now")));
    }
    rows.into_iter().map(|row| of_row(file, row)).collect()
}

/// The row of a fleet that is meant; the only one when none is named.
pub(crate) async fn row(
    fleet: &dyn Fleet,
    file: &str,
    wanted: Option<&str>,
) -> Result<(String, LoadedPolicy), CliError> {
    pick(discover(fleet).await?, file, wanted)
}

/// A row was named of a file that has none.
pub(crate) fn no_fleet(file: &str) -> CliError {
    CliError::new(Exit::Usage, format!("`{file}` is one policy, not a fleet")).hint("leave --row out")
}

async fn discover(fleet: &dyn Fleet) -> Result<Vec<FleetRow>, CliError> {
    fleet.discover(fleet.every()).await.map_err(|error| host::wrong_policies(std::slice::from_ref(&error)))
}

fn pick(mut rows: Vec<FleetRow>, file: &str, wanted: Option<&str>) -> Result<(String, LoadedPolicy), CliError> {
    let names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
    let position = match wanted {
        Some(wanted) => names.iter().position(|name| name == wanted),
        None => (names.len() == 1).then_some(0),
    };
    let Some(position) = position else {
        let text = format!("`{file}` is a fleet of {} rows; which one is meant?", names.len());
        let some: Vec<_> = names.iter().take(10).map(String::as_str).collect();
        return Err(CliError::new(Exit::Usage, text).hint(format!("--row takes one of: {}", some.join(", "))));
    };
    of_row(file, rows.swap_remove(position))
}

fn of_row(file: &str, row: FleetRow) -> Result<(String, LoadedPolicy), CliError> {
    let policy = row.policy.map_err(|error| host::wrong_policies(std::slice::from_ref(&error)))?;
    Ok((format!("{file}/{}", row.name), policy))
}
