//! From the errors of a validator to the one place and reason that help most.
//!
//! A failed `oneOf` says nothing by itself; each of its branches failed for reasons of its own. The
//! branch that was meant is the one whose fixed values (`const`, `enum`, `type`) agree with the
//! payload and that misses least; its reasons are told.

use crate::json::{Document, Problem};
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

/// Longest piece of somebody else's text in a message.
const SHOWN_BYTES_MAX: usize = 120;

/// Where and why a payload does not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer into the payload.
    ///
    /// A missing member has no place; then it is the object that misses it, and the message names
    /// the member. A member that must not be there is pointed at itself.
    pub pointer: String,
    /// JSON pointer into the schema, to the keyword; empty if no keyword is to blame.
    pub schema_pointer: String,
    /// The keyword; or `json` if the payload is none, `steps` if the check was given up, `schema`
    /// if there are too many reasons to find the best one.
    pub keyword: String,
    /// Lower case, no stop, no values of the payload but names of members.
    pub message: String,
    /// How many more reasons were found beside this one.
    pub more: usize,
}

impl Violation {
    fn of_payload(keyword: &str, message: String) -> Self {
        Self {
            pointer: String::new(),
            schema_pointer: String::new(),
            keyword: keyword.to_owned(),
            message,
            more: 0,
        }
    }

    pub(crate) fn not_json(problem: &Problem) -> Self {
        Self::of_payload("json", format!("payload is not JSON: {problem}"))
    }

    pub(crate) fn content_type(found: &str) -> Self {
        Self::of_payload(
            "datacontenttype",
            format!("content type {} is not JSON, which the schema describes", shown(found)),
        )
    }

    pub(crate) fn no_data() -> Self {
        Self::of_payload("data", "the event has no data, which the schema describes".to_owned())
    }

    pub(super) fn too_costly(steps: u64) -> Self {
        Self::of_payload("steps", format!("check was given up after {steps} steps"))
    }

    pub(super) fn unexplained() -> Self {
        Self::of_payload("schema", "does not fit, for more reasons than can be told".to_owned())
    }
}

/// One reason, with the pointers resolved.
struct Cause<'e> {
    error: &'e ValidationError<'e>,
    /// Replaces the reason if the error is a set of alternatives that are all far off.
    message: Option<String>,
}

pub(super) fn explain(document: &Document<'_>, errors: &[ValidationError<'_>]) -> Violation {
    let mut causes = Vec::new();
    for error in errors {
        gather(error, &mut causes);
    }
    let total = causes.len();
    // The first in the payload is told: stable, and people read from the top.
    let first = causes.into_iter().min_by_key(|cause| {
        document.find(cause.error.instance_path().as_str()).unwrap_or(u32::MAX)
    });
    let Some(Cause { error, message }) = first else { return Violation::unexplained() };
    let pointer = error.instance_path().as_str();
    Violation {
        pointer: offending_member(error.kind()).map_or_else(
            || pointer.to_owned(),
            |member| format!("{pointer}/{}", member.replace('~', "~0").replace('/', "~1")),
        ),
        schema_pointer: error.schema_path().as_str().to_owned(),
        keyword: error.kind().keyword().to_owned(),
        message: message.unwrap_or_else(|| reason(error.kind(), document.kind_at(pointer))),
        more: total.saturating_sub(1),
    }
}

/// Reasons below an error: its own, or those of the branch that was most likely meant.
fn gather<'e>(error: &'e ValidationError<'e>, causes: &mut Vec<Cause<'e>>) {
    let (ValidationErrorKind::AnyOf { context: branches }
    | ValidationErrorKind::OneOfNotValid { context: branches }) = error.kind()
    else {
        return causes.push(Cause { error, message: None });
    };
    let place = error.instance_path().as_str();
    let best = branches.iter().min_by_key(|branch| distance_of_branch(branch, place));
    match best {
        Some(best) if !best.is_empty() && !best.iter().any(|each| is_other_kind(each, place)) => {
            for error in best {
                gather(error, causes);
            }
        }
        _ => causes.push(Cause { error, message: far_from_all(branches, place) }),
    }
}

/// Whether the branch wants another kind of value altogether.
fn is_other_kind(error: &ValidationError<'_>, place: &str) -> bool {
    matches!(error.kind(), ValidationErrorKind::Type { .. })
        && error.instance_path().as_str() == place
}

/// If all branches differ in kind only, the kinds they want.
fn far_from_all(branches: &[Vec<ValidationError<'_>>], place: &str) -> Option<String> {
    let mut wanted: Vec<String> = Vec::new();
    for branch in branches {
        let kind = branch.iter().find(|error| is_other_kind(error, place))?;
        if let ValidationErrorKind::Type { kind } = kind.kind() {
            let name = names_of(kind);
            if !wanted.contains(&name) {
                wanted.push(name);
            }
        }
    }
    (!wanted.is_empty()).then(|| shown(&format!("must be {}", wanted.join(" or "))))
}

/// How far a branch is from what the payload means to be.
fn distance_of_branch(branch: &[ValidationError<'_>], place: &str) -> u64 {
    branch.iter().map(|error| distance(error, place)).fold(0, u64::saturating_add)
}

fn distance(error: &ValidationError<'_>, place: &str) -> u64 {
    const OTHER_KIND: u64 = 1_000_000;
    const OTHER_FIXED_VALUE: u64 = 10_000;
    // A member that is there says more about what was meant than one that is missing.
    const UNKNOWN_MEMBER: u64 = 300;
    const MISSING_MEMBER: u64 = 100;
    let path = error.instance_path().as_str();
    let below = path.strip_prefix(place).unwrap_or(path).matches('/').count();
    match error.kind() {
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            let best = context.iter().map(|branch| distance_of_branch(branch, path)).min();
            // Seen from further up, what goes wrong inside a member says less.
            if below == 0 { best.unwrap_or(1) } else { best.unwrap_or(1).clamp(1, MISSING_MEMBER) }
        }
        ValidationErrorKind::Type { .. } | ValidationErrorKind::FalseSchema if below == 0 => {
            OTHER_KIND
        }
        ValidationErrorKind::Constant { .. } | ValidationErrorKind::Enum { .. } if below <= 1 => {
            OTHER_FIXED_VALUE
        }
        ValidationErrorKind::Required { .. } if below == 0 => MISSING_MEMBER,
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected }
            if below == 0 =>
        {
            UNKNOWN_MEMBER * unexpected.len() as u64
        }
        _ => 1,
    }
}

