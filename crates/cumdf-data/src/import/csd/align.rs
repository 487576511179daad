//! Joins sequences by time, as CMU-MultimodalSDK's `align` does.
//!
//! Two intervals overlap when they share more than [`EPSILON`] seconds. A word's features are the
//! plain mean over all frames that overlap it, however long each is.

use anyhow::{Result, ensure};

/// Seconds that intervals have to share to overlap; shorter ones are no intervals. The SDK's.
pub(crate) const EPSILON: f64 = 1e-5;

/// Start and end in seconds.
pub(crate) type Interval = [f64; 2];

/// Whether an interval is one: finite and not shorter than [`EPSILON`].
pub(crate) fn is_proper(interval: Interval) -> bool {
    interval.iter().all(|time| time.is_finite()) && interval[1] - interval[0] >= EPSILON
}

/// Whether two intervals share more than [`EPSILON`] seconds.
pub(crate) fn overlap(a: Interval, b: Interval) -> bool {
    a[1].min(b[1]) - a[0].max(b[0]) > EPSILON
}

/// Positions of the intervals in order of their starts; equal starts keep their order.
pub(crate) fn by_start(intervals: &[Interval]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by(|a, b| intervals[*a][0].total_cmp(&intervals[*b][0]));
    order
}

/// Proper intervals in order of their starts, to be searched by time.
#[derive(Debug)]
pub(crate) struct Timeline<'a> {
    intervals: &'a [Interval],
    /// The latest end up to each interval: it never falls, even where the ends do.
    latest: Vec<f64>,
}

impl<'a> Timeline<'a> {
    pub(crate) fn new(intervals: &'a [Interval]) -> Self {
        debug_assert!(intervals.is_sorted_by(|a, b| a[0] <= b[0]), "in order of their starts");
        let latest = intervals.iter().scan(f64::NEG_INFINITY, |latest, interval| {
            *latest = latest.max(interval[1]);
            Some(*latest)
        });
        Self { intervals, latest: latest.collect() }
    }

    /// Positions of the intervals that overlap this one, in order.
    pub(crate) fn overlapping(&self, with: Interval) -> impl Iterator<Item = usize> + use<'_, 'a> {
        let first = self.latest.partition_point(|end| *end <= with[0]);
        let last = self.intervals.partition_point(|interval| interval[0] < with[1]);
        (first..last.max(first)).filter(move |at| overlap(self.intervals[*at], with))
    }
}

/// Pairs of a frame and a word in one video, at most; an hour of speech has a million.
const MOST_SHARED: usize = 1 << 24;

/// Which words each frame belongs to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Words of frame `f` are `words[ends[f - 1]..ends[f]]`.
    ends: Vec<usize>,
    words: Vec<usize>,
}

impl Membership {
    /// Words in order of their starts; frames in any order, improper ones belong to no word.
    ///
    /// # Errors
    /// When far more words share a frame than anybody can speak.
    pub(crate) fn of(words: &[Interval], frames: &[Interval]) -> Result<Self> {
        let timeline = Timeline::new(words);
        let mut all = Self::default();
        for frame in frames {
            if is_proper(*frame) {
                all.words.extend(timeline.overlapping(*frame));
                ensure!(
                    all.words.len() <= MOST_SHARED.max(4 * frames.len()),
                    "{} frames overlap {} words more than {MOST_SHARED} times: the times are wrong",
                    frames.len(),
                    words.len()
                );
            }
            all.ends.push(all.words.len());
        }
        Ok(all)
    }

    /// The words of one frame.
    pub(crate) fn words_of(&self, frame: usize) -> &[usize] {
        let first = frame.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.words[first..self.ends[frame]]
    }

    /// Whether any of these frames belongs to a word.
    pub(crate) fn any(&self, frames: std::ops::Range<usize>) -> bool {
        let first = frames.start.checked_sub(1).map_or(0, |before| self.ends[before]);
        frames.end > frames.start && self.ends[frames.end - 1] > first
    }

    /// How many frames each of `n_words` words has.
    pub(crate) fn frames(&self, n_words: usize) -> Vec<u32> {
        let mut frames = vec![0; n_words];
        for word in &self.words {
            frames[*word] += 1;
        }
        frames
    }
}

/// Means over the frames of each word, feature by feature, of what is finite in them.
#[derive(Debug)]
pub(crate) struct Means {
    dim: usize,
    frames: Vec<u32>,
    sums: Vec<f64>,
    /// Values that were not finite.
    holes: Vec<u32>,
}

impl Means {
    /// Of words that have so many frames each.
    pub(crate) fn new(frames: Vec<u32>, dim: usize) -> Self {
        let len = frames.len() * dim;
        Self { dim, frames, sums: vec![0.0; len], holes: vec![0; len] }
    }

