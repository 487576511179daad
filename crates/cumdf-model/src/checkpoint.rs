//! Checkpoints: one safetensors file with everything that using a model takes.
//!
//! Tensors stand under their variables' names; the metadata key `cumdf` holds a JSON
//! [`Header`] (model, resolved configuration, data set, feature statistics, metrics), so that
//! `safetensors.safe_open(path, "pt").metadata()["cumdf"]` is all that Python needs.

use std::{collections::BTreeMap, collections::HashMap, fs, path::Path};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Kind, Tensor, nn::VarStore};

use crate::{
    answer::Prior,
    shape::{Problem, Shape},
};

/// Version of the format; a reader refuses any other.
const VERSION: u32 = 2;
const METADATA_KEY: &str = "cumdf";
/// No more steps, nor features per step, than this are believed.
const LARGEST: i64 = 1 << 20;
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";

/// What a checkpoint says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Format version.
    pub version: u32,
    /// The method, for example `cumdf` or `self-mm`.
    pub method: String,
    /// The stage of its training, for example `teacher` or `student`.
    pub stage: String,
    /// Whether this is the chosen network, the state to resume from, or something else.
    pub kind: CheckpointKind,
    /// The resolved configuration of its run.
    pub config: Value,
    /// What decided the result: method and version of its formulas, settings, seed, the data's
    /// SHA-256, the SHA-256 of every checkpoint that it was trained from.
    pub identity: Value,
    /// The data it was trained on.
    pub data: Problem,
    /// What was measured when it was saved: epoch, validation metrics.
    pub metrics: Value,
}

/// What a checkpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointKind {
    /// The network that validation chose: `best.safetensors`.
    Chosen,
    /// What an interrupted training goes on from: `last.safetensors`.
    Resume,
}

/// The version that this program writes.
pub const fn version() -> u32 {
    VERSION
}

/// A checkpoint read into memory, tensors on the CPU.
#[derive(Debug)]
pub struct Checkpoint {
    /// What it says about itself.
    pub header: Header,
    /// Every tensor by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// The bytes of a checkpoint file.
///
/// # Errors
/// When a tensor is of a kind that the format does not know.
pub fn to_bytes(header: &Header, tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let stored = tensors
        .iter()
        .map(|(name, tensor)| Ok((name, Stored::new(tensor).with_context(|| name.clone())?)))
        .collect::<Result<Vec<_>>>()?;
    let views = stored
        .iter()
        .map(|(name, s)| Ok((*name, TensorView::new(s.dtype, s.shape.clone(), &s.bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), serde_json::to_string(header)?)]);
    Ok(safetensors::serialize(views, Some(metadata))?)
}

/// Reads a checkpoint.
///
/// # Errors
/// When the file is missing, cut short, not a safetensors file, without our header, or of another
/// version.
pub fn open(path: &Path) -> Result<Checkpoint> {
    let at = path.display();
    let bytes = fs::read(path).with_context(|| format!("cannot read the checkpoint {at}"))?;
    ensure!(
        !bytes.starts_with(HDF5),
        "{at} is an HDF5 file, probably data: a checkpoint is called best.safetensors"
    );
    let broken = |err: safetensors::SafeTensorError| {
        anyhow!(
            "{at} is not a whole safetensors file ({err}; {} bytes): it may be cut short, copy it again or train anew",
            bytes.len()
        )
    };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let Some(text) = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)) else {
        bail!("{at} has no `{METADATA_KEY}` metadata: it is not a CUMDF checkpoint");
    };
    let header: Value = serde_json::from_str(text).with_context(|| format!("{at}: metadata"))?;
    let version = &header["version"];
    ensure!(
        *version == VERSION,
        "{at} is of checkpoint version {version}, this program reads version {VERSION}: use the program that wrote it, or train anew"
    );
    let header: Header =
        serde_json::from_value(header).with_context(|| format!("{at}: metadata"))?;
    check(&header.data).with_context(|| format!("{at}: metadata"))?;
    let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let tensor = load(&view).with_context(|| format!("{at}: tensor {name}"))?;
            Ok((name, tensor))
        })
        .collect::<Result<_>>()?;
    Ok(Checkpoint { header, tensors })
}

/// Refuses sizes that no data set has: what follows would allocate by them.
fn check(data: &Problem) -> Result<()> {
    let Shape { task, steps, dims } = &data.shape;
    ensure!((1..=LARGEST).contains(steps), "it claims sequences of {steps} steps");
    for dim in dims {
        ensure!((1..=LARGEST).contains(dim), "it claims {dim} features per step");
    }
    let classes = task.checked_classes().context("it claims an impossible task")?;
    let Prior { classes: shares, flags, .. } = &data.prior;
    ensure!(
        shares.len() == classes && (flags.is_empty() || flags.len() == classes),
        "its prior is of {} classes, its task has {classes}",
        shares.len()
    );
    data.stats.check(*dims)
}

/// Every variable of a store, trainable or not, by name.
pub fn variables(vs: &VarStore) -> BTreeMap<String, Tensor> {
    vs.variables().into_iter().collect()
}

/// Copies `tensors` into the variables of `vs`, all or nothing.
///
/// # Errors
/// Lists at once every variable that `tensors` lacks, every one too many, and every shape or kind
/// that differs.
pub fn restore(vs: &VarStore, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let variables = variables(vs);
    let mut wrong = Vec::new();
    for (name, variable) in &variables {
        match tensors.get(name) {
            None => wrong.push(format!("lacks {name} {:?}", variable.size())),
            Some(t) if t.size() != variable.size() || t.kind() != variable.kind() => {
                wrong.push(format!(
                    "{name} is {:?} {:?}, the model has {:?} {:?}",
                    t.kind(),
                    t.size(),
                    variable.kind(),
                    variable.size()
                ));
            }
            Some(_) => {}
        }
    }
    wrong.extend(
        tensors.keys().filter(|n| !variables.contains_key(*n)).map(|n| format!("has also {n}")),
    );
    const SHOWN: usize = 8;
    let more = wrong.len().saturating_sub(SHOWN);
    let tail = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    wrong.truncate(SHOWN);
    ensure!(
        wrong.is_empty(),
        "the checkpoint is of another model or other sizes:\n  {}{tail}",
        wrong.join("\n  ")
    );
    let _guard = tch::no_grad_guard();
    for (name, mut variable) in variables {
        variable.copy_(&tensors[&name]);
    }
    Ok(())
}

/// A tensor's bytes, little-endian, as the format wants them.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn new(tensor: &Tensor) -> Result<Self> {
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            Kind::Int64 => Dtype::I64,
            Kind::Uint8 => Dtype::U8,
            other => bail!("tensors of kind {other:?} are not stored"),
        };
        let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
        let mut bytes = vec![0; tensor.numel() * dtype.bitsize() / 8];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        let shape = tensor.size().iter().map(|d| *d as usize).collect();
        Ok(Self { dtype, shape, bytes })
    }
}

fn load(view: &TensorView) -> Result<Tensor> {
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::U8 => Kind::Uint8,
        other => bail!("data of type {other:?} is not read"),
    };
    let shape: Vec<i64> = view.shape().iter().map(|d| *d as i64).collect();
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?)
}
