//! Lua values as text: quoted so that no text of the input can end its string, and laid out within 120 columns.

/// Widest line.
pub(super) const WIDEST: usize = 120;

/// A Lua value, or an expression.
#[derive(Clone, Debug)]
pub(super) enum Lua {
    /// An expression of the importer's own. Lines after the first are indented from 0.
    Raw(String),
    Text(String),
    Number(f64),
    List(Vec<Self>),
    Table(Vec<Field>),
    /// A table whose entries each have a line, however short they are.
    Lines(Vec<Field>),
}

/// An entry of a table.
#[derive(Clone, Debug)]
pub(super) struct Field {
    key: String,
    value: Lua,
    /// Behind it, on its line.
    note: String,
    /// Before it, on lines of its own.
    before: String,
}

impl Field {
    pub(super) fn new(key: impl Into<String>, value: Lua) -> Self {
        Self { key: key.into(), value, note: String::new(), before: String::new() }
    }

    /// With a comment behind it.
    pub(super) fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// With a comment before it.
    pub(super) fn told(mut self, before: impl Into<String>) -> Self {
        self.before = before.into();
        self
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        self.key == name
    }

    /// Whether it holds a value under a name, which may have got a number.
    pub(super) fn holds(&self, name: &str, value: &Lua) -> bool {
        let rest = self.key.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with('_'));
        rest.is_some() && self.value.inline() == value.inline()
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    fn is_bare(&self) -> bool {
        self.note.is_empty() && self.before.is_empty()
    }
}

impl Lua {
    pub(super) fn raw(text: impl Into<String>) -> Self {
        Self::Raw(text.into())
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    pub(super) fn whole(number: u32) -> Self {
        Self::Number(number.into())
    }

    /// A table of texts.
    pub(super) fn map(pairs: &[(String, String)]) -> Self {
        Self::Table(pairs.iter().map(|(key, value)| Field::new(key, Self::text(value))).collect())
    }

    /// Writes it behind `used` columns of a line that is indented by `indent`; `after` columns follow.
    pub(super) fn write(&self, indent: usize, used: usize, after: usize) -> String {
        if let Some(line) = self.inline()
            && used + width(&line) + after <= WIDEST
        {
            return line;
        }
        let pad = " ".repeat(indent + 2);
        match self {
            Self::Raw(text) => indented(text, indent),
            Self::Text(text) => long_text(text, indent),
            Self::Number(_) => self.inline().unwrap_or_default(),
            Self::List(items) => {
                let mut text = String::from("{\n");
                for item in items {
                    text.push_str(&format!("{pad}{},\n", item.write(indent + 2, indent + 2, 1)));
                }
                text + &" ".repeat(indent) + "}"
            }
            Self::Table(fields) | Self::Lines(fields) => {
                format!("{{\n{}{}}}", fields_text(fields, indent + 2), " ".repeat(indent))
            }
        }
    }

    /// On one line, where that can be.
    fn inline(&self) -> Option<String> {
        match self {
            Self::Raw(text) => (!text.contains('\n')).then(|| text.clone()),
            Self::Lines(_) => None,
            Self::Text(text) => (!text.contains('\n')).then(|| quote(text)),
            Self::Number(number) => Some(self::number(*number)),
            Self::List(items) => {
                let items: Option<Vec<_>> = items.iter().map(Self::inline).collect();
                items
                    .map(|items| if items.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", items.join(", ")) })
            }
            Self::Table(fields) => {
                let field = |field: &Field| {
                    let value = field.value.inline().filter(|_| field.is_bare())?;
                    Some(format!("{} = {value}", key(&field.key)))
                };
                let fields: Option<Vec<_>> = fields.iter().map(field).collect();
                fields.map(
                    |fields| if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) },
                )
            }
        }
    }
}

