//! The laws of the tree, tried: every rule reports its bad snippet and passes its good one.
//!
//! Owns the snippets; refuses to look at the tree.

use std::collections::BTreeSet;

use super::{Laws, Source, invariants};

/// What the laws say about one file in a tree with the invariant R1 and one chapter.
fn verdict(path: &str, text: &str) -> Vec<String> {
    let mut laws = Laws {
        invariants: invariants("R1"),
        paths: BTreeSet::from(["tutorial/01_a.md".to_owned()]),
        ..Laws::default()
    };
    laws.check(&Source::new(path, text));
    laws.findings.iter().map(ToString::to_string).collect()
}

/// Path, bad text, its message, good text. An escape keeps a marker from being found here.
#[rustfmt::skip]
const SNIPPETS: &[(&str, &str, &str, &str)] = &[
    ("a.md", "a ", "1: whitespace: remove it from the end of the line", "a"),
    ("examples/a.py", "# FIX\x4dE", "1: marker: mend it now, or open an issue", "# FIXMEUP"),
    ("examples/a.py", "# TO\x44O: b", "1: marker: say the number of the issue, as in #123", "# TO\x44O #7: b"),
    ("src/router/a.rs", "fn get_a() {}", "2: name: get_a says nothing; CONTRIBUTING.md has the words", "fn target_a() {}"),
    ("src/router/a.rs", "struct RouteManager;", "2: name: RouteManager says nothing; CONTRIBUTING.md has the words", "type Item = u8;"),
    ("src/router/a.rs", "fn do_a() {}", "2: name: do_a says nothing; CONTRIBUTING.md has the words", "#[cfg(test)]\nmod tests { fn get_a() {} }"),
    ("python/anel/loop.py", "\"\"\"C.\"\"\"\nclass LoopHelper: ...", "2: name: LoopHelper says nothing; CONTRIBUTING.md has the words", "\"\"\"C.\"\"\"\ndef get_all(): ..."),
    ("src/router/a.rs", "#[allow(dead_code)]", "2: exception: say why in a comment on or above the line", "#[allow(dead_code)] // Because."),
    ("Cargo.toml", "a = \"allow\"", "1: exception: say why in a comment on or above the line", "# Because.\na = \"allow\""),
    ("src/router/a.rs", "fn a() { unsafe { b() } }", "2: unsafe: use safe code, or move it to src/reactor or src/python/raw.rs", "const A: &str = \"unsafe\"; // unsafe"),
    ("src/reactor/a.rs", "fn a() { unsafe { b() } }", "2: unsafe: write a SAFETY comment above it", "// SAFETY: true (invariant\n// R1).\nunsafe impl A for B {}"),
    ("src/reactor/a.rs", "// SAFETY: true.\nunsafe { b() }", "3: unsafe: name an invariant of SAFETY.md, as in R2", "// SAFETY: R1.\nlet a =\n    unsafe { b() };"),
    ("src/reactor/a.rs", "// SAFETY: R7.\nunsafe { b() }", "3: unsafe: there is no R7 in SAFETY.md: describe it there", "unsafe extern \"C\" fn a() {}"),
    ("src/protocol/a.rs", "use crate::server::Worker;", "2: layer: protocol knows nothing of server; pass it in, or move the code", "use crate::protocol::Limits;"),
    ("src/server/a.rs", "use crate::{protocol::Http1, router::{Table as T}};", "2: layer: server knows nothing of router; pass it in, or move the code", "use crate::reactor::{Kind, Op as Asked};"),
    ("src/server/a.rs", "use crate::reactor::{Op, Ring,};", "2: layer: Ring is not a word of the seam; see src/reactor/seam.rs", "use crate::protocol::*;"),
    ("src/server/a.rs", "fn a() { super::super::b() }", "2: layer: write crate::, so that the layer can be seen", "fn a() { super::b() }"),
    ("src/server/a.rs", "use pyo3::Python;", "2: word: pyo3: only src/python knows Python", "// pyo3\nfn a() {}"),
    ("src/python/a.rs", "use libc::close;", "2: word: libc: only src/reactor talks to the kernel", "use pyo3::Python;"),
    ("src/reactor/a.rs", "use io_uring::IoUring;", "2: word: io_uring: only src/reactor/uring knows the ring", "const A: &str = r#\"io_uring\"#;"),
    ("src/protocol/a.rs", "use httparse::Request;", "2: word: httparse: tests compare src/protocol/head.rs with it", "// httparse\nfn a() {}"),
    ("src/server/a.rs", "use std::time::Instant;", "2: word: Instant: take the time as an argument", "use std::time::Duration;"),
    ("src/server/a.rs", "use std::thread;", "2: word: thread: a worker has one thread: its caller's", "fn threads() {}"),
    ("src/server/a.rs", "use std::env;", "2: word: env: take the setting as an argument", "fn environment<'a>() -> &'a str { \"env\" }"),
    ("src/server/a.rs", "fn a() { println!(\"b\") }", "2: word: println!: hand the words to the caller", "#[cfg(test)]\nmod tests { fn a() { println!(\"b\") } }"),
    ("src/reactor/a.rs", "const IORING_A: u8 = 1;", "2: word: take the kernel's structs from the io-uring crate", "const ENTRIES: u8 = 1;"),
    ("python/anel/exceptions.py", "\"\"\"C.\"\"\"\nfrom anel.loop import a", "2: import: exceptions is below loop; pass it in, or move the code", "\"\"\"C.\"\"\"\nimport errno"),
    ("python/anel/loop.py", "\"\"\"C.\"\"\"\nfrom anel import Router", "2: import: loop is below anel; pass it in, or move the code", "\"\"\"C.\"\"\"\nfrom anel.exceptions import a"),
    ("python/anel/loop.py", "\"\"\"C.\"\"\"\nfrom .exceptions import a", "2: import: write the absolute name", "\"\"\"C.\"\"\"\nfrom anelid import a"),
];

