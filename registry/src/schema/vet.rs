//! The look at a schema before it is compiled: what could cost too much is refused, with a place.
//!
//! Owns: which keywords hold subschemas, where references lead, all static limits. Never: a
//! verdict on a payload, nor recursion (a schema may be a chain of a hundred thousand links).

use super::graph::{Graph, Vertex};
use super::{Draft, Limit, Limits, SchemaProblem, draft, explain};
use jsonschema::{Uri, uri};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Refuses a schema beyond the limits; answers how many subschemas a place below the root of a
/// payload can meet.
pub(super) fn vet(root: &Value, draft: Draft, limits: &Limits) -> Result<u64, SchemaProblem> {
    let mut vet = Vet::new(limits);
    vet.place(Place { value: root, trail: 0, base: 0, draft, is_below: false });
    while !vet.todo.is_empty() || !vet.references.is_empty() {
        while let Some(place) = vet.todo.pop() {
            vet.visit(place)?;
        }
        for reference in std::mem::take(&mut vet.references) {
            vet.follow(&reference)?;
        }
    }
    vet.weigh()
}

#[derive(Debug, Clone, Copy)]
enum Token<'v> {
    Root,
    Name(&'v str),
    Index(usize),
}

/// One subschema.
#[derive(Debug, Clone, Copy)]
struct Place<'v> {
    value: &'v Value,
    trail: usize,
    base: usize,
    draft: Draft,
    /// Whether it applies to something below the place of its parent.
    is_below: bool,
}

#[derive(Debug)]
struct Reference<'v> {
    place: u32,
    keyword: &'static str,
    text: &'v str,
}

/// What a reference leads to.
enum Target {
    Place(u32),
    /// A schema of schemas, which the compiler has built in.
    Meta,
}

/// Cost of a schema of schemas, at one place of a payload.
const META_VISITS: u64 = 64;

/// How a keyword's subschemas apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applies {
    Same,
    Below,
    /// Only by reference.
    Nowhere,
}

struct Vet<'v, 'l> {
    limits: &'l Limits,
    /// Linked pointers: a pointer as text for each subschema could be quadratic.
    trails: Vec<(usize, Token<'v>)>,
    places: Vec<Place<'v>>,
    graph: Graph,
    /// Place by address of its value.
    known: BTreeMap<usize, u32>,
    bases: Vec<Uri<String>>,
    resources: BTreeMap<String, u32>,
    anchors: BTreeMap<(String, &'v str), u32>,
    dynamic: BTreeMap<&'v str, Vec<u32>>,
    recursive: Vec<u32>,
    references: Vec<Reference<'v>>,
    patterns: u64,
    todo: Vec<u32>,
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value).addr()
}

/// A URI without its fragment.
fn document_of(uri: &Uri<String>) -> &str {
    uri.as_str().split('#').next().unwrap_or_default()
}

fn applies(keyword: &str) -> Option<(Applies, bool)> {
    // The flag: the keyword holds a map from names to subschemas.
    Some(match keyword {
        "allOf" | "anyOf" | "oneOf" | "not" | "if" | "then" | "else" => (Applies::Same, false),
        "dependentSchemas" | "dependencies" => (Applies::Same, true),
        "items"
        | "prefixItems"
        | "additionalItems"
        | "unevaluatedItems"
        | "contains"
        | "additionalProperties"
        | "unevaluatedProperties"
        | "propertyNames" => (Applies::Below, false),
        "properties" | "patternProperties" => (Applies::Below, true),
        "contentSchema" => (Applies::Nowhere, false),
        "$defs" | "definitions" => (Applies::Nowhere, true),
        _ => return None,
    })
}

/// The subschemas a keyword holds, each with its step from the keyword.
fn subschemas(held: &Value, is_map: bool) -> Vec<(Option<Token<'_>>, &Value)> {
    match held {
        Value::Object(map) if is_map => {
            // A list of names under `dependencies` is no subschema.
            let schemas = map.iter().filter(|(_, value)| !value.is_array());
            schemas.map(|(name, value)| (Some(Token::Name(name)), value)).collect()
        }
        Value::Array(list) if !is_map => {
            let schemas = list.iter().enumerate();
            schemas.map(|(at, value)| (Some(Token::Index(at)), value)).collect()
        }
        Value::Object(_) | Value::Bool(_) if !is_map => vec![(None, held)],
        _ => Vec::new(),
    }
}

impl<'v, 'l> Vet<'v, 'l> {
    fn new(limits: &'l Limits) -> Self {
        Self {
            limits,
            trails: vec![(0, Token::Root)],
            places: Vec::new(),
            graph: Graph::default(),
            known: BTreeMap::new(),
            bases: uri::from_str("").into_iter().collect(),
            resources: BTreeMap::new(),
            anchors: BTreeMap::new(),
            dynamic: BTreeMap::new(),
            recursive: Vec::new(),
            references: Vec::new(),
            patterns: 0,
            todo: Vec::new(),
        }
    }

