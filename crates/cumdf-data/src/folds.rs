//! The training split in parts, so that a sample can be predicted by a network that never saw it.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use crate::order::shuffle;

/// What parts the name of a video from that of its utterance.
const PARTS: [char; 4] = ['_', '[', '#', '$'];
/// Fewer videos than this are no sample of videos.
const FEWEST_VIDEOS: usize = 10;

/// The video of each sample, numbered from 0, and how many there are: where the ids tell it, that is
/// where names up to their last mark are ten or more; else each sample stands for itself.
pub fn videos(ids: &[String]) -> (Vec<usize>, usize) {
    let video = |id: &String| id.rfind(PARTS).map_or(id.clone(), |at| id[..at].to_owned());
    let mut known = HashMap::new();
    let of: Vec<_> = ids
        .iter()
        .map(|id| {
            let next = known.len();
            *known.entry(video(id)).or_insert(next)
        })
        .collect();
    match known.len() {
        n if n >= FEWEST_VIDEOS => (of, n),
        _ => ((0..ids.len()).collect(), ids.len()),
    }
}

/// Which part each training sample lies in. The utterances of a video lie in one part, because they
/// resemble each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folds {
    of: Vec<usize>,
    n: usize,
}

impl Folds {
    /// Parts of about equal size, a function of `ids` and `seed` alone.
    ///
    /// - `n`: how many parts; with one all samples lie in it
    pub fn draw(ids: &[String], n: usize, seed: u64) -> Self {
        let (video, n_videos) = videos(ids);
        let mut hasher = Sha256::new();
        hasher.update(b"cumdf folds");
        hasher.update(seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(hasher.finalize().into());
        let mut order: Vec<usize> = (0..n_videos).collect();
        shuffle(&mut rng, &mut order);
        let mut sizes = vec![0; n_videos];
        video.iter().for_each(|video| sizes[*video] += 1);
        let mut filled = vec![0; n.max(1)];
        let mut part = vec![0; n_videos];
        for video in order {
            let least = filled.iter().enumerate().min_by_key(|(_, size)| **size);
            let (fold, _) = least.expect("there is a part");
            part[video] = fold;
            filled[fold] += sizes[video];
        }
        Self { of: video.iter().map(|video| part[*video]).collect(), n: n.max(1) }
    }

    /// How many parts there are.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The part of a training sample, from 0.
    ///
    /// - `row`: its position in the split, as [`crate::TrainBatch::rows`] has it
    pub fn of(&self, row: usize) -> usize {
        self.of[row]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: impl Iterator<Item = String>) -> Vec<String> {
        names.collect()
    }

    #[test]
    fn utterances_are_grouped_by_video_where_there_are_enough() {
        let mosi = ids((0..60).map(|i| format!("Ci-AH_39fi3Y{}_{}", i % 12, i)));
        assert_eq!((&videos(&mosi).0[..3], videos(&mosi).1), (&[0, 1, 2][..], 12));
        let brackets = ids((0..60).map(|i| format!("video{}[{}]", i % 15, i)));
        assert_eq!(videos(&brackets).1, 15);
        for alone in
            [ids((0..60).map(|i| format!("test_{i}"))), ids((0..60).map(|i| i.to_string()))]
        {
            assert_eq!(videos(&alone), ((0..60).collect(), 60));
        }
    }

    #[test]
    fn parts_are_of_equal_size_and_hold_whole_videos() {
        let names = ids((0..200).map(|i| format!("v{}_{i}", i % 50)));
        for n in [1, 2, 4, 5] {
            let folds = Folds::draw(&names, n, 7);
            assert_eq!((&folds, folds.n()), (&Folds::draw(&names, n, 7), n));
            let size = |k| (0..200).filter(|row| folds.of(*row) == k).count();
            assert!((0..n).all(|k| size(k).abs_diff(200 / n) <= 4), "{n}: {folds:?}");
            assert!((50..200).all(|row| folds.of(row) == folds.of(row % 50)));
        }
        assert_ne!(Folds::draw(&names, 4, 7), Folds::draw(&names, 4, 8));
    }
}
