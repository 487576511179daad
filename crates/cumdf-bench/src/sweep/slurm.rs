//! Batch scripts for Slurm: an array with a task per cell, and a job after it that makes the tables.

use std::{
    env, fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use cumdf_data::interrupt::AGAIN;
use cumdf_train::run_dir::write_atomic;

use super::{Place, plan::Plan, status::Standing};
use crate::report;

/// Arguments of `sweep slurm`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    place: Place,

    /// Folder for the scripts and for what the jobs say. Default: slurm/ in the folder of the cells.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,

    /// Submit them, by sbatch.
    #[arg(long)]
    submit: bool,

    /// Cells at once. Default: as many as Slurm gives room for.
    #[arg(long, value_name = "N")]
    at_once: Option<NonZeroUsize>,

    /// Threads of a cell. Results are the same to the last bit only with the same number, and those of
    /// `sweep run` have 1.
    #[arg(long, value_name = "N", default_value = "1")]
    cpus_per_task: NonZeroUsize,

    /// Seconds before the end of its time at which a cell is stopped, to be queued again.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    notice: u32,

    /// Time limit of a cell, as sbatch has it, such as 4:00:00.
    #[arg(long, value_name = "TIME")]
    time: Option<String>,

    /// Memory of a cell, such as 4G.
    #[arg(long, value_name = "SIZE")]
    mem: Option<String>,

    /// Partition.
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,

    /// Any other option of sbatch for both jobs, such as --sbatch=--account=lab; may be given several
    /// times.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    sbatch: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  cumdf-bench sweep slurm --plan plan.json                       only writes the scripts
  cumdf-bench sweep slurm --plan plan.json --submit --time 4:00:00 --mem 4G --at-once 20
  cumdf-bench sweep slurm --plan plan.json --submit --sbatch=--account=lab --sbatch=--qos=low

cells.sh is an array with a task for every cell that is neither finished nor failed; tables.sh waits for
it. A plan made with --device cuda asks for one GPU per cell. A cell whose time is nearly up is stopped by
SIGUSR1, exits with 75 and has its task queued again; it goes on after its last whole epoch.";

/// Writes the scripts, and submits them if that is asked for.
///
/// # Errors
/// When they cannot be written, or sbatch refuses them.
pub(super) fn write(args: &Args) -> Result<bool> {
    let plan = args.place.open()?;
    let folder = match &args.to {
        Some(folder) => std::path::absolute(folder)?,
        None => plan.out.join("slurm"),
    };
    let program = env::current_exe().context("cannot find this program's own file")?;
    let plan_file = std::path::absolute(&args.place.plan)?;
    let sweep =
        Sweep { args, plan: &plan, folder: &folder, program: &program, plan_file: &plan_file };
    let [cells, tables] = ["cells.sh", "tables.sh"].map(|name| folder.join(name));
    let indices = open(&plan)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if !indices.is_empty() {
        write_atomic(&cells, sweep.cells(&ranges(&indices))?.as_bytes())?;
        say(&format!(
            "written: {} ({} cells: {})",
            cells.display(),
            indices.len(),
            ranges(&indices)
        ))?;
    }
    write_atomic(&tables, sweep.tables()?.as_bytes())?;
    say(&format!("written: {}", tables.display()))?;
    if !args.submit {
        let cd = format!("cd {}", quoted(&folder)?);
        let after = if indices.is_empty() { "" } else { "--dependency=afterany:JOB " };
        if !indices.is_empty() {
            say(&format!("to submit: {cd} && sbatch cells.sh"))?;
        }
        say(&format!("to submit: {cd} && sbatch {after}tables.sh"))?;
        return Ok(true);
    }
    let mut after = None;
    if !indices.is_empty() {
        let job = submit(&folder, &["cells.sh"])?;
        say(&format!("submitted: job {job}, an array of {} cells", indices.len()))?;
        after = Some(format!("--dependency=afterany:{job}"));
    }
    let line: Vec<_> = after.iter().map(String::as_str).chain(["tables.sh"]).collect();
    let job = submit(&folder, &line)?;
    say(&format!("submitted: job {job}, which makes the tables after that"))?;
    Ok(true)
}

fn say(line: &str) -> Result<()> {
    report::print(&format!("{line}\n"))
}

/// The cells that Slurm is to run, by their indices; says what is left out.
fn open(plan: &Plan) -> Result<Vec<usize>> {
    let (mut open, mut n_finished, mut n_failed) = (Vec::new(), 0, 0);
    for (index, (cell, views)) in plan.cells(&[], &Default::default())?.iter().enumerate() {
        match Standing::of(cell, views, plan.split) {
            Standing::Finished => n_finished += 1,
            Standing::Failed(_) => n_failed += 1,
            Standing::Running(_) | Standing::Open => open.push(index),
        }
    }
    if n_finished > 0 {
        tracing::info!("{n_finished} of {} cells are finished already", plan.cells.len());
    }
    if n_failed > 0 {
        tracing::warn!(
            "{n_failed} cells failed and are left out; `sweep retry` has them tried again"
        );
    }
    Ok(open)
}

/// Hands a script to sbatch, from its folder, where the jobs' output goes; returns the job's number.
fn submit(folder: &Path, arguments: &[&str]) -> Result<String> {
    let mut sbatch = Command::new("sbatch");
    sbatch.arg("--parsable").args(arguments).current_dir(folder);
    let output =
        sbatch.output().context("cannot start sbatch: is this a machine of the cluster?")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "sbatch refuses {}: {} (the indices of an array must be below MaxArraySize, see `scontrol \
         show config`)",
        folder.join(arguments[arguments.len() - 1]).display(),
        said.trim()
    );
    let job = String::from_utf8_lossy(&output.stdout);
    Ok(job.trim().split(';').next().unwrap_or_default().to_owned()) // JOB;CLUSTER
}

