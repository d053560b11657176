//! `multinodes code inspect FILE|CID`.

use std::{path::Path, process::ExitCode};

use clap::Args;
use multinodes::{
    Cid, CodeRef,
    code::{Budget, Store, imports, vet},
};
use serde::Serialize;

use super::kept::Place;
use crate::cli::{
    failure::Failure,
    guest,
    options::Settings,
    output::Output,
    style,
    table::{Column, Table},
};

/// Show what code is: its hash, what it is for, what it wants, who has signed it
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// A file, or the hash of code that a node keeps
    #[arg(value_name = "FILE|CID")]
    what: String,

    #[command(flatten)]
    place: Place,
}

/// What `--json` says.
#[derive(Serialize)]
struct Row {
    cid: String,
    size: u64,
    world: &'static str,
    name: Option<String>,
    version: Option<String>,
    publisher: Option<String>,
    imports: Vec<String>,
    complexity: u64,
    /// Bytes that one instance takes besides its memories and tables.
    instance: u64,
}

impl Inspect {
    pub(super) fn run(self, settings: &Settings, output: Output) -> Result<ExitCode, Failure> {
        let row = match self.what.parse::<Cid>() {
            Ok(cid) => self.stored(cid, settings)?,
            Err(_) => {
                let file = Path::new(&self.what);
                let code = guest::read(file)?;
                let code = guest::with_signature(&code, file)?.unwrap_or(code);
                of(code.bytes(), Some(code.reference()))?
            }
        };
        if output.json { output.value(&row) } else { output.text(&table(&row).render(output.width, 0)) }?;
        Ok(ExitCode::SUCCESS)
    }

    /// Code that a node keeps. Its name is known if it is installed.
    fn stored(&self, cid: Cid, settings: &Settings) -> Result<Row, Failure> {
        let folder = self.place.folder(settings)?;
        let store = Store::look(folder.clone()).map_err(Failure::own)?;
        let bytes = store.get(&cid).map_err(Failure::own)?;
        let bytes = bytes
            .ok_or_else(|| Failure::negative(format_args!("no code `{cid}` is kept in `{}`", folder.display())))?;
        let records = super::kept::records(&folder)?;
        let known = records.into_iter().map(|record| record.code).find(|code| code.cid() == cid);
        of(&bytes, known.as_ref())
    }
}

fn of(bytes: &[u8], known: Option<&CodeRef>) -> Result<Row, Failure> {
    let vetted = vet(bytes, &Budget::unlimited()).map_err(Failure::own)?;
    let publisher = known.and_then(|code| code.verify().ok().flatten());
    Ok(Row {
        cid: Cid::of(bytes).to_string(),
        size: bytes.len() as u64,
        world: guest::world(vetted.world),
        name: known.and_then(CodeRef::name).map(str::to_owned),
        version: known.and_then(CodeRef::version).map(str::to_owned),
        publisher: publisher.map(|publisher| publisher.to_string()),
        imports: imports(bytes).map_err(Failure::own)?,
        complexity: vetted.cost,
        instance: vetted.instance,
    })
}

fn table(row: &Row) -> Table {
    let mut table = Table::new([Column::text(""), Column::text("")]);
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let imports = if row.imports.is_empty() { "nothing".to_owned() } else { row.imports.join(", ") };
    for (key, value) in [
        ("cid", row.cid.clone()),
        ("size", format!("{} bytes", row.size)),
        ("world", row.world.to_owned()),
        ("name", or(&row.name)),
        ("version", or(&row.version)),
        ("publisher", or(&row.publisher)),
        ("imports", imports),
        ("complexity", row.complexity.to_string()),
        ("instance", format!("{} bytes besides its memories and tables", row.instance)),
    ] {
        table.row([(style::DIM, key.to_owned()), (style::PLAIN, value)]);
    }
    table
}
