//! All methods: one line each.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cumdf_model::{
    Predictor,
    checkpoint::{self, Checkpoint, CheckpointKind, Header},
};
use tch::{Device, nn::VarStore};

use crate::{config::Config, learners, method::Entry, strict::did_you_mean};

/// Every method this program can train, in the order of tables.
pub static METHODS: &[&Entry] = &[
    &learners::self_mm::ENTRY,
    &learners::cubemlp::ENTRY,
    &learners::dmd::ENTRY,
    &learners::mctn::ENTRY,
    &learners::emt::ENTRY,
    &learners::if_mmin::ENTRY,
    &learners::transm::ENTRY,
    &learners::cumdf::ENTRY,
    &learners::mlp::ENTRY,
];

/// The method called `name`.
///
/// # Errors
/// When there is none, with the names there are.
pub fn find(name: &str) -> Result<&'static Entry> {
    METHODS.iter().copied().find(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<_> = METHODS.iter().map(|entry| entry.name).collect();
        let hint = did_you_mean(name, &names);
        anyhow!("no method is called `{name}`{hint}; there are {}", names.join(", "))
    })
}

/// A network restored from a checkpoint, with what the checkpoint says of it.
pub struct Loaded {
    /// What the file says of itself.
    pub header: Header,
    /// The configuration of the run that wrote it.
    pub config: Config,
    /// The network.
    pub predictor: Box<dyn Predictor>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Restores the network of any method's checkpoint on `device`.
///
/// # Errors
/// When the file is broken, of another version, of a method this program does not know, or the
/// state of a training rather than a chosen network.
pub fn load(path: &Path, device: Device) -> Result<Loaded> {
    let (Checkpoint { header, tensors }, config) = open(path)?;
    let at = || path.display().to_string();
    let vs = VarStore::new(device);
    let predictor = config
        .method
        .network(&header.stage, &vs.root(), &header.data.shape)
        .with_context(|| format!("{}: its configuration", at()))?;
    checkpoint::restore(&vs, &tensors).with_context(at)?;
    Ok(Loaded { header, config, predictor })
}

/// Reads a chosen checkpoint and its configuration; makes no network yet.
///
/// # Errors
/// As [`load`].
pub fn open(path: &Path) -> Result<(Checkpoint, Config)> {
    let checkpoint = checkpoint::open(path)?;
    let header = &checkpoint.header;
    if header.kind == CheckpointKind::Resume {
        bail!(
            "{} is the state of a training, not a network to use: take best.safetensors beside it",
            path.display()
        );
    }
    find(&header.method).with_context(|| path.display().to_string())?;
    let config = Config::from_json(&header.config)
        .with_context(|| format!("{}: its configuration", path.display()))?;
    ensure!(
        config.entry.name == header.method,
        "{}: its header says `{}`, its configuration `{}`",
        path.display(),
        header.method,
        config.entry.name
    );
    Ok((checkpoint, config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_an_unknown_one_is_told_the_others() {
        let mut names: Vec<_> = METHODS.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METHODS.len());
        let error = find("cumdff").unwrap_err().to_string();
        assert!(error.contains("did you mean `cumdf`"), "{error}");
    }
}
