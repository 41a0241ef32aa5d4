//! JSON paths, the part that columns and scale use: `.spec.list[0].name`, `['a.b']`, `[*]`,
//! `[?(@.type=="Ready")].status`.

use serde_json::Value;

/// Most steps of a path; no column needs more.
const MAX_STEPS: usize = 64;

/// Most values that a path finds: a cell with more shows nothing.
const MAX_FOUND: usize = 256;

/// A path; one that cannot be read finds nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Path(Option<Vec<Step>>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    path: Path,
    wanted: Option<(bool, Value)>,
}

impl Path {
    /// Reads a path, with or without braces.
    pub(crate) fn read(text: &str) -> Self {
        let text = text.trim();
        let inner = text.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
        Self(steps(inner.unwrap_or(text)))
    }

    /// Returns the values that it leads to.
    pub(crate) fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let Some(steps) = &self.0 else {
            return Vec::new();
        };
        let mut found = vec![root];
        for step in steps {
            let next = found.into_iter().flat_map(|it| step.from(it));
            found = next.take(MAX_FOUND).collect();
        }
        found
    }
}

impl Step {
    fn from<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => item(value, *index).into_iter().collect(),
            Self::All => inside(value),
            Self::Filter(filter) => {
                let inside = inside(value).into_iter();
                inside.filter(|it| filter.fits(it)).collect()
            }
        }
    }
}

impl Filter {
    fn fits(&self, value: &Value) -> bool {
        let found = self.path.find(value);
        match &self.wanted {
            None => !found.is_empty(),
            Some((is_equal, wanted)) => {
                found.first().is_some_and(|it| (*it == wanted) == *is_equal)
            }
        }
    }
}

fn item(value: &Value, index: i64) -> Option<&Value> {
    let items = value.as_array()?;
    let index = if index < 0 {
        items
            .len()
            .checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?
    } else {
        usize::try_from(index).ok()?
    };
    items.get(index)
}

fn inside(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().take(MAX_FOUND).collect(),
        Value::Object(fields) => fields.values().take(MAX_FOUND).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.strip_prefix(['$', '@']).unwrap_or(text);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.len() >= MAX_STEPS {
            return None;
        }
        let (step, after) = match rest.strip_prefix('[') {
            Some(inner) => bracket(inner)?,
            None => field(
                rest.strip_prefix('.')
                    .or(steps.is_empty().then_some(rest))?,
            )?,
        };
        steps.extend(step);
        rest = after;
    }
    Some(steps)
}

/// Reads a field's name, in which `\.` is a dot.
fn field(text: &str) -> Option<(Option<Step>, &str)> {
    let mut name = String::new();
    let mut letters = text.char_indices();
    let mut end = text.len();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.push(letters.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            _ => name.push(letter),
        }
    }
    let rest = &text[end..];
    match name.as_str() {
        "*" => Some((Some(Step::All), rest)),
        // `.[0]` is `[0]`.
        "" => rest.starts_with('[').then_some((None, rest)),
        _ => Some((Some(Step::Field(name)), rest)),
    }
}

/// Reads what follows a bracket.
fn bracket(text: &str) -> Option<(Option<Step>, &str)> {
    if let Some(filter) = text.strip_prefix("?(") {
        let end = outside_quotes(filter, ")]")?;
        let step = Step::Filter(read_filter(&filter[..end])?);
        return Some((Some(step), &filter[end + 2..]));
    }
    let end = outside_quotes(text, "]")?;
    let (inner, rest) = (text[..end].trim(), &text[end + 1..]);
    let step = match quoted(inner) {
        Some(name) => Step::Field(name.to_owned()),
        None if inner == "*" => Step::All,
        None => Step::Index(inner.parse().ok()?),
    };
    Some((Some(step), rest))
}

fn read_filter(text: &str) -> Option<Filter> {
    for (operator, is_equal) in [("==", true), ("!=", false)] {
        if let Some(at) = outside_quotes(text, operator) {
            let value = text[at + operator.len()..].trim();
            let wanted = match quoted(value) {
                Some(text) => Value::from(text),
                None => serde_json::from_str(value).ok()?,
            };
            let path = filter_path(&text[..at])?;
            return Some(Filter {
                path,
                wanted: Some((is_equal, wanted)),
            });
        }
    }
    let path = filter_path(text)?;
    Some(Filter { path, wanted: None })
}

/// Reads the path in a filter, which has no filter itself: that bounds the depth.
fn filter_path(text: &str) -> Option<Path> {
    let text = text.trim().strip_prefix('@')?;
    (!text.contains('?')).then(|| Path::read(text))
}

fn quoted(text: &str) -> Option<&str> {
    let strip = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    strip('"').or_else(|| strip('\''))
}

/// Returns where a mark is that stands in no quotes.
fn outside_quotes(text: &str, mark: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match quote {
            Some(open) if open == letter => quote = None,
            Some(_) => {}
            None if text[at..].starts_with(mark) => return Some(at),
            None if letter == '"' || letter == '\'' => quote = Some(letter),
            None => {}
        }
    }
    None
}
