//! The bytes of wire cases, as the files of `tests/cases` write them.
//!
//! Owns the reading of the folder and the spelling of bytes in TOML. Refuses to know what becomes
//! of them. Shared by the tests `cases` and `fuzz`.

use std::path::Path;

use serde::Deserialize;

/// A string stands for bytes, in Latin-1.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Bytes {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum Part {
    Text(String),
    Repeated { repeat: String, times: usize },
}

impl Bytes {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => latin_1(text),
            Self::Parts(parts) => parts.iter().flat_map(Part::bytes).collect(),
        }
    }
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => latin_1(text),
            Self::Repeated { repeat, times } => latin_1(repeat).repeat(*times),
        }
    }
}

pub fn latin_1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|character| u8::try_from(character).expect("Latin-1"))
        .collect()
}

/// Every file of cases, parsed, with its name.
pub fn files<T: serde::de::DeserializeOwned>() -> Vec<(String, T)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("tests/cases") {
        let path = entry.expect("an entry of tests/cases").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let file = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let parsed = toml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        files.push((file, parsed));
    }
    // What is made of them is the same on every machine.
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    files
}
