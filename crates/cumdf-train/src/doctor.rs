//! `doctor`: looks at the installation, and says of each part whether it is right and what to do.
//!
//! It looks at what really runs rather than at what should: the libtorch in this process's own
//! memory map, and a product computed on every device. Nothing else checks the version of a
//! libtorch that came in a Python wheel, and a wrong one crashes later.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Result;
use cumdf_data::text::counted;
use tch::{Cuda, Device, Kind, Tensor};

use crate::device;

/// The libtorch that tch 0.24 binds to; scripts/setup installs the same.
const LIBTORCH_VERSION: &str = "2.11.0";

/// Below this, a run on a full-size data set may be killed for memory.
const LOW_MEMORY_GIB: f64 = 2.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    /// Training cannot work like this.
    Problem,
}

/// One line of the report.
#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    part: &'static str,
    what: String,
    /// What to do about it; empty when all is well.
    advice: String,
}

fn ok(part: &'static str, what: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Ok, part, what: what.into(), advice: String::new() }
}

fn warning(part: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Warning, part, what: what.into(), advice: advice.into() }
}

fn problem(part: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Problem, part, what: what.into(), advice: advice.into() }
}

/// Writes the report to `out` and returns whether training can work here.
pub fn run(out: &mut dyn Write) -> Result<bool> {
    device::load_cuda(); // before anything below asks libtorch about CUDA
    let mut findings = vec![project(), libtorch()];
    findings.extend(cuda());
    findings.extend([product(Device::Cpu), hdf5(), threads(), memory()]);
    findings.extend(files(Path::new("")));
    write(&findings, out)?;
    Ok(findings.iter().all(|finding| finding.verdict != Verdict::Problem))
}

fn write(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    for Finding { verdict, part, what, advice } in findings {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
        };
        writeln!(out, "{verdict:<8} {part:<9} {what}")?;
        if !advice.is_empty() {
            writeln!(out, "{:18} -> {advice}", "")?;
        }
    }
    let count = |wanted| findings.iter().filter(|finding| finding.verdict == wanted).count();
    match (count(Verdict::Problem), count(Verdict::Warning)) {
        (0, 0) => writeln!(out, "all is well"),
        (0, n) => writeln!(out, "training works; {}", counted(n, "warning")),
        (n, _) => writeln!(out, "training will not work: {}", counted(n, "problem")),
    }
}

fn project() -> Finding {
    ok("cumdf", format!("{}, built for {}", env!("CARGO_PKG_VERSION"), env!("CUMDF_TARGET")))
}

fn libtorch() -> Finding {
    const PART: &str = "libtorch";
    let _ = tch::get_num_threads(); // so that libtorch is really in use, hence loaded
    let Some(lib) = loaded_folder("libtorch_cpu.so") else {
        return ok(PART, "loaded (this system does not tell from where)");
    };
    let at = lib.parent().unwrap_or(&lib).display().to_string();
    match libtorch_version(lib.parent().unwrap_or(&lib)) {
        Some(version) if version == LIBTORCH_VERSION => ok(PART, format!("{version} in {at}")),
        Some(version) => problem(
            PART,
            format!("{version} in {at}, but this program is made for {LIBTORCH_VERSION}"),
            "run scripts/setup; if LIBTORCH or LD_LIBRARY_PATH is set, unset it; then build again",
        ),
        None => warning(
            PART,
            format!("of unknown version in {at}; this program is made for {LIBTORCH_VERSION}"),
            "run scripts/setup to get the right one",
        ),
    }
}

/// The folder of the library called `name` in this process. `None` when it is not loaded, or the
/// system does not tell.
fn loaded_folder(name: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
        .find(|path| path.file_name().is_some_and(|file| file == name))
        .and_then(Path::parent)
        .map(Path::to_owned)
}

