//! Which device a run computes on, and how CUDA gets into the process.
//!
//! Our binaries do not link libtorch's CUDA half: the linker drops it because no symbol of it is
//! used, and forcing it in makes a binary that does not start where CUDA is absent. Instead
//! [`load_cuda`] loads it at run time, so that one binary serves both kinds of machine.

use std::env;
use std::sync::OnceLock;

use anyhow::{Result, bail, ensure};
use tch::{Cuda, Device};

/// What came of [`load_cuda`].
static CUDA: OnceLock<Result<(), NoCuda>> = OnceLock::new();
/// What [`set_threads`] was first called with.
static THREADS: OnceLock<usize> = OnceLock::new();

/// Why CUDA cannot be used. Shown as one sentence: the reason, then the advice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {advice}")]
pub struct NoCuda {
    /// What is missing.
    pub why: String,
    /// What would mend it.
    pub advice: String,
    /// Whether the driver's library is there, so that a GPU probably is.
    pub has_driver: bool,
}

impl NoCuda {
    fn despite_driver(why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { why: why.into(), advice: advice.into(), has_driver: true }
    }
}

/// Loads libtorch's CUDA half, if this machine has a driver for it. Call it first thing in `main`:
/// libtorch disables CUDA for good when it is asked about CUDA before the library is there.
///
/// A failure only means that there is no CUDA; [`no_cuda`] keeps the reason.
pub fn load_cuda() {
    CUDA.get_or_init(|| {
        // The driver first: it is small, and without it the 1 GB of libtorch_cuda is of no use.
        open_global("libcuda.so.1").map_err(|err| NoCuda {
            why: format!("no NVIDIA driver ({err:#})"),
            advice: "install one, or pass the GPU through to this container".to_owned(),
            has_driver: false,
        })?;
        open_global("libtorch_cuda.so").map_err(|err| {
            let why = format!("libtorch's CUDA half does not load ({err:#})");
            NoCuda::despite_driver(why, "run scripts/setup --cuda")
        })
    });
}

/// Why no CUDA device can be used; `None` when one can.
pub fn no_cuda() -> Option<NoCuda> {
    load_cuda();
    if let Some(Err(reason)) = CUDA.get() {
        return Some(reason.clone());
    }
    if Cuda::is_available() && Cuda::device_count() > 0 {
        return None;
    }
    Some(match env::var("CUDA_VISIBLE_DEVICES") {
        Ok(visible) => NoCuda::despite_driver(
            format!("libtorch sees no GPU with CUDA_VISIBLE_DEVICES={visible:?}"),
            "unset it, or name a GPU that nvidia-smi lists",
        ),
        Err(_) => NoCuda::despite_driver(
            "libtorch sees no GPU",
            "check that nvidia-smi lists one and that its driver supports CUDA 13",
        ),
    })
}

/// Loads a shared library for the life of the process, its symbols visible to all others.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "dlopen runs foreign code; there is no safe way to load libtorch_cuda"
)]
fn open_global(name: &str) -> Result<()> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

    // SAFETY: opening a library runs its initialisers. PyTorch opens these two in the same way:
    // CUDA's runtime the driver's, and Python, through ctypes, libtorch's. No symbol is looked up
    // here, so no type is claimed for one.
    let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) }?;
    std::mem::forget(library); // never closed: libtorch keeps pointers into it
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn open_global(_name: &str) -> Result<()> {
    bail!("CUDA is supported on Linux only")
}

/// The device called `name`: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
///
/// `auto` is the first CUDA device, or the CPU where there is none. Fails when the device cannot
/// be used, and says why.
pub fn parse_device(name: &str) -> Result<Device> {
    load_cuda();
    match name {
        "auto" if Cuda::is_available() => Ok(Device::Cuda(0)),
        "auto" | "cpu" => Ok(Device::Cpu),
        "cuda" => cuda(name, 0),
        "mps" => {
            ensure!(
                tch::utils::has_mps(),
                "device \"mps\" is not usable: this libtorch has no Metal; choose cpu"
            );
            Ok(Device::Mps)
        }
        _ => match name.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(index) => cuda(name, index),
            None => bail!("no device is called {name:?}; choose auto, cpu, cuda, cuda:N or mps"),
        },
    }
}

fn cuda(name: &str, index: usize) -> Result<Device> {
    if let Some(reason) = no_cuda() {
        bail!("device {name:?} is not usable: {reason}, or choose cpu");
    }
    let n_devices = usize::try_from(Cuda::device_count()).unwrap_or(0);
    ensure!(
        index < n_devices,
        "device {name:?} does not exist: {n_devices} CUDA device(s) are visible; \
         choose cuda:0 to cuda:{}",
        n_devices.saturating_sub(1)
    );
    Ok(Device::Cuda(index))
}

/// Sets how many threads one tensor operation uses; 0 leaves libtorch's own choice.
///
/// Once, at the start: bit-exact repetition on a CPU needs one fixed number, so a later call with
/// another number is refused with a warning.
pub fn set_threads(n_threads: usize) {
    let first = *THREADS.get_or_init(|| {
        if n_threads > 0 {
            tch::set_num_threads(i32::try_from(n_threads).unwrap_or(i32::MAX));
        }
        n_threads
    });
    if first != n_threads {
        tracing::warn!("threads stay at {first}: {n_threads} was asked for after the start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_always_there_and_auto_finds_a_device() {
        assert_eq!(parse_device("cpu").unwrap(), Device::Cpu);
        let auto = parse_device("auto").unwrap();
        assert_eq!(auto.is_cuda(), Cuda::is_available(), "auto chose {auto:?}");
    }

    #[test]
    fn an_unknown_device_is_refused_with_the_list_of_names() {
        for name in ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", ""] {
            let message = parse_device(name).unwrap_err().to_string();
            assert!(message.contains("choose auto, cpu"), "{name}: {message}");
        }
    }

    #[test]
    fn cuda_works_or_the_error_says_why_not() {
        match no_cuda() {
            Some(reason) => {
                eprintln!("no CUDA here, so only its absence is tested: {reason}");
                let message = parse_device("cuda").unwrap_err().to_string();
                assert!(message.contains(&reason.why), "{message}");
            }
            None => {
                let device = parse_device("cuda").unwrap();
                let ones = tch::Tensor::ones([2, 2], (tch::Kind::Float, device));
                assert_eq!(ones.matmul(&ones).double_value(&[0, 0]).to_string(), "2");
                let message = parse_device("cuda:9999").unwrap_err().to_string();
                assert!(message.contains("cuda:9999"), "{message}");
            }
        }
    }
}
