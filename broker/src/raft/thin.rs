//! Which checkpoints stay: all of the newest log, then one per GiB.
//!
//! Without it they would be as many as the log is long; with it, a search for a floor still finds
//! one in steps of a GiB. By position alone, so that all replicas keep the same.

/// All checkpoints of the newest part of the log stay.
const ALL_BYTES: u64 = 4 << 30;
/// Of older ones, the first within each such part.
const STEP_BYTES: u64 = 1 << 30;

/// A checkpoint: its index and its position.
pub(super) type Mark = (u64, u64);

/// Lists the checkpoints that nobody needs, once the newest one is at `end`. Those below `floor` are
/// left alone: they go with the log. `marks` rise.
pub(super) fn useless(marks: &[Mark], floor: u64, end: u64) -> Vec<u64> {
    let mut kept = None;
    let mut found = Vec::new();
    for &(index, pos) in marks.iter().filter(|(index, _)| *index >= floor) {
        if pos.saturating_add(ALL_BYTES) > end {
            break;
        }
        let step = Some(pos / STEP_BYTES);
        if kept == step && index != floor {
            found.push(index);
        } else {
            kept = step;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A checkpoint every 64 MiB, thinned as it would be: at each of them.
    fn grown(gib: u64, floor: u64) -> Vec<Mark> {
        let mut marks: Vec<Mark> = Vec::new();
        for number in 1..=gib * 16 {
            marks.push((number, number * 64 * MIB));
            let useless = useless(&marks, floor, number * 64 * MIB);
            marks.retain(|(index, _)| !useless.contains(index));
        }
        marks
    }

    #[test]
    fn the_newest_stay_and_older_ones_thin_out() {
        let marks = grown(40, 0);

        let old = marks.iter().filter(|(_, pos)| *pos <= 36 << 30).count();
        assert_eq!((old, marks.len() - old), (37, 64));
        assert!(marks.windows(2).all(|pair| pair[1].1 - pair[0].1 <= 1 << 30));
    }

    #[test]
    fn the_one_at_the_floor_stays_wherever_it_is() {
        for floor in [1, 5, 16, 17, 100] {
            assert!(grown(40, floor).iter().any(|(index, _)| *index == floor), "{floor}");
        }
    }

    #[test]
    fn who_came_later_keeps_what_the_others_keep() {
        // One replica began with the checkpoint at 100; the others know older ones too.
        let all = grown(40, 100);
        let mut late: Vec<Mark> = Vec::new();
        for number in 100..=640 {
            late.push((number, number * 64 * MIB));
            let useless = useless(&late, 100, number * 64 * MIB);
            late.retain(|(index, _)| !useless.contains(index));
        }

        let above: Vec<Mark> = all.into_iter().filter(|(index, _)| *index >= 100).collect();
        assert_eq!(above, late);
    }
}
