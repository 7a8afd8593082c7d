//! Tells what the protocol makes of inputs, for comparison with other parsers.
//!
//! Owns a form of verdicts that Python reads (`tests/python/test_differential.py`). Refuses to
//! judge. On stdin: inputs, each behind its length in four bytes, the most significant first. On
//! stdout: a line of JSON for each, with bytes in hexadecimal digits.

mod wire;

use std::io::{self, BufReader, Read, Write};

use anel::protocol::{Limits, Version};
use wire::{Ending, Outcome, Seen, replay};

fn main() -> io::Result<()> {
    let mut input = BufReader::new(io::stdin().lock());
    let mut output = io::stdout().lock();
    let mut length = [0; 4];
    loop {
        match input.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        input.read_exact(&mut bytes)?;
        let outcome = replay(&bytes, &[bytes.len()], Limits::default());
        writeln!(output, "{}", verdict(&outcome))?;
        output.flush()?;
    }
}

fn verdict(outcome: &Outcome) -> String {
    let requests: Vec<String> = outcome.requests.iter().map(request).collect();
    let (ending, error) = match outcome.ending {
        Ending::Idle => ("idle", None),
        Ending::Paused => ("closed", None),
        Ending::WantsMore(error) => ("more", Some(error)),
        Ending::Refused(error) => ("refused", Some(error)),
    };
    let error = error.map_or(String::from("null"), |error| format!("\"{error:?}\""));
    format!(
        r#"{{"requests":[{}],"ending":"{ending}","error":{error}}}"#,
        requests.join(",")
    )
}

fn request(seen: &Seen) -> String {
    let fields: Vec<String> = seen
        .fields
        .iter()
        .map(|(name, value)| format!("[{},{}]", hex(name), hex(value)))
        .collect();
    let version = match seen.version {
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
    };
    format!(
        r#"{{"method":{},"target":{},"version":"{version}","fields":[{}],"body":{}}}"#,
        hex(&seen.method),
        hex(&seen.target),
        fields.join(","),
        hex(seen.body.as_deref().unwrap_or_default()),
    )
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}
