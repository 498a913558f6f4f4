//! Answers in gzip (RFC 1952) or zstd (RFC 8878), for clients who ask for it.
//!
//! The cheapest level that is worth its time: rows in JSON, in pieces of 64 KiB, take 12 ms of a core for each MB by gzip 2
//! (to 37 %) and 3 ms by zstd 1 (to 34 %); gzip 1 takes 7 ms and leaves 52 %, gzip 6 takes 18 ms for 34 %, zstd 3 takes 6 ms for
//! 33 %. `make bench` has the figures of the machine at hand. Where a client likes both alike it gets zstd.
//!
//! A coder takes a bounded room for as long as its answer: 0.3 MiB for gzip, whose window is 32 KiB, and 1 MiB for zstd, whose
//! window is kept at 128 KiB. What is sent is flushed piece by piece, so that nothing of it waits in the coder. A
//! body that breaks off has no proper end in its coding either.
//!
//! Nobody is left out for where they are: a client on the same machine may be a proxy in front of others, and one that wants
//! nothing compressed does not ask for it.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use zstd::stream::{raw::CParameter, write::Encoder as ZstdEncoder};

use super::accept::{Coding, Codings};
use crate::edge::{Body, BoxError, Response};

/// Shorter answers fit into a few packets whatever is done to them.
const SMALLEST: u64 = 4 << 10;

/// Compressed at once; then others on the worker have their turn.
const PIECE: usize = 64 << 10;

const GZIP_LEVEL: u32 = 2;
const ZSTD_LEVEL: i32 = 1;
/// Of two: 128 KiB. RFC 9659 allows 8 MiB.
const ZSTD_WINDOW: u32 = 17;

/// An answer in the coding that its client likes best, where that pays; says in any case that it depends on the client's wish.
/// An entity tag becomes a weak one, as it is no longer the tag of these bytes.
pub(super) async fn respond(mut response: Response, codings: Codings) -> Response {
    let same = response.status() == StatusCode::NOT_MODIFIED;
    if !(same || response.status().is_success()) || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if same {
        return response;
    }
    let length = response.body().len();
    let pays = length.is_none_or(|length| length >= SMALLEST || (codings.required && length > 0));
    let (Some(coding), true) = (codings.coding, pays) else { return response };
    let Ok(coder) = Coder::new(coding) else { return response };
    let (mut head, body) = response.into_parts();
    let coded = Coded { body, coder: Some(coder), rest: Bytes::new() };
    // What a short one becomes is known at once, and so is its length.
    let body = if length.is_some_and(|length| length <= PIECE as u64) {
        match coded.collect().await {
            Ok(whole) => Body::full(whole.to_bytes()),
            Err(error) => Body::stream(Broken(Some(error))),
        }
    } else {
        Body::stream(coded)
    };
    mark(&mut head.headers, coding);
    Response::from_parts(head, body)
}

fn mark(headers: &mut HeaderMap, coding: Coding) {
    let name = match coding {
        Coding::Gzip => "gzip",
        Coding::Zstd => "zstd",
    };
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    let strong = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    let weak = strong.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok());
    if let Some(weak) = weak {
        headers.insert(header::ETAG, weak);
    }
}

/// A body on its way through a coder.
struct Coded {
    body: Body,
    /// None: its last byte is out.
    coder: Option<Coder>,
    /// Came, and is not coded yet.
    rest: Bytes,
}

enum Coder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

// === impl Coder ===

impl Coder {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW))?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Takes a piece in, and gives out what it has become so far: with `flush` all of it.
    fn push(&mut self, piece: &[u8], flush: bool) -> io::Result<Bytes> {
        let writer: &mut dyn Write = match self {
            Self::Gzip(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        };
        writer.write_all(piece)?;
        if flush {
            writer.flush()?;
        }
        let out = match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        Ok(std::mem::take(out).into())
    }

    fn finish(self) -> io::Result<Bytes> {
        let out = match self {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        Ok(out.into())
    }
}

// === impl Coded ===

impl http_body::Body for Coded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if self.coder.is_none() {
                return Poll::Ready(None);
            }
            if self.rest.is_empty() {
                match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                    Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                    Some(Err(error)) => {
                        self.coder = None;
                        return Poll::Ready(Some(Err(error)));
                    }
                    None => {
                        let last = self.coder.take().map(Coder::finish);
                        return Poll::Ready(last.map(|last| last.map(Frame::data).map_err(BoxError::from)));
                    }
                }
                continue;
            }
            let next = self.rest.len().min(PIECE);
            let piece = self.rest.split_to(next);
            // Behind a known end the coder flushes by itself.
            let flush = self.rest.is_empty() && !self.body.is_empty();
            let Some(coder) = &mut self.coder else { continue };
            match coder.push(&piece, flush) {
                Ok(out) if out.is_empty() => {}
                Ok(out) => return Poll::Ready(Some(Ok(Frame::data(out)))),
                Err(error) => {
                    self.coder = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
    }
}

