//! Joins the sequences of one video: frames to words, words to segments.

use anyhow::{Context, Result, ensure};

use super::align::{self, EPSILON, Interval, Means, Membership, Timeline};
use super::labels::Segment;
use super::sequence::{Rows, Sequence};
use super::{Incomplete, Keep};
use crate::hdf::chunks::Scratch;
use crate::import::{Fate, Ledger};
use crate::writer::{Sample, Shape};
use crate::{Modality, ModalitySet};

/// Words in the ledger, of which there have to be some.
const WORDS: &str = "words";
/// Words whose text was looked for in vain.
const UNNAMED: &str = "words that the file of words does not have";

/// The open sequences and the options that concern one video at a time.
#[derive(Debug)]
pub(crate) struct Joiner<'a> {
    pub(crate) language: &'a Sequence,
    /// Audio and vision.
    pub(crate) frames: [Option<&'a Sequence>; 2],
    pub(crate) words: Option<&'a Sequence>,
    pub(crate) shape: Shape,
    pub(crate) keep: Keep,
    pub(crate) silence: bool,
    pub(crate) incomplete: Incomplete,
}

/// The samples of one video and what was met on the way.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) samples: Vec<Sample>,
    pub(crate) ledger: Ledger,
}

/// Bytes of one video's samples, at most.
const LARGEST_VIDEO: usize = 1 << 30;

/// The words of a video that are used, in order of their starts.
#[derive(Debug, Default)]
struct Words {
    intervals: Vec<Interval>,
    /// Their rows in the language sequence.
    rows: Vec<usize>,
}

