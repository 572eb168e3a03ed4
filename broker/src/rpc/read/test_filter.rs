//! `Read.TestFilter`: which events filters let pass, and why the others do not.

use tokio::task::yield_now;
use weft_proto::event::{self, EVENT_BYTES_MAX, EventView};
use weft_proto::filter::{Candidate, Compiled, Finding};
use weft_proto::resource::Verb;
use weft_proto::{Error, Offset, PartitionId, Result, v1};

use super::{FRAME_BYTES, Service, chosen};
use crate::access::{Caller, Decision, authorize};
use crate::rpc::stream_name;

const EVENTS_DEFAULT: u32 = 1_000;
const EVENTS_MAX: u32 = 100_000;
const BYTES_MAX: usize = 64 << 20;
/// Events that are shown because they do not pass.
const REFUSED_LEN: usize = 20;

impl Service {
    /// Tests filters against a sample, or a range of what is stored.
    pub(super) async fn test(
        &self,
        caller: &Caller,
        request: v1::TestFilterRequest,
    ) -> Result<v1::TestFilterResponse> {
        let resources = self.ingest.resources();
        resources.wait_for(request.min_generation).await?;
        let visible = authorize(caller, Verb::Read, &stream_name(&request.stream)?)?;
        let stream = resources.stream_named(&request.stream)?;
        let filters = self.wanted(caller, &request)?;
        let limit = if request.events_max == 0 { EVENTS_DEFAULT } else { request.events_max };
        if limit > EVENTS_MAX {
            let message = format!("at most {EVENTS_MAX} events are tested at once");
            return Err(Error::invalid(message).with_field("events_max"));
        }
        let mut tested = Tested::new(filters, visible, limit);
        if !request.event.is_empty() {
            let event = event::check(&request.event, EVENT_BYTES_MAX)
                .map_err(|error| Error::invalid(error.message()).with_field("event"))?;
            tested.take(&Candidate::new(event), PartitionId(0), Offset(0));
            return Ok(tested.answer);
        }
        let latest = v1::Position { at: Some(v1::position::At::Latest(v1::Latest {})) };
        let range = v1::ReadRequest {
            stream: request.stream,
            from: request.from,
            to: Some(request.to.unwrap_or(latest)),
            ..v1::ReadRequest::default()
        };
        for partition in chosen(&stream, &[])? {
            let mut part = self.part(&stream, partition, &range).await?;
            while part.tape.next() < part.to {
                if tested.is_full() {
                    tested.answer.cut = true;
                    return Ok(tested.answer);
                }
                let runs = part.read(FRAME_BYTES).await?;
                if runs.is_empty() {
                    part.tape.wait().await?;
                }
                for run in runs {
                    for (number, event) in (0_u64..).zip(&run.events) {
                        let offset = Offset(run.first.get().saturating_add(number));
                        tested.stored(event, partition, offset);
                    }
                    // Expressions take time, and others wait for this thread.
                    yield_now().await;
                }
            }
        }
        Ok(tested.answer)
    }

    /// The filters of the request, or of the subscription that it names.
    fn wanted(&self, caller: &Caller, request: &v1::TestFilterRequest) -> Result<Compiled> {
        if request.subscription.is_empty() {
            return Compiled::from_wire(request.filters.clone());
        }
        if !request.filters.is_empty() {
            let message = "either filters are tested or those of a subscription";
            return Err(Error::invalid(message).with_field("subscription"));
        }
        let name = stream_name(&request.subscription)
            .map_err(|error| Error::invalid(error.message()).with_field("subscription"))?;
        authorize(caller, Verb::View, &name)?;
        let found = self.ingest.resources().subscription_named(&request.subscription)?;
        if found.stream.name != stream_name(&request.stream)? {
            let message = format!("{} is no subscription of {}", found.name, request.stream);
            return Err(Error::invalid(message).with_field("subscription"));
        }
        Ok(found.filters)
    }
}

/// What has come out so far.
struct Tested {
    filters: Compiled,
    /// Events that the caller may read.
    visible: Decision,
    events_left: u32,
    bytes_left: usize,
    answer: v1::TestFilterResponse,
}

impl Tested {
    fn new(filters: Compiled, visible: Decision, limit: u32) -> Self {
        let warnings = filters.warnings().into_iter().map(wire).collect();
        let answer = v1::TestFilterResponse { warnings, ..v1::TestFilterResponse::default() };
        Self { filters, visible, events_left: limit, bytes_left: BYTES_MAX, answer }
    }

    fn is_full(&self) -> bool {
        self.events_left == 0 || self.bytes_left == 0
    }

    /// An event of the range, unless enough were looked at.
    fn stored(&mut self, event: &[u8], partition: PartitionId, offset: Offset) {
        if self.is_full() {
            self.answer.cut = true;
            return;
        }
        self.events_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(event.len());
        let Some(event) = EventView::parse(event).map(Candidate::new) else { return };
        if self.visible.passes(&event) {
            self.take(&event, partition, offset);
        }
    }

    fn take(&mut self, event: &Candidate<'_>, partition: PartitionId, offset: Offset) {
        let explanation = self.filters.explain(event);
        let answer = &mut self.answer;
        answer.tested += 1;
        answer.failed += u64::from(!explanation.errors.is_empty());
        if explanation.passes {
            answer.passed += 1;
        } else if answer.refused.len() < REFUSED_LEN {
            let view = event.event();
            answer.refused.push(v1::RefusedEvent {
                partition: partition.get(),
                offset: offset.get(),
                id: view.id.to_owned(),
                source: view.source.to_owned(),
                r#type: view.ty.to_owned(),
                reasons: explanation.reasons.into_iter().map(wire).collect(),
            });
        }
    }
}

fn wire(finding: Finding) -> v1::FilterFinding {
    v1::FilterFinding { path: finding.path, message: finding.message }
}
