//! Two seeded corpora whose truth is known, for tests, demonstrations and benches without a
//! licence to sign.
//!
//! A latent sentiment or emotion drives every modality, but only at a few *key frames*; the other
//! frames are noise that reaches into the same directions. Language is the strongest, vision the
//! weakest; the strength also varies from sample to sample. In some samples audio or vision carries
//! another label than the sample's own, and some labels are wrong, so that nothing reaches 100 %.
//! The first feature of each modality marks key frames: a model that attends to them does better
//! than one that averages.
//!
//! The content is the same, bit for bit, on every machine: integer random numbers (ChaCha8), and of
//! floating point only what IEEE 754 rounds exactly.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use tch::{Kind as Dtype, Tensor};

use crate::mrms::{below, unit};
use crate::native::{self, hex};
use crate::{Dataset, Labels, Modality, ModalitySet, Samples, Split, Task, Truth};

/// Written into the files, with [`VERSION`] behind it: the mark of a corpus that was made here.
const MARK: &str = "cumdf-data synthetic ";
/// Version of the generator; a change of what it makes is a change of this.
const VERSION: u32 = 1;

const STEPS: usize = 20;
const SHORTEST: usize = 4;
const DIMS: [usize; 3] = [24, 12, 16];
const EMOTIONS: [&str; 4] = ["happy", "sad", "angry", "neutral"];
/// How often each emotion occurs, as in IEMOCAP's test split.
const EMOTION_COUNTS: [usize; 4] = [135, 193, 227, 383];
/// Share of samples whose audio or vision carries another label.
const CONTRADICTIONS: f64 = 0.15;
/// Spread of a modality's strength over samples, relative to its mean.
const STRENGTH_SPREAD: f64 = 0.35;
/// Spread of the noise along the directions that carry the label.
const DISTRACTION: f64 = 0.8;
/// What marks a key frame in a modality's first feature.
const KEY_MARK: f64 = 2.0;

/// Which corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `synthetic.h5`: scores in [-3, 3] in steps of 0.2, sizes 1284/229/686 as CMU-MOSI.
    Sentiment,
    /// `synthetic-emotion.h5`: four emotions, as uneven as IEMOCAP's, sizes 1360/400/470.
    Emotion,
}

impl Kind {
    /// Both corpora.
    pub const ALL: [Self; 2] = [Self::Sentiment, Self::Emotion];

    /// Name of the corpus' file.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Sentiment => "synthetic.h5",
            Self::Emotion => "synthetic-emotion.h5",
        }
    }

    /// Samples per split.
    const fn sizes(self) -> [usize; 3] {
        match self {
            Self::Sentiment => [1284, 229, 686],
            Self::Emotion => [1360, 400, 470],
        }
    }

    /// Mean strength per modality, in standard deviations of the noise. Chosen so that a linear
    /// model of mean features has much to gain from the modalities together, see `docs/data.md`.
    const fn strengths(self) -> [f64; 3] {
        match self {
            Self::Sentiment => [1.4, 1.05, 0.9],
            Self::Emotion => [1.6, 1.2, 0.9],
        }
    }

    /// [`content_sha256`] of what this version writes.
    const fn content(self) -> &'static str {
        match self {
            Self::Sentiment => "9d029b4ce0e0914173bb24183d93a50221806948877b03eb668c344ebdf1deac",
            Self::Emotion => "7abd0fd1585832960d05783c63934b8d4b20f9ca0f56b9809d87a1952ceefad9",
        }
    }
}

/// What is written into the files of this version.
fn mark() -> String {
    format!("{MARK}{VERSION}")
}