#[test]
fn every_rule_reports_its_bad_snippet_and_passes_its_good_one() {
    for (path, bad, message, good) in SNIPPETS {
        let contract = if path.ends_with(".rs") {
            "//! C.\n"
        } else {
            ""
        };

        let broken = verdict(path, &format!("{contract}{bad}\n"));
        let kept = verdict(path, &format!("{contract}{good}\n"));

        assert_eq!(broken, [format!("{path}:{message}")], "for {bad:?}");
        assert!(kept.is_empty(), "for {good:?}: {kept:?}");
    }
}

#[test]
fn lengths_are_counted_without_tests() {
    let lines = |count: usize| "    f();\n".repeat(count);
    let long = format!("//! C.\nfn a() {{\n{}}}\n", lines(69));
    let test = format!(
        "//! C.\n#[cfg(test)]\nmod tests {{\n    fn a() {{\n{}}}\n}}\n",
        lines(600)
    );
    let many = format!("//! C.\n{}", "struct A;\n".repeat(500));
    let chapter = "a\n".repeat(101);

    assert_eq!(
        verdict("src/router/a.rs", &long),
        ["src/router/a.rs:2: function length: 71 lines; 70 is the most"]
    );
    assert!(verdict("src/router/a.rs", &test).is_empty());
    assert_eq!(
        verdict("src/router/a.rs", &many),
        ["src/router/a.rs:1: file length: 501 lines; split it by nouns, 500 is the most"]
    );
    assert_eq!(
        verdict("tutorial/01_a.py", &chapter),
        ["tutorial/01_a.py:1: chapter: 101 lines; 100 is the most"]
    );
}

#[test]
fn a_file_is_expected_where_another_needs_it() {
    assert_eq!(
        verdict("python/anel/new.py", "\"\"\"C.\"\"\"\n"),
        ["python/anel/new.py:1: import: put new into PYTHON in tests/rust/layers.rs, in its place"]
    );
    assert_eq!(
        verdict("tutorial/02_b.py", ""),
        ["tutorial/02_b.py:1: chapter: write tutorial/02_b.md, or remove this file"]
    );
    assert!(verdict("tutorial/01_a.py", "").is_empty());
    assert_eq!(
        verdict("src/python/mod.rs", "//! C.\n#[pymodule]\n"),
        ["src/python/mod.rs:1: unsafe: say #[pymodule(gil_used = true)]: P1 rests on it"]
    );
    assert!(
        verdict(
            "src/python/mod.rs",
            "//! C.\n#[pymodule(gil_used = true)]\n"
        )
        .is_empty()
    );
}

#[test]
fn every_file_opens_with_a_contract_and_ends_its_last_line() {
    let contract = "contract: open the file with //!: what it owns and refuses to know";
    assert_eq!(
        verdict("tests/rust/a.rs", "fn a() {}\n"),
        [format!("tests/rust/a.rs:1: {contract}")]
    );
    assert_eq!(
        verdict("README.md", "a"),
        ["README.md:1: whitespace: end the last line"]
    );
    assert_eq!(
        verdict("src/router/mod.rs", "//! C.\n"),
        ["src/router/mod.rs:1: unsafe: say #![forbid(unsafe_code)] here"]
    );
}
