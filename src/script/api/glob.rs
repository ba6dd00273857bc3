//! File-name patterns: `*` any characters, `?` one, `[abc]`, `[a-z]` and `[!a-z]` one of a set.
//!
//! Works on one name, never on a path, in time proportional to pattern × name whatever the pattern. As in a
//! shell, a name that begins with a dot is matched only by a pattern that does.

/// Whether `name` matches `pattern`.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where to go on when a later part fails: after the last star, one more character swallowed by it. Earlier
    // stars need no second look, since the last one can swallow whatever they could.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, n));
            p += 1;
        } else if let Some(length) = pattern.get(p..).and_then(|rest| one(rest, name[n])) {
            p += length;
            n += 1;
        } else if let Some((after_star, swallowed)) = retry {
            retry = Some((after_star, swallowed + 1));
            (p, n) = (after_star, swallowed + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The length of the pattern's first element, when it matches `c`.
fn one(pattern: &[u8], c: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => match set(pattern, c) {
            Some((length, matched)) => matched.then_some(length),
            // A bracket that is never closed stands for itself.
            None => (c == b'[').then_some(1),
        },
        literal => (*literal == c).then_some(1),
    }
}

/// The length of a `[…]` and whether `c` is in it; none when it is not closed.
fn set(pattern: &[u8], c: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    // A closing bracket in the first place stands for itself.
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|c| *c == b']')?;
    let members = &pattern[start..end];
    let mut found = false;
    let mut i = 0;
    while i < members.len() {
        if members.get(i + 1) == Some(&b'-') && i + 2 < members.len() {
            found |= (members[i]..=members[i + 2]).contains(&c);
            i += 3;
        } else {
            found |= members[i] == c;
            i += 1;
        }
    }
    Some((end + 1, found != negated))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.job", "a.job", true),
            ("*.job", ".hidden.job", false),
            (".*", ".hidden", true),
            ("*.job", "a.job.tmp", false),
            ("a*b*c", "a--b--b-c", true),
            ("a*b*c", "a--b--b-d", false),
            ("job-??", "job-07", true),
            ("job-??", "job-7", false),
            ("[0-9a]*", "7x", true),
            ("[!0-9]*", "7x", false),
            ("[]]x", "]x", true),
            ("[open", "[open", true),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn stars_do_not_explode() {
        let pattern = "*a".repeat(2000);
        let name = "a".repeat(1999) + "b";
        assert!(!matches(pattern.as_bytes(), name.as_bytes()));
    }
}
