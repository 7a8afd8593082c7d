//! Tests of the route table: Japronto's matcher cases, the order of decision, agreement with a
//! naive scan.
//!
//! Owns the naive matcher that the table is compared with. It knows no index, only the pattern
//! language.

use super::*;
use crate::router::PlaceholderKind;

fn table(routes: &[(&str, &[&str])]) -> RouteTable {
    RouteTable::new(
        routes
            .iter()
            .map(|(pattern, methods)| {
                let methods = methods.iter().map(|&method| method.to_owned()).collect();
                let methods: Option<Vec<String>> =
                    Some(methods).filter(|list: &Vec<_>| !list.is_empty());
                (Pattern::parse(pattern).unwrap(), methods)
            })
            .collect(),
    )
}

fn find(table: &RouteTable, method: &str, path: &str) -> Option<(usize, Vec<String>)> {
    let mut params = Params::new();
    let number = table.find(method.as_bytes(), path.as_bytes(), &mut params)?;
    let values = params
        .values(path.as_bytes())
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect();
    Some((number, values))
}

fn japrontos_table() -> RouteTable {
    table(&[
        ("/", &[]),
        ("/test", &["GET"]),
        ("/hi/{there}", &["POST", "DELETE"]),
        ("/{oh}/{dear}", &["PATCH"]),
        ("/lets", &["PATCH"]),
    ])
}

#[test]
fn finds_what_japrontos_matcher_finds() {
    let table = japrontos_table();
    for (method, path, route, values) in [
        ("GET", "/", 0, vec![]),
        ("POST", "/", 0, vec![]),
        ("GET", "/test", 1, vec![]),
        ("DELETE", "/hi/jane", 2, vec!["jane"]),
        ("PATCH", "/lets/go", 3, vec!["lets", "go"]),
        ("PATCH", "/lets", 4, vec![]),
    ] {
        let values: Vec<String> = values.into_iter().map(str::to_owned).collect();
        assert_eq!(
            find(&table, method, path),
            Some((route, values)),
            "{method} {path}"
        );
    }
}

#[test]
fn misses_what_japrontos_matcher_misses() {
    let table = japrontos_table();
    for (method, path) in [
        ("POST", "/test"),
        ("GET", "/test/"),
        ("GET", "/hi/jane"),
        ("POST", "/hi/jane/"),
        ("POST", "/hi/"),
        ("GET", "/abc"),
        ("PATCH", "//dance"),
    ] {
        assert_eq!(find(&table, method, path), None, "{method} {path}");
    }
}

#[test]
fn registration_order_decides_between_literal_and_placeholder() {
    let placeholder_first = table(&[("/{x}", &[]), ("/about", &[])]);
    let literal_first = table(&[("/about", &[]), ("/{x}", &[])]);

    assert_eq!(
        find(&placeholder_first, "GET", "/about"),
        Some((0, vec!["about".to_owned()]))
    );
    assert_eq!(find(&literal_first, "GET", "/about"), Some((0, vec![])));
}

#[test]
fn a_route_of_another_method_is_passed_over() {
    let table = table(&[
        ("/a", &["GET"]),
        ("/{x}", &["POST"]),
        ("/a", &["PUT"]),
        ("/a", &[]),
    ]);

    assert_eq!(find(&table, "GET", "/a"), Some((0, vec![])));
    assert_eq!(find(&table, "POST", "/a"), Some((1, vec!["a".to_owned()])));
    assert_eq!(find(&table, "PUT", "/a"), Some((2, vec![])));
    assert_eq!(find(&table, "DELETE", "/a"), Some((3, vec![])));
}

#[test]
fn a_suffix_of_an_allowed_method_does_not_match() {
    let table = table(&[("/", &["GET"])]);

    assert_eq!(find(&table, "ET", "/"), None);
    assert_eq!(find(&table, "get", "/"), None);
    assert_eq!(find(&table, "GETS", "/"), None);
}

#[test]
fn literals_are_compared_as_utf_8_bytes() {
    let table = table(&[("/tést", &[]), ("/{name}/ü", &[])]);

    assert_eq!(find(&table, "GET", "/tést"), Some((0, vec![])));
    assert_eq!(find(&table, "GET", "/é/ü"), Some((1, vec!["é".to_owned()])));
    assert_eq!(find(&table, "GET", "/test"), None);
}

#[test]
fn a_failed_attempt_leaves_no_captures_behind() {
    let table = table(&[("/{a}/{b}/x", &[]), ("/p/{c}/y", &[]), ("/p/q/z", &[])]);
    let mut params = Params::new();

    assert_eq!(table.find(b"GET", b"/p/q/z", &mut params), Some(2));
    assert!(params.is_empty());
    assert_eq!(table.find(b"GET", b"/p/q/nothing", &mut params), None);
    assert!(params.is_empty());
    assert_eq!(table.find(b"GET", b"/p/q/y", &mut params), Some(1));
    assert_eq!(params.len(), 1);
}

