//! The Modality Random Missing Strategy (MRMS): the one place where masks are made.
//!
//! A mask is a pure function of seed, split, sample id and, in training, epoch. Order, batch size,
//! device and the number of workers play no part. Each modality of a sample draws from a stream of
//! its own (ChaCha8, whose output is the same on every platform).
//!
//! A frame is dropped when its uniform draw `u` lies below the drop ratio `p`. In evaluation `u`
//! does not depend on `p`, so a larger ratio only adds holes. In every sample at least the allowed
//! frame of largest `u` stays.

use anyhow::{Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Modality, ModalitySet, Split};

/// How training hides frames and modalities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MrmsConfig {
    /// Grid of drop ratios in [0, 1); each sample draws one. The paper's is 0, 0.1, ..., 0.7.
    pub drop_ratios: Vec<f64>,
    /// Probability in [0, 1] that a sample keeps only a random one of the seven modality sets.
    pub inter: f64,
}

/// What an evaluation hides: the same frames for every model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The modalities a model may see, where a sample has them.
    pub condition: ModalitySet,
    /// Probability in [0, 1] that a frame is dropped. Below 1 something of every sample stays; at 1
    /// the modalities that lose frames are gone, as if they were not there.
    pub drop_ratio: f64,
    /// The modalities that lose frames; the others of the condition stay whole.
    pub holes: ModalitySet,
    /// Seed of the holes.
    pub seed: u64,
}

/// One sample, as far as masks are concerned.
#[derive(Debug, Clone, Copy)]
pub struct SampleKey<'a> {
    /// The split it stands in.
    pub split: Split,
    /// Its name.
    pub id: &'a str,
    /// Its used steps.
    pub length: usize,
    /// The modalities there are to see.
    pub present: ModalitySet,
}

impl MrmsConfig {
    /// Hides nothing.
    pub fn complete() -> Self {
        Self { drop_ratios: vec![0.0], inter: 0.0 }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the field that is out of range.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.drop_ratios.is_empty(), "drop_ratios is empty; write [0.0] to drop nothing");
        for ratio in &self.drop_ratios {
            ensure!((0.0..1.0).contains(ratio), "drop_ratios holds {ratio}, expected [0, 1)");
        }
        ensure!((0.0..=1.0).contains(&self.inter), "inter is {}, expected [0, 1]", self.inter);
        Ok(())
    }

    /// Which frames of a training sample are seen in `epoch`.
    ///
    /// `seen` holds `[3, T]` flags in C order, all false before. With nothing present nothing is
    /// seen; otherwise at least one frame is.
    pub fn draw(&self, seed: u64, epoch: u64, sample: SampleKey<'_>, seen: &mut [bool]) {
        let streams = Streams::new(b"cumdf mrms train", seed, sample, epoch);
        let mut whole = streams.sample();
        let drop_ratio = match self.drop_ratios[..] {
            [] => 0.0,
            ref grid => grid[below(&mut whole, grid.len())],
        };
        let inter = unit(&mut whole) < self.inter;
        let mut allowed = sample.present;
        while inter && !sample.present.is_empty() {
            let condition = ModalitySet::CONDITIONS[below(&mut whole, 7)];
            allowed = condition.intersection(sample.present);
            if !allowed.is_empty() {
                break;
            }
        }
        streams.drop_frames(drop_ratio, allowed, sample.length, seen);
    }
}

impl View {
    /// Everything the samples have.
    pub const COMPLETE: Self =
        Self { condition: ModalitySet::ALL, drop_ratio: 0.0, holes: ModalitySet::ALL, seed: 0 };

    /// Which frames of an evaluated sample are seen; see [`MrmsConfig::draw`]. A sample that has
    /// none of the condition's modalities is left with nothing seen.
    pub fn draw(&self, sample: SampleKey<'_>, seen: &mut [bool]) {
        let streams = Streams::new(b"cumdf mrms test ", self.seed, sample, 0);
        let allowed = self.condition.intersection(sample.present);
        let whole = allowed.without(self.holes);
        streams.drop_frames(0.0, whole, sample.length, seen);
        if self.drop_ratio < 1.0 {
            let holed = allowed.intersection(self.holes);
            streams.drop_but(self.drop_ratio, holed, sample.length, seen, whole.is_empty());
        }
    }
}

/// The random streams of one sample.
struct Streams([u8; 32]);

impl Streams {
    fn new(purpose: &[u8; 16], seed: u64, sample: SampleKey<'_>, epoch: u64) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(purpose);
        hasher.update(seed.to_le_bytes());
        hasher.update(epoch.to_le_bytes());
        hasher.update([sample.split as u8]);
        hasher.update(sample.id.as_bytes()); // last, so that no two keys run together
        Self(hasher.finalize().into())
    }

