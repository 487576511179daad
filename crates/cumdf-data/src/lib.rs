//! Data sets of CUMDF: HDF5 files in, batches on the training device out. Knows no model.
//!
//! - [`Dataset`]: a file in the native layout (`docs/data.md`), read, checked and kept on the host;
//! - [`Corpus`]: the same on the training device, standardised by the training split's
//!   [`FeatureStats`]. [`TrainSet`] hands out labels, [`EvalSet`] has none to hand out;
//! - [`Folds`]: the training split in parts, whole videos in each;
//! - [`MrmsConfig`] and [`View`]: what is hidden, in training and in evaluation;
//! - [`synthetic`]: two seeded corpora whose truth is known;
//! - [`inspect`]: the statistics of a file;
//! - [`import`]: data sets in the layouts that people have, made into such files;
//! - [`border`], [`interrupt`] and [`files`]: how the programs of this project end, by themselves,
//!   by an error or by Ctrl-C, and how they write files.
//!
//! ```no_run
//! use cumdf_data::{Corpus, Dataset, EpochOrder, ModalitySet, MrmsConfig, View, synthetic};
//!
//! # fn main() -> anyhow::Result<()> {
//! let file = synthetic::ensure(synthetic::Kind::Sentiment, "data")?;
//! let corpus = Corpus::prepare(&Dataset::open(&file)?, 5.0, false, tch::Device::Cpu)?;
//! let masks = MrmsConfig { drop_ratios: vec![0.0, 0.2, 0.4], inter: 0.5 };
//! let order = EpochOrder { seed: 1, epoch: 1, batch_size: 32, bucket: 8 };
//! for batch in corpus.train.epoch(Some(&masks), order) {
//!     let (inputs, targets) = (batch.shown(), batch.targets());
//!     // a model reads `inputs`, its loss reads `targets`
//! }
//! let view = View { drop_ratio: 0.2, seed: 1, ..View::COMPLETE };
//! for (rows, inputs) in corpus.test.batches(&view, 64) {
//!     // `rows` says which samples of the split these are
//! }
//! # Ok(())
//! # }
//! ```

mod batch;
pub mod border;
mod dataset;
mod device;
pub mod files;
mod folds;
mod hdf;
pub mod import;
pub mod inspect;
pub mod interrupt;
mod modality;
mod mrms;
mod native;
mod order;
mod pooled;
mod resident;
mod stats;
pub mod synthetic;
mod task;
pub mod text;
mod validate;
mod writer;

pub use batch::{Inputs, Targets, TrainBatch};
pub use dataset::{Dataset, Repairs, Samples, Truth};
pub use device::{Corpus, EvalSet, TrainSet};
pub use folds::{Folds, videos};
pub use modality::{Modality, ModalitySet, Split};
pub use mrms::{MrmsConfig, SampleKey, View};
pub use native::task_of;
pub use order::EpochOrder;
pub use pooled::Pooled;
pub use stats::FeatureStats;
pub use task::{Labels, Task};
