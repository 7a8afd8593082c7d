//! What a peer can do wrong, and what each of those is answered with.
//!
//! Owns the list, the status codes, the RFC sections and the words. Refuses to know where in the
//! code a mistake is found. Every match here is exhaustive: a new variant does not compile until it
//! has answers.

use std::fmt;

/// One thing the peer did wrong. Every one ends the connection: what follows it cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolError {
    // The request line.
    /// The method holds a byte that no token may hold, or is empty.
    MethodInvalid,
    /// The method is longer than any that exists.
    MethodTooLong,
    /// The request line is not "method target version" with one space between.
    RequestLineInvalid,
    /// The target holds a byte outside visible ASCII, or has none of the four forms.
    TargetInvalid,
    /// The target carries a fragment.
    FragmentInTarget,
    /// The target is `*`, but the method is not OPTIONS.
    AsteriskWithoutOptions,
    /// The authority of an absolute target or of CONNECT is not "host:port".
    AuthorityInvalid,
    /// The method is CONNECT, which asks for a tunnel.
    ConnectUnsupported,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The request line ends after the target (HTTP/0.9).
    VersionMissing,
    /// The version is not spelled `HTTP/d.d`.
    VersionInvalid,
    /// A version other than 1.0 and 1.1.
    VersionUnsupported,
    // Lines and fields.
    /// A line feed without a carriage return before it.
    BareLineFeed,
    /// A carriage return without a line feed behind it.
    BareCarriageReturn,
    /// More empty lines before a request than a sloppy client sends.
    TooManyBlankLines,
    /// A field continues on a line that starts with white space.
    ObsoleteLineFolding,
    /// White space between the request line and the first field.
    SpaceBeforeFirstField,
    /// White space in a field name or between it and the colon.
    SpaceBeforeColon,
    /// A field line without a colon.
    ColonMissing,
    /// A field name is empty or holds a byte that no token may hold.
    FieldNameInvalid,
    /// A field value holds a control byte.
    FieldValueInvalid,
    /// More fields than the limit.
    TooManyFields,
    /// The head is larger than the limit.
    HeadTooLarge,
    // What fields mean.
    /// HTTP/1.1 without Host.
    HostMissing,
    /// More than one Host.
    HostRepeated,
    /// Host is not "host" or "host:port".
    HostInvalid,
    /// An expectation other than `100-continue`.
    ExpectationUnsupported,
    // How the body ends.
    /// Content-Length together with Transfer-Encoding.
    ContentLengthAndTransferEncoding,
    /// Content-Length is not a plain decimal number that fits in 64 bits.
    ContentLengthInvalid,
    /// More than one Content-Length, or a list in one.
    ContentLengthRepeated,
    /// Transfer-Encoding in an HTTP/1.0 request.
    TransferEncodingInHttp10,
    /// A coding that is not implemented, below a final `chunked`.
    TransferEncodingUnsupported,
    /// Transfer-Encoding whose last coding is not `chunked`.
    ChunkedNotFinal,
    /// `chunked` applied more than once.
    ChunkedRepeated,
    // The body.
    /// The body is larger than the limit.
    BodyTooLarge,
    /// A chunk size is not one to sixteen hexadecimal digits.
    ChunkSizeInvalid,
    /// A chunk extension holds a control byte.
    ChunkExtensionInvalid,
    /// A chunk extension is longer than the limit.
    ChunkExtensionTooLong,
    /// A chunk's data is not followed by a line end.
    ChunkDataUnterminated,
    /// A chunk's size line does not end in carriage return and line feed.
    ChunkLineInvalid,
    /// The trailer section is not a list of fields.
    TrailerInvalid,
    /// The trailer section is larger than the limit, or has more fields.
    TrailerTooLarge,
    // Time and the end of input.
    /// The head took too long to arrive in full.
    HeadTimeout,
    /// The body took too long to arrive in full.
    BodyTimeout,
    /// The peer closed in the middle of a head.
    IncompleteHead,
    /// The peer closed in the middle of a body.
    IncompleteBody,
}

