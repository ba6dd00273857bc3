//! Cron expressions of five fields: checked, and with names and short forms made numbers, so that a policy's few lines of
//! Lua can read them.

/// The fields: least and greatest number, names in their order from the least.
const FIELDS: &[(u32, u32, &[&str])] = &[
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// The expression in the plain form; none where it is no cron expression.
pub(super) fn plain(text: &str) -> Option<String> {
    let text = match text.trim() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => other,
    };
    let words: Vec<_> = text.split_whitespace().collect();
    if words.len() != FIELDS.len() {
        return None;
    }
    let fields: Option<Vec<_>> = words.iter().zip(FIELDS).map(|(word, limits)| field(word, *limits)).collect();
    fields.map(|fields| fields.join(" "))
}

fn field(word: &str, (least, most, names): (u32, u32, &[&str])) -> Option<String> {
    let number = |text: &str| -> Option<u32> {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(at) => at as u32 + least,
            None => text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))?,
        };
        // Sunday is 0 and 7.
        let value = if most == 6 && value == 7 { 0 } else { value };
        (least..=most).contains(&value).then_some(value)
    };
    let mut parts = Vec::new();
    for part in word.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|step| (1..=most).contains(step))?)),
            None => (part, None),
        };
        let range = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => "*".to_owned(),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    // `5-7` over the week's end: friday, saturday, sunday.
                    (last == 0 && most == 6).then_some(())?;
                    parts.push("0".to_owned());
                    format!("{first}-6")
                } else {
                    format!("{first}-{last}")
                }
            }
            None => {
                let first = number(range)?;
                if step.is_some() { format!("{first}-{most}") } else { first.to_string() }
            }
        };
        parts.push(step.map_or(range.clone(), |step| format!("{range}/{step}")));
    }
    Some(parts.join(","))
}

/// Lua that tells whether a time is between the last start and the next end. Needs the module `time`.
pub(super) const WITHIN: &str = "\
-- Whether a number is in a field of a cron expression: `*`, `5`, `1-5`, `*/15`, `8,12`.
local function matches(field, number, least)
  for part in field:gmatch(\"[^,]+\") do
    local range, step = part:match(\"^(.-)/(%d+)$\")
    range = range or part
    local first, last = range:match(\"^(%d+)-(%d+)$\")
    first, last = tonumber(first or range) or least, tonumber(last or range) or math.huge
    if first <= number and number <= last and (number - first) % tonumber(step or 1) == 0 then
      return true
    end
  end
  return false
end

-- Minutes since a cron expression matched, as the clocks on the walls of the zone show it; nil: not within a year.
local function since(now, zone, expression)
  local minute, hour, day, month, weekday = expression:match(\"^(%S+) (%S+) (%S+) (%S+) (%S+)$\")
  local today = time.zoned(now, zone)
  local noon = now - (today.hour - 12) * 3600 - today.minute * 60
  for days = 0, 366 do
    local date = time.zoned(noon - days * 86400, zone)
    local on_day, on_weekday = matches(day, date.day, 1), matches(weekday, date.weekday % 7, 0)
    -- Of a day of the month and one of the week, either will do where both are given.
    local either = day ~= \"*\" and weekday ~= \"*\"
    local right = either and (on_day or on_weekday) or not either and on_day and on_weekday
    if right and matches(month, date.month, 1) then
      local latest = days == 0 and today.hour * 60 + today.minute or 1439
      for at_hour = math.floor(latest / 60), 0, -1 do
        for at = matches(hour, at_hour, 0) and math.min(at_hour * 60 + 59, latest) or -1, at_hour * 60, -1 do
          if matches(minute, at % 60, 0) then
            return days * 1440 + today.hour * 60 + today.minute - at
          end
        end
      end
    end
  end
  return nil
end

-- Whether the last start is later than the last end.
local function within(now, zone, start, stop)
  local started, stopped = since(now, zone, start), since(now, zone, stop)
  return started ~= nil and (stopped == nil or started < stopped)
end
";

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn names_and_short_forms_become_numbers() {
        for (given, expected) in [
            ("30 8 * * *", "30 8 * * *"),
            ("0 6 * * MON-FRI", "0 6 * * 1-5"),
            ("*/15 8-18/2 1,15 jan,dec 7", "*/15 8-18/2 1,15 1,12 0"),
            ("5/20 * ? * fri-7", "5-59/20 * * * 0,5-6"),
            ("@daily", "0 0 * * *"),
        ] {
            assert_eq!(plain(given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn what_is_no_expression_is_none() {
        for given in
            ["", "* * * *", "60 * * * *", "* * * * * *", "*/0 * * * *", "5-1 * * * *", "+1 * * * *", "a b c d e"]
        {
            assert_eq!(plain(given), None, "{given}");
        }
    }
}
