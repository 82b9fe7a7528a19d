//! A WebSocket server that echoes, and that says the credential when it is asked to, in one frame or in several.

use std::io::{self, Cursor};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::Recorded;

/// Accepts the handshake and talks until the client closes or goes away. `ahead` is what was read already.
pub(super) async fn serve<S>(
    stream: &mut S,
    mut ahead: BytesMut,
    request: &Recorded,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accept = derive_accept_key(request.field("sec-websocket-key").as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    send(stream, head.as_bytes()).await?;
    let credential = request.fields("authorization").concat();
    let secret = credential.rsplit(' ').next().unwrap_or_default();
    loop {
        while let Some((header, payload)) = next_frame(&mut ahead)? {
            let reply = reply(&header, &payload, secret);
            send(stream, &reply).await?;
            if header.opcode == OpCode::Control(Control::Close) {
                return Ok(());
            }
        }
        if stream.read_buf(&mut ahead).await? == 0 {
            return Ok(());
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// The next whole frame, unmasked.
fn next_frame(ahead: &mut BytesMut) -> io::Result<Option<(FrameHeader, Vec<u8>)>> {
    let mut cursor = Cursor::new(&ahead[..]);
    let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let start = usize::try_from(cursor.position()).map_err(io::Error::other)?;
    let end = start + usize::try_from(length).map_err(io::Error::other)?;
    if ahead.len() < end {
        return Ok(None);
    }
    let frame = ahead.split_to(end);
    let mask = header.mask.unwrap_or_default();
    let payload = frame[start..].iter().zip(mask.iter().cycle());
    Ok(Some((
        header,
        payload.map(|(byte, mask)| byte ^ mask).collect(),
    )))
}

fn reply(header: &FrameHeader, payload: &[u8], secret: &str) -> Vec<u8> {
    match header.opcode {
        OpCode::Control(Control::Ping) => frame(true, OpCode::Control(Control::Pong), payload),
        OpCode::Data(Data::Text) if payload == b"key" => {
            let text = format!("your key is {secret}, keep it well");
            frame(true, OpCode::Data(Data::Text), text.as_bytes())
        }
        OpCode::Data(Data::Text) if payload == b"key in pieces" => {
            let pieces = secret.as_bytes().chunks(7).enumerate();
            let kind = |at| if at == 0 { Data::Text } else { Data::Continue };
            let mut frames: Vec<u8> = pieces
                .flat_map(|(at, piece)| frame(false, OpCode::Data(kind(at)), piece))
                .collect();
            frames.extend(frame(true, OpCode::Data(Data::Continue), b"!"));
            frames
        }
        opcode => frame(header.is_final, opcode, payload),
    }
}

fn frame(is_final: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        is_final,
        opcode,
        ..FrameHeader::default()
    };
    let mut frame = Vec::new();
    header
        .format(payload.len() as u64, &mut frame)
        .expect("memory takes it");
    frame.extend_from_slice(payload);
    frame
}