impl Joiner<'_> {
    /// The samples of one video.
    pub(crate) fn join(
        &self,
        video: &str,
        segments: &[Segment],
        scratch: &mut Scratch,
    ) -> Result<Joined> {
        let mut ledger = Ledger::default();
        let mut samples = Vec::new();
        if !self.language.has(video) {
            ledger.one(Fate::Dropped, "videos of a fold without language", video);
            let what = "segments of videos without language";
            segments.iter().for_each(|segment| ledger.one(Fate::Dropped, what, &segment.id));
        } else if !segments.is_empty() {
            samples = self.samples(video, segments, scratch, &mut ledger)?;
        }
        Ok(Joined { samples, ledger })
    }

    /// Refuses what can only be a mistake, once all videos are joined.
    pub(crate) fn check(&self, ledger: &Ledger) -> Result<()> {
        let words = ledger.count_of(Fate::Found, WORDS);
        ensure!(
            words > 0,
            "{}: has no word in any segment of the folds' videos",
            self.language.path().display()
        );
        if let Some(file) = self.words {
            ensure!(
                ledger.count_of(Fate::Noted, UNNAMED) < words,
                "{}: has none of the words at the times of {}; do they belong together?",
                file.path().display(),
                self.language.path().display()
            );
        }
        Ok(())
    }

    fn samples(
        &self,
        video: &str,
        segments: &[Segment],
        scratch: &mut Scratch,
        ledger: &mut Ledger,
    ) -> Result<Vec<Sample>> {
        let values: usize = (0..3).map(|m| self.shape.steps[m] * self.shape.dims[m]).sum();
        ensure!(
            segments.len().saturating_mul(4 * values) <= LARGEST_VIDEO,
            "video {video} has {} labelled segments: more than are held at a time",
            segments.len()
        );
        let language = self.language.rows(video, scratch)?;
        let words = self.words(video, &language, scratch, ledger)?;
        let timeline = Timeline::new(&words.intervals);
        let mut chosen: Vec<(&Segment, Vec<usize>)> = Vec::new();
        for segment in segments {
            let steps: Vec<usize> = timeline.overlapping(segment.interval).collect();
            if steps.is_empty() {
                ledger.one(Fate::Dropped, "segments without a word", &segment.id);
                continue;
            }
            let most = self.shape.steps[0];
            let cut = steps.len().saturating_sub(most);
            if cut > 0 {
                let what = format!("segments cut to {most} words");
                ledger.one(Fate::Noted, &what, &segment.id);
                ledger.count(Fate::Dropped, "words cut off", cut as u64);
            }
            let kept = match self.keep {
                Keep::First => &steps[..steps.len() - cut],
                Keep::Last => &steps[cut..],
            };
            chosen.push((segment, kept.to_vec()));
        }

        // From here on only words that are in a sample count, numbered anew.
        let mut used: Vec<usize> = chosen.iter().flat_map(|(_, steps)| steps).copied().collect();
        used.sort_unstable();
        used.dedup();
        for (_, steps) in &mut chosen {
            for step in steps {
                *step = used.partition_point(|word| word < step);
            }
        }
        let times: Vec<Interval> = used.iter().map(|word| words.intervals[*word]).collect();
        let rows: Vec<usize> = used.iter().map(|word| words.rows[*word]).collect();
        let vectors = self.vectors(&language, &rows, scratch)?;
        let mut means = [None, None];
        for (m, sequence) in self.frames.into_iter().enumerate() {
            let modality = Modality::ALL[m + 1];
            if let Some(sequence) = sequence {
                if sequence.has(video) {
                    means[m] =
                        Some(self.means(sequence, video, modality, &times, scratch, ledger)?);
                } else {
                    ledger.one(Fate::Noted, &format!("videos without {modality}"), video);
                }
            }
        }
        let sample = |(segment, steps): (&Segment, Vec<usize>)| {
            self.sample(segment, &steps, &vectors, &means, ledger)
        };
        Ok(chosen.into_iter().filter_map(sample).collect())
    }

    /// The words of a video that are no silence.
    fn words(
        &self,
        video: &str,
        language: &Rows<'_>,
        scratch: &mut Scratch,
        ledger: &mut Ledger,
    ) -> Result<Words> {
        let intervals = &language.intervals;
        let texts = match self.words {
            Some(words) if words.has(video) => {
                let rows = words.rows(video, scratch)?;
                let texts = rows
                    .texts(scratch)
                    .with_context(|| format!("{}: is no file of words", words.path().display()))?;
                texts_of(intervals, &rows.intervals, texts)
            }
            Some(_) => {
                ledger.one(Fate::Noted, "videos without a list of words", video);
                vec![None; intervals.len()]
            }
            None => Vec::new(),
        };
        ledger.count(Fate::Found, WORDS, intervals.len() as u64);
        let mut words = Words::default();
        for row in align::by_start(intervals) {
            let interval = intervals[row];
            let place = || format!("{video} at {:.2} s", interval[0]);
            let silent = match texts.get(row) {
                Some(Some(text)) => is_silence(text),
                Some(None) => {
                    ledger.one(Fate::Noted, UNNAMED, place());
                    false
                }
                None => false,
            };
            if !align::is_proper(interval) {
                ledger.one(Fate::Dropped, "words of no length", place());
            } else if silent && !self.silence {
                ledger.count(Fate::Dropped, "words that are silence", 1);
            } else if is_repeated(language, row, words.rows.last().copied()) {
                ledger.one(Fate::Dropped, "words that two aligned entries repeat", place());
            } else {
                words.intervals.push(interval);
                words.rows.push(row);
            }
        }
        Ok(words)
    }

    /// Features of the words in these rows, `[n, d_l]`.
    fn vectors(
        &self,
        language: &Rows<'_>,
        rows: &[usize],
        scratch: &mut Scratch,
    ) -> Result<Vec<f32>> {
        let dim = self.shape.dims[0];
        let mut places = vec![usize::MAX; language.intervals.len()];
        rows.iter().enumerate().for_each(|(place, row)| places[*row] = place);
        let mut vectors = vec![0.0; rows.len() * dim];
        let wanted = |rows: std::ops::Range<usize>| places[rows].iter().any(|p| *p != usize::MAX);
        language.visit(dim, scratch, wanted, |row, col, values| {
            if places[row] != usize::MAX {
                vectors[places[row] * dim + col..][..values.len()].copy_from_slice(values);
            }
        })?;
        Ok(vectors)
    }

    /// Means of a sequence over words, in order of their starts.
    fn means(
        &self,
        sequence: &Sequence,
        video: &str,
        modality: Modality,
        words: &[Interval],
        scratch: &mut Scratch,
        ledger: &mut Ledger,
    ) -> Result<Means> {
        let frames = sequence.rows(video, scratch)?;
        let improper = frames.intervals.iter().filter(|frame| !align::is_proper(**frame)).count();
        ledger.count(Fate::Dropped, &format!("frames of {modality} of no length"), improper as u64);
        let membership = Membership::of(words, &frames.intervals)
            .with_context(|| format!("{}: video {video}", sequence.path().display()))?;
        let dim = self.shape.dims[modality.index()];
        let mut means = Means::new(membership.frames(words.len()), dim);
        let mut holes = 0;
        frames.visit(
            dim,
            scratch,
            |frames| membership.any(frames),
            |frame, col, values| {
                let words = membership.words_of(frame);
                if !words.is_empty() {
                    holes += values.iter().filter(|value| !value.is_finite()).count() as u64;
                }
                words.iter().for_each(|word| means.add(*word, col, values));
            },
        )?;
        let what = format!("values of {modality} frames that are not finite, left out of means");
        ledger.count(Fate::Filled, &what, holes);
        Ok(means)
    }

    /// One sample, unless it is incomplete and such are dropped.
    fn sample(
        &self,
        segment: &Segment,
        steps: &[usize],
        vectors: &[f32],
        means: &[Option<Means>; 2],
        ledger: &mut Ledger,
    ) -> Option<Sample> {
        let mut features: [Vec<f32>; 3] = Default::default();
        let mut present = ModalitySet::of([Modality::Language]);
        let dim = self.shape.dims[0];
        features[0] = Vec::with_capacity(self.shape.steps[0] * dim);
        for step in steps {
            features[0].extend_from_slice(&vectors[step * dim..(step + 1) * dim]);
        }
        features[0].resize(self.shape.steps[0] * dim, 0.0);
        let gaps = features[0].iter().filter(|value| !value.is_finite()).count();
        ledger.count(Fate::Filled, "values of words that are not finite", gaps as u64);
        for (m, sequence) in self.frames.iter().enumerate() {
            if sequence.is_none() {
                continue;
            }
            let (modality, dim) = (Modality::ALL[m + 1], self.shape.dims[m + 1]);
            let values: Vec<f32> = match &means[m] {
                Some(means) => steps.iter().flat_map(|step| means.of(*step)).collect(),
                None => Vec::new(),
            };
            let seen = values.iter().any(|value| value.is_finite() && *value != 0.0);
            let Some(means) = means[m].as_ref().filter(|_| seen) else {
                let drop = self.incomplete == Incomplete::Drop;
                let fate = if drop { Fate::Dropped } else { Fate::Noted };
                ledger.one(fate, &format!("segments without {modality}"), &segment.id);
                if drop {
                    return None;
                }
                continue;
            };
            let (mut words, mut holes) = (0, 0);
            for (step, row) in steps.iter().zip(values.chunks_exact(dim)) {
                if means.has(*step) {
                    holes += row.iter().filter(|value| !value.is_finite()).count() as u64;
                } else {
                    words += 1;
                }
            }
            features[m + 1] = values;
            features[m + 1].resize(self.shape.steps[m + 1] * dim, 0.0);
            present = present.union(ModalitySet::of([modality]));
            ledger.count(Fate::Filled, &format!("words without a frame of {modality}"), words);
            let what = format!("features of words that no frame of {modality} has");
            ledger.count(Fate::Filled, &what, holes);
        }
        let (id, label) = (segment.id.clone(), segment.label.clone());
        Some(Sample { id, label, length: steps.len(), present, features })
    }
}

