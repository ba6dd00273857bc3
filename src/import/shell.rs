//! Words of a shell's command line: quotes, escapes, continued lines and comments. Nothing is expanded: what a shell would
//! put in the place of `$NAME` stays as it is written.

use super::error::Problem;
use super::tree::Place;

/// A word without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) place: Place,
}

/// The words of the command that begins at a byte, and the byte after its end.
pub(super) fn command(text: &str, from: usize) -> Result<(Vec<Word>, usize), Problem> {
    let mut words = Vec::new();
    let mut chars = text.get(from..).unwrap_or_default().char_indices().map(|(at, c)| (from + at, c)).peekable();
    while let Some(&(at, c)) = chars.peek() {
        match c {
            '\n' | ';' | '&' | '|' => {
                chars.next();
                return Ok((words, at + 1));
            }
            '\\' if text[at + 1..].starts_with('\n') || text[at + 1..].starts_with("\r\n") => {
                chars.next();
                chars.next_if(|(_, c)| *c == '\r');
                chars.next();
            }
            '#' => while chars.next_if(|(_, c)| *c != '\n').is_some() {},
            c if c.is_whitespace() => {
                chars.next();
            }
            _ => words.push(word(text, at, &mut chars)?),
        }
    }
    Ok((words, text.len()))
}

fn word(
    text: &str,
    begin: usize,
    chars: &mut std::iter::Peekable<impl Iterator<Item = (usize, char)>>,
) -> Result<Word, Problem> {
    let mut out = String::new();
    while let Some(&(at, c)) = chars.peek() {
        match c {
            '\'' | '"' => {
                chars.next();
                loop {
                    match chars.next() {
                        Some((_, end)) if end == c => break,
                        Some((_, '\\')) if c == '"' => match chars.next() {
                            Some((_, '\n')) | None => {}
                            Some((_, escaped @ ('"' | '\\' | '$' | '`'))) => out.push(escaped),
                            Some((_, other)) => out.extend(['\\', other]),
                        },
                        Some((_, inner)) => out.push(inner),
                        None => {
                            let place = Place::of_byte(text, at);
                            return Err(Problem::at(place, format!("expected a closing {c}, got the end of the text")));
                        }
                    }
                }
            }
            '\\' => {
                chars.next();
                match chars.next() {
                    Some((_, '\n')) | None => {}
                    Some((_, escaped)) => out.push(escaped),
                }
            }
            ';' | '&' | '|' => break,
            c if c.is_whitespace() => break,
            c => {
                chars.next();
                out.push(c);
            }
        }
    }
    Ok(Word { text: out, place: Place::of_byte(text, begin) })
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn quotes_escapes_and_continued_lines() {
        let text = "relay -w 'sleep $X; echo \"a b\"' \\\n  --target=4\\ 2 \"c\\\"d\\n\" # that is all\nnext";
        let (words, end) = command(text, 0).unwrap();
        let words: Vec<_> = words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(words, ["relay", "-w", "sleep $X; echo \"a b\"", "--target=4 2", "c\"d\\n"]);
        assert_eq!(&text[end..], "next");
        assert_eq!(
            command("a 'b", 0).unwrap_err(),
            super::Problem::new(1, 3, "expected a closing ', got the end of the text")
        );
    }
}