/// The version that the libtorch or PyTorch wheel at `root` states, without a suffix like `+cu130`.
fn libtorch_version(root: &Path) -> Option<String> {
    let read = |name: &str| fs::read_to_string(root.join(name)).ok();
    let stated = read("build-version").or_else(|| {
        let python = read("version.py")?;
        let line = python.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        Some(line.trim_matches(['\'', '"']).to_owned())
    });
    let stated = stated.or_else(|| {
        let header = read("include/torch/headeronly/version.h")
            .or_else(|| read("include/torch/csrc/api/include/torch/version.h"))?;
        let number = |name: &str| {
            let key = format!("#define TORCH_VERSION_{name} ");
            header.lines().find_map(|line| line.strip_prefix(&key)).map(str::trim)
        };
        Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
    })?;
    stated.trim().split('+').next().map(str::to_owned)
}

fn cuda() -> Vec<Finding> {
    const PART: &str = "cuda";
    let driver = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let driver = driver.as_deref().and_then(|text| text.lines().next());
    let compiled_in = loaded_folder("libtorch_cpu.so")
        .is_some_and(|folder| folder.join("libtorch_cuda.so").exists());
    match device::no_cuda() {
        None => {
            let n_devices = Cuda::device_count();
            let mut findings = vec![ok(
                PART,
                format!(
                    "{}, cuDNN {}; {}",
                    counted(usize::try_from(n_devices).unwrap_or(0), "device"),
                    tch::utils::version_cudnn(),
                    driver.unwrap_or("driver of unknown version")
                ),
            )];
            let devices = usize::try_from(n_devices).unwrap_or(0);
            findings.extend((0..devices).map(|index| product(Device::Cuda(index))));
            findings
        }
        Some(_) if !compiled_in => {
            vec![ok(PART, "none: this libtorch is made without it; training uses the CPU")]
        }
        Some(reason) if driver.is_none() && !reason.has_driver => {
            vec![ok(PART, format!("none: {}; training uses the CPU", reason.why))]
        }
        Some(reason) => vec![warning(
            PART,
            match driver {
                Some(driver) => format!("{}, but the kernel has a driver: {driver}", reason.why),
                None => reason.why,
            },
            format!("{}; until then, training uses the CPU", reason.advice),
        )],
    }
}

/// Multiplies two matrices of ones on `device`: proof that it computes, and computes right.
fn product(device: Device) -> Finding {
    const SIZE: i64 = 64;
    let part = if device.is_cuda() { "cuda" } else { "cpu" };
    let multiply = || {
        let ones = Tensor::f_ones([SIZE, SIZE], (Kind::Float, device))?;
        let product = ones.f_matmul(&ones)?.f_to_device(Device::Cpu)?;
        f64::try_from(&product.f_mean(Kind::Double)?)
    };
    let name = format!("{device:?}").to_lowercase();
    match multiply() {
        Ok(mean) if (mean - SIZE as f64).abs() < 1e-3 => ok(part, format!("{name} computes")),
        Ok(mean) => problem(
            part,
            format!("{name} computes wrongly: {SIZE} came out as {mean}"),
            "choose another --device",
        ),
        Err(err) => problem(
            part,
            format!("{name} does not compute: {}", err.to_string().lines().next().unwrap_or("")),
            "choose another --device, or see whether another process fills this one",
        ),
    }
}

fn hdf5() -> Finding {
    let (major, minor, patch) = hdf5::library_version();
    ok("hdf5", format!("{major}.{minor}.{patch}, built in"))
}

fn threads() -> Finding {
    const PART: &str = "threads";
    let n_cores = thread::available_parallelism().map_or(1, usize::from);
    let n_threads = tch::get_num_threads();
    let omp = env::var("OMP_NUM_THREADS").ok();
    let omp_says = omp.as_deref().map(|n| format!(", OMP_NUM_THREADS={n}")).unwrap_or_default();
    let what = format!("{n_threads} for tensors on {}{omp_says}", counted(n_cores, "core"));
    if usize::try_from(n_threads).is_ok_and(|n| n > n_cores) {
        return warning(PART, what, "fewer threads are faster: set OMP_NUM_THREADS to the cores");
    }
    ok(PART, what)
}

