//! Rust as far as the laws need it: words, braces, comments, literals and paths.
//!
//! Owns offsets into a text; refuses to know any law. It is no parser: what it is asked about is
//! formatted by rustfmt and compiles.

use std::ops::Range;

/// Rust without comments and literals, every byte of which becomes a space.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_literal(text, at);
        if end > at {
            for byte in code[at..end].iter_mut().filter(|byte| **byte != b'\n') {
                *byte = b' ';
            }
            at = end;
        } else {
            // A whole word, so that its last letter is not taken for the prefix of a string.
            at += 1;
            while is_word_byte(bytes[at - 1]) && at < bytes.len() && is_word_byte(bytes[at]) {
                at += 1;
            }
        }
    }
    String::from_utf8(code).expect("only whole literals were blanked")
}

/// Where the comment or literal that begins here ends; `at` itself when none begins.
fn end_of_literal(text: &str, at: usize) -> usize {
    let bytes = &text.as_bytes()[at..];
    let find = |from: usize, what: &str| {
        let found = text.get(at + from..).and_then(|rest| rest.find(what));
        found.map_or(text.len(), |found| at + from + found + what.len())
    };
    if bytes.starts_with(b"//") {
        return find(2, "\n") - 1;
    }
    if bytes.starts_with(b"/*") {
        return find(2, "*/");
    }
    let prefix = bytes
        .iter()
        .take(2)
        .take_while(|byte| b"rbc".contains(byte))
        .count();
    let raw = bytes[..prefix].contains(&b'r');
    let hashes = bytes[prefix..]
        .iter()
        .take_while(|byte| raw && **byte == b'#')
        .count();
    let quote = prefix + hashes;
    match bytes.get(quote) {
        Some(b'"') if raw => find(quote + 1, &format!("\"{}", "#".repeat(hashes))),
        Some(b'"') => at + after_quote(bytes, quote, b'"'),
        Some(b'\'') if bytes.get(quote + 1) == Some(&b'\\') => {
            at + after_quote(bytes, quote, b'\'')
        }
        Some(b'\'') => {
            // A character is followed by a quote; a lifetime is not.
            let mut rest = text[at + quote + 1..].char_indices().skip(1);
            let closed = rest.next().filter(|(_, next)| *next == '\'');
            closed.map_or(at, |(length, _)| at + quote + 1 + length + 1)
        }
        _ => at,
    }
}

/// Behind the closing quote of a literal with escapes.
fn after_quote(bytes: &[u8], open: usize, quote: u8) -> usize {
    let mut at = open + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The braces that open behind `at`, before any semicolon that is not within brackets.
pub fn body(code: &str, at: usize) -> Option<Range<usize>> {
    let mut brackets = 0_usize;
    let mut braces = 0_usize;
    let mut begin = 0;
    for (offset, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b';' if brackets == 0 && braces == 0 => return None,
            b'{' => {
                begin = if braces == 0 { offset } else { begin };
                braces += 1;
            }
            b'}' if braces <= 1 => return (braces == 1).then_some(begin..offset + 1),
            b'}' => braces -= 1,
            _ => {}
        }
    }
    None
}

/// Every path that begins with `crate::`, with the trees of `use` unfolded.
pub fn crate_paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut paths = Vec::new();
    for at in words_equal(code, "crate").filter(|at| code[at + 5..].starts_with("::")) {
        unfold(code, at + 7, &mut Vec::new(), &mut paths);
    }
    paths
}

/// Reads one branch of a tree; returns where it ends.
fn unfold(
    code: &str,
    begin: usize,
    before: &mut Vec<String>,
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let at = begin + (code.len() - begin - code[begin..].trim_start().len());
    if code[at..].starts_with('{') {
        let mut end = at;
        while code[end..].starts_with(['{', ',']) {
            end = unfold(code, end + 1, before, paths);
            end += code[end..].len() - code[end..].trim_start().len();
        }
        return end + 1;
    }
    let word: String = code[at..]
        .chars()
        .take_while(|c| is_word_char(*c) || *c == '*')
        .collect();
    let mut end = at + word.len();
    if word.is_empty() {
        return end;
    }
    before.push(word);
    if code[end..].starts_with("::") {
        end = unfold(code, end + 2, before, paths);
    } else {
        paths.push((at, before.clone()));
        if let Some(rest) = code[end..].strip_prefix(" as ") {
            end = code.len() - rest.trim_start_matches(is_word_char).len();
        }
    }
    before.pop();
    end
}

pub fn words_equal<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let found = text.match_indices(word).map(|(at, _)| at);
    found.filter(move |at| is_word(text, *at, word.len()))
}

pub fn is_word(text: &str, at: usize, length: usize) -> bool {
    let bytes = text.as_bytes();
    (at == 0 || !is_word_byte(bytes[at - 1]))
        && bytes
            .get(at + length)
            .is_none_or(|next| !is_word_byte(*next))
}

pub fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}
