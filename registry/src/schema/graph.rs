//! How many subschemas one place of a payload can meet: sums over a graph, loops found.

/// Subschemas and which of them apply to the same place of the payload as their parent.
#[derive(Debug, Default)]
pub(super) struct Graph {
    vertices: Vec<Vertex>,
}

#[derive(Debug, Default)]
pub(super) struct Vertex {
    /// What checking this subschema costs beside its children.
    pub(super) own: u64,
    /// Applied to the same place, once per mention.
    pub(super) same: Vec<u32>,
    /// `unevaluated...` walks its neighbours again, to learn what they saw.
    pub(super) walks_again: bool,
}

/// Cost of one subschema with all that it applies to the same place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) visits: u64,
    pub(super) nesting: u64,
}

/// A vertex on a loop: checking it would never end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endless(pub(super) u32);

impl Graph {
    pub(super) fn push(&mut self, vertex: Vertex) {
        self.vertices.push(vertex);
    }

    pub(super) fn vertex_mut(&mut self, at: u32) -> &mut Vertex {
        &mut self.vertices[at as usize]
    }

    /// The weight of every vertex, children before parents, without recursion: chains are long.
    pub(super) fn weigh(&self) -> Result<Vec<Weight>, Endless> {
        let count = self.vertices.len();
        let mut parents: Vec<Vec<u32>> = vec![Vec::new(); count];
        let mut open: Vec<usize> = self.vertices.iter().map(|vertex| vertex.same.len()).collect();
        for (parent, vertex) in (0_u32..).zip(&self.vertices) {
            for child in &vertex.same {
                parents[*child as usize].push(parent);
            }
        }
        let mut ready: Vec<u32> =
            (0_u32..).zip(&open).filter(|(_, open)| **open == 0).map(|(at, _)| at).collect();
        let mut weights = vec![Weight::default(); count];
        while let Some(at) = ready.pop() {
            weights[at as usize] = self.vertices[at as usize].weight(&weights);
            for parent in &parents[at as usize] {
                open[*parent as usize] -= 1;
                if open[*parent as usize] == 0 {
                    ready.push(*parent);
                }
            }
        }
        match open.iter().position(|open| *open > 0) {
            None => Ok(weights),
            Some(start) => Err(self.on_loop(start, &open)),
        }
    }

    /// Follows open vertices until one comes back: an open vertex may only lead to a loop.
    fn on_loop(&self, start: usize, open: &[usize]) -> Endless {
        let mut seen = vec![false; open.len()];
        let mut at = start;
        while !seen[at] {
            seen[at] = true;
            let next = self.vertices[at].same.iter().find(|child| open[**child as usize] > 0);
            at = next.map_or(at, |child| *child as usize);
        }
        Endless(u32::try_from(at).unwrap_or(u32::MAX))
    }
}

impl Vertex {
    fn weight(&self, weights: &[Weight]) -> Weight {
        let mut visits = 0_u64;
        let mut nesting = 0;
        for child in &self.same {
            let child = weights[*child as usize];
            visits = visits.saturating_add(child.visits);
            nesting = nesting.max(child.nesting);
        }
        let walks = if self.walks_again { 3 } else { 1 };
        Weight {
            visits: visits.saturating_mul(walks).saturating_add(self.own),
            nesting: nesting + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Endless, Graph, Vertex, Weight};

    fn graph(same: &[&[u32]]) -> Graph {
        let mut graph = Graph::default();
        for same in same {
            graph.push(Vertex { own: 1, same: same.to_vec(), walks_again: false });
        }
        graph
    }

    #[test]
    fn doubling_is_counted_without_being_walked() {
        let chain: Vec<Vec<u32>> =
            (0..100).map(|at| if at == 99 { vec![] } else { vec![at + 1, at + 1] }).collect();
        let chain: Vec<&[u32]> = chain.iter().map(Vec::as_slice).collect();

        let weights = graph(&chain).weigh().unwrap();

        assert_eq!(weights[99], Weight { visits: 1, nesting: 1 });
        assert_eq!(weights[96], Weight { visits: 15, nesting: 4 });
        assert_eq!(weights[0], Weight { visits: u64::MAX, nesting: 100 });
    }

    #[test]
    fn loop_is_named_by_a_vertex_on_it() {
        assert_eq!(graph(&[&[1], &[2], &[3], &[2]]).weigh(), Err(Endless(2)));
        assert_eq!(graph(&[&[0]]).weigh(), Err(Endless(0)));
    }

    #[test]
    fn unevaluated_walks_its_neighbours_again() {
        let mut graph = graph(&[&[1, 1], &[]]);
        graph.vertex_mut(0).walks_again = true;

        assert_eq!(graph.weigh().unwrap()[0].visits, 7);
    }
}
