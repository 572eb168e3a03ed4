//! An event that filters look at.

use std::cell::OnceCell;

use super::cel::Payload;
use crate::event::EventView;

/// An event, and its payload once a filter has asked for it.
#[derive(Debug)]
pub struct Candidate<'e> {
    event: EventView<'e>,
    payload: OnceCell<Result<Payload, String>>,
}

impl<'e> Candidate<'e> {
    /// An event that no filter has seen yet.
    pub fn new(event: EventView<'e>) -> Self {
        Self { event, payload: OnceCell::new() }
    }

    /// The event.
    pub fn event(&self) -> &EventView<'e> {
        &self.event
    }

    /// The payload, parsed; or why there is none, as a sentence.
    pub(super) fn payload(&self) -> Result<&Payload, &str> {
        let payload = self.payload.get_or_init(|| Payload::of(&self.event));
        payload.as_ref().map_err(String::as_str)
    }

    /// Whether a filter has asked for the payload.
    #[cfg(test)]
    pub(super) fn is_parsed(&self) -> bool {
        self.payload.get().is_some()
    }
}
