//! The rules a data set keeps, whoever made it. Broken ones are named with split and sample.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use tch::Kind;

use crate::{Dataset, Labels, Modality, Samples, Split, Task};

impl Dataset {
    /// Checks every rule of the native layout that outlives reading.
    pub(crate) fn validate(&self) -> Result<()> {
        self.validate_task()?;
        for split in Split::ALL {
            let samples = self.split(split);
            self.validate_shapes(split, samples)?;
            self.validate_samples(split, samples).with_context(|| format!("/{split}"))?;
        }
        self.validate_ids()
    }

    fn validate_task(&self) -> Result<()> {
        if let Task::Emotion { classes } = &self.task {
            ensure!(
                classes.len() >= 2,
                "attribute `classes` names {}, expected 2 or more",
                classes.len()
            );
            let mut seen = HashSet::new();
            for class in classes {
                ensure!(!class.is_empty(), "attribute `classes` holds an empty name");
                ensure!(seen.insert(class), "attribute `classes` names `{class}` twice");
            }
        }
        Ok(())
    }

    /// `N` agrees inside a split; `T_m` and `d_m` agree between splits.
    fn validate_shapes(&self, split: Split, samples: &Samples) -> Result<()> {
        let n = samples.len();
        ensure!(n > 0, "/{split} holds no sample; every split needs at least one");
        let rows = [
            ("label", samples.labels.len()),
            ("length", samples.lengths.len()),
            ("present", samples.present.len()),
        ];
        for (name, len) in rows {
            ensure!(len == n, "/{split}/{name} has {len} rows, /{split}/id has {n}");
        }
        for modality in Modality::ALL {
            let x = &samples.features[modality.index()];
            let path = format!("/{split}/{modality}");
            ensure!(x.kind() == Kind::Float, "{path} is {:?}, expected f32", x.kind());
            let [rows, steps, dim] = x.size()[..] else {
                bail!("{path} has shape {:?}, expected [N, T, d]", x.size());
            };
            ensure!(rows == n as i64, "{path} has {rows} rows, /{split}/id has {n}");
            ensure!(dim > 0, "{path} has 0 features per step");
            ensure!(
                dim == self.dims[modality.index()],
                "{path} has {dim} features per step, /train/{modality} has {}",
                self.dims[modality.index()]
            );
            ensure!(
                steps == 1 || steps == self.steps,
                "{path} has {steps} steps, expected {} as the longest in /train, or 1",
                self.steps
            );
            let train_steps = self.train.features[modality.index()].size()[1];
            ensure!(
                steps == train_steps,
                "{path} has {steps} steps, /train/{modality} has {train_steps}"
            );
        }
        self.validate_truth(split, samples)
    }

    fn validate_truth(&self, split: Split, samples: &Samples) -> Result<()> {
        let Some(truth) = &samples.truth else { return Ok(()) };
        let n = samples.len();
        ensure!(
            truth.strength.len() == n
                && truth.contradicts.len() == n
                && truth.key_frames.size() == [n as i64, 3, self.steps],
            "/{split}/truth does not fit {n} samples of {} steps",
            self.steps
        );
        Ok(())
    }

    fn validate_samples(&self, split: Split, samples: &Samples) -> Result<()> {
        for (id, length) in samples.ids.iter().zip(&samples.lengths) {
            let steps = self.steps;
            ensure!(
                (1..=steps).contains(length),
                "sample `{id}` has length {length}, expected 1 to {steps}"
            );
        }
        for (id, present) in samples.ids.iter().zip(&samples.present) {
            ensure!(
                !present.is_empty(),
                "sample `{id}` has no present modality; remove it or set a flag in /{split}/present"
            );
        }
        match (&samples.labels, &self.task) {
            (Labels::Scores(scores), Task::Sentiment { lo, hi }) => {
                for (id, score) in samples.ids.iter().zip(scores) {
                    ensure!(
                        (*lo as f32..=*hi as f32).contains(score),
                        "sample `{id}` has label {score}, expected a score in [{lo}, {hi}]; \
                         attribute `range` sets the limits"
                    );
                }
            }
            (Labels::Classes(rows), Task::Emotion { classes }) => {
                for (id, row) in samples.ids.iter().zip(rows) {
                    ensure!(
                        row.len() == classes.len(),
                        "sample `{id}` has {} label columns, expected {}",
                        row.len(),
                        classes.len()
                    );
                    ensure!(
                        row.contains(&true),
                        "sample `{id}` has no class set, expected at least one; leave such samples \
                         out of the file"
                    );
                }
            }
            _ => bail!("the labels are of another kind than the task says"),
        }
        Ok(())
    }

    /// An id names one sample of the whole data set.
    fn validate_ids(&self) -> Result<()> {
        let mut owner: HashMap<&str, Split> = HashMap::new();
        for split in Split::ALL {
            for id in &self.split(split).ids {
                match owner.insert(id, split) {
                    Some(first) if first == split => {
                        bail!("/{split}/id holds `{id}` twice; masks are drawn per id")
                    }
                    Some(first) => bail!(
                        "id `{id}` stands in /{first} and in /{split}; splits must not share samples"
                    ),
                    None => {}
                }
            }
        }
        Ok(())
    }
}