/// A body that could not be coded.
struct Broken(Option<BoxError>);

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.take().map(Err))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use futures_util::FutureExt;
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

    fn asked(coding: Coding) -> Codings {
        Codings { coding: Some(coding), required: false }
    }

    fn respond_now(response: Response, codings: Codings) -> Response {
        respond(response, codings).now_or_never().unwrap()
    }

    fn read(coding: Coding, coded: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut out)?,
            Coding::Zstd => zstd::stream::read::Decoder::new(coded)?.read_to_end(&mut out)?,
        };
        Ok(out)
    }

    /// A body in pieces, then an error if there is one.
    struct Pieces(Vec<Bytes>, Option<BoxError>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if self.0.is_empty() {
                return Poll::Ready(self.1.take().map(Err));
            }
            Poll::Ready(Some(Ok(Frame::data(self.0.remove(0)))))
        }
    }

    fn pieces(pieces: &[Vec<u8>], error: Option<BoxError>) -> Response {
        Response::new(Body::stream(Pieces(pieces.iter().cloned().map(Bytes::from).collect(), error)))
    }

    fn all(response: Response) -> Vec<u8> {
        response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes().to_vec()
    }

    #[test]
    fn a_large_answer_is_coded_and_says_so() {
        for (coding, name) in [(Coding::Gzip, "gzip"), (Coding::Zstd, "zstd")] {
            let text = b"the same again and ".repeat(1000);
            let mut plain = Response::new(Body::full(text.clone()));
            plain.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"a\""));
            let coded = respond_now(plain, asked(coding));
            assert_eq!(coded.headers()[header::CONTENT_ENCODING], name);
            assert_eq!(coded.headers()[header::VARY], "accept-encoding");
            assert_eq!(coded.headers()[header::ETAG], "W/\"a\"");
            let length = coded.body().len().unwrap();
            assert!(length < 1000, "{length} of {}", text.len());
            assert_eq!(read(coding, &all(coded)).unwrap(), text);
        }
    }

    #[test]
    fn what_does_not_pay_is_left_alone() {
        let small = || Response::new(Body::full(vec![b'x'; 4095]));
        let left = respond_now(small(), asked(Coding::Zstd));
        assert!(!left.headers().contains_key(header::CONTENT_ENCODING));
        assert_eq!((left.headers()[header::VARY].as_bytes(), left.body().len()), (&b"accept-encoding"[..], Some(4095)));
        let unasked = respond_now(Response::new(Body::full(vec![b'x'; 10_000])), Codings::default());
        assert_eq!(unasked.body().len(), Some(10_000));
        let required = Codings { coding: Some(Coding::Gzip), required: true };
        assert_eq!(respond_now(small(), required).headers()[header::CONTENT_ENCODING], "gzip");
        let mut problem = Response::new(Body::full(vec![b'x'; 10_000]));
        *problem.status_mut() = StatusCode::BAD_REQUEST;
        assert!(respond_now(problem, asked(Coding::Gzip)).headers().is_empty());
    }

    #[test]
    fn every_piece_can_be_read_when_it_has_come() {
        for coding in BOTH {
            let rows: Vec<Vec<u8>> = (0..5).map(|row| format!("[{row},\"slow\"]\n").into_bytes()).collect();
            let mut body = respond_now(pieces(&rows, None), asked(coding)).into_body();
            let mut so_far = Vec::new();
            for row in 0..rows.len() {
                let frame = body.frame().now_or_never().unwrap().unwrap().unwrap();
                so_far.extend_from_slice(frame.data_ref().unwrap());
                // The coding is not over: what is whole by then comes, and then the end is missed.
                let (mut plain, mut decoded) = (vec![0; 10_000], 0);
                let mut decoder: Box<dyn Read> = match coding {
                    Coding::Gzip => Box::new(flate2::read::GzDecoder::new(&so_far[..])),
                    Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(&so_far[..]).unwrap()),
                };
                while let Ok(read @ 1..) = decoder.read(&mut plain[decoded..]) {
                    decoded += read;
                }
                assert_eq!(&plain[..decoded], rows[..=row].concat());
            }
        }
    }

    #[test]
    fn an_answer_that_breaks_off_has_no_proper_end() {
        for coding in BOTH {
            let mut body = respond_now(pieces(&[vec![b'x'; 9]], Some("cut".into())), asked(coding)).into_body();
            let first = body.frame().now_or_never().unwrap().unwrap().unwrap();
            assert!(body.frame().now_or_never().unwrap().unwrap().is_err());
            assert!(read(coding, first.data_ref().unwrap()).is_err());
        }
    }

    #[test]
    fn a_coder_takes_no_more_room_than_it_says() {
        let mut context = zstd::zstd_safe::CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL)).unwrap();
        context.set_parameter(CParameter::WindowLog(ZSTD_WINDOW)).unwrap();
        let (text, mut out) = (vec![b'x'; 1 << 20], vec![0; 1 << 20]);
        let mut from = zstd::zstd_safe::InBuffer::around(&text);
        context.compress_stream(&mut zstd::zstd_safe::OutBuffer::around(&mut out[..]), &mut from).unwrap();
        assert!(context.sizeof() <= 1 << 20, "{}", context.sizeof());
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_what_was_written(
            chunks in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..3000),
                (any::<u8>(), 0..200_000_usize).prop_map(|(byte, length)| vec![byte; length]),
            ], 0..6),
            zstd in any::<bool>(), whole in any::<bool>(),
        ) {
            let coding = BOTH[usize::from(zstd)];
            let text = chunks.concat();
            let response = if whole { Response::new(Body::full(text.clone())) } else { pieces(&chunks, None) };
            let codings = Codings { coding: Some(coding), required: true };
            let coded = respond_now(response, codings);
            if coded.headers().contains_key(header::CONTENT_ENCODING) {
                prop_assert_eq!(read(coding, &all(coded)).unwrap(), text);
            } else {
                prop_assert!(text.is_empty());
            }
        }
    }
}
