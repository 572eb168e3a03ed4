//! Filters as text (resources) and as protobuf (reads): what is accepted survives both forms and
//! decides the same.

#![cfg_attr(fuzzing, no_main)]

use prost::Message as _;
use weft_fuzz::{chosen, sample};
use weft_proto::event::EventView;
use weft_proto::filter::{
    Candidate, Compiled, DEPTH_MAX, Filter, Judgement, NODES_MAX, check_all, from_wire, to_wire,
};
use weft_proto::v1;

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

pub fn run(data: &[u8]) -> bool {
    let Some((&form, data)) = data.split_first() else { return false };
    let filters = if form & 1 == 0 {
        let Ok(filters) = serde_json::from_slice::<Vec<Filter>>(data) else { return false };
        if check_all(&filters).is_err() {
            return false;
        }
        filters
    } else {
        let Ok(list) = v1::FilterList::decode(data) else { return false };
        let Ok(filters) = from_wire(list.filters) else { return false };
        check_all(&filters).expect("what came by wire was checked");
        filters
    };
    let (mut depth, mut nodes) = (0, 0);
    filters.iter().for_each(|filter| measure(filter, 1, &mut depth, &mut nodes));
    assert!(depth <= DEPTH_MAX && nodes <= NODES_MAX);
    assert_eq!(from_wire(to_wire(&filters)).expect("the wire form is accepted"), filters);
    let text = serde_json::to_string(&filters).expect("filters can be written");
    assert_eq!(serde_json::from_str::<Vec<Filter>>(&text).expect("and read"), filters);
    let event = sample::encode(&sample::event());
    let view = EventView::parse(&event).expect("an event");
    let compiled = |filters: &[Filter]| Compiled::new(filters).expect("they were checked");
    let passes =
        |filter: &Filter| compiled(std::slice::from_ref(filter)).passes(&Candidate::new(view));
    let all = compiled(&filters);
    let candidate = Candidate::new(view);
    assert_eq!(all.passes(&candidate), filters.iter().all(passes));
    let judged = all.judge(&candidate);
    assert!(judged == Judgement::Undecided || judged == all.passes(&candidate).into());
    assert_eq!(all.explain(&candidate).reasons.is_empty(), all.passes(&candidate));
    all.warnings();
    true
}

fn measure(filter: &Filter, at: usize, depth: &mut usize, nodes: &mut usize) {
    *depth = at.max(*depth);
    *nodes += 1;
    match filter {
        Filter::All(list) | Filter::Any(list) => {
            list.iter().for_each(|filter| measure(filter, at + 1, depth, nodes));
        }
        Filter::Not(filter) => measure(filter, at + 1, depth, nodes),
        Filter::Exact(_)
        | Filter::Prefix(_)
        | Filter::Suffix(_)
        | Filter::Sql(_)
        | Filter::Cel(_) => {}
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"[{"exact":{"type":"com.example.cart.paid"}}]"#,
        r#"[{"prefix":{"type":"com."}},{"suffix":{"source":"op"}}]"#,
        r#"[{"any":[{"not":{"exact":{"subject":"cart/7"}}},{"all":[{"exact":{"flag":"true"}}]}]}]"#,
        r#"[{"sql":"type LIKE 'com.%' AND NOT EXISTS subject"}]"#,
        r#"[{"not":{"cel":"data.a > 1 && data.l.exists(x, x == ce.type)"}}]"#,
        r#"[{"regex":{"type":"a"}}]"#,
        r#"[{"sql":"type ="}]"#,
    ];
    let mut seeds = Vec::new();
    for text in texts {
        seeds.push(chosen(0, text));
        if let Ok(filters) = serde_json::from_str::<Vec<Filter>>(text) {
            let list = v1::FilterList { filters: to_wire(&filters) };
            seeds.push(chosen(1, list.encode_to_vec()));
        }
    }
    seeds
}