impl ProtocolError {
    /// Every variant once, for tests and documentation.
    pub const ALL: [Self; 46] = [
        Self::MethodInvalid,
        Self::MethodTooLong,
        Self::RequestLineInvalid,
        Self::TargetInvalid,
        Self::FragmentInTarget,
        Self::AsteriskWithoutOptions,
        Self::AuthorityInvalid,
        Self::ConnectUnsupported,
        Self::TargetTooLong,
        Self::VersionMissing,
        Self::VersionInvalid,
        Self::VersionUnsupported,
        Self::BareLineFeed,
        Self::BareCarriageReturn,
        Self::TooManyBlankLines,
        Self::ObsoleteLineFolding,
        Self::SpaceBeforeFirstField,
        Self::SpaceBeforeColon,
        Self::ColonMissing,
        Self::FieldNameInvalid,
        Self::FieldValueInvalid,
        Self::TooManyFields,
        Self::HeadTooLarge,
        Self::HostMissing,
        Self::HostRepeated,
        Self::HostInvalid,
        Self::ExpectationUnsupported,
        Self::ContentLengthAndTransferEncoding,
        Self::ContentLengthInvalid,
        Self::ContentLengthRepeated,
        Self::TransferEncodingInHttp10,
        Self::TransferEncodingUnsupported,
        Self::ChunkedNotFinal,
        Self::ChunkedRepeated,
        Self::BodyTooLarge,
        Self::ChunkSizeInvalid,
        Self::ChunkExtensionInvalid,
        Self::ChunkExtensionTooLong,
        Self::ChunkDataUnterminated,
        Self::ChunkLineInvalid,
        Self::TrailerInvalid,
        Self::TrailerTooLarge,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::IncompleteHead,
        Self::IncompleteBody,
    ];

