//! The pattern language: literal text and `{name}` or `{name:type}` placeholders.
//!
//! Owns its grammar and its errors. A placeholder takes one non-empty run of bytes up to the next
//! `/` or the end of the path, so it must itself be followed by `/` or the end; one of type `path`
//! takes the non-empty rest, so it must be the end. `{{` and `}}` are literal braces. Refuses to
//! know methods and other patterns; which of two patterns wins is the table's decision.
//! `python/anel/patterns.py` reads the same language.

use std::fmt;

use super::params::Params;
use super::placeholder::PlaceholderKind;

/// A piece of a pattern. Literals are never empty and never adjacent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// These bytes.
    Literal(Box<[u8]>),
    /// One non-empty run that fits its kind. It ends at the `/` of the path with this number, or
    /// else at the end. The number is how many the pattern has in front of it: what was matched so
    /// far has as many. The rest of the path ends at no `/`, so its number is `NO_SLASH`.
    Placeholder {
        end_slash: usize,
        kind: PlaceholderKind,
    },
}

/// A path cannot have so many.
const NO_SLASH: usize = usize::MAX;

/// A name and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// Unique in its pattern.
    pub name: String,
    /// Which values fit.
    pub kind: PlaceholderKind,
}

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    placeholders: Vec<Placeholder>,
    segments: Vec<Segment>,
    slash_count: usize,
    // Whether the last placeholder takes the rest of the path, with any number of `/`.
    takes_rest: bool,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Unbalanced braces, an empty, repeated or malformed name, an unknown type, a placeholder that
    /// does not fill the rest of its path segment, a `path` that is not the last, or an empty
    /// pattern. The error's message quotes the pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut parser = Parser {
            rest: text,
            literal: String::new(),
            placeholders: Vec::new(),
            segments: Vec::new(),
            slash_count: 0,
            takes_rest: false,
        };
        match parser.run() {
            Ok(()) if parser.segments.is_empty() => {
                Err(PatternError::new(text, PatternFault::Empty))
            }
            Ok(()) => Ok(Self {
                text: text.to_owned(),
                placeholders: parser.placeholders,
                segments: parser.segments,
                slash_count: parser.slash_count,
                takes_rest: parser.takes_rest,
            }),
            Err(fault) => Err(PatternError::new(text, fault)),
        }
    }

    /// The pattern as it was registered.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The placeholders, in the order in which `Params` holds their ranges.
    #[must_use]
    pub fn placeholders(&self) -> &[Placeholder] {
        &self.placeholders
    }

    /// The literal path, or `None` when there is a placeholder.
    pub(super) fn as_literal(&self) -> Option<&[u8]> {
        match &self.segments[..] {
            [Segment::Literal(bytes)] => Some(bytes),
            _ => None,
        }
    }

    /// The literal bytes in front of the first placeholder.
    pub(super) fn literal_prefix(&self) -> &[u8] {
        match self.segments.first() {
            Some(Segment::Literal(bytes)) => bytes,
            _ => b"",
        }
    }

    /// Whether the path matches; if so, `params` holds exactly this pattern's captures. The path's
    /// slashes were read into `params`. What was matched so far has as many as the pattern up to
    /// there, so the next one, where a placeholder ends, is known without a search.
    pub(super) fn capture(&self, path: &[u8], params: &mut Params) -> bool {
        params.clear();
        let slash_count = params.slash_count();
        if slash_count != self.slash_count && !(self.takes_rest && slash_count > self.slash_count) {
            return false;
        }
        let mut position = 0;
        for segment in &self.segments {
            match segment {
                Segment::Literal(bytes) => {
                    if !path[position..].starts_with(bytes) {
                        return false;
                    }
                    position += bytes.len();
                }
                Segment::Placeholder { end_slash, kind } => {
                    let end = params.slash(*end_slash).unwrap_or(path.len());
                    if end <= position || !kind.fits(&path[position..end]) {
                        return false;
                    }
                    params.push(position, end);
                    position = end;
                }
            }
        }
        position == path.len()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternFault {
    /// There is no text at all; a path is never empty, so it could not match.
    Empty,
    /// A `{` without its `}`, or a `}` without its `{`.
    UnbalancedBrace,
    /// `{}`.
    EmptyName,
    /// The same name twice.
    DuplicateName,
    /// A `/` or a `{` inside a name.
    BadName,
    /// A type that there is not.
    UnknownType,
    /// Text directly behind a placeholder.
    TextAfterPlaceholder,
    /// Anything behind a placeholder that takes the rest of the path.
    PathNotLast,
}

impl PatternFault {
    /// A sentence for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Empty => "a pattern cannot be empty",
            Self::UnbalancedBrace => "unbalanced brace; write {{ or }} for a literal one",
            Self::EmptyName => "a placeholder needs a name",
            Self::DuplicateName => "two placeholders have the same name",
            Self::BadName => "a placeholder's name cannot contain '/' or '{'",
            Self::UnknownType => {
                "a placeholder has an unknown type; there are str, int, float, uuid and path"
            }
            Self::TextAfterPlaceholder => "\"}\" must be followed by \"/\" or the end",
            Self::PathNotLast => "a placeholder of type path must be the end of the pattern",
        }
    }
}

