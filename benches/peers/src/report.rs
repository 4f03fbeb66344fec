//! What the benches of this package share: their options, and the head of a table.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// How a bench was asked to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Seconds instead of minutes: whether it works, not what it measures.
    pub quick: bool,
    /// Where the tables go besides the standard output.
    pub out: Option<PathBuf>,
    /// Only candidates whose name has this in it, where a bench knows them by name.
    pub only: Option<String>,
}

impl Options {
    /// Reads `--quick`, `--out FILE` and `--only TEXT`.
    ///
    /// # Errors
    /// What is wrong with the command line.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--out" => options.out = Some(args.next().ok_or("--out wants a file")?.into()),
                "--only" => options.only = Some(args.next().ok_or("--only wants a text")?),
                other => return Err(format!("{other}: not --quick, --out FILE or --only TEXT")),
            }
        }
        Ok(options)
    }

    /// Whether a candidate of this name is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// Prints a report, and writes it where it was asked for.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self, report: &str) -> Result<(), String> {
        print!("{report}");
        match &self.out {
            Some(file) => write(file, report),
            None => Ok(()),
        }
    }
}

/// Writes a file, and the directory that it stands in.
///
/// # Errors
/// When that is not possible, with the file's name.
pub fn write(file: &Path, text: &str) -> Result<(), String> {
    let made = file.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(file, text))
        .map_err(|error| format!("{}: {error}", file.display()))
}

/// The head of a report: what was measured, where and when. To be made before it is measured.
pub fn head(title: &str, command: &str, quick: bool) -> String {
    let warning = if quick { "\n**A quick run: it shows that the bench works.**\n" } else { "" };
    format!(
        "# {title}\n{warning}\n| | |\n|---|---|\n| command | `{command}` |\n| machine | {} |\n\
         | kernel | {} |\n| rustc | {} |\n| date | {} |\n\
         | load average when it began | {} |\n\n",
        machine(),
        first_line(fs::read_to_string("/proc/sys/kernel/osrelease").ok()),
        said_by("rustc", &["--version"]),
        said_by("date", &["-u", "+%F %H:%M UTC"]),
        first_line(fs::read_to_string("/proc/loadavg").ok()),
    )
}

/// Machine, kernel and date in one line, for a figure.
pub fn subtitle() -> String {
    let kernel = first_line(fs::read_to_string("/proc/sys/kernel/osrelease").ok());
    format!("{}, Linux {kernel}, {}", machine(), said_by("date", &["-u", "+%F"]))
}

/// How many threads can run at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn machine() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{} cores, {}", cores(), model.map_or("model unknown", |(_, model)| model))
}

fn said_by(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    first_line(output.ok().and_then(|output| String::from_utf8(output.stdout).ok()))
}

fn first_line(text: Option<String>) -> String {
    let line = text.as_deref().and_then(|text| text.lines().next()).filter(|line| !line.is_empty());
    line.unwrap_or("unknown").to_owned()
}

/// The value of which half are smaller; zero of none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value of which that share are smaller, by nearest rank; zero of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}
