//! Replays the wire cases of `tests/cases` under every split of their bytes.
//!
//! Owns what a case says and the comparison. Refuses to know what is right: the files say
//! it. Their form is described in `tests/cases/README.md`.

mod inputs;
mod wire;

use std::collections::HashSet;

use anel::protocol::{Limits, ProtocolError, Version};
use inputs::{Bytes, files, latin_1};
use serde::Deserialize;
use wire::{Ending, Outcome, Seen, replay, splits};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    rfc: String,
    input: Bytes,
    #[serde(default)]
    requests: Vec<Expected>,
    refuse: Option<String>,
    status: Option<u16>,
    refused_method: Option<String>,
    #[serde(default)]
    wants_more: bool,
    at_end: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default = "get")]
    method: String,
    #[serde(default = "slash")]
    target: Bytes,
    #[serde(default = "one_dot_one")]
    version: String,
    #[serde(default = "yes")]
    keep_alive: bool,
    body: Option<Bytes>,
    #[serde(default)]
    expects_continue: bool,
    path: Option<String>,
    query: Option<String>,
    host: Option<String>,
    fields: Option<Vec<(String, String)>>,
}

fn get() -> String {
    "GET".to_owned()
}

fn slash() -> Bytes {
    Bytes::Text("/".to_owned())
}

fn one_dot_one() -> String {
    "1.1".to_owned()
}

fn yes() -> bool {
    true
}

fn cases() -> Vec<(String, Case)> {
    let named =
        |(name, file): (String, File)| file.case.into_iter().map(move |case| (name.clone(), case));
    files().into_iter().flat_map(named).collect()
}

impl Case {
    fn check(&self, outcome: &Outcome) -> Result<(), String> {
        if outcome.requests.len() != self.requests.len() {
            let (got, wanted) = (outcome.requests.len(), self.requests.len());
            return Err(format!("{got} requests instead of {wanted}: {outcome:?}"));
        }
        for (number, (seen, expected)) in outcome.requests.iter().zip(&self.requests).enumerate() {
            expected
                .check(seen)
                .map_err(|reason| format!("request {number}: {reason}"))?;
        }
        let keep_alive = self
            .requests
            .last()
            .is_none_or(|request| request.keep_alive);
        match (outcome.ending, &self.refuse, self.wants_more) {
            (Ending::Refused(error), Some(name), false) => {
                same("refusal", &format!("{error:?}"), name)?;
                same("status", &Some(error.status()), &self.status)
            }
            (Ending::WantsMore(error), None, true) => {
                same("end", &Some(format!("{error:?}")), &self.at_end)
            }
            (Ending::Idle, None, false) if keep_alive => Ok(()),
            (Ending::Paused, None, false) if !keep_alive => Ok(()),
            (ending, ..) => Err(format!("it ended with {ending:?}")),
        }
    }
}

