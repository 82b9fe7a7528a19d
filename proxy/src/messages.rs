//! The messages of a stream that two programs talk over, WebSocket or gRPC, each scanned whole.
//!
//! A message must arrive before its answer is asked for, so nothing may wait for what comes after it. Within a message
//! something may: its frame has said how much is still to come.

use std::io::Cursor;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use providers::scrub::{ScrubStream, Scrubber};
use thiserror::Error;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest header that a WebSocket server sends: it masks nothing (RFC 6455 section 5.2).
const LONGEST_HEADER: usize = 10;
/// The most that a control frame carries (RFC 6455 section 5.5).
const MAX_CONTROL: u64 = 125;
/// Flag and length before each message of gRPC.
const GRPC_PREFIX: usize = 5;

/// How messages stand in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// RFC 6455, what a server sends.
    WebSocket,
    /// Length-Prefixed-Message of gRPC over HTTP/2, and of gRPC-Web in its binary form.
    Grpc,
}

/// Why the rest of a stream is withheld: it could hold the credential where nobody can look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum MessageError {
    #[error("a WebSocket frame uses an extension that was not agreed on")]
    Extension,
    #[error("a WebSocket frame is masked, which a server's never is")]
    Masked,
    #[error("a WebSocket frame breaks the order or the bounds of RFC 6455")]
    Frame,
    #[error("a gRPC message is compressed although `identity` alone was accepted")]
    Compressed,
}

/// Scans the messages of one stream.
pub(crate) struct Messages {
    framing: Framing,
    scrubber: Arc<Scrubber>,
    /// Scans the message under way.
    message: ScrubStream,
    /// Of earlier streams that ended.
    reflections: usize,
    /// The start of a header that is not whole yet.
    header: BytesMut,
    part: Part,
    /// The first opcode of a WebSocket message in several frames, until that went out.
    unsaid: Option<Data>,
    /// Within a WebSocket message in several frames.
    is_fragmented: bool,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy)]
enum Part {
    Header,
    /// A message that is one frame, whose header went out.
    Whole {
        left: u64,
    },
    /// A frame of a message in several, which go out in frames of our own.
    Fragment {
        left: u64,
        is_last: bool,
    },
    /// A control frame. It may stand between the frames of a message.
    Control {
        left: u64,
    },
}

impl Messages {
    pub(crate) fn new(framing: Framing, scrubber: &Arc<Scrubber>) -> Self {
        Self {
            framing,
            scrubber: Arc::clone(scrubber),
            message: scrubber.stream(),
            reflections: 0,
            header: BytesMut::new(),
            part: Part::Header,
            unsaid: None,
            is_fragmented: false,
        }
    }

    /// Takes the next bytes of the stream and gives what can be sent on now.
    pub(crate) fn push(&mut self, mut bytes: Bytes) -> Result<Bytes, MessageError> {
        let mut out = Out::default();
        while !bytes.is_empty() || self.is_due() {
            match self.part {
                Part::Header => self.read_header(&mut bytes, &mut out)?,
                Part::Whole { left } => {
                    let (taken, left) = take(&mut bytes, left);
                    out.add(self.message.push(taken));
                    self.part = Part::Whole { left };
                    if left == 0 {
                        out.add(self.message.finish());
                        self.part = Part::Header;
                    }
                }
                Part::Fragment { left, is_last } => {
                    let (taken, left) = take(&mut bytes, left);
                    let mut scanned = self.message.push(taken);
                    self.part = Part::Fragment { left, is_last };
                    let is_end = left == 0 && is_last;
                    if is_end {
                        scanned = join(scanned, self.message.finish());
                        self.is_fragmented = false;
                    }
                    if left == 0 {
                        self.part = Part::Header;
                    }
                    if is_end || !scanned.is_empty() {
                        out.add(self.own_header(is_end, scanned.len()));
                        out.add(scanned);
                    }
                }
                Part::Control { left } => self.read_control(left, &mut bytes, &mut out),
            }
        }
        Ok(out.joined())
    }

    /// What is held at the end of the stream. A message that never ended has been scanned as far as it came.
    pub(crate) fn finish(&mut self) -> Bytes {
        match self.part {
            Part::Whole { .. } => self.message.finish(),
            _ => Bytes::new(),
        }
    }

