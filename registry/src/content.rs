//! Which content types are JSON.

/// Whether event data of this `datacontenttype` is JSON.
///
/// Absent means JSON, as `CloudEvents` says. Parameters and case do not matter.
#[must_use]
pub fn is_json(datacontenttype: Option<&str>) -> bool {
    let Some(content_type) = datacontenttype else { return true };
    let essence = content_type.split(';').next().unwrap_or("").trim_ascii();
    if essence.eq_ignore_ascii_case("application/json") || essence.eq_ignore_ascii_case("text/json")
    {
        return true;
    }
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let Some(base) =
        subtype.len().checked_sub("+json".len()).and_then(|at| subtype.split_at_checked(at))
    else {
        return false;
    };
    !kind.is_empty() && !base.0.is_empty() && base.1.eq_ignore_ascii_case("+json")
}

#[cfg(test)]
mod tests {
    use super::is_json;

    #[test]
    fn json_is_known_by_essence_or_suffix() {
        for json in [
            None,
            Some("application/json"),
            Some("Application/JSON; charset=UTF-8"),
            Some("text/json"),
            Some("application/vnd.order+json"),
            Some("application/cloudevents+JSON;charset=utf-8"),
            Some(" application/json ;a=b"),
        ] {
            assert!(is_json(json), "{json:?}");
        }
        for other in [
            "",
            "json",
            "application/json5",
            "application/jsonl",
            "application/xml",
            "+json",
            "/+json",
            "application/+json",
            "application/avro",
            "text/plain; a=application/json",
            "a/ü",
        ] {
            assert!(!is_json(Some(other)), "{other:?}");
        }
    }
}
