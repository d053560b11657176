//! `multinodes code ls` and `rm`: the code that a node keeps in its folder, whether the node runs or not.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use clap::Args;
use multinodes::{
    Cid,
    code::{Record, Store, Stored, forget_compiled, read_records},
};
use serde::Serialize;

use crate::cli::{
    failure::Failure,
    options::Settings,
    output::Output,
    style,
    table::{Column, Table},
};

/// Which folder is meant.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The folder that the node was given with --data
    #[arg(long, value_name = "DIR", conflicts_with = "identity")]
    data: Option<PathBuf>,

    /// The identity file of the node, if it was started without --data
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl Place {
    /// Where the node keeps code: in the folder of the flags, or else of the file with settings. It is there.
    pub(super) fn folder(&self, settings: &Settings) -> Result<PathBuf, Failure> {
        let start = &settings.start;
        let beside = |identity: &PathBuf| {
            let mut folder = OsString::from(identity);
            folder.push(".data");
            PathBuf::from(folder)
        };
        let given = self.data.clone().or_else(|| self.identity.as_ref().map(beside));
        let folder = given.or_else(|| start.data.clone()).or_else(|| start.identity.as_ref().map(beside));
        let folder = folder.ok_or_else(|| {
            Failure::own("say where the node keeps its code: `--data DIR`, or `--identity FILE` with its key")
        })?;
        let folder = folder.join("code");
        if folder.is_dir() {
            return Ok(folder);
        }
        Err(Failure::own(format_args!(
            "nothing is kept in `{}`, which is not there: a node makes it when it first takes code",
            folder.display()
        )))
    }
}

/// List the code that a node keeps, and what is installed of it
#[derive(Debug, Args)]
pub(super) struct Ls {
    #[command(flatten)]
    place: Place,
}

/// Forget code that a node keeps, and what was compiled of it
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Its hash
    cid: Cid,

    #[command(flatten)]
    place: Place,
}

/// What `ls --json` says.
#[derive(Serialize)]
struct Listing {
    folder: PathBuf,
    code: Vec<CodeRow>,
    installed: Vec<InstalledRow>,
}

#[derive(Serialize)]
struct CodeRow {
    cid: String,
    size: u64,
    used: String,
}

#[derive(Serialize)]
struct InstalledRow {
    name: String,
    cid: String,
    code_name: Option<String>,
    version: Option<String>,
    publisher: Option<String>,
    installed_by: String,
    rule: String,
}

impl Ls {
    pub(super) fn run(self, settings: &Settings, output: Output) -> Result<ExitCode, Failure> {
        let folder = self.place.folder(settings)?;
        let stored = Store::look(folder.clone()).and_then(|store| store.ls()).map_err(Failure::own)?;
        let records = records(&folder)?;
        let code: Vec<_> = stored.iter().map(code_row).collect();
        let installed: Vec<_> = records.into_iter().map(installed_row).collect();
        if output.json {
            output.value(&Listing { folder, code, installed })?;
            return Ok(ExitCode::SUCCESS);
        }
        output.text(&code_table(&code).render(output.width, 0))?;
        if !installed.is_empty() {
            output.text("")?;
            output.text(&installed_table(&installed).render(output.width, 0))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Rm {
    pub(super) fn run(self, settings: &Settings) -> Result<ExitCode, Failure> {
        let (folder, cid) = (self.place.folder(settings)?, self.cid);
        let store = Store::look(folder.clone()).map_err(Failure::own)?;
        if let Some(record) = records(&folder)?.into_iter().find(|record| record.code.cid() == cid) {
            let name = record.name;
            return Err(Failure::negative(format_args!(
                "`{cid}` is installed as `{name}`: `{}` comes first",
                settings.command(&["code", "uninstall", &name, "--node", "NODE"])
            )));
        }
        let was_kept = store.rm(&cid).map_err(Failure::own)?;
        let was_compiled = forget_compiled(&folder, &cid).map_err(Failure::own)?;
        if was_kept || was_compiled {
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::negative(format_args!("no code `{cid}` is kept in `{}`", folder.display())))
    }
}

/// What is installed by the node of that folder.
pub(super) fn records(folder: &Path) -> Result<Vec<Record>, Failure> {
    read_records(folder).map_err(|error| Failure::own(format_args!("what is installed cannot be read: {error}")))
}

fn code_row(stored: &Stored) -> CodeRow {
    let used = humantime::format_rfc3339_seconds(stored.used.max(SystemTime::UNIX_EPOCH)).to_string();
    CodeRow { cid: stored.cid.to_string(), size: stored.size, used }
}

fn installed_row(record: Record) -> InstalledRow {
    let Record { name, code, sender, rule, .. } = record;
    let publisher = code.verify().ok().flatten();
    InstalledRow {
        name,
        cid: code.cid().to_string(),
        code_name: code.name().map(str::to_owned),
        version: code.version().map(str::to_owned),
        publisher: publisher.map(|publisher| publisher.to_string()),
        installed_by: sender,
        rule,
    }
}

fn code_table(rows: &[CodeRow]) -> Table {
    let mut table = Table::new([Column::text("CODE"), Column::number("BYTES"), Column::text("LAST USED")]);
    for CodeRow { cid, size, used } in rows {
        table.row([(style::PLAIN, cid.clone()), (style::PLAIN, size.to_string()), (style::DIM, used.clone())]);
    }
    table
}

fn installed_table(rows: &[InstalledRow]) -> Table {
    let mut table = Table::new([
        Column::elastic("INSTALLED", 8),
        Column::text("VERSION"),
        Column::text("CODE"),
        Column::gives_way("BY", 12),
        Column::gives_way("RULE", 12),
    ]);
    for row in rows {
        table.row([
            (style::APPLICATION, row.name.clone()),
            (style::PLAIN, row.version.clone().unwrap_or_else(|| "-".to_owned())),
            (style::PLAIN, row.cid.clone()),
            (style::DIM, row.installed_by.clone()),
            (style::DIM, row.rule.clone()),
        ]);
    }
    table
}
