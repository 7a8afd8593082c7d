//! The laws that hold for every file: its form, its lengths, its names.
//!
//! Owns the numbers and the words; refuses to know layers.

use std::path::Path;

use super::words::{body, is_word, is_word_char, line_of, words_equal};
use super::{Laws, Source};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

const BANNED: &[&str] = &[
    "manager", "helper", "helpers", "util", "utils", "common", "misc", "base", "abstract", "impl",
    "inner", "data", "info", "item", "thing", "obj", "ctx2",
];
const BANNED_BEGINNINGS: &[&str] = &["get_", "do_", "process_", "handle_it"];
/// Names that somebody else chose: the standard library, Python's mappings, asyncio.
const EXEMPT_NAMES: &[&str] = &["Item", "get_all", "get_extra_info"];

impl Laws {
    pub fn check_whitespace_and_markers(&mut self, source: &Source) {
        let mut at = 0;
        for line in source.text.split_inclusive('\n') {
            let text = line.trim_end_matches('\n');
            if text.ends_with([' ', '\t', '\r']) {
                self.report(
                    source,
                    at,
                    "whitespace",
                    "remove it from the end of the line",
                );
            }
            at += line.len();
        }
        if !source.text.is_empty() && !source.text.ends_with('\n') {
            self.report(source, source.text.len(), "whitespace", "end the last line");
        }
        if source.path.ends_with(".md") {
            return;
        }
        for marker in ["FIX\x4dE", "XX\x58", "HAC\x4b"] {
            for at in words_equal(&source.text, marker) {
                self.report(source, at, "marker", "mend it now, or open an issue");
            }
        }
        for at in words_equal(&source.text, "TO\x44O") {
            let line = source.text[at..].lines().next().unwrap_or("");
            let number = line.split_once('#').map_or("", |(_, rest)| rest);
            if !number.starts_with(|first: char| first.is_ascii_digit()) {
                self.report(
                    source,
                    at,
                    "marker",
                    "say the number of the issue, as in #123",
                );
            }
        }
    }

    pub fn check_contract(&mut self, source: &Source, begin: &str) {
        if !source.text.is_empty() && !source.text.starts_with(begin) {
            let instead = format!("open the file with {begin}: what it owns and refuses to know");
            self.report(source, 0, "contract", &instead);
        }
    }

    pub fn check_lengths(&mut self, source: &Source) {
        let lines = source.in_test.iter().take(source.text.lines().count());
        let lines = lines.filter(|in_test| !**in_test).count();
        if lines > FILE_LINES_MAX {
            let instead = format!("{lines} lines; split it by nouns, {FILE_LINES_MAX} is the most");
            self.report(source, 0, "file length", &instead);
        }
        for (at, _) in source
            .code
            .match_indices("fn ")
            .filter(|(at, _)| is_word(&source.code, *at, 2))
        {
            let Some(body) = body(&source.code, at).filter(|_| !source.is_test(at)) else {
                continue;
            };
            let lines = source.code[at..body.end].lines().count();
            if lines > FUNCTION_LINES_MAX {
                let instead = format!("{lines} lines; {FUNCTION_LINES_MAX} is the most");
                self.report(source, at, "function length", &instead);
            }
        }
        let mut at = 0;
        for line in source.text.split_inclusive('\n') {
            let columns = line.trim_end().chars().count();
            // A string that would lose its sense when broken may stand alone on a longer line.
            let code = source.code.get(at..at + line.len()).unwrap_or("");
            let literal = line.contains('"') && !code.contains(|c: char| c.is_alphanumeric());
            if columns > COLUMNS_MAX && (!literal || line.trim_start().starts_with("//")) {
                let instead = format!("{columns} columns; {COLUMNS_MAX} is the most");
                self.report(source, at, "line length", &instead);
            }
            at += line.len();
        }
    }

    pub fn check_names(&mut self, source: &Source) {
        let stem = Path::new(&source.path)
            .file_stem()
            .map(|stem| stem.to_string_lossy());
        if stem.is_some_and(|stem| is_banned(&stem)) {
            self.report(source, 0, "name", "name the file after its main type");
        }
        let rust = [
            "fn", "struct", "enum", "trait", "type", "mod", "const", "static",
        ];
        let keywords = if source.path.ends_with(".rs") {
            &rust[..]
        } else {
            &["def", "class"][..]
        };
        for at in keywords
            .iter()
            .flat_map(|keyword| words_equal(&source.code, keyword))
        {
            let rest = source.code[at..].trim_start_matches(is_word_char);
            let name = rest.strip_prefix(' ').unwrap_or("");
            let name = name.split(|c: char| !is_word_char(c)).next().unwrap_or("");
            if !source.is_test(at) && !EXEMPT_NAMES.contains(&name) && is_banned(name) {
                let instead = format!("{name} says nothing; CONTRIBUTING.md has the words");
                self.report(source, at, "name", &instead);
            }
        }
    }

    pub fn check_exceptions(&mut self, source: &Source) {
        let toml = source.path.ends_with(".toml");
        let wanted = if toml {
            &["\"allow\""][..]
        } else {
            &["#[allow(", "#![allow(", "#[expect("][..]
        };
        for (at, _) in wanted
            .iter()
            .flat_map(|wanted| source.code.match_indices(wanted))
        {
            let line = line_of(&source.text, at) - 1;
            let mark = if toml { "# " } else { "// " };
            let above = source
                .text
                .lines()
                .nth(line.wrapping_sub(1))
                .unwrap_or("")
                .trim_start();
            let here = source.text.lines().nth(line).unwrap_or("");
            let attribute = source.text[at..].split(']').next().unwrap_or("");
            if !above.starts_with(mark) && !here.contains(mark) && !attribute.contains("reason =") {
                self.report(
                    source,
                    at,
                    "exception",
                    "say why in a comment on or above the line",
                );
            }
        }
    }
}

fn is_banned(name: &str) -> bool {
    let mut words = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            words.push('_');
        }
        words.extend(letter.to_lowercase());
    }
    let last = words.rsplit('_').next().unwrap_or("");
    let begins = |beginning: &&str| words.starts_with(*beginning);
    BANNED.contains(&last) || BANNED_BEGINNINGS.iter().any(begins)
}