    /// Draws that concern the whole sample.
    fn sample(&self) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.0)
    }

    fn modality(&self, modality: Modality) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::from_seed(self.0);
        rng.set_stream(1 + modality.index() as u64);
        rng
    }

    /// Shows the frames of `allowed` that are not dropped, and at least one.
    fn drop_frames(&self, p: f64, allowed: ModalitySet, length: usize, seen: &mut [bool]) {
        self.drop_but(p, allowed, length, seen, true);
    }

    /// The same; at least one only where `keep_one`.
    fn drop_but(
        &self,
        p: f64,
        allowed: ModalitySet,
        length: usize,
        seen: &mut [bool],
        keep_one: bool,
    ) {
        let steps = seen.len() / 3;
        if p <= 0.0 {
            for modality in allowed.iter() {
                let start = modality.index() * steps;
                seen[start..start + length.min(steps)].fill(true);
            }
            return;
        }
        let mut last = None; // the frame that survives when all are dropped: (u, its place)
        let mut any = false;
        for modality in allowed.iter() {
            let mut rng = self.modality(modality);
            for step in 0..length.min(steps) {
                let u = unit(&mut rng);
                let place = modality.index() * steps + step;
                seen[place] = u >= p;
                any |= seen[place];
                if last.is_none_or(|(most, _)| u > most) {
                    last = Some((u, place));
                }
            }
        }
        if let (false, Some((_, place))) = (any || !keep_one, last) {
            seen[place] = true;
        }
    }
}

/// Uniform in [0, 1), in steps of 2^-32.
pub(crate) fn unit(rng: &mut ChaCha8Rng) -> f64 {
    f64::from(rng.next_u32()) / 4_294_967_296.0
}