impl Expected {
    fn check(&self, seen: &Seen) -> Result<(), String> {
        let version = match seen.version {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        };
        same("method", &seen.method, &latin_1(&self.method))?;
        same("target", &seen.target, &self.target.bytes())?;
        same("version", version, &self.version[..])?;
        same("keep_alive", &seen.keep_alive, &self.keep_alive)?;
        same("body", &seen.body, &self.body.as_ref().map(Bytes::bytes))?;
        same(
            "expects_continue",
            &seen.expects_continue,
            &self.expects_continue,
        )?;
        if let Some(path) = &self.path {
            same("path", &seen.path, &latin_1(path))?;
        }
        if self.path.is_some() || self.query.is_some() {
            same("query", &seen.query, &self.query.as_deref().map(latin_1))?;
        }
        if let Some(host) = &self.host {
            same("host", &seen.host, &Some(latin_1(host)))?;
        }
        if let Some(fields) = &self.fields {
            let pair = |(name, value): &(String, String)| (latin_1(name), latin_1(value));
            same("fields", &seen.fields, &fields.iter().map(pair).collect())?;
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug + ?Sized>(
    what: &str,
    got: &T,
    wanted: &T,
) -> Result<(), String> {
    if got == wanted {
        Ok(())
    } else {
        Err(format!("{what} is {got:?} instead of {wanted:?}"))
    }
}

#[test]
fn every_case_ends_the_same_under_every_split() {
    let mut failures = Vec::new();
    for (number, (file, case)) in cases().iter().enumerate() {
        let input = case.input.bytes();
        for (split, pieces) in splits(input.len(), number as u64) {
            let outcome = replay(&input, &pieces, Limits::default());
            if let Err(reason) = case.check(&outcome) {
                failures.push(format!("{file}: {:?} ({split}): {reason}", case.name));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn every_name_is_unique_and_every_case_cites_its_source() {
    let cases = cases();
    let mut names = HashSet::new();

    for (file, case) in &cases {
        assert!(
            names.insert(&case.name),
            "{file}: {:?} is there twice",
            case.name
        );
        assert!(
            !case.rfc.is_empty(),
            "{file}: {:?} cites nothing",
            case.name
        );
    }

    assert!(cases.len() >= 500, "only {} cases", cases.len());
}

#[test]
fn a_refused_method_is_that_of_the_last_head_and_only_of_refusals() {
    for (file, case) in cases() {
        let input = case.input.bytes();
        let begins = |method: &str| memchr::memmem::rfind(&input, format!("{method} ").as_bytes());
        if let Some(method) = &case.refused_method {
            assert!(
                case.refuse.is_some() && begins(method).is_some(),
                "{file}: {:?} refuses no {method}",
                case.name
            );
        } else if case.refuse.is_some() {
            assert!(
                begins("HEAD").is_none(),
                "{file}: {:?} does not say refused_method",
                case.name
            );
        }
    }
}

#[test]
fn every_mistake_that_bytes_can_make_has_a_case() {
    let cases = cases();
    let names: HashSet<&str> = cases
        .iter()
        .flat_map(|(_, case)| [case.refuse.as_deref(), case.at_end.as_deref()])
        .flatten()
        .collect();

    for error in ProtocolError::ALL {
        let takes_time = matches!(
            error,
            ProtocolError::HeadTimeout | ProtocolError::BodyTimeout
        );
        let name = format!("{error:?}");
        assert!(
            takes_time || names.contains(&name[..]),
            "no case is refused with {name}"
        );
    }
}

/// The rows of the tables with so many columns in the page about refusals; a name of a case comes
/// last.
fn rows(columns: usize) -> Vec<Vec<&'static str>> {
    include_str!("../../src/protocol/REFUSALS.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect::<Vec<_>>())
        .filter(|row| row.len() == columns && !row.contains(&"case"))
        .collect()
}

#[test]
fn the_page_about_refusals_says_what_the_code_does() {
    let cases = cases();
    let rows = rows(5);

    for row in &rows {
        let [mistake, status, section, _, name] = row[..] else {
            unreachable!("five columns")
        };
        let error = ProtocolError::ALL
            .into_iter()
            .find(|error| format!("{error:?}") == mistake)
            .unwrap_or_else(|| panic!("there is no {mistake}"));
        let case = cases.iter().find(|(_, case)| case.name == name);
        let (_, case) = case.unwrap_or_else(|| panic!("{mistake}: there is no case {name:?}"));
        assert_eq!(case.refuse.as_deref(), Some(mistake), "{name:?}");
        assert_eq!(
            (status, section),
            (&*error.status().to_string(), error.rfc())
        );
    }

    for (file, case) in &cases {
        let Some(mistake) = &case.refuse else {
            continue;
        };
        let listed = rows.iter().filter(|row| row[0] == mistake).count();
        assert_eq!(listed, 1, "{file}: rows for {mistake} in REFUSALS.md");
    }
}

#[test]
fn the_page_about_refusals_lets_pass_what_the_code_does() {
    let cases = cases();
    let rows = rows(2);

    assert!(!rows.is_empty());
    for row in rows {
        let case = cases.iter().find(|(_, case)| case.name == row[1]);
        let (_, case) = case.unwrap_or_else(|| panic!("there is no case {:?}", row[1]));
        assert!(case.refuse.is_none() && !case.wants_more, "{:?}", row[1]);
    }
}