/// The entries of a table, a line each.
pub(super) fn fields_text(fields: &[Field], indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut text = String::new();
    for field in fields {
        text.push_str(&comment(&field.before, indent));
        let name = key(&field.key);
        let line = format!("{pad}{name} = {},", field.value.write(indent, indent + width(&name) + 3, 1));
        let note = format!(" -- {}", plain(&field.note));
        let last = line.lines().last().map_or(0, width);
        if field.note.is_empty() {
            text.push_str(&format!("{line}\n"));
        } else if last + width(&note) <= WIDEST {
            text.push_str(&format!("{line}{note}\n"));
        } else {
            text.push_str(&format!("{}{line}\n", comment(&field.note, indent)));
        }
    }
    text
}

/// A name where Lua takes one, else a quoted key.
fn key(name: &str) -> String {
    const WORDS: &[&str] = &[
        "and", "break", "continue", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
        "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
    ];
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if begins && goes_on && !WORDS.contains(&name) { name.to_owned() } else { format!("[{}]", quote(name)) }
}

/// A number as Lua reads it back.
pub(super) fn number(number: f64) -> String {
    if number == 0.0 { "0".to_owned() } else { number.to_string() }
}

/// A quoted string. Control and direction characters are escaped, so that what is shown is what is there.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if hidden(c) => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    quoted.push_str(&format!("\\{byte:03}"));
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Characters that cannot be seen, or that change how others are shown.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A text of several lines, or one that is too long for its line.
fn long_text(text: &str, indent: usize) -> String {
    let fits = |line: &str| width(line) <= WIDEST - 8 && !line.ends_with([' ', '\t']) && !line.chars().any(hidden);
    if text.contains('\n') && text.split('\n').all(fits) {
        let mut level = String::new();
        // A `]` at the end would join the closing bracket.
        while text.contains(&format!("]{level}]")) || text.ends_with(&format!("]{level}")) {
            level.push('=');
        }
        return format!("[{level}[\n{text}]{level}]");
    }
    let most = (WIDEST - indent - 8).max(20);
    let mut pieces = vec![String::new()];
    for c in text.chars() {
        let last = pieces.last().map_or(0, |piece| width(&quote(piece)));
        if last + width(&quote(&c.to_string())) > most {
            pieces.push(String::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(c);
        }
    }
    let pieces: Vec<_> = pieces.iter().map(|piece| quote(piece)).collect();
    pieces.join(&format!("\n{}.. ", " ".repeat(indent + 2)))
}

/// Bytes, which are never fewer than columns: a line that fits by them fits.
fn width(text: &str) -> usize {
    text.len()
}

/// Code of several lines, those after the first moved to an indentation.
pub(super) fn indented(code: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut text = String::new();
    for (at, line) in code.lines().enumerate() {
        if at > 0 {
            text.push('\n');
            if !line.is_empty() {
                text.push_str(&pad);
            }
        }
        text.push_str(line);
    }
    text
}

/// Text that stays within one comment and is not taken for an instruction to a tool.
pub(super) fn plain(text: &str) -> String {
    let text: String = text.chars().map(|c| if hidden(c) { ' ' } else { c }).collect();
    text.replace("luacheck:", "luacheck").trim().to_owned()
}

/// A comment, broken into lines. Empty text is none.
pub(super) fn comment(text: &str, indent: usize) -> String {
    wrapped(text, indent, "-- ", "-- ")
}

/// A list's item as a comment.
pub(super) fn item(text: &str) -> String {
    wrapped(text, 0, "--   * ", "--     ")
}

fn wrapped(text: &str, indent: usize, first: &str, further: &str) -> String {
    let pad = " ".repeat(indent);
    let most = WIDEST - indent - further.len();
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in plain(text).split(' ').filter(|word| !word.is_empty()) {
        let mut word = word;
        if !line.is_empty() && line.len() + 1 + word.len() > most {
            lines.push(std::mem::take(&mut line));
        }
        while word.len() > most {
            let cut = (0..=most).rev().find(|at| word.is_char_boundary(*at)).unwrap_or(0);
            lines.push(word[..cut].to_owned());
            word = &word[cut..];
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let mark = if at == 0 { first } else { further };
        text.push_str(&format!("{pad}{mark}{line}\n"));
    }
    text
}
