//! The laws of the tree: what a file may name, contain and be called.
//!
//! Owns the rules and their messages; refuses to know Rust beyond words, braces and comments. It
//! walks the tree once and reports `path:line: rule: what to do instead`. Every rule has a bad
//! snippet with its message, and a good one, in `layers/snippets.rs`.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

#[path = "layers/snippets.rs"]
mod snippets;
#[path = "layers/text.rs"]
mod text;
#[path = "layers/words.rs"]
mod words;

use words::{blank, body, crate_paths, is_word_char, line_of, words_equal};

/// What `server` may name of `reactor`: the words of the seam.
const SEAM: &[&str] = &[
    "Op",
    "Completion",
    "Outcome",
    "Token",
    "Kind",
    "Arm",
    "Half",
    "Lease",
    "SendBuffer",
    "Errno",
    "Submit",
    "GENERATION_MASK",
];
/// The modules of `anel`, lowest first; a module imports only those before it.
const PYTHON: &[&str] = &[
    "exceptions",
    "encoding",
    "settings",
    "choices",
    "_core",
    "limits",
    "loop",
    "request",
    "streaming",
    "transport",
    "forms",
    "cookies",
    "files",
    "sse",
    "extension",
    "constants",
    "handlers",
    "patterns",
    "routing",
    "socket_path",
    "steering",
    "listener",
    "privileges",
    "systemd",
    "telling",
    "stacks",
    "concurrency",
    "affinity",
    "scheduling",
    "rules",
    "board",
    "child",
    "post",
    "pid_file",
    "proxies",
    "loading",
    "script",
    "failures",
    "loops",
    "selection",
    "watch",
    "logs",
    "access_log",
    "options",
    "guest",
    "redirection",
    "shortcuts",
    "middleware",
    "hooks",
    "draining",
    "serving",
    "forking",
    "noting",
    "companions",
    "metrics",
    "observer",
    "slots",
    "heartbeat",
    "rolling",
    "starting",
    "status",
    "control",
    "master",
    "reloading",
    "rerun",
    "launch",
    "application",
    "anel",
    "alias",
    "flags",
    "finding",
    "reports",
    "ctl",
    "cli",
    "japronto",
    "__main__",
];
/// Each block is reviewed; a larger budget is a diff that somebody approves.
const UNSAFE_MAX: usize = 40;
const CHAPTER_LINES_MAX: usize = 100;

/// A file of the tree, seen three ways.
struct Source {
    path: String,
    text: String,
    /// The text with comments and literals blanked, byte for byte, so that offsets agree.
    code: String,
    /// Whether a line, counted from 0, belongs to a test.
    in_test: Vec<bool>,
}

/// A broken rule.
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    instead: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.path, self.line, self.rule, self.instead
        )
    }
}

/// The rules in progress: what they share, and what they found.
#[derive(Default)]
struct Laws {
    invariants: BTreeSet<String>,
    paths: BTreeSet<String>,
    unsafe_total: usize,
    findings: Vec<Finding>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") {
            blank(text)
        } else {
            text.to_owned()
        };
        let whole = path.starts_with("tests/") || path.ends_with("tests.rs");
        let mut in_test = vec![whole; text.lines().count() + 1];
        for (at, attribute) in code.match_indices("#[cfg(test)]") {
            let begin = at + attribute.len();
            let end = body(&code, begin).map_or(begin, |body| body.end);
            in_test[line_of(&code, at) - 1..line_of(&code, end)].fill(true);
        }
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            in_test,
        }
    }

    fn layer(&self) -> &str {
        self.path
            .strip_prefix("src/")
            .and_then(|rest| rest.split('/').next())
            .unwrap_or("")
    }

    fn under(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    fn is_test(&self, at: usize) -> bool {
        self.in_test[line_of(&self.code, at) - 1]
    }
}

impl Laws {
    fn report(&mut self, source: &Source, at: usize, rule: &'static str, instead: &str) {
        let line = line_of(&source.text, at);
        let (path, instead) = (source.path.clone(), instead.to_owned());
        self.findings.push(Finding {
            path,
            line,
            rule,
            instead,
        });
    }

    fn check(&mut self, source: &Source) {
        self.check_whitespace_and_markers(source);
        if source.path.ends_with(".rs") {
            self.check_contract(source, "//!");
            self.check_lengths(source);
            self.check_names(source);
            self.check_exceptions(source);
            self.check_unsafe(source);
            if source.under("src/") {
                self.check_layer(source);
                self.check_words(source);
            }
        } else if source.under("python/anel/") && source.path.ends_with(".py") {
            self.check_contract(source, "\"\"\"");
            self.check_names(source);
            self.check_python_imports(source);
        } else if source.under("tutorial/") {
            self.check_chapter(source);
        } else if source.path.ends_with("Cargo.toml") {
            self.check_exceptions(source);
        }
    }

