//! Claims about the checker: every split of the bytes counts alike, and nothing wrong passes.

use super::*;

const FIRST: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 08:00:00 GMT\r\n\
Content-Length: 12\r\n\r\nHello world!";
const LATER: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 08:59:59 GMT\r\n\
Content-Length: 12\r\n\r\nHello world!";
const OTHER_FORM: &[u8] = b"HTTP/1.1 200 Fine\r\nContent-Length: 12\r\nX: y\r\n\r\nHello world!";

fn checker() -> Checker {
    Checker::new(200, Some(b"Hello world!".to_vec()))
}

fn feed_in_pieces(checker: &mut Checker, bytes: &[u8], piece: usize) -> Result<u32, Fault> {
    let mut progress = Progress::default();
    let mut responses = 0;
    for chunk in bytes.chunks(piece) {
        responses += checker.feed(&mut progress, chunk)?.responses;
    }
    assert!(progress.is_between_responses());
    Ok(responses)
}

#[test]
fn every_piece_size_counts_the_same_responses() {
    let stream = [FIRST, LATER, OTHER_FORM, FIRST, LATER, LATER].concat();
    for piece in 1..=stream.len() {
        let mut checker = checker();
        assert_eq!(
            feed_in_pieces(&mut checker, &stream, piece),
            Ok(6),
            "pieces of {piece}"
        );
    }
}

#[test]
fn a_new_date_does_not_leave_the_fast_path() {
    let mut checker = checker();
    let mut progress = Progress::default();
    checker.feed(&mut progress, FIRST).unwrap();

    let fed = checker
        .feed(&mut progress, &[LATER, FIRST].concat())
        .unwrap();

    assert_eq!(fed.responses, 2);
    assert_eq!(checker.parsed_in_full, 1);
}

#[test]
fn a_response_without_date_is_learned_too() {
    let mut checker = checker();
    let mut progress = Progress::default();
    let fed = checker.feed(&mut progress, &OTHER_FORM.repeat(3)).unwrap();
    assert_eq!(fed.responses, 3);
    assert_eq!(
        checker.feed(&mut progress, OTHER_FORM).unwrap().responses,
        1
    );
    assert_eq!(checker.parsed_in_full, 3);
}

#[test]
fn every_changed_byte_outside_the_date_is_seen() {
    let date = 23..52;
    assert_eq!(&FIRST[date.clone()], b"Sat, 21 Nov 2026 08:00:00 GMT");
    for at in (0..FIRST.len()).filter(|at| !date.contains(at)) {
        let mut checker = checker();
        let mut progress = Progress::default();
        checker.feed(&mut progress, FIRST).unwrap();
        let mut changed = FIRST.to_vec();
        changed[at] ^= 1;
        // Either a fault, or no longer the fast path: parsed in full, or still incomplete.
        let fed = checker.feed(&mut progress, &changed);
        let noticed = checker.parsed_in_full > 1 || !progress.is_between_responses();
        assert!(fed.is_err() || noticed, "byte {at}");
    }
}

#[test]
fn wrong_status_body_and_framing_are_faults() {
    let wrong = |bytes: &[u8]| checker().feed(&mut Progress::default(), bytes).unwrap_err();
    assert_eq!(
        wrong(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
        Fault::WrongStatus(500)
    );
    assert_eq!(
        wrong(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nBye"),
        Fault::WrongBody(String::from("\"Bye\""))
    );
    assert_eq!(wrong(b"HTTP/1.1 200 OK\r\n\r\n"), Fault::NoLength);
    let two = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
    assert!(matches!(wrong(two), Fault::Malformed(_)));
    assert!(matches!(wrong(b"Hello world!"), Fault::Malformed(_)));
    let signed = b"HTTP/1.1 200 OK\r\nContent-Length: +12\r\n\r\nHello world!";
    assert!(matches!(wrong(signed), Fault::Malformed(_)));
}

#[test]
fn without_an_expected_body_the_first_one_is_expected() {
    let mut checker = Checker::new(200, None);
    let mut progress = Progress::default();
    checker
        .feed(
            &mut progress,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
        )
        .unwrap();
    let fault = checker.feed(
        &mut progress,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nac",
    );
    assert_eq!(fault, Err(Fault::WrongBody(String::from("\"ac\""))));
}

#[test]
fn an_announced_close_is_reported() {
    let bytes = b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 12\r\n\r\nHello world!";
    let fed = checker().feed(&mut Progress::default(), bytes).unwrap();
    assert_eq!(
        fed,
        Fed {
            responses: 1,
            close: true
        }
    );
}