/// A member that is there and must not be.
fn offending_member(kind: &ValidationErrorKind) -> Option<&str> {
    match kind {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unexpected.first().map(String::as_str)
        }
        _ => None,
    }
}

fn names_of(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(kind) => kind.as_str().to_owned(),
        TypeKind::Multiple(kinds) => {
            let names: Vec<_> = kinds.iter().map(jsonschema::JsonType::as_str).collect();
            names.join(" or ")
        }
    }
}

/// The reason in words; `found` is the kind of value in the payload.
pub(super) fn reason(kind: &ValidationErrorKind, found: Option<&'static str>) -> String {
    use ValidationErrorKind as K;
    match kind {
        K::AdditionalItems { limit } => format!("has more than {limit} items"),
        K::AdditionalProperties { unexpected } | K::UnevaluatedProperties { unexpected } => {
            match unexpected.as_slice() {
                [] => "has members that are not allowed".to_owned(),
                [one] => format!("member {} is not allowed", quoted(one)),
                [one, rest @ ..] => {
                    format!("member {} and {} more are not allowed", quoted(one), rest.len())
                }
            }
        }
        K::AnyOf { context } | K::OneOfNotValid { context } => {
            format!("fits none of {} alternatives", context.len())
        }
        K::OneOfMultipleValid { .. } => "fits more than one of the alternatives".to_owned(),
        K::Constant { expected_value } => format!("must be {}", value(expected_value)),
        K::Contains => "has too few or too many items of the kind asked for".to_owned(),
        K::Enum { options } => one_of(options),
        K::ExclusiveMaximum { limit } => format!("must be less than {}", value(limit)),
        K::ExclusiveMinimum { limit } => format!("must be greater than {}", value(limit)),
        K::FalseSchema => "must not be here".to_owned(),
        K::MaxItems { limit } => format!("has more than {limit} items"),
        K::Maximum { limit } => format!("is greater than the maximum {}", value(limit)),
        K::MaxLength { limit } => format!("is longer than {limit} characters"),
        K::MaxProperties { limit } => format!("has more than {limit} members"),
        K::MinItems { limit } => format!("has fewer than {limit} items"),
        K::Minimum { limit } => format!("is less than the minimum {}", value(limit)),
        K::MinLength { limit } => format!("is shorter than {limit} characters"),
        K::MinProperties { limit } => format!("has fewer than {limit} members"),
        K::MultipleOf { multiple_of } => format!("is not a multiple of {multiple_of}"),
        K::Not { .. } => "fits what it must not fit".to_owned(),
        K::Pattern { pattern } => format!("does not match the pattern {}", shown(pattern)),
        K::BacktrackLimitExceeded { .. } | K::RegexEngineFailure { .. } => {
            "could not be matched with the pattern".to_owned()
        }
        K::PropertyNames { error } => {
            format!("a member's name does not fit: {}", reason(error.kind(), None))
        }
        K::Required { property } => format!("misses the member {}", value(property)),
        K::Type { kind } => {
            let found = found.map_or_else(String::new, |found| format!(", found {found}"));
            format!("must be {}{found}", names_of(kind))
        }
        K::UnevaluatedItems { unexpected } => {
            format!("has {} items that are not allowed", unexpected.len())
        }
        K::UniqueItems => "has equal items".to_owned(),
        K::Format { format } => format!("is not a valid {}", shown(format)),
        K::ContentEncoding { .. } | K::ContentMediaType { .. } | K::FromUtf8 { .. } => {
            "does not have the content declared".to_owned()
        }
        K::Custom { message, .. } => shown(message),
        K::Referencing(error) => shown(&error.to_string()),
    }
}

fn one_of(options: &Value) -> String {
    let Some(options) = options.as_array() else { return "is not one of the values".to_owned() };
    let mut shown = String::new();
    for (place, option) in options.iter().enumerate() {
        let option = value(option);
        if shown.len() + option.len() > SHOWN_BYTES_MAX && place > 0 {
            return format!("must be one of {shown} and {} more", options.len() - place);
        }
        shown += if place == 0 { "" } else { ", " };
        shown += &option;
    }
    if options.len() == 1 { format!("must be {shown}") } else { format!("must be one of {shown}") }
}

fn value(value: &Value) -> String {
    shown(&value.to_string())
}

fn quoted(text: &str) -> String {
    value(&Value::from(text))
}

/// Text of limited length.
pub(super) fn shown(text: &str) -> String {
    if text.len() <= SHOWN_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(SHOWN_BYTES_MAX);
    format!("{}...", &text[..end])
}