/// Writes the corpus into `dir` unless it lies there already, and says where it is. A corpus of an
/// older version is replaced, and a log line says so. Nothing else that bears the name is: it may
/// be somebody's data.
///
/// # Errors
/// When the name is taken by a file that is no such corpus, is damaged, was changed, or is of a
/// newer version; or when the folder cannot be written.
pub fn ensure(kind: Kind, dir: impl AsRef<Path>) -> Result<PathBuf> {
    let path = dir.as_ref().join(kind.file_name());
    // A link that leads nowhere is somebody's too.
    if path.symlink_metadata().is_ok() {
        let shown = path.display();
        let version = native::generator(&path).with_context(|| {
            format!("{shown} is not replaced, it may be yours: move it away, the name is taken")
        })?;
        match version.as_deref().and_then(|mark| mark.strip_prefix(MARK)?.parse::<u32>().ok()) {
            None => bail!(
                "{shown} holds a data set that is not synthetic; move it away, the name is taken"
            ),
            Some(version) if version > VERSION => bail!(
                "{shown} was written by a newer version ({version}, this program writes \
                 {VERSION}); move it away, or use the program that wrote it"
            ),
            Some(VERSION) => {
                let found = Dataset::open(&path).with_context(|| {
                    format!("the synthetic corpus is damaged; move {shown} away, it is made anew")
                })?;
                if content_sha256(&found)? != kind.content() {
                    bail!(
                        "{shown} holds other values than the synthetic corpus that it says it is; \
                         move it away, then the corpus is made anew"
                    );
                }
                return Ok(path);
            }
            Some(version) => {
                tracing::info!("{shown} is of version {version}: writing version {VERSION} over it")
            }
        }
    }
    generate(kind)?.write(&path)?;
    tracing::debug!(path = %path.display(), "wrote a synthetic corpus");
    Ok(path)
}

/// Makes the corpus in memory.
///
/// # Errors
/// None that this version is known to have.
pub fn generate(kind: Kind) -> Result<Dataset> {
    let generator = Generator::new(kind);
    let mut first = 0;
    let mut raw = Vec::new();
    for n in kind.sizes() {
        raw.push((first..first + n).map(|i| generator.sample(i as u64)).collect::<Vec<_>>());
        first += n;
    }
    let mean = |m: usize| {
        raw.iter().flatten().map(|sample| f64::from(sample.strength[m])).sum::<f64>() / first as f64
    };
    let signal = [mean(0) as f32, mean(1) as f32, mean(2) as f32];
    let split = |split: Split| collect(kind, split, &raw[split.index()], signal);
    let (name, task) = match kind {
        Kind::Sentiment => ("synthetic sentiment", Task::Sentiment { lo: -3, hi: 3 }),
        Kind::Emotion => {
            ("synthetic emotion", Task::Emotion { classes: EMOTIONS.map(str::to_owned).to_vec() })
        }
    };
    let splits = [split(Split::Train), split(Split::Valid), split(Split::Test)];
    Ok(Dataset { generator: Some(mark()), ..Dataset::new(name, task, splits)? })
}

/// SHA-256 over everything a data set holds, however the file stores it.
///
/// # Errors
/// When a tensor cannot be read.
pub fn content_sha256(data: &Dataset) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut floats = |values: &[f32]| {
        for value in values {
            hasher.update(value.to_le_bytes());
        }
    };
    for split in Split::ALL {
        let samples = data.split(split);
        for x in &samples.features {
            floats(&Vec::<f32>::try_from(x.flatten(0, -1))?);
        }
        match &samples.labels {
            Labels::Scores(scores) => floats(scores),
            Labels::Classes(rows) => {
                floats(&rows.iter().flatten().map(|flag| f32::from(*flag)).collect::<Vec<_>>());
            }
        }
        floats(&samples.lengths.iter().map(|length| *length as f32).collect::<Vec<_>>());
        floats(&samples.present.iter().map(|set| set.len() as f32).collect::<Vec<_>>());
        if let Some(truth) = &samples.truth {
            floats(&truth.signal);
            floats(truth.strength.as_flattened());
            let keys = truth.key_frames.to_kind(Dtype::Float);
            floats(&Vec::<f32>::try_from(keys.flatten(0, -1))?);
            let flags = truth.contradicts.as_flattened();
            floats(&flags.iter().map(|flag| f32::from(*flag)).collect::<Vec<_>>());
        }
    }
    for id in Split::ALL.iter().flat_map(|split| &data.split(*split).ids) {
        hasher.update(id.as_bytes());
        hasher.update([0]);
    }
    hasher.update(format!("{} {:?} {:?}", data.name, data.task, data.generator));
    Ok(hex(&hasher.finalize()))
}