    fn check_unsafe(&mut self, source: &Source) {
        let home = source.under("src/reactor/") || source.under("src/python/raw");
        for at in words_equal(&source.code, "unsafe") {
            if source.under("benchmarks/") {
                // A workspace of its own, which nobody installs.
                continue;
            }
            if !home {
                let instead = "use safe code, or move it to src/reactor or src/python/raw.rs";
                self.report(source, at, "unsafe", instead);
                continue;
            }
            let next = source.code[at + "unsafe".len()..].trim_start();
            if !next.starts_with('{') && !next.starts_with("impl") {
                continue;
            }
            self.unsafe_total += 1;
            let names = safety_names(&source.text, line_of(&source.text, at));
            match names {
                None => self.report(source, at, "unsafe", "write a SAFETY comment above it"),
                Some(names) if names.is_empty() => {
                    self.report(
                        source,
                        at,
                        "unsafe",
                        "name an invariant of SAFETY.md, as in R2",
                    );
                }
                Some(names) => {
                    for name in names.difference(&self.invariants.clone()) {
                        let instead = format!("there is no {name} in SAFETY.md: describe it there");
                        self.report(source, at, "unsafe", &instead);
                    }
                }
            }
        }
        let safe = [
            "src/protocol/mod.rs",
            "src/router/mod.rs",
            "src/server/mod.rs",
        ];
        if safe.contains(&source.path.as_str()) && !source.code.contains("#![forbid(unsafe_code)]")
        {
            self.report(source, 0, "unsafe", "say #![forbid(unsafe_code)] here");
        }
        if source.path == "src/python/mod.rs" && !source.code.contains("gil_used = true") {
            // PyO3 declares by default that a module needs no GIL.
            let instead = "say #[pymodule(gil_used = true)]: P1 rests on it";
            self.report(source, 0, "unsafe", instead);
        }
    }

    fn check_layer(&mut self, source: &Source) {
        let layer = source.layer();
        let below: &[&str] = match layer {
            "reactor" | "router" | "protocol" => &[],
            "server" => &["protocol", "reactor"],
            _ => return,
        };
        for (at, path) in crate_paths(&source.code) {
            let root = path.first().map_or("", String::as_str);
            if root != layer && !below.contains(&root) {
                let instead =
                    format!("{layer} knows nothing of {root}; pass it in, or move the code");
                self.report(source, at, "layer", &instead);
            }
            let name = path.get(1).map_or("*", String::as_str);
            if layer == "server" && root == "reactor" && !SEAM.contains(&name) {
                let instead = format!("{name} is not a word of the seam; see src/reactor/seam.rs");
                self.report(source, at, "layer", &instead);
            }
        }
        let folders = source.path.split('/').count() - 2;
        let roof = "super::".repeat(if source.path.ends_with("mod.rs") {
            folders
        } else {
            folders + 1
        });
        for (at, _) in source
            .code
            .match_indices(&roof)
            .filter(|(at, _)| !source.is_test(*at))
        {
            self.report(
                source,
                at,
                "layer",
                "write crate::, so that the layer can be seen",
            );
        }
    }

    fn check_words(&mut self, source: &Source) {
        let in_reactor = source.under("src/reactor/");
        let python = source.under("src/python/") || source.path == "src/lib.rs";
        let words: [(&str, bool, &str); 8] = [
            ("pyo3", python, "only src/python knows Python"),
            ("libc", in_reactor, "only src/reactor talks to the kernel"),
            (
                "io_uring",
                source.under("src/reactor/uring/"),
                "only src/reactor/uring knows the ring",
            ),
            (
                "httparse",
                false,
                "tests compare src/protocol/head.rs with it",
            ),
            (
                "Instant",
                in_reactor || python,
                "take the time as an argument",
            ),
            (
                "SystemTime",
                in_reactor || python,
                "take the time as an argument",
            ),
            (
                "thread",
                in_reactor || python,
                "a worker has one thread: its caller's",
            ),
            (
                "env",
                in_reactor || python,
                "take the setting as an argument",
            ),
        ];
        for (word, allowed, instead) in words {
            for at in words_equal(&source.code, word).filter(|_| !allowed) {
                if !source.is_test(at) {
                    self.report(source, at, "word", &format!("{word}: {instead}"));
                }
            }
        }
        for name in ["println", "eprintln", "print", "eprint", "dbg", "todo"] {
            for at in words_equal(&source.code, name) {
                if source.code[at + name.len()..].starts_with('!') && !source.is_test(at) {
                    let instead = format!("{name}!: hand the words to the caller");
                    self.report(source, at, "word", &instead);
                }
            }
        }
        for beginning in ["struct io_uring_", "const IORING_"] {
            for (at, _) in source.code.match_indices(beginning) {
                self.report(
                    source,
                    at,
                    "word",
                    "take the kernel's structs from the io-uring crate",
                );
            }
        }
    }

