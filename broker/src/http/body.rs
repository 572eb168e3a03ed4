//! Reading a body: counted while it comes, whatever its length claims to be, and within the room that
//! all bodies of this node have.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use weft_proto::{Error, Reason, Result};

use crate::room::{Room, Taken};

/// Bytes of all bodies that are being read or worked on.
const ROOM_BYTES: usize = 128 << 20;
/// Room is taken in steps of this.
const STEP_BYTES: usize = 64 << 10;

/// Room for bodies; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Bodies(Room);

impl Default for Bodies {
    fn default() -> Self {
        Self(Room::new("http", ROOM_BYTES))
    }
}

/// A body that was read; its room is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) bytes: Bytes,
    _room: Vec<Taken>,
}

impl Bodies {
    /// Reads a body. One that comes in one piece is not copied.
    ///
    /// # Errors
    ///
    /// `TooLarge`, `Overloaded`, and `Invalid` for one that breaks off.
    pub(super) async fn read(&self, mut body: Body, bytes_max: usize) -> Result<Read> {
        let mut room = Vec::new();
        let (mut taken, mut len) = (0_usize, 0_usize);
        let mut pieces: Vec<Bytes> = Vec::new();
        while let Some(frame) = body.frame().await {
            let broken =
                |error: axum::Error| Error::invalid("the body breaks off").with_source(error);
            let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
            len = len.saturating_add(piece.len());
            if len > bytes_max {
                let message = format!("the body has more than {bytes_max} bytes");
                return Err(Error::new(Reason::TooLarge, message));
            }
            if len > taken {
                let step = (len - taken).max(STEP_BYTES);
                room.push(self.0.take(step, 0).await?);
                taken = taken.saturating_add(step);
            }
            pieces.push(piece);
        }
        let bytes = match pieces.len() {
            0 | 1 => pieces.pop().unwrap_or_default(),
            _ => {
                let mut whole = BytesMut::with_capacity(len);
                for piece in &pieces {
                    whole.extend_from_slice(piece);
                }
                whole.freeze()
            }
        };
        Ok(Read { bytes, _room: room })
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn in_pieces(pieces: &'static [&'static [u8]]) -> Body {
        let pieces = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece)));
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_is_counted_while_it_comes() {
        let bodies = Bodies::default();

        let read = bodies.read(in_pieces(&[b"ab", b"", b"cde"]), 5).await.unwrap();
        assert_eq!(read.bytes, "abcde");
        let error = bodies.read(in_pieces(&[b"ab", b"cdef"]), 5).await.unwrap_err();
        assert_eq!(error.reason(), Reason::TooLarge);
        assert!(bodies.read(Body::empty(), 5).await.unwrap().bytes.is_empty());
    }
}