    /// The status code of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::MethodInvalid
            | Self::RequestLineInvalid
            | Self::TargetInvalid
            | Self::FragmentInTarget
            | Self::AsteriskWithoutOptions
            | Self::AuthorityInvalid
            | Self::VersionMissing
            | Self::VersionInvalid
            | Self::BareLineFeed
            | Self::BareCarriageReturn
            | Self::TooManyBlankLines
            | Self::ObsoleteLineFolding
            | Self::SpaceBeforeFirstField
            | Self::SpaceBeforeColon
            | Self::ColonMissing
            | Self::FieldNameInvalid
            | Self::FieldValueInvalid
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::ContentLengthAndTransferEncoding
            | Self::ContentLengthInvalid
            | Self::ContentLengthRepeated
            | Self::TransferEncodingInHttp10
            | Self::ChunkedNotFinal
            | Self::ChunkedRepeated
            | Self::ChunkSizeInvalid
            | Self::ChunkExtensionInvalid
            | Self::ChunkExtensionTooLong
            | Self::ChunkDataUnterminated
            | Self::ChunkLineInvalid
            | Self::TrailerInvalid
            | Self::IncompleteHead
            | Self::IncompleteBody => 400,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::ExpectationUnsupported => 417,
            Self::TooManyFields | Self::HeadTooLarge | Self::TrailerTooLarge => 431,
            Self::MethodTooLong | Self::ConnectUnsupported | Self::TransferEncodingUnsupported => {
                501
            }
            Self::VersionUnsupported => 505,
        }
    }

    /// The section that is violated, or that defines the answer.
    #[must_use]
    pub fn rfc(self) -> &'static str {
        match self {
            Self::MethodInvalid | Self::RequestLineInvalid | Self::MethodTooLong => "RFC 9112 3",
            Self::TargetInvalid | Self::FragmentInTarget => "RFC 9112 3.2",
            Self::AsteriskWithoutOptions => "RFC 9112 3.2.4",
            Self::AuthorityInvalid => "RFC 9110 4.2",
            Self::ConnectUnsupported => "RFC 9110 9.3.6",
            Self::TargetTooLong => "RFC 9110 15.5.15",
            Self::VersionMissing | Self::VersionInvalid => "RFC 9112 2.3",
            Self::VersionUnsupported => "RFC 9110 15.6.6",
            Self::BareLineFeed
            | Self::BareCarriageReturn
            | Self::TooManyBlankLines
            | Self::SpaceBeforeFirstField => "RFC 9112 2.2",
            Self::ObsoleteLineFolding => "RFC 9112 5.2",
            Self::SpaceBeforeColon | Self::ColonMissing => "RFC 9112 5.1",
            Self::FieldNameInvalid => "RFC 9110 5.1",
            Self::FieldValueInvalid => "RFC 9110 5.5",
            Self::TooManyFields | Self::HeadTooLarge | Self::TrailerTooLarge => "RFC 6585 5",
            Self::HostMissing | Self::HostRepeated | Self::HostInvalid => "RFC 9112 3.2",
            Self::ExpectationUnsupported => "RFC 9110 10.1.1",
            Self::ContentLengthAndTransferEncoding
            | Self::ContentLengthInvalid
            | Self::ContentLengthRepeated
            | Self::ChunkedNotFinal => "RFC 9112 6.3",
            Self::TransferEncodingInHttp10
            | Self::TransferEncodingUnsupported
            | Self::ChunkedRepeated => "RFC 9112 6.1",
            Self::BodyTooLarge => "RFC 9110 15.5.14",
            Self::ChunkSizeInvalid | Self::ChunkDataUnterminated | Self::ChunkLineInvalid => {
                "RFC 9112 7.1"
            }
            Self::ChunkExtensionInvalid | Self::ChunkExtensionTooLong => "RFC 9112 7.1.1",
            Self::TrailerInvalid => "RFC 9112 7.1.2",
            Self::HeadTimeout | Self::BodyTimeout => "RFC 9110 15.5.9",
            Self::IncompleteHead | Self::IncompleteBody => "RFC 9112 8",
        }
    }

    /// One readable line for logs; never used for a decision.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::MethodInvalid => "method is not a token",
            Self::MethodTooLong => "method is too long",
            Self::RequestLineInvalid => "request line is not: method, target, version",
            Self::TargetInvalid => "request target is invalid",
            Self::FragmentInTarget => "request target has a fragment",
            Self::AsteriskWithoutOptions => "target * without OPTIONS",
            Self::AuthorityInvalid => "authority of the target is invalid",
            Self::ConnectUnsupported => "CONNECT asks for a tunnel",
            Self::TargetTooLong => "request target is too long",
            Self::VersionMissing => "request line has no version",
            Self::VersionInvalid => "HTTP version is misspelled",
            Self::VersionUnsupported => "HTTP version is not 1.0 or 1.1",
            Self::BareLineFeed => "line feed without carriage return",
            Self::BareCarriageReturn => "carriage return without line feed",
            Self::TooManyBlankLines => "too many empty lines before the request",
            Self::ObsoleteLineFolding => "field is folded over two lines",
            Self::SpaceBeforeFirstField => "white space before the first field",
            Self::SpaceBeforeColon => "white space in or behind a field name",
            Self::ColonMissing => "field line without a colon",
            Self::FieldNameInvalid => "field name is not a token",
            Self::FieldValueInvalid => "field value holds a control byte",
            Self::TooManyFields => "too many fields",
            Self::HeadTooLarge => "head is too large",
            Self::HostMissing => "Host is missing",
            Self::HostRepeated => "Host appears more than once",
            Self::HostInvalid => "Host is invalid",
            Self::ExpectationUnsupported => "expectation other than 100-continue",
            Self::ContentLengthAndTransferEncoding => "Content-Length with Transfer-Encoding",
            Self::ContentLengthInvalid => "Content-Length is not a number",
            Self::ContentLengthRepeated => "more than one Content-Length",
            Self::TransferEncodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::TransferEncodingUnsupported => "transfer coding is not implemented",
            Self::ChunkedNotFinal => "last transfer coding is not chunked",
            Self::ChunkedRepeated => "chunked is applied twice",
            Self::BodyTooLarge => "body is too large",
            Self::ChunkSizeInvalid => "chunk size is not a hexadecimal number",
            Self::ChunkExtensionInvalid => "chunk extension holds a control byte",
            Self::ChunkExtensionTooLong => "chunk extension is too long",
            Self::ChunkDataUnterminated => "chunk data is not followed by a line end",
            Self::ChunkLineInvalid => "chunk size line has no proper end",
            Self::TrailerInvalid => "trailer section is malformed",
            Self::TrailerTooLarge => "trailer section is too large",
            Self::HeadTimeout => "head took too long",
            Self::BodyTimeout => "body took too long",
            Self::IncompleteHead => "peer closed in the middle of a head",
            Self::IncompleteBody => "peer closed in the middle of a body",
        }
    }

    /// The body of the answer. Where Japronto had a word for the mistake, it is Japronto's.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::MethodInvalid
            | Self::RequestLineInvalid
            | Self::TargetInvalid
            | Self::FragmentInTarget
            | Self::AsteriskWithoutOptions
            | Self::AuthorityInvalid
            | Self::VersionMissing
            | Self::VersionInvalid
            | Self::VersionUnsupported
            | Self::BareLineFeed
            | Self::BareCarriageReturn
            | Self::TooManyBlankLines
            | Self::ObsoleteLineFolding
            | Self::SpaceBeforeFirstField
            | Self::SpaceBeforeColon
            | Self::ColonMissing
            | Self::FieldNameInvalid
            | Self::FieldValueInvalid
            | Self::TooManyFields => "malformed_headers",
            Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::ContentLengthAndTransferEncoding
            | Self::ContentLengthInvalid
            | Self::ContentLengthRepeated
            | Self::TransferEncodingInHttp10
            | Self::ChunkedNotFinal
            | Self::ChunkedRepeated => "invalid_headers",
            Self::ChunkSizeInvalid
            | Self::ChunkExtensionInvalid
            | Self::ChunkExtensionTooLong
            | Self::ChunkDataUnterminated
            | Self::ChunkLineInvalid
            | Self::TrailerInvalid
            | Self::TrailerTooLarge => "malformed_body",
            Self::HeadTooLarge => "headers_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::BodyTooLarge => "body_too_large",
            Self::MethodTooLong | Self::ConnectUnsupported => "unsupported_method",
            Self::ExpectationUnsupported => "unsupported_expectation",
            Self::TransferEncodingUnsupported => "unsupported_transfer_encoding",
            Self::HeadTimeout => "headers_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::IncompleteHead => "incomplete_headers",
            Self::IncompleteBody => "incomplete_body",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.explain())
    }
}

impl std::error::Error for ProtocolError {}
