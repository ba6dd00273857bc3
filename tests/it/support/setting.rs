//! How long a test runs: short by default, longer in a campaign.

/// A number from the environment, or the default. Anything else than a number there is a mistake.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::vars().find(|(key, _)| key == name).map(|(_, value)| value);
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, got `{text}`")))
}
