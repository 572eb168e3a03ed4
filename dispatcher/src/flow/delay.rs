//! Until when an event is given back.

use weft_proto::Timestamp;
use weft_proto::event::EventView;
use weft_proto::resource::flow::DelayStep;

use super::failure::Failure;
use super::parts::time;

/// Why it fails, in a word.
const REASON: &str = "delay";

/// Until when an event waits; `None` when it need not. `stored` is when its stream took it: that stays
/// the same however often it is given back.
pub(super) fn until(
    delay: &DelayStep,
    event: &EventView<'_>,
    stored: Timestamp,
    now: Timestamp,
) -> Result<Option<Timestamp>, Failure> {
    let until = match (&delay.until, delay.wait) {
        (Some(name), _) => {
            let missing = || Failure::permanent(REASON, format!("there is no attribute {name}"));
            let text = event.attribute(name).ok_or_else(missing)?;
            text.parse::<Timestamp>().map_err(|error| {
                Failure::permanent(REASON, format!("the attribute {name}: {error}"))
            })?
        }
        (None, Some(wait)) => time(event).unwrap_or(stored).saturating_add(wait.0),
        (None, None) => return Ok(None),
    };
    if until.since(now) > delay.max.0 {
        let message = format!("{until} is further ahead than {}", delay.max);
        return Err(Failure::permanent(REASON, message));
    }
    Ok(Some(until).filter(|&until| until > now))
}