    /// Adds features of one frame, from column `first` on, to a word.
    pub(crate) fn add(&mut self, word: usize, first: usize, values: &[f32]) {
        let at = word * self.dim + first;
        let sums = &mut self.sums[at..at + values.len()];
        let holes = &mut self.holes[at..at + values.len()];
        for ((sum, holes), value) in sums.iter_mut().zip(holes).zip(values) {
            let finite = value.is_finite();
            *sum += if finite { f64::from(*value) } else { 0.0 };
            *holes += u32::from(!finite);
        }
    }

    /// Whether a word has any frame.
    pub(crate) fn has(&self, word: usize) -> bool {
        self.frames[word] > 0
    }

    /// A word's means; NaN for a feature that no frame has.
    pub(crate) fn of(&self, word: usize) -> impl Iterator<Item = f32> {
        let range = word * self.dim..(word + 1) * self.dim;
        let frames = self.frames[word];
        self.sums[range.clone()]
            .iter()
            .zip(&self.holes[range])
            .map(move |(sum, holes)| (sum / f64::from(frames - holes)) as f32)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    fn uniform(rng: &mut ChaCha8Rng) -> f64 {
        f64::from(rng.next_u32()) / 2f64.powi(32)
    }

    /// Intervals of many lengths, some of none, on a grid so that ends touch.
    fn intervals(rng: &mut ChaCha8Rng, n: usize, longest: f64) -> Vec<Interval> {
        let grid = |time: f64| (time * 8.0).round() / 8.0;
        (0..n)
            .map(|_| {
                let start = grid(uniform(rng) * 10.0);
                let end = start + grid(uniform(rng) * longest);
                [start, if uniform(rng) < 0.05 { start } else { end }]
            })
            .collect()
    }

    #[test]
    fn touching_intervals_do_not_overlap() {
        assert!(overlap([0.0, 1.0], [0.5, 2.0]));
        assert!(overlap([0.0, 3.0], [1.0, 1.1]));
        assert!(!overlap([0.0, 1.0], [1.0, 2.0]));
        assert!(!overlap([0.0, 1.0], [1.0 - 0.9e-5, 2.0]));
        assert!(overlap([0.0, 1.0], [1.0 - 1.1e-5, 2.0]));
        assert!(!overlap([0.0, 1.0], [0.5, 0.5]));
        assert!(!is_proper([1.0, 1.0]) && !is_proper([2.0, 1.0]) && is_proper([1.0, 1.1]));
        assert!(!is_proper([f64::NAN, 1.0]) && !is_proper([0.0, f64::INFINITY]));
    }

    #[test]
    fn the_search_finds_what_comparing_all_with_all_finds() {
        for seed in 0..200 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut words = intervals(&mut rng, (seed % 30) as usize, 3.0);
            words.retain(|word| is_proper(*word));
            words.sort_by(|a, b| a[0].total_cmp(&b[0]));
            let frames = intervals(&mut rng, 60, if seed % 2 == 0 { 0.3 } else { 9.0 });
            let found = Membership::of(&words, &frames).unwrap();
            let mut counts = vec![0; words.len()];
            for (f, frame) in frames.iter().enumerate() {
                let naive: Vec<usize> = (0..words.len())
                    .filter(|w| {
                        frame[1] - frame[0] >= EPSILON
                            && frame[1].min(words[*w][1]) - frame[0].max(words[*w][0]) > EPSILON
                    })
                    .collect();
                assert_eq!(found.words_of(f), naive, "seed {seed}, frame {f}");
                assert_eq!(found.any(f..f + 1), !naive.is_empty(), "seed {seed}, frame {f}");
                naive.iter().for_each(|w| counts[*w] += 1);
            }
            assert_eq!(found.frames(words.len()), counts, "seed {seed}");
            assert!(!found.any(7..7), "no frame, no word");
        }
    }

    #[test]
    fn means_leave_out_what_is_not_finite() {
        let mut means = Means::new(vec![3, 0], 3);
        means.add(0, 0, &[1.0, f32::NAN]);
        means.add(0, 2, &[f32::NAN]);
        means.add(0, 0, &[2.0, 4.0, f32::INFINITY]);
        means.add(0, 0, &[6.0, 5.0, f32::NEG_INFINITY]);
        let first: Vec<f32> = means.of(0).collect();
        assert_eq!(first[..2], [3.0, 4.5]);
        assert!(first[2].is_nan() && means.of(1).all(f32::is_nan), "{first:?}");
        assert!(means.has(0) && !means.has(1));
    }

    #[test]
    fn times_that_cannot_be_are_refused_before_they_take_memory() {
        let all = vec![[0.0, 1.0]; 5000];
        let error = Membership::of(&all, &all).unwrap_err().to_string();
        assert!(error.contains("the times are wrong"), "{error}");
    }
}