    /// How often the credential was found and masked.
    pub(crate) fn reflections(&self) -> usize {
        self.reflections + self.message.reflections()
    }

    /// Whether a frame without a payload waits to be ended.
    fn is_due(&self) -> bool {
        matches!(
            self.part,
            Part::Whole { left: 0 } | Part::Fragment { left: 0, .. } | Part::Control { left: 0 }
        )
    }

    fn read_header(&mut self, bytes: &mut Bytes, out: &mut Out) -> Result<(), MessageError> {
        match self.framing {
            Framing::Grpc => self.read_grpc(bytes, out),
            Framing::WebSocket => self.read_frame(bytes, out),
        }
    }

    fn read_grpc(&mut self, bytes: &mut Bytes, out: &mut Out) -> Result<(), MessageError> {
        let missing = GRPC_PREFIX - self.header.len();
        self.header
            .extend_from_slice(&bytes.split_to(missing.min(bytes.len())));
        if self.header.len() < GRPC_PREFIX {
            return Ok(());
        }
        let prefix = std::mem::take(&mut self.header).freeze();
        // The upper bit marks the trailers of gRPC-Web, which are text.
        if prefix[0] & 1 != 0 {
            return Err(MessageError::Compressed);
        }
        let left = u64::from((&prefix[1..]).get_u32());
        out.add(prefix);
        self.part = Part::Whole { left };
        Ok(())
    }

    fn read_frame(&mut self, bytes: &mut Bytes, out: &mut Out) -> Result<(), MessageError> {
        let before = self.header.len();
        let offered = bytes.len().min(LONGEST_HEADER - before);
        self.header.extend_from_slice(&bytes[..offered]);
        if self.header.get(1).is_some_and(|second| second & 0x80 != 0) {
            return Err(MessageError::Masked);
        }
        let mut cursor = Cursor::new(&self.header[..]);
        let Some((header, length)) =
            FrameHeader::parse(&mut cursor).map_err(|_| MessageError::Frame)?
        else {
            bytes.advance(offered);
            return Ok(());
        };
        let end = usize::try_from(cursor.position()).map_err(|_| MessageError::Frame)?;
        bytes.advance(end - before);
        let mut text = std::mem::take(&mut self.header);
        text.truncate(end);
        self.begin_frame(&header, length, text.freeze(), out)
    }

    /// Decides how a frame goes on, by its header, which stood in the stream as `text`.
    fn begin_frame(
        &mut self,
        header: &FrameHeader,
        length: u64,
        text: Bytes,
        out: &mut Out,
    ) -> Result<(), MessageError> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(MessageError::Extension);
        }
        self.part = match (header.opcode, self.is_fragmented) {
            (OpCode::Control(Control::Close | Control::Ping | Control::Pong), _)
                if header.is_final && length <= MAX_CONTROL =>
            {
                self.header.extend_from_slice(&text);
                Part::Control { left: length }
            }
            (OpCode::Data(Data::Text | Data::Binary), false) if header.is_final => {
                out.add(text);
                Part::Whole { left: length }
            }
            (OpCode::Data(data @ (Data::Text | Data::Binary)), false) => {
                self.unsaid = Some(data);
                self.is_fragmented = true;
                Part::Fragment {
                    left: length,
                    is_last: false,
                }
            }
            (OpCode::Data(Data::Continue), true) => Part::Fragment {
                left: length,
                is_last: header.is_final,
            },
            _ => return Err(MessageError::Frame),
        };
        Ok(())
    }

    /// A control frame is short, so it waits until it is whole. The message around it has its own scan.
    fn read_control(&mut self, left: u64, bytes: &mut Bytes, out: &mut Out) {
        let (taken, left) = take(bytes, left);
        self.header.extend_from_slice(&taken);
        self.part = Part::Control { left };
        if left > 0 {
            return;
        }
        let mut control = self.scrubber.stream();
        let frame = std::mem::take(&mut self.header).freeze();
        // Its header of two bytes is shorter than any secret.
        let scanned = control.push(frame);
        out.add(join(scanned, control.finish()));
        self.reflections += control.reflections();
        self.part = Part::Header;
    }

    /// The header of a frame of our own within a message in several.
    fn own_header(&mut self, is_final: bool, length: usize) -> Bytes {
        let header = FrameHeader {
            is_final,
            opcode: OpCode::Data(self.unsaid.take().unwrap_or(Data::Continue)),
            ..FrameHeader::default()
        };
        let mut text = Vec::with_capacity(LONGEST_HEADER);
        header
            .format(length as u64, &mut text)
            .expect("memory takes it");
        text.into()
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

/// What goes out of one push. Mostly that is one piece, which is not copied.
#[derive(Default)]
struct Out {
    first: Bytes,
    all: BytesMut,
}

impl Out {
    fn add(&mut self, piece: Bytes) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
            self.all.extend_from_slice(&piece);
        }
    }

    fn joined(self) -> Bytes {
        if self.all.is_empty() {
            self.first
        } else {
            self.all.freeze()
        }
    }
}