/// Uniform in `0..n`, for `n` far below 2^32.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: usize = 20;

    fn sample(id: &str, present: ModalitySet) -> SampleKey<'_> {
        SampleKey { split: Split::Train, id, length: 15, present }
    }

    fn train(cfg: &MrmsConfig, seed: u64, epoch: u64, sample: SampleKey<'_>) -> Vec<bool> {
        let mut seen = vec![false; 3 * STEPS];
        cfg.draw(seed, epoch, sample, &mut seen);
        seen
    }

    fn eval(condition: ModalitySet, drop_ratio: f64, sample: SampleKey<'_>) -> Vec<bool> {
        let mut seen = vec![false; 3 * STEPS];
        View { condition, drop_ratio, holes: ModalitySet::ALL, seed: 5 }.draw(sample, &mut seen);
        seen
    }

    fn count(seen: &[bool]) -> usize {
        seen.iter().filter(|seen| **seen).count()
    }

    fn modalities(seen: &[bool]) -> ModalitySet {
        ModalitySet::of(
            Modality::ALL.into_iter().filter(|m| count(&seen[m.index() * STEPS..][..STEPS]) > 0),
        )
    }

    #[test]
    fn the_drop_ratio_is_honoured() {
        for p in [0.0, 0.1, 0.3, 0.7] {
            let ids: Vec<_> = (0..2000).map(|i| i.to_string()).collect();
            let kept: usize = ids
                .iter()
                .map(|id| count(&eval(ModalitySet::ALL, p, sample(id, ModalitySet::ALL))))
                .sum();
            let share = kept as f64 / (2000.0 * 3.0 * 15.0);
            // 90 000 draws: three standard deviations are below 0.005.
            assert!((share - (1.0 - p)).abs() < 0.005, "p = {p}: {share} kept");
        }
    }

    #[test]
    fn training_draws_ratios_and_sets_evenly() {
        let cfg = MrmsConfig { drop_ratios: vec![0.0, 0.5], inter: 0.7 };
        let mut sets = std::collections::HashMap::new();
        let mut kept = 0;
        let n = 14_000;
        for epoch in 0..n {
            let seen = train(&cfg, 1, epoch, sample("x", ModalitySet::ALL));
            *sets.entry(modalities(&seen).key()).or_insert(0) += 1;
            if modalities(&seen).len() == 1 {
                kept += count(&seen);
            }
        }
        for condition in ModalitySet::CONDITIONS {
            let share = f64::from(sets[&condition.key()]) / n as f64;
            let expected = if condition.len() == 3 { 0.3 + 0.1 } else { 0.1 };
            assert!((share - expected).abs() < 0.012, "{condition}: {share}");
        }
        let single: i32 = ["l", "a", "v"].map(|key| sets[key]).iter().sum();
        let mean = kept as f64 / f64::from(single);
        assert!((mean - 0.75 * 15.0).abs() < 0.3, "{mean} frames kept of 15");
    }

    #[test]
    fn a_sample_that_has_something_keeps_something() {
        let cfg = MrmsConfig { drop_ratios: vec![0.99], inter: 0.9 };
        for present in ModalitySet::CONDITIONS {
            for epoch in 0..200 {
                let key = SampleKey { length: 2, ..sample("x", present) };
                let seen = train(&cfg, 7, epoch, key);
                let set = modalities(&seen);
                assert!(!set.is_empty(), "present {present}, epoch {epoch}: nothing is left");
                assert!(present.contains_all(set), "present {present}: {set} is seen");
                assert!((0..3).all(|m| count(&seen[m * STEPS + 2..][..STEPS - 2]) == 0), "padding");
            }
            assert_eq!(count(&eval(present, 0.9999, sample("x", ModalitySet::ALL))), 1);
            assert_eq!(count(&eval(present, 1.0, sample("x", ModalitySet::ALL))), 0);
        }
        let nothing = eval("v".parse().unwrap(), 0.0, sample("x", "la".parse().unwrap()));
        assert_eq!(count(&nothing), 0);
        assert_eq!(count(&train(&cfg, 7, 0, sample("x", ModalitySet::EMPTY))), 0);
    }

    #[test]
    fn a_larger_ratio_only_adds_holes() {
        for id in ["a", "b", "c"] {
            let mut wider = eval(ModalitySet::ALL, 0.0, sample(id, ModalitySet::ALL));
            for p in [0.1, 0.2, 0.4, 0.7, 0.95, 1.0] {
                let seen = eval(ModalitySet::ALL, p, sample(id, ModalitySet::ALL));
                assert!(seen.iter().zip(&wider).all(|(now, before)| *before || !*now), "{id} {p}");
                wider = seen;
            }
        }
    }

    #[test]
    fn holes_in_one_modality_leave_the_others_whole() {
        let holes = "a".parse().unwrap();
        let view = |drop_ratio| View { drop_ratio, holes, seed: 5, ..View::COMPLETE };
        let draw = |drop_ratio, present| {
            let mut seen = vec![false; 3 * STEPS];
            view(drop_ratio).draw(sample("x", present), &mut seen);
            seen
        };
        let half = draw(0.5, ModalitySet::ALL);
        let everywhere = eval(ModalitySet::ALL, 0.5, sample("x", ModalitySet::ALL));
        assert_eq!(half[STEPS..2 * STEPS], everywhere[STEPS..2 * STEPS], "the same holes");
        assert_eq!(count(&half[..STEPS]) + count(&half[2 * STEPS..]), 30);
        assert_eq!(modalities(&draw(1.0, ModalitySet::ALL)), "lv".parse().unwrap());
        let audio = "a".parse().unwrap();
        assert_eq!(count(&draw(0.9999, audio)), 1, "something stays");
        assert_eq!(count(&draw(1.0, audio)), 0);
        assert_eq!(count(&draw(0.9999, "la".parse().unwrap())), 15, "where nothing else does");
    }

    #[test]
    fn conditions_share_their_holes() {
        let all = eval(ModalitySet::ALL, 0.5, sample("x", ModalitySet::ALL));
        let audio = eval("a".parse().unwrap(), 0.5, sample("x", ModalitySet::ALL));
        assert_eq!(all[STEPS..2 * STEPS], audio[STEPS..2 * STEPS]);
    }

    #[test]
    fn what_differs_in_name_differs_in_holes() {
        let cfg = MrmsConfig { drop_ratios: vec![0.5], inter: 0.0 };
        let x = sample("x", ModalitySet::ALL);
        let seen = train(&cfg, 1, 0, x);
        assert_eq!(seen, train(&cfg, 1, 0, x));
        assert_ne!(seen[..STEPS], seen[STEPS..2 * STEPS], "language and audio share their holes");
        assert_ne!(seen[STEPS..2 * STEPS], seen[2 * STEPS..], "audio and vision do");
        assert_ne!(seen, train(&cfg, 2, 0, x), "seeds");
        assert_ne!(seen, train(&cfg, 1, 1, x), "epochs");
        assert_ne!(seen, train(&cfg, 1, 0, sample("y", ModalitySet::ALL)), "samples");
        assert_ne!(seen, train(&cfg, 1, 0, SampleKey { split: Split::Test, ..x }), "splits");
        assert_ne!(seen, eval(ModalitySet::ALL, 0.5, x), "training and evaluation");
    }

    #[test]
    fn masks_are_the_same_on_every_platform() {
        let seen = eval(ModalitySet::ALL, 0.5, sample("03bSnISJMiM_1", ModalitySet::ALL));
        let text: String = seen.iter().map(|seen| if *seen { '#' } else { '.' }).collect();
        assert_eq!(text, ".....#.####.#.#......#..###.#.#.###.......#.#.###.####......");
    }

    #[test]
    fn bad_ratios_are_named() {
        let cfg =
            |drop_ratios: &[f64], inter| MrmsConfig { drop_ratios: drop_ratios.to_vec(), inter };
        assert!(cfg(&[0.0, 0.7], 0.5).check().is_ok());
        assert!(cfg(&[], 0.5).check().unwrap_err().to_string().contains("empty"));
        assert!(cfg(&[1.0], 0.5).check().unwrap_err().to_string().contains("holds 1"));
        assert!(cfg(&[f64::NAN], 0.5).check().is_err());
        assert!(cfg(&[0.0], 1.5).check().unwrap_err().to_string().contains("inter is 1.5"));
    }
}