/// One utterance before it becomes a row of tensors.
struct Raw {
    features: [Vec<f32>; 3], // [T, d_m]
    score: f32,
    classes: [bool; EMOTIONS.len()],
    length: usize,
    strength: [f32; 3],
    key_frames: [[bool; STEPS]; 3],
    contradicts: [bool; 3],
}

/// What an utterance expresses.
#[derive(Clone, Copy)]
enum Latent {
    /// A score, here without its label noise.
    Score(f64),
    /// An emotion.
    Class(usize),
}

struct Generator {
    kind: Kind,
    seed: [u8; 32],
    /// Unit vectors along which a modality carries a score (one) or each emotion (four).
    directions: [Vec<Vec<f64>>; 3],
}

impl Generator {
    fn new(kind: Kind) -> Self {
        let seed: [u8; 32] = Sha256::digest(format!("{} {kind:?}", mark())).into();
        let mut rng = ChaCha8Rng::from_seed(seed);
        let n = if kind == Kind::Sentiment { 1 } else { EMOTIONS.len() };
        let directions = DIMS.map(|dim| (0..n).map(|_| direction(&mut rng, dim)).collect());
        Self { kind, seed, directions }
    }

    /// Sample `index` of the corpus, from a stream of its own.
    fn sample(&self, index: u64) -> Raw {
        let mut rng = ChaCha8Rng::from_seed(self.seed);
        rng.set_stream(1 + index);
        let length = SHORTEST + below(&mut rng, STEPS - SHORTEST + 1);
        let (latent, score, classes) = match self.kind {
            Kind::Sentiment => {
                let (latent, score) = draw_score(&mut rng);
                (Latent::Score(latent), score, [false; EMOTIONS.len()])
            }
            Kind::Emotion => {
                let (latent, classes) = draw_emotion(&mut rng);
                (Latent::Class(latent), 0.0, classes)
            }
        };
        let other = match latent {
            Latent::Score(latent) => Latent::Score(-latent),
            Latent::Class(class) => {
                Latent::Class((class + 1 + below(&mut rng, EMOTIONS.len() - 1)) % EMOTIONS.len())
            }
        };
        let mut contradicts = [false; 3];
        let contradicted = if below(&mut rng, 2) == 0 { Modality::Audio } else { Modality::Vision };
        contradicts[contradicted.index()] = unit(&mut rng) < CONTRADICTIONS;

        let mut raw = Raw {
            features: DIMS.map(|dim| vec![0.0; STEPS * dim]),
            score,
            classes,
            length,
            strength: [0.0; 3],
            key_frames: [[false; STEPS]; 3],
            contradicts,
        };
        for (m, contradicted) in contradicts.into_iter().enumerate() {
            let carried = if contradicted { other } else { latent };
            self.modality(&mut rng, m, carried, &mut raw);
        }
        raw
    }

    fn modality(&self, rng: &mut ChaCha8Rng, m: usize, carried: Latent, raw: &mut Raw) {
        let mean = self.kind.strengths()[m];
        let strength = (mean * (1.0 + STRENGTH_SPREAD * gaussian(rng))).max(0.1 * mean);
        raw.strength[m] = strength as f32;
        let mut steps: [usize; STEPS] = std::array::from_fn(|step| step);
        for place in 0..=raw.length / 5 {
            steps.swap(place, place + below(rng, raw.length - place));
            raw.key_frames[m][steps[place]] = true;
        }
        let (along, amount) = match carried {
            Latent::Score(score) => (0, strength * score / 2.0),
            Latent::Class(class) => (class, strength),
        };
        let directions = &self.directions[m];
        let frames = raw.features[m].chunks_exact_mut(DIMS[m]);
        for (frame, key) in frames.zip(raw.key_frames[m]).take(raw.length) {
            let distraction = DISTRACTION * gaussian(rng);
            let astray = &directions[below(rng, directions.len())];
            for (d, value) in frame.iter_mut().enumerate() {
                let mut x = gaussian(rng) + distraction * astray[d];
                if key {
                    x += amount * directions[along][d];
                    if d == 0 {
                        x += KEY_MARK;
                    }
                }
                *value = x as f32;
            }
        }
    }
}