/// A pattern that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    pattern: String,
    fault: PatternFault,
}

impl PatternError {
    fn new(pattern: &str, fault: PatternFault) -> Self {
        Self {
            pattern: pattern.to_owned(),
            fault,
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn fault(&self) -> PatternFault {
        self.fault
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in pattern {:?}", self.fault.describe(), self.pattern)
    }
}

impl std::error::Error for PatternError {}

struct Parser<'a> {
    rest: &'a str,
    literal: String,
    placeholders: Vec<Placeholder>,
    segments: Vec<Segment>,
    slash_count: usize,
    takes_rest: bool,
}

impl Parser<'_> {
    fn run(&mut self) -> Result<(), PatternFault> {
        while let Some(at) = self.rest.find(['{', '}']) {
            self.literal.push_str(&self.rest[..at]);
            let brace = &self.rest[at..];
            if brace.starts_with("{{") || brace.starts_with("}}") {
                self.literal.push_str(&brace[..1]);
                self.rest = &brace[2..];
            } else if let Some(inside) = brace.strip_prefix('{') {
                self.flush_literal();
                self.rest = self.placeholder(inside)?;
            } else {
                return Err(PatternFault::UnbalancedBrace);
            }
        }
        self.literal.push_str(self.rest);
        self.flush_literal();
        Ok(())
    }