/// Splits off at most `left` bytes, and says how many are left then.
fn take(bytes: &mut Bytes, left: u64) -> (Bytes, u64) {
    let length = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (bytes.split_to(length), left - length as u64)
}

fn join(first: Bytes, second: Bytes) -> Bytes {
    if second.is_empty() {
        first
    } else if first.is_empty() {
        second
    } else {
        [first, second].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "sk_live_0123456789abcdefghij";

    fn messages(framing: Framing) -> Messages {
        let scrubber = Arc::new(Scrubber::new([SECRET.as_bytes()]));
        Messages::new(framing, &scrubber)
    }

    /// All that comes out when the stream arrives in pieces of this size.
    fn scanned(framing: Framing, stream: &[u8], size: usize) -> Result<Vec<u8>, MessageError> {
        let mut messages = messages(framing);
        let mut out = Vec::new();
        for piece in stream.chunks(size) {
            out.extend_from_slice(&messages.push(Bytes::copy_from_slice(piece))?);
        }
        out.extend_from_slice(&messages.finish());
        Ok(out)
    }

    #[test]
    fn what_came_of_a_frame_that_never_ends_is_passed_on() {
        let text = format!("{}{}", "x".repeat(50), &SECRET[..20]);
        let mut stream = frame(true, OpCode::Data(Data::Text), &[b'y'; 100]);
        stream.truncate(stream.len() - 100);
        stream.extend_from_slice(text.as_bytes());
        for size in [1, 7, stream.len()] {
            assert_eq!(scanned(Framing::WebSocket, &stream, size).unwrap(), stream);
        }
    }

    fn frame(is_final: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader {
            is_final,
            opcode,
            ..FrameHeader::default()
        };
        let mut text = Vec::new();
        header.format(payload.len() as u64, &mut text).unwrap();
        [&text, payload].concat()
    }

    fn text(payload: &str) -> Vec<u8> {
        frame(true, OpCode::Data(Data::Text), payload.as_bytes())
    }

    fn ping(payload: &[u8]) -> Vec<u8> {
        let ping = OpCode::Control(Control::Ping);
        frame(true, ping, payload)
    }

    /// The messages of a stream of frames: opcode and whole payload. Fragments are joined.
    fn read(mut stream: &[u8]) -> Vec<(u8, String)> {
        let (mut whole, mut open) = (Vec::new(), None::<(u8, String)>);
        while !stream.is_empty() {
            let mut cursor = Cursor::new(stream);
            let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            let at = usize::try_from(cursor.position()).unwrap();
            let end = at + usize::try_from(length).unwrap();
            let payload = String::from_utf8_lossy(&stream[at..end]).into_owned();
            stream = &stream[end..];
            match header.opcode {
                OpCode::Control(_) => whole.push((header.opcode.into(), payload)),
                OpCode::Data(Data::Continue) => open.as_mut().unwrap().1.push_str(&payload),
                OpCode::Data(_) => open = Some((header.opcode.into(), payload)),
            }
            if header.is_final && matches!(header.opcode, OpCode::Data(_)) {
                whole.extend(open.take());
            }
        }
        assert!(open.is_none(), "{open:?}");
        whole
    }

    #[test]
    fn a_frame_goes_on_as_it_is_and_its_credential_is_masked_however_it_arrives() {
        let long = "x".repeat(70_000);
        let mut stream = Vec::new();
        for payload in ["", "hello", SECRET, &format!("a{SECRET}b"), &long] {
            stream.extend(text(payload));
        }
        stream.extend(ping(SECRET.as_bytes()));
        let masked = "*".repeat(SECRET.len());
        let expected: Vec<u8> = {
            let mut stream = Vec::new();
            for payload in ["", "hello", &masked, &format!("a{masked}b"), &long] {
                stream.extend(text(payload));
            }
            stream.extend(ping(masked.as_bytes()));
            stream
        };
        for size in [1, 2, 3, 7, 64, 1_000, stream.len()] {
            let out = scanned(Framing::WebSocket, &stream, size).unwrap();
            assert!(out == expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_credential_over_the_frames_of_one_message_is_masked() {
        for cut in 1..SECRET.len() {
            let (one, two) = SECRET.split_at(cut);
            let stream = [
                frame(
                    false,
                    OpCode::Data(Data::Text),
                    format!("key {one}").as_bytes(),
                ),
                ping(b"between"),
                frame(false, OpCode::Data(Data::Continue), b""),
                frame(
                    true,
                    OpCode::Data(Data::Continue),
                    format!("{two} end").as_bytes(),
                ),
                text("next"),
            ]
            .concat();
            for size in [1, 5, stream.len()] {
                let out = read(&scanned(Framing::WebSocket, &stream, size).unwrap());
                let masked = format!("key {} end", "*".repeat(SECRET.len()));
                let expected = [
                    (9, "between".to_owned()),
                    (1, masked),
                    (1, "next".to_owned()),
                ];
                assert_eq!(out, expected, "cut at {cut}, in pieces of {size}");
            }
        }
    }

    #[test]
    fn every_mask_is_counted() {
        let mut ws = messages(Framing::WebSocket);
        for (frame, found) in [
            (text("hello"), 0),
            (text(SECRET), 1),
            (ping(SECRET.as_bytes()), 2),
            (ping(b"hello"), 2),
            (text(&format!("{SECRET} {SECRET}")), 4),
            (ping(SECRET.as_bytes()), 5),
        ] {
            ws.push(frame.into()).unwrap();
            assert_eq!(ws.reflections(), found);
        }
    }

    #[test]
    fn nothing_that_is_whole_waits_for_what_follows() {
        // Its end begins the credential; a stream without messages would hold it back.
        let tempting = text(&SECRET[..20]);
        let mut ws = messages(Framing::WebSocket);
        assert_eq!(ws.push(tempting.clone().into()).unwrap(), tempting);
        let fragment = frame(false, OpCode::Data(Data::Text), b"so far");
        assert_eq!(ws.push(fragment.clone().into()).unwrap(), fragment);
        let mut grpc = messages(Framing::Grpc);
        let message = [&[0, 0, 0, 0, 20][..], &SECRET.as_bytes()[..20]].concat();
        assert_eq!(grpc.push(message.clone().into()).unwrap(), message);
    }

    #[test]
    fn messages_of_grpc_are_scanned_whole() {
        let message = |payload: &str| {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            [&[0][..], &length, payload.as_bytes()].concat()
        };
        let stream = [
            message("first"),
            message(""),
            message(&format!("\n {SECRET}")),
        ]
        .concat();
        let masked = format!("\n {}", "*".repeat(SECRET.len()));
        let expected = [message("first"), message(""), message(&masked)].concat();
        for size in 1..stream.len() {
            assert_eq!(scanned(Framing::Grpc, &stream, size).unwrap(), expected);
        }
        assert_eq!(
            scanned(Framing::Grpc, &[1, 0, 0, 0, 1, 0], 6),
            Err(MessageError::Compressed)
        );
    }

    #[test]
    fn what_cannot_be_looked_into_is_withheld() {
        let cases = [
            (&[0xc1, 0][..], MessageError::Extension),
            (&[0x81, 0x80, 1, 2, 3, 4], MessageError::Masked),
            (&[0x80, 0], MessageError::Frame),
            (&[0x83, 0], MessageError::Frame),
            (&[0x8b, 0], MessageError::Frame),
            (&[0x09, 0], MessageError::Frame),
            (&[0x89, 126, 0, 200], MessageError::Frame),
            (&[0x01, 0, 0x01, 0], MessageError::Frame),
        ];
        for (stream, error) in cases {
            for size in 1..=stream.len() {
                assert_eq!(
                    scanned(Framing::WebSocket, stream, size),
                    Err(error),
                    "{stream:?}"
                );
            }
        }
    }
}