#[test]
fn prefixes_deeper_than_the_bits_of_a_word_are_found() {
    let deep = "/d".repeat(80);
    let deeper = "/d".repeat(200);
    let table = table(&[
        (&format!("{deep}/{{x}}"), &[]),
        (&format!("{deeper}/{{y}}"), &[]),
    ]);

    assert_eq!(
        find(&table, "GET", &format!("{deep}/v")),
        Some((0, vec!["v".to_owned()]))
    );
    assert_eq!(
        find(&table, "GET", &format!("{deeper}/w")),
        Some((1, vec!["w".to_owned()]))
    );
    assert_eq!(find(&table, "GET", &format!("{deep}/v/")), None);
}

#[test]
fn a_value_that_does_not_fit_goes_on_to_later_routes() {
    let table = table(&[
        ("/{id:int}", &[]),
        ("/{x:float}", &[]),
        ("/{u:uuid}", &[]),
        ("/{s:str}", &[]),
    ]);

    for (path, number) in [
        ("/-7", 0),
        ("/7.5", 1),
        ("/7e5", 3),
        ("/nan", 3),
        ("/7.", 3),
    ] {
        let value = path[1..].to_owned();
        assert_eq!(find(&table, "GET", path), Some((number, vec![value])));
    }
    let uuid = format!("/{UUID}");
    assert_eq!(find(&table, "GET", &uuid).map(|found| found.0), Some(2));
}

#[test]
fn a_rest_of_the_path_is_one_or_more_characters() {
    let table = table(&[("/files/{rest:path}", &[]), ("/v{version:path}", &[])]);

    for (path, number, value) in [
        ("/files/a", 0, "a"),
        ("/files/a/b/", 0, "a/b/"),
        ("/files//a", 0, "/a"),
        ("/files//", 0, "/"),
        ("/v1/x", 1, "1/x"),
    ] {
        let found = find(&table, "GET", path);
        assert_eq!(found, Some((number, vec![value.to_owned()])), "{path}");
    }
    for path in ["/files/", "/files", "/v"] {
        assert_eq!(find(&table, "GET", path), None, "{path}");
    }
}

#[test]
fn registration_order_decides_between_a_rest_and_longer_prefixes() {
    let table = table(&[
        ("/a/b/{x}", &["PUT"]),
        ("/{rest:path}", &["GET"]),
        ("/a/b/{x}", &["GET"]),
        ("/a/{x}/{rest:path}", &["PUT"]),
    ]);

    assert_eq!(find(&table, "GET", "/a/b/c").map(|found| found.0), Some(1));
    assert_eq!(find(&table, "PUT", "/a/b/c").map(|found| found.0), Some(0));
    assert_eq!(
        find(&table, "PUT", "/a/b/c/d"),
        Some((3, vec!["b".to_owned(), "c/d".to_owned()]))
    );
}

#[test]
fn the_methods_of_a_path_are_those_of_every_route_that_matches() {
    let table = table(&[
        ("/a/b", &["PUT", "GET"]),
        ("/a/{x}", &["POST", "GET"]),
        ("/{rest:path}", &["DELETE"]),
        ("/a/{id:int}", &["PATCH"]),
    ]);
    let methods_of = |path: &str| {
        let methods = table.methods_of(path.as_bytes()).into_iter();
        methods
            .map(|method| String::from_utf8(method.to_vec()).unwrap())
            .collect::<Vec<_>>()
    };

    assert_eq!(methods_of("/a/b"), ["DELETE", "GET", "POST", "PUT"]);
    assert_eq!(methods_of("/a/1"), ["DELETE", "GET", "PATCH", "POST"]);
    assert_eq!(methods_of("/b"), ["DELETE"]);
    assert!(methods_of("/").is_empty());
    assert_eq!(table.methods().len(), 5);
}

#[test]
fn an_empty_table_finds_nothing() {
    let table = table(&[]);

    assert!(table.is_empty());
    assert_eq!(find(&table, "GET", "/"), None);
}

/// What a table must agree with: a scan in registration order over the pattern text.
fn naive(routes: &[(String, Option<Vec<String>>)], method: &str, path: &str) -> Option<usize> {
    routes.iter().position(|(pattern, methods)| {
        let method_fits = methods
            .as_ref()
            .is_none_or(|methods| methods.iter().any(|allowed| allowed == method));
        method_fits && naive_match(pattern, path)
    })
}