/// A score that is seldom near 0, as people speak of films, and its noisy label in fifths.
fn draw_score(rng: &mut ChaCha8Rng) -> (f64, f32) {
    let sign = if unit(rng) < 0.52 { -1.0 } else { 1.0 };
    let latent = sign * (1.5 + 0.8 * gaussian(rng)).clamp(0.0, 3.0);
    let fifths = ((latent + 0.7 * gaussian(rng)) * 5.0).round_ties_even().clamp(-15.0, 15.0);
    (latent, (fifths / 5.0) as f32 + 0.0) // + 0.0 turns -0.0 into 0.0
}

/// An emotion and its label: sometimes another one, sometimes a second one beside it.
fn draw_emotion(rng: &mut ChaCha8Rng) -> (usize, [bool; EMOTIONS.len()]) {
    let draw = |rng: &mut ChaCha8Rng| {
        let mut place = below(rng, EMOTION_COUNTS.iter().sum());
        EMOTION_COUNTS.iter().position(|count| match place.checked_sub(*count) {
            Some(rest) => {
                place = rest;
                false
            }
            None => true,
        })
    };
    let latent = draw(rng).unwrap_or(0);
    let mut classes = [false; EMOTIONS.len()];
    let stray = draw(rng).unwrap_or(0);
    let fate = unit(rng);
    classes[if fate < 0.08 { stray } else { latent }] = true;
    if fate > 0.97 {
        classes[stray] = true;
    }
    (latent, classes)
}

fn collect(kind: Kind, split: Split, raw: &[Raw], signal: [f32; 3]) -> Samples {
    let n = raw.len();
    let features = [0, 1, 2].map(|m| {
        let values: Vec<f32> = raw.iter().flat_map(|sample| &sample.features[m]).copied().collect();
        Tensor::from_slice(&values).reshape([n as i64, STEPS as i64, DIMS[m] as i64])
    });
    let labels = match kind {
        Kind::Sentiment => Labels::Scores(raw.iter().map(|sample| sample.score).collect()),
        Kind::Emotion => {
            Labels::Classes(raw.iter().map(|sample| sample.classes.to_vec()).collect())
        }
    };
    let keys: Vec<bool> =
        raw.iter().flat_map(|sample| sample.key_frames.as_flattened()).copied().collect();
    let truth = Truth {
        strength: raw.iter().map(|sample| sample.strength).collect(),
        key_frames: Tensor::from_slice(&keys).reshape([n as i64, 3, STEPS as i64]),
        contradicts: raw.iter().map(|sample| sample.contradicts).collect(),
        signal,
    };
    Samples {
        features,
        labels,
        lengths: raw.iter().map(|sample| sample.length as i64).collect(),
        ids: (0..n).map(|i| format!("{split}_{i:04}")).collect(),
        present: vec![ModalitySet::ALL; n],
        truth: Some(truth),
    }
}

/// A random unit vector; its first feature, which marks key frames, is 0.
fn direction(rng: &mut ChaCha8Rng, dim: usize) -> Vec<f64> {
    let mut vector: Vec<f64> = (0..dim).map(|_| gaussian(rng)).collect();
    vector[0] = 0.0;
    let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter().map(|x| x / norm).collect()
}

/// Nearly normal, of mean 0 and variance 1: twelve uniforms, whose sum is exact in f64.
fn gaussian(rng: &mut ChaCha8Rng) -> f64 {
    let sum: u64 = (0..12).map(|_| u64::from(rng.next_u32())).sum();
    sum as f64 / 4_294_967_296.0 - 6.0
}