    fn trail(&mut self, parent: usize, token: Token<'v>) -> usize {
        self.trails.push((parent, token));
        self.trails.len() - 1
    }

    fn pointer(&self, mut trail: usize, last: &str) -> String {
        let mut tokens = if last.is_empty() { vec![] } else { vec![last.to_owned()] };
        while let (parent, token @ (Token::Name(_) | Token::Index(_))) = self.trails[trail] {
            tokens.push(match token {
                Token::Name(name) => name.replace('~', "~0").replace('/', "~1"),
                Token::Index(index) => index.to_string(),
                Token::Root => String::new(),
            });
            trail = parent;
        }
        tokens.iter().rev().fold(String::new(), |pointer, token| pointer + "/" + token)
    }

    fn pointer_to(&self, place: u32, keyword: &str) -> String {
        self.pointer(self.places[place as usize].trail, keyword)
    }

    fn place(&mut self, place: Place<'v>) -> u32 {
        let next = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let at = *self.known.entry(address(place.value)).or_insert(next);
        if at == next {
            self.places.push(place);
            self.graph.push(Vertex { own: 1, ..Vertex::default() });
            self.todo.push(at);
            if at == 0 {
                let root = document_of(&self.bases[0]).to_owned();
                self.resources.insert(root, 0);
            }
        }
        at
    }

    fn visit(&mut self, place: u32) -> Result<(), SchemaProblem> {
        let Some(schema) = self.places[place as usize].value.as_object() else { return Ok(()) };
        self.identify(place, schema)?;
        let draft = self.places[place as usize].draft;
        self.check_limits(place, schema)?;
        let by_reference = [
            ("$ref", true),
            ("$dynamicRef", draft == Draft::Draft202012),
            ("$recursiveRef", draft == Draft::Draft201909),
        ];
        for (keyword, _) in by_reference.into_iter().filter(|(_, spoken)| *spoken) {
            if let Some(Value::String(text)) = schema.get(keyword) {
                self.references.push(Reference { place, keyword, text });
            }
        }
        let stands_alone = draft.ref_stands_alone() && schema.contains_key("$ref");
        for (keyword, value) in schema {
            if let Some((applies, is_map)) = applies(keyword) {
                let applies = if stands_alone { Applies::Nowhere } else { applies };
                let trail = self.trail(self.places[place as usize].trail, Token::Name(keyword));
                for (token, value) in subschemas(value, is_map) {
                    let trail = token.map_or(trail, |token| self.trail(trail, token));
                    self.descend(place, trail, value, applies);
                }
            }
        }
        Ok(())
    }

    fn descend(&mut self, parent: u32, trail: usize, value: &'v Value, applies: Applies) {
        let is_below = applies == Applies::Below;
        let child = self.place(Place { value, trail, is_below, ..self.places[parent as usize] });
        if applies == Applies::Same {
            self.graph.vertex_mut(parent).same.push(child);
        }
    }