fn naive_match(pattern: &str, path: &str) -> bool {
    match pattern.split_once('{') {
        None => pattern == path,
        Some((literal, rest)) => {
            let Some(path) = path.strip_prefix(literal) else {
                return false;
            };
            let (inside, rest) = rest.split_once('}').unwrap();
            let kind = inside.split_once(':').map_or("str", |(_name, kind)| kind);
            let taken = match kind {
                "path" => path.len(),
                _ => path.find('/').unwrap_or(path.len()),
            };
            taken > 0 && naive_fits(kind, &path[..taken]) && naive_match(rest, &path[taken..])
        }
    }
}

fn naive_fits(kind: &str, value: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = value.strip_prefix('-').unwrap_or(value);
    match kind {
        "int" => is_number(unsigned),
        "float" => unsigned.splitn(2, '.').all(is_number),
        "uuid" => {
            let groups: Vec<&str> = value.split('-').collect();
            let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
            lengths == [8, 4, 4, 4, 12] && groups.concat().bytes().all(|b| b.is_ascii_hexdigit())
        }
        _ => true,
    }
}

fn naive_methods<'a>(
    routes: &'a [(String, Option<Vec<String>>)],
    path: &str,
) -> BTreeSet<&'a [u8]> {
    routes
        .iter()
        .filter(|(pattern, _)| naive_match(pattern, path))
        .flat_map(|(_, methods)| methods.iter().flatten().map(String::as_bytes))
        .collect()
}

/// A seeded generator (xorshift64*): failures repeat, and no dependency is needed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn pattern(&mut self) -> String {
        let mut text = self.pick(&["/", "/", "/", ""]).to_owned();
        for number in 0..=self.below(4) {
            if number > 0 {
                text.push('/');
            }
            text.push_str(self.pick(&["", "", "a", "b", "long-segment"]));
            if self.below(2) == 0 {
                let kind = self.pick(&["", "", ":str", ":int", ":float", ":uuid", ":path"]);
                text.push_str(&format!("{{p{number}{kind}}}"));
                if kind == ":path" {
                    break;
                }
            }
        }
        text
    }

    fn path(&mut self) -> String {
        let mut text = self.pick(&["/", "/", "/", ""]).to_owned();
        for number in 0..=self.below(4) {
            if number > 0 {
                text.push('/');
            }
            text.push_str(self.pick(&["", "", "a", "b"]));
            text.push_str(self.pick(&["", "b", "x", "7", "-12", "1.5", "-.5", "2.", UUID]));
        }
        text
    }
}

const UUID: &str = "0123abCD-0000-4000-8000-89aBcDeF0123";

#[test]
fn agrees_with_a_naive_scan_on_generated_tables() {
    let rounds = if cfg!(miri) { 5 } else { 2_000 };
    let (mut hits, mut rests) = (0, 0);
    for seed in 1..=rounds {
        let mut dice = Dice(seed);
        let mut routes = Vec::new();
        for _ in 0..dice.below(12) {
            let pattern = dice.pattern();
            if pattern.is_empty() {
                continue;
            }
            let methods = match dice.below(3) {
                0 => None,
                1 => Some(vec!["GET".to_owned()]),
                _ => Some(vec!["POST".to_owned(), "PUT".to_owned()]),
            };
            routes.push((pattern, methods));
        }
        let compiled = RouteTable::new(
            routes
                .iter()
                .map(|(pattern, methods)| (Pattern::parse(pattern).unwrap(), methods.clone()))
                .collect(),
        );
        for _ in 0..50 {
            let (method, path) = (dice.pick(&["GET", "POST", "PUT", "ET"]), dice.path());
            let expected = naive(&routes, method, &path);
            if expected.is_none() {
                assert_eq!(
                    compiled.methods_of(path.as_bytes()),
                    naive_methods(&routes, &path),
                    "{seed} {path}"
                );
            }
            let found = find(&compiled, method, &path);
            assert_eq!(
                found.as_ref().map(|(number, _)| *number),
                expected,
                "{seed} {method} {path}"
            );
            if let Some((number, values)) = found {
                hits += 1;
                let placeholders = compiled.pattern(number).placeholders();
                assert_eq!(values.len(), placeholders.len());
                for (placeholder, value) in placeholders.iter().zip(&values) {
                    let takes_rest = placeholder.kind == PlaceholderKind::Path;
                    rests += u64::from(takes_rest && value.contains('/'));
                    assert!(!value.is_empty() && (takes_rest || !value.contains('/')));
                    assert!(placeholder.kind.fits(value.as_bytes()));
                }
            }
        }
    }
    assert!(
        hits > rounds && rests > rounds / 4,
        "the generator must hit, or nothing is tested: {hits} {rests}"
    );
}
