//! What the demo trades in: a schema, orders that fit it, and some that do not.

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};

/// Type of all orders.
pub(super) const PLACED: &str = "com.example.order.placed";
/// Type of what the function answers.
pub(super) const CONFIRMED: &str = "com.example.order.confirmed";
/// Source of all orders.
pub(super) const SOURCE: &str = "/shop/berlin";

/// What an order must look like.
pub(super) fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["order_id", "customer", "items", "total"],
        "properties": {
            "order_id": { "type": "string", "pattern": "^o-[0-9]+$" },
            "customer": { "type": "string", "minLength": 1 },
            "total": { "type": "number", "minimum": 0 },
            "items": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["sku", "quantity"],
                    "properties": {
                        "sku": { "type": "string" },
                        "quantity": { "type": "integer", "minimum": 1 },
                    },
                },
            },
        },
    })
}

/// The id of an order's event.
pub(super) fn id(number: usize) -> String {
    format!("order-{number:07}")
}

/// An order that fits the schema.
pub(super) fn order(number: usize) -> Bytes {
    event(id(number), number, &payload(number, &json!(number % 3 + 1)))
}

/// An order whose first item has an impossible quantity.
pub(super) fn malformed(number: usize) -> Bytes {
    event(format!("malformed-{number:07}"), number, &payload(number, &json!("two")))
}

/// Where the schema finds fault with [`malformed`].
pub(super) const FAULT: &str = "/items/0/quantity";

fn payload(number: usize, quantity: &Value) -> Value {
    let cents = number * 37 % 20_000 + 499;
    json!({
        "order_id": format!("o-{number}"),
        "customer": format!("customer-{:03}", number % 100),
        "items": [{ "sku": format!("sku-{:04}", number * 7 % 1_000), "quantity": quantity }],
        "total": f64::from(u32::try_from(cents).unwrap_or(u32::MAX)) / 100.0,
    })
}

fn event(id: String, number: usize, payload: &Value) -> Bytes {
    let attribute = |attr| CloudEventAttributeValue { attr: Some(attr) };
    let attributes = [
        ("datacontenttype", Attr::CeString("application/json".to_owned())),
        ("subject", Attr::CeString(format!("o-{number}"))),
    ];
    let event = CloudEvent {
        id,
        source: SOURCE.to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: PLACED.to_owned(),
        attributes: attributes.map(|(name, attr)| (name.to_owned(), attribute(attr))).into(),
        data: Some(Data::TextData(payload.to_string())),
    };
    event.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use weft_proto::event::{EVENT_BYTES_MAX, check};

    use super::*;

    #[test]
    fn orders_are_valid_events_with_their_own_ids() {
        let (first, second) = (order(1), order(2));

        assert_eq!(check(&first, EVENT_BYTES_MAX).unwrap().id, id(1));
        assert_eq!(check(&second, EVENT_BYTES_MAX).unwrap().ty, PLACED);
        assert_ne!(check(&malformed(1), EVENT_BYTES_MAX).unwrap().id, id(1));
    }
}