/// Whether a word is a pause of the forced alignment.
pub(super) fn is_silence(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.eq_ignore_ascii_case("sp")
}

/// Whether a word also stands in the entry before: aligned files have those at a border twice.
fn is_repeated(language: &Rows<'_>, row: usize, before: Option<usize>) -> bool {
    let entry = |row: usize| language.parts.partition_point(|part| part.first <= row);
    let bits = |row: usize| language.intervals[row].map(f64::to_bits);
    language.parts.len() > 1
        && before.is_some_and(|before| bits(before) == bits(row) && entry(before) != entry(row))
}

/// The text of each word: the one at the same time, or, where no time agrees but there are as many
/// of both, the one at the same place.
fn texts_of(words: &[Interval], times: &[Interval], texts: Vec<String>) -> Vec<Option<String>> {
    let order = align::by_start(times);
    let same = |a: f64, b: f64| (a - b).abs() <= EPSILON;
    let mut taken = vec![false; times.len()];
    let mut find = |word: Interval| {
        let first = order.partition_point(|at| times[*at][0] < word[0] - EPSILON);
        let near = order[first..].iter().take_while(|at| times[**at][0] <= word[0] + EPSILON);
        let found = near.copied().find(|at| !taken[*at] && same(times[*at][1], word[1]));
        found.inspect(|at| taken[*at] = true)
    };
    let mut places = vec![None; words.len()];
    for row in align::by_start(words) {
        places[row] = find(words[row]);
    }
    if places.iter().all(Option::is_none) && words.len() == times.len() {
        places = (0..words.len()).map(Some).collect();
    }
    places.into_iter().map(|place| place.map(|at| texts[at].clone())).collect()
}