    fn check_python_imports(&mut self, source: &Source) {
        let name = source
            .path
            .trim_start_matches("python/anel/")
            .trim_end_matches(".py");
        let name = name
            .split('/')
            .next()
            .unwrap_or("")
            .replace("__init__", "anel");
        let Some(own) = PYTHON.iter().position(|known| *known == name) else {
            let instead = format!("put {name} into PYTHON in tests/rust/layers.rs, in its place");
            return self.report(source, 0, "import", &instead);
        };
        let mut at = 0;
        for line in source.text.split_inclusive('\n') {
            if line.starts_with("from .") {
                self.report(source, at, "import", "write the absolute name");
            }
            for part in imported(line) {
                let used = PYTHON.iter().position(|known| *known == part);
                if used >= Some(own) {
                    let instead = format!("{name} is below {part}; pass it in, or move the code");
                    self.report(source, at, "import", &instead);
                }
            }
            at += line.len();
        }
    }

    fn check_chapter(&mut self, source: &Source) {
        let (stem, extension) = source.path.rsplit_once('.').unwrap_or((&source.path, ""));
        let numbered = stem
            .trim_start_matches("tutorial/")
            .starts_with(|c: char| c.is_ascii_digit());
        let twin = match extension {
            "md" if numbered => format!("{stem}.py"),
            "py" if numbered => format!("{stem}.md"),
            _ => return,
        };
        if !self.paths.contains(&twin) {
            self.report(
                source,
                0,
                "chapter",
                &format!("write {twin}, or remove this file"),
            );
        }
        let lines = source.text.lines().count();
        if lines > CHAPTER_LINES_MAX {
            let instead = format!("{lines} lines; {CHAPTER_LINES_MAX} is the most");
            self.report(source, 0, "chapter", &instead);
        }
    }
}

/// The modules of ours that a line of Python imports; `anel` stands for the package as a whole.
fn imported(line: &str) -> Vec<&str> {
    let line = line.trim();
    let from = line
        .strip_prefix("from anel")
        .or_else(|| line.strip_prefix("import anel"));
    let Some(rest) = from.filter(|rest| !rest.starts_with(is_word_char)) else {
        return Vec::new();
    };
    if let Some(module) = rest.strip_prefix('.') {
        return vec![module.split([' ', '.', '\n']).next().unwrap_or("")];
    }
    let names = rest.strip_prefix(" import ").unwrap_or("anel").split(',');
    let names = names.filter_map(|name| name.split_whitespace().next());
    names
        .map(|name| if PYTHON.contains(&name) { name } else { "anel" })
        .collect()
}

/// The invariants named by the comment above the line; `None` when there is no SAFETY comment.
fn safety_names(text: &str, line: usize) -> Option<BTreeSet<String>> {
    let lines: Vec<&str> = text.lines().take(line - 1).collect();
    let begin = lines
        .iter()
        .rposition(|line| line.trim_start().starts_with("// SAFETY:"))?;
    let comment = lines[begin..]
        .iter()
        .take_while(|line| line.trim_start().starts_with("//"));
    let comment: Vec<&str> = comment.copied().collect();
    // A statement may begin a line or two above its unsafe block.
    let near = line - 1 - (begin + comment.len()) <= 2;
    near.then(|| invariants(&comment.join(" ")))
}

/// Words like R2.
fn invariants(text: &str) -> BTreeSet<String> {
    let is_name = |word: &&str| {
        let bytes = word.as_bytes();
        bytes.len() == 2 && bytes[0].is_ascii_uppercase() && bytes[1].is_ascii_digit()
    };
    text.split(|c| !is_word_char(c))
        .filter(is_name)
        .map(String::from)
        .collect()
}

/// Reads what people wrote; what was built, downloaded or measured is left out.
fn walk(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).expect("the tree can be read");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    for path in paths {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        let built = ["target", "dist", "__pycache__", "record"].contains(&&*name);
        if name.starts_with('.') || built {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, sources);
        } else if path
            .extension()
            .is_some_and(|end| EXTENSIONS.contains(&&*end.to_string_lossy()))
        {
            let text = fs::read_to_string(&path).expect("a text file in UTF-8");
            let path = path
                .strip_prefix(root)
                .expect("below the root")
                .to_string_lossy();
            sources.push(Source::new(&path, &text));
        }
    }
}

const EXTENSIONS: &[&str] = &["rs", "py", "pyi", "md", "toml", "sh"];

#[test]
fn the_tree_keeps_its_laws() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    walk(root, root, &mut sources);
    let safety = sources.iter().find(|source| source.path == "SAFETY.md");
    let mut laws = Laws {
        invariants: safety
            .map(|source| invariants(&source.text))
            .unwrap_or_default(),
        paths: sources.iter().map(|source| source.path.clone()).collect(),
        ..Laws::default()
    };

    for source in &sources {
        laws.check(source);
    }

    let count = laws.unsafe_total;
    let _ = writeln!(io::stdout(), "unsafe blocks: {count} of {UNSAFE_MAX}");
    assert!(
        count <= UNSAFE_MAX,
        "{count} unsafe blocks; {UNSAFE_MAX} is the most"
    );
    let findings: Vec<String> = laws.findings.iter().map(ToString::to_string).collect();
    assert!(
        findings.is_empty(),
        "{} broken:\n{}",
        findings.len(),
        findings.join("\n")
    );
}