    /// Takes note of what other subschemas may call this one, and of its draft.
    fn identify(
        &mut self,
        place: u32,
        schema: &'v Map<String, Value>,
    ) -> Result<(), SchemaProblem> {
        let Place { base, draft, .. } = self.places[place as usize];
        let declared = match schema.get("$schema") {
            Some(Value::String(uri)) => match Draft::from_uri(uri) {
                Some(draft) => Some(draft),
                None => return Err(draft::unknown(uri, &self.pointer_to(place, "$schema"))),
            },
            _ => None,
        };
        let keyword = if draft == Draft::Draft4 { "id" } else { "$id" };
        let ignored = draft.ref_stands_alone() && schema.contains_key("$ref");
        if let Some(Value::String(id)) = schema.get(keyword).filter(|_| !ignored) {
            if let Some(anchor) = id.strip_prefix('#') {
                self.anchor(base, anchor, place);
            } else if let Ok(uri) = uri::resolve_against(&self.bases[base].borrow(), id) {
                self.resources.insert(document_of(&uri).to_owned(), place);
                self.bases.push(uri);
                self.places[place as usize].base = self.bases.len() - 1;
                self.places[place as usize].draft = declared.unwrap_or(draft);
            }
        }
        let base = self.places[place as usize].base;
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(anchor)) = schema.get(keyword) {
                self.anchor(base, anchor, place);
            }
        }
        if let Some(Value::String(anchor)) = schema.get("$dynamicAnchor") {
            self.dynamic.entry(anchor).or_default().push(place);
        }
        if let Some(Value::Bool(true)) = schema.get("$recursiveAnchor") {
            self.recursive.push(place);
        }
        Ok(())
    }

    fn anchor(&mut self, base: usize, anchor: &'v str, place: u32) {
        self.anchors.insert((document_of(&self.bases[base]).to_owned(), anchor), place);
    }

    fn check_limits(
        &mut self,
        place: u32,
        schema: &'v Map<String, Value>,
    ) -> Result<(), SchemaProblem> {
        let limits = self.limits;
        let pointer = |keyword| self.pointer_to(place, keyword);
        if let Some(Value::Array(values)) = schema.get("enum") {
            let count = values.len() as u64;
            limits.check_at(Limit::EnumValues, count, || pointer("enum"))?;
        }
        if let Some(Value::Bool(true)) = schema.get("uniqueItems") {
            let Some(max) = schema.get("maxItems").and_then(Value::as_f64) else {
                return Err(SchemaProblem::UnboundedUniqueItems {
                    pointer: pointer("uniqueItems"),
                });
            };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates"
            )]
            limits.check_at(Limit::UniqueItems, max.ceil() as u64, || pointer("maxItems"))?;
        }
        let named = schema.get("patternProperties").and_then(Value::as_object);
        let pattern = schema.get("pattern").and_then(Value::as_str);
        let keywords =
            pattern.iter().map(|_| "pattern").chain(std::iter::repeat("patternProperties"));
        let patterns =
            pattern.into_iter().chain(named.into_iter().flat_map(Map::keys).map(String::as_str));
        let mut count = self.patterns;
        for (pattern, keyword) in patterns.zip(keywords) {
            limits.check_at(Limit::PatternBytes, pattern.len() as u64, || pointer(keyword))?;
            count += 1;
            limits.check_at(Limit::Patterns, count, || pointer(keyword))?;
        }
        self.patterns = count;
        let vertex = self.graph.vertex_mut(place);
        vertex.own += named.map_or(0, |named| named.len() as u64);
        vertex.walks_again = ["unevaluatedProperties", "unevaluatedItems"]
            .into_iter()
            .any(|keyword| schema.contains_key(keyword));
        Ok(())
    }

    fn follow(&mut self, reference: &Reference<'v>) -> Result<(), SchemaProblem> {
        let place = reference.place;
        match self.resolve(reference)? {
            Target::Meta => self.graph.vertex_mut(place).own += META_VISITS,
            Target::Place(target) => self.graph.vertex_mut(place).same.push(target),
        }
        // What a dynamic reference leads to is known only in a check: count every candidate.
        let candidates = match reference.keyword {
            "$recursiveRef" => self.recursive.clone(),
            "$dynamicRef" => {
                let anchor = reference.text.split_once('#').map_or("", |(_, anchor)| anchor);
                self.dynamic.get(anchor).cloned().unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let same = &mut self.graph.vertex_mut(place).same;
        for candidate in candidates {
            if !same.contains(&candidate) {
                same.push(candidate);
            }
        }
        Ok(())
    }

    fn resolve(&mut self, reference: &Reference<'v>) -> Result<Target, SchemaProblem> {
        let text = reference.text;
        let pointer = |vet: &Self| vet.pointer_to(reference.place, reference.keyword);
        let base = &self.bases[self.places[reference.place as usize].base];
        let (document, fragment) = match text.strip_prefix('#') {
            Some(fragment) => (document_of(base).to_owned(), fragment.to_owned()),
            None => match uri::resolve_against(&base.borrow(), text) {
                Ok(uri) => {
                    let fragment =
                        uri.as_str().split_once('#').map_or("", |(_, fragment)| fragment);
                    (document_of(&uri).to_owned(), fragment.to_owned())
                }
                Err(_) => return Err(self.dangling(reference)),
            },
        };
        let Some(root) = self.resources.get(&document).copied() else {
            if is_meta(&document) {
                return Ok(Target::Meta);
            }
            return Err(SchemaProblem::RemoteReference {
                pointer: pointer(self),
                reference: explain::shown(text),
            });
        };
        let found = if fragment.is_empty() {
            Some(root)
        } else if fragment.starts_with('/') {
            percent_decoded(&fragment).and_then(|path| self.find(root, &path))
        } else {
            self.anchors.get(&(document, fragment.as_str())).copied()
        };
        found.map(Target::Place).ok_or_else(|| self.dangling(reference))
    }

    fn dangling(&self, reference: &Reference<'v>) -> SchemaProblem {
        SchemaProblem::DanglingReference {
            pointer: self.pointer_to(reference.place, reference.keyword),
            reference: explain::shown(reference.text),
        }
    }

    /// The place a pointer leads to from a resource; it becomes one if it was none.
    fn find(&mut self, root: u32, path: &str) -> Option<u32> {
        let Place { value, mut trail, mut base, mut draft, .. } = self.places[root as usize];
        if let Some(known) = value.pointer(path).and_then(|end| self.known.get(&address(end))) {
            return Some(*known);
        }
        let mut at = value;
        for token in path.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let (step, next) = match at {
                Value::Object(map) => {
                    let (name, next) = map.get_key_value(&token)?;
                    (Token::Name(name), next)
                }
                Value::Array(list) => {
                    let index = token.parse().ok()?;
                    (Token::Index(index), list.get(index)?)
                }
                _ => return None,
            };
            trail = self.trail(trail, step);
            if let Some(known) = self.known.get(&address(next)) {
                (base, draft) =
                    (self.places[*known as usize].base, self.places[*known as usize].draft);
            }
            at = next;
        }
        Some(self.place(Place { value: at, trail, base, draft, is_below: false }))
    }

    fn weigh(&self) -> Result<u64, SchemaProblem> {
        let weights = self.graph.weigh().map_err(|endless| SchemaProblem::EndlessReference {
            pointer: self.pointer_to(endless.0, ""),
        })?;
        // The smallest of those that are too heavy is the innermost, and tells most.
        let culprit = |weight: fn(&super::graph::Weight) -> u64, max: u64| {
            (0_u32..)
                .zip(&weights)
                .map(|(place, each)| (weight(each), place))
                .filter(|(weight, _)| *weight > max)
                .min()
        };
        if let Some((value, place)) = culprit(|weight| weight.visits, self.limits.visits_max) {
            self.limits.check_at(Limit::Visits, value, || self.pointer_to(place, ""))?;
        }
        if let Some((value, place)) = culprit(|weight| weight.nesting, self.limits.nesting_max) {
            self.limits.check_at(Limit::Nesting, value, || self.pointer_to(place, ""))?;
        }
        let below = self.places.iter().zip(&weights).filter(|(place, _)| place.is_below);
        Ok(below.map(|(_, weight)| weight.visits).max().unwrap_or(1))
    }
}

fn is_meta(document: &str) -> bool {
    Draft::from_uri(document).is_some()
        || [
            "https://json-schema.org/draft/2019-09/meta/",
            "https://json-schema.org/draft/2020-12/meta/",
        ]
        .into_iter()
        .any(|vocabulary| document.starts_with(vocabulary))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}