fn memory() -> Finding {
    const PART: &str = "memory";
    let Some(mut available) = meminfo_gib("MemAvailable:") else {
        return ok(PART, "this system does not tell");
    };
    let mut limited = "";
    // In a container or a batch job the group's limit counts, not the machine's memory.
    let group = |name: &str| {
        let text = fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?;
        text.trim().parse::<f64>().ok().map(|bytes| bytes / f64::from(1 << 30))
    };
    if let (Some(limit), Some(used)) = (group("memory.max"), group("memory.current"))
        && limit - used < available
    {
        available = limit - used;
        limited = ", by this container's limit";
    }
    let what = format!("{available:.1} GiB available{limited}");
    if available < LOW_MEMORY_GIB {
        return warning(PART, what, "close other programs, or lower the batch size");
    }
    ok(PART, what)
}

fn meminfo_gib(key: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim_end().parse().ok()?;
    Some(kib / f64::from(1 << 20))
}

/// The data and configuration files under `root`, the project's folder.
fn files(root: &Path) -> Vec<Finding> {
    let mut findings: Vec<Finding> = found(&root.join("data"), "h5")
        .iter()
        .map(|path| match path.metadata() {
            Ok(file) if file.len() > 0 => {
                let mib = file.len() as f64 / f64::from(1 << 20);
                ok("data", format!("{} ({mib:.1} MiB)", path.display()))
            }
            Ok(_) => warning("data", format!("{} is empty", path.display()), "copy it anew"),
            Err(err) => {
                warning("data", format!("{}: {err}", path.display()), "mend the link or remove it")
            }
        })
        .collect();
    if findings.is_empty() {
        // No warning: the synthetic corpus needs no file.
        findings.push(ok("data", "no data/*.h5 here: only the synthetic corpus can be used"));
    }
    let n_configs = found(&root.join("configs"), "toml").len();
    findings.push(match n_configs {
        0 => warning("configs", "no configs/*.toml here", "start from the project's own folder"),
        n => ok("configs", format!("{} under configs/", counted(n, "file"))),
    });
    findings
}

/// All files under `folder` that end in `.extension`, sorted; none when there is no such folder.
fn found(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            paths.extend(found(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_installation_has_no_problem_and_every_part_is_reported() {
        let mut report = Vec::new();
        let works = run(&mut report).unwrap();
        let report = String::from_utf8(report).unwrap();
        assert!(works, "{report}");
        for part in ["cumdf", "libtorch", "cuda", "cpu", "hdf5", "threads", "memory", "configs"] {
            assert!(report.lines().any(|line| line[9..].starts_with(part)), "{part}:\n{report}");
        }
        assert!(report.contains(LIBTORCH_VERSION), "{report}");
    }

    #[test]
    fn a_problem_is_shown_with_its_advice_and_counted() {
        let findings = [ok("a", "fine"), problem("b", "broken", "mend it"), warning("c", "x", "y")];
        let mut report = Vec::new();
        write(&findings, &mut report).unwrap();
        assert_eq!(
            String::from_utf8(report).unwrap(),
            "ok       a         fine\n\
             problem  b         broken\n                   -> mend it\n\
             warning  c         x\n                   -> y\n\
             training will not work: 1 problem\n"
        );
    }

    #[test]
    fn the_version_is_read_from_whichever_file_states_it() {
        let header = "#pragma once\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 9\n\
                      #define TORCH_VERSION_PATCH 1\n";
        for (file, text) in [
            ("build-version", "2.9.1+cu130\n"),
            ("version.py", "__all__ = ['x']\n__version__ = '2.9.1+cpu'\n"),
            ("include/torch/headeronly/version.h", header),
            ("include/torch/csrc/api/include/torch/version.h", header),
        ] {
            let root = tempfile::tempdir().unwrap();
            assert_eq!(libtorch_version(root.path()), None);
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            assert_eq!(libtorch_version(root.path()).as_deref(), Some("2.9.1"), "{file}");
        }
    }

    #[test]
    fn data_files_are_listed_and_a_dead_link_is_a_warning() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("data/sub")).unwrap();
        fs::write(root.path().join("data/sub/b.h5"), [0; 1 << 10]).unwrap();
        fs::write(root.path().join("data/a.h5"), "").unwrap();
        let findings = files(root.path());
        let verdicts: Vec<_> = findings.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Warning, Verdict::Ok, Verdict::Warning], "{findings:?}");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/nowhere", root.path().join("data/c.h5")).unwrap();
            assert_eq!(files(root.path())[1].verdict, Verdict::Warning);
        }
    }
}