/// What scripts are made of.
struct Sweep<'a> {
    args: &'a Args,
    plan: &'a Plan,
    folder: &'a Path,
    program: &'a Path,
    plan_file: &'a Path,
}

impl Sweep<'_> {
    /// The array.
    fn cells(&self, indices: &str) -> Result<String> {
        let args = self.args;
        let at_once = args.at_once.map(|n| format!("%{n}")).unwrap_or_default();
        let mut options = vec![
            "--job-name=cumdf-cells".to_owned(),
            format!("--array={indices}{at_once}"),
            self.output("cell-%A_%a.log")?,
            "--open-mode=append".to_owned(),
            "--requeue".to_owned(),
            format!("--signal=B:USR1@{}", args.notice),
            "--ntasks=1".to_owned(),
            format!("--cpus-per-task={}", args.cpus_per_task),
        ];
        if self.plan.device == "cuda" {
            options.push("--gres=gpu:1".to_owned());
        }
        let own = [("time", &args.time), ("mem", &args.mem)];
        options.extend(
            own.iter().filter_map(|(key, value)| Some(format!("--{key}={}", value.as_ref()?))),
        );
        let command = self.command("cell")?;
        Ok(format!(
            r#"{head}
# Told by SIGUSR1 that its time is nearly up, the cell stops and exits with {AGAIN}.
{command} --index "$SLURM_ARRAY_TASK_ID" &
cell=$!
trap 'kill -USR1 "$cell"' USR1
trap 'kill -TERM "$cell"' TERM
wait "$cell"
code=$?
while kill -0 "$cell" 2>/dev/null; do # a signal ended the wait, and not the cell
    wait "$cell"
    code=$?
done
if [ "$code" -eq {AGAIN} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"#,
            head = self.head(options)?
        ))
    }

    /// The last job.
    fn tables(&self) -> Result<String> {
        let name = "--job-name=cumdf-tables".to_owned();
        let head = self.head(vec![name, self.output("tables-%j.log")?, "--ntasks=1".to_owned()])?;
        Ok(format!("{head}\nexec {}\n", self.command("tables")?))
    }

    fn head(&self, mut options: Vec<String>) -> Result<String> {
        let partition = self.args.partition.as_ref().map(|name| format!("--partition={name}"));
        options.extend(partition);
        options.extend(self.args.sbatch.iter().cloned());
        let mut head = "#!/bin/bash\n".to_owned();
        for option in options {
            ensure!(!option.contains('\n'), "an option of sbatch is one line: {option:?}");
            head += &format!("#SBATCH {}\n", escaped(&option));
        }
        Ok(head)
    }

    /// Where a job's output goes: whole, as Slurm takes a `%` in the folder for one of its own too.
    fn output(&self, name: &str) -> Result<String> {
        let folder = self.folder.to_str().filter(|path| !path.contains(['\\', '\n']));
        let folder = folder.with_context(|| {
            let path = self.folder.display();
            format!("Slurm cannot write to {path}: it has a backslash or is not UTF-8; choose --to")
        })?;
        Ok(format!("--output={}/{name}", folder.replace('%', "%%")))
    }

    /// The start of a command line of this program.
    fn command(&self, what: &str) -> Result<String> {
        let [program, plan, out] = [self.program, self.plan_file, &self.plan.out].map(quoted);
        Ok(format!("{} sweep {what} --plan {} --out {}", program?, plan?, out?))
    }
}

/// A word as sbatch reads it in a script's comments: nearly as a shell does, but a backslash counts
/// in quotes of either kind, and not before a space outside of them.
fn escaped(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_=/.:,%@+".contains(c);
    if word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut text = "\"".to_owned();
    for c in word.chars() {
        if "\"'\\#".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text + "\""
}

/// A path as the shell reads it.
fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(shlex::try_quote(text)?.into_owned())
}

/// `0-3,7,9-10`.
fn ranges(indices: &[usize]) -> String {
    let mut ranges: Vec<[usize; 2]> = Vec::new();
    for &index in indices {
        match ranges.last_mut() {
            Some([_, last]) if *last + 1 == index => *last = index,
            _ => ranges.push([index, index]),
        }
    }
    let text = |[first, last]: &[usize; 2]| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_become_ranges() {
        for (indices, text) in [(&[0, 1, 2, 3, 7, 9, 10][..], "0-3,7,9-10"), (&[4], "4"), (&[], "")]
        {
            assert_eq!(ranges(indices), text);
        }
    }

    #[test]
    fn what_sbatch_could_misread_is_escaped() {
        assert_eq!(escaped("--array=0-3,7%2"), "--array=0-3,7%2");
        assert_eq!(escaped("--comment=it's \"a\" #1"), r#""--comment=it\'s \"a\" \#1""#);
    }

    /// The shell itself says what it reads.
    #[test]
    fn odd_paths_are_one_word_to_the_shell() {
        for name in
            ["plain", "two words", "it's", "a\"b", "$HOME `id` \\ %j", "new\nline", "-x", "~", "*"]
        {
            let echo = format!("printf %s {}", quoted(Path::new(name)).unwrap());
            let said = Command::new("bash").args(["-c", &echo]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), name);
        }
    }
}