    /// Reads a placeholder of which the `{` was taken; returns what follows its `}`.
    fn placeholder<'b>(&mut self, inside: &'b str) -> Result<&'b str, PatternFault> {
        let (inside, rest) = inside
            .split_once('}')
            .ok_or(PatternFault::UnbalancedBrace)?;
        let (name, kind) = match inside.split_once(':') {
            None => (inside, Some(PlaceholderKind::Text)),
            Some((name, kind)) => (name, PlaceholderKind::named(kind)),
        };
        if name.contains(['{', '/']) {
            return Err(PatternFault::BadName);
        }
        if name.is_empty() {
            return Err(PatternFault::EmptyName);
        }
        if self.placeholders.iter().any(|known| known.name == name) {
            return Err(PatternFault::DuplicateName);
        }
        let kind = kind.ok_or(PatternFault::UnknownType)?;
        self.takes_rest = kind == PlaceholderKind::Path;
        if self.takes_rest && !rest.is_empty() {
            return Err(PatternFault::PathNotLast);
        }
        if !(rest.is_empty() || rest.starts_with('/')) {
            return Err(PatternFault::TextAfterPlaceholder);
        }
        self.placeholders.push(Placeholder {
            name: name.to_owned(),
            kind,
        });
        self.segments.push(Segment::Placeholder {
            end_slash: if self.takes_rest {
                NO_SLASH
            } else {
                self.slash_count
            },
            kind,
        });
        Ok(rest)
    }

    fn flush_literal(&mut self) {
        if !self.literal.is_empty() {
            let bytes = std::mem::take(&mut self.literal).into_bytes();
            self.slash_count += memchr::memchr_iter(b'/', &bytes).count();
            self.segments
                .push(Segment::Literal(bytes.into_boxed_slice()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(text: &str) -> Vec<String> {
        let pattern = Pattern::parse(text).unwrap();
        let mut placeholders = pattern.placeholders().iter();
        pattern
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                Segment::Placeholder { .. } => format!("<{}>", placeholders.next().unwrap().name),
            })
            .collect()
    }

    fn fault(text: &str) -> PatternFault {
        Pattern::parse(text).unwrap_err().fault()
    }

    #[test]
    fn parses_japrontos_seven_good_patterns() {
        assert_eq!(segments("/"), ["/"]);
        assert_eq!(segments("/{{a}}"), ["/{a}"]);
        assert_eq!(segments("{a}"), ["<a>"]);
        assert_eq!(segments("a/{a}"), ["a/", "<a>"]);
        assert_eq!(segments("{a}/a"), ["<a>", "/a"]);
        assert_eq!(segments("{a}/{{a}}"), ["<a>", "/{a}"]);
        assert_eq!(segments("{a}/{b}"), ["<a>", "/", "<b>"]);
    }

    #[test]
    fn a_placeholder_may_follow_text_in_its_segment() {
        assert_eq!(segments("/user-{name}/x"), ["/user-", "<name>", "/x"]);
    }

    #[test]
    fn refuses_unbalanced_braces() {
        for text in ["{a", "{a}/{b", "/a}", "}", "{", "{{}", "/{a}}"] {
            let found = fault(text);
            let expected = if text == "/{a}}" {
                PatternFault::TextAfterPlaceholder
            } else {
                PatternFault::UnbalancedBrace
            };
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn refuses_text_behind_a_placeholder() {
        assert_eq!(fault("{a}a"), PatternFault::TextAfterPlaceholder);
        assert_eq!(fault("/{a}{b}"), PatternFault::TextAfterPlaceholder);
    }

    #[test]
    fn refuses_a_name_that_is_empty_repeated_or_malformed() {
        assert_eq!(fault("{a}/{a}"), PatternFault::DuplicateName);
        assert_eq!(fault("/{a:int}/{a:str}"), PatternFault::DuplicateName);
        assert_eq!(fault("/{}"), PatternFault::EmptyName);
        assert_eq!(fault("/{:int}"), PatternFault::EmptyName);
        assert_eq!(fault("/{a/b}"), PatternFault::BadName);
        assert_eq!(fault("/{a{b}"), PatternFault::BadName);
    }

    #[test]
    fn knows_the_types_and_no_others() {
        let pattern = Pattern::parse("/{a:str}/{b:int}/{c:float}/{d:uuid}/{e}/{f:path}").unwrap();

        let kinds: Vec<_> = pattern.placeholders().iter().map(|one| one.kind).collect();
        assert_eq!(
            kinds,
            [
                PlaceholderKind::Text,
                PlaceholderKind::Int,
                PlaceholderKind::Float,
                PlaceholderKind::Uuid,
                PlaceholderKind::Text,
                PlaceholderKind::Path,
            ]
        );
        for text in ["/{a:}", "/{a:Int}", "/{a: int}", "/{a:int:b}", "/{a:x/y}"] {
            assert_eq!(fault(text), PatternFault::UnknownType, "{text}");
        }
    }

    #[test]
    fn refuses_a_path_that_is_not_the_end() {
        assert_eq!(fault("/{a:path}/b"), PatternFault::PathNotLast);
        assert_eq!(fault("/{a:path}b"), PatternFault::PathNotLast);
        assert_eq!(fault("/{a:path}/{b}"), PatternFault::PathNotLast);
    }

    #[test]
    fn refuses_an_empty_pattern() {
        assert_eq!(fault(""), PatternFault::Empty);
    }

    #[test]
    fn the_message_quotes_the_pattern() {
        let message = Pattern::parse("/x/{a").unwrap_err().to_string();

        assert_eq!(
            message,
            "unbalanced brace; write {{ or }} for a literal one in pattern \"/x/{a\""
        );
    }

    #[test]
    fn more_than_ten_placeholders_work() {
        let text: String = (0..64).map(|n| format!("/{{p{n}}}")).collect();
        let path: String = (0..64).map(|n| format!("/v{n}")).collect();
        let mut params = Params::new();
        params.read_slashes(path.as_bytes());

        assert!(
            Pattern::parse(&text)
                .unwrap()
                .capture(path.as_bytes(), &mut params)
        );

        let values: Vec<_> = params.values(path.as_bytes()).collect();
        assert_eq!(values.len(), 64);
        assert_eq!(values[63], b"v63");
    }
}
