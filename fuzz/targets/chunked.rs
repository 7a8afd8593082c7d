//! Any bytes behind a head that announces chunks.
//!
//! Owns a second decoder, written to be obvious: it takes lines apart where ours goes byte by byte.
//! What is accepted must be the same body for both, and end at the same byte, because behind it
//! the next request begins. What the second one reads without any liberty must be accepted.

use super::wire::{Ending, Outcome, replay};
use super::{control, limits, replay_every_way};

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost:a\r\nTransfer-Encoding:chunked\r\n\r\n";

/// Runs one input.
///
/// # Panics
/// When something does not hold.
pub fn run(input: &[u8]) {
    let Some((mut random, chunks)) = control(input) else {
        return;
    };
    let mut limits = limits(&mut random);
    // The head is not what this is about.
    limits.head_bytes_max = limits.head_bytes_max.max(HEAD.len() as u32);
    limits.fields_max = limits.fields_max.max(2);
    let wire = [HEAD, chunks].concat();
    let outcome = replay_every_way(&wire, limits, &mut random);
    let decoded = decode(chunks);
    match (outcome.requests.first(), &decoded) {
        (None, Some(decoded)) => {
            let small = decoded.body.len() as u64 <= limits.body_bytes_max;
            assert!(!decoded.is_plain || !small, "refused: {outcome:?}");
        }
        (None, None) => {}
        (Some(request), None) => panic!("accepted: {request:?}"),
        (Some(request), Some(decoded)) => {
            assert_eq!(request.body.as_deref(), Some(&decoded.body[..]));
            assert!(decoded.body.len() as u64 <= limits.body_bytes_max);
            let behind = &chunks[decoded.bytes..];
            let rest = Outcome {
                requests: outcome.requests[1..].to_vec(),
                ..outcome
            };
            assert_eq!(rest, replay(behind, &[behind.len()], limits));
            assert!(!behind.is_empty() || rest.ending == Ending::Idle);
        }
    }
}

/// A body as the second decoder understands it.
struct Decoded {
    body: Vec<u8>,
    /// Bytes up to its end.
    bytes: usize,
    /// Whether there was nothing that one may refuse: no extensions, no trailers.
    is_plain: bool,
}

fn decode(chunks: &[u8]) -> Option<Decoded> {
    let mut body = Vec::new();
    let mut is_plain = true;
    let mut rest = chunks;
    loop {
        let line = take_line(&mut rest)?;
        let mut digits = line.split(|byte| *byte == b';').next()?;
        while let [before @ .., b' ' | b'\t'] = digits {
            digits = before;
        }
        is_plain &= digits == line && digits.len() <= 16;
        let size = size(digits)?;
        if size == 0 {
            break;
        }
        let (data, behind) = rest.split_at_checked(size)?;
        rest = behind.strip_prefix(b"\r\n")?;
        body.extend_from_slice(data);
    }
    while !take_line(&mut rest)?.is_empty() {
        is_plain = false;
    }
    let bytes = chunks.len() - rest.len();
    Some(Decoded {
        body,
        bytes,
        is_plain,
    })
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|window| window == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}

fn size(digits: &[u8]) -> Option<usize> {
    let is_hexadecimal = digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok()?;
    usize::from_str_radix(text, 16)
        .ok()
        .filter(|_| is_hexadecimal)
}
