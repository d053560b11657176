//! Makes a component of whatever a guest's own tools give: text, a core module, or a component.

use std::borrow::Cow;

use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::code_error::{CodeError, shorten};

/// The worlds of guests.
const WIT: &str = include_str!("../../wit/node.wit");

/// All binaries begin so.
const MAGIC: &[u8] = b"\0asm";

/// Where a module says itself what it is.
const DESCRIBED: &str = "component-type";

/// The interfaces that a plain module can import.
const OURS: &str = "multinodes:guest/";

/// Makes a component of WebAssembly in any of its forms. What is one already stays as it is.
pub(super) fn componentize(given: &[u8]) -> Result<Vec<u8>, CodeError> {
    let binary = binary(given)?;
    if Parser::is_component(&binary) {
        return Ok(binary.into_owned());
    }
    let mut module = binary.into_owned();
    let sketch = sketch(&module)?;
    if !sketch.is_described {
        if let Some(import) = sketch.imports.into_iter().find(|module| !module.starts_with(OURS)) {
            return Err(CodeError::UnknownImport { import: shorten(import) });
        }
        embed(&mut module, world(&sketch.exports)?)?;
    }
    let encoded = ComponentEncoder::default().validate(true).module(&module).and_then(|mut encoder| encoder.encode());
    encoded.map_err(not_a_component)
}

fn binary(given: &[u8]) -> Result<Cow<'_, [u8]>, CodeError> {
    if given.starts_with(MAGIC) {
        return Ok(Cow::Borrowed(given));
    }
    let text = std::str::from_utf8(given).map_err(|_| CodeError::not_wasm("neither binary nor text"))?;
    // Some editors put a byte order mark before a text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.trim_start().starts_with(['(', ';']) {
        return Err(CodeError::not_wasm("it begins neither as a binary nor as the text form does"));
    }
    wat::parse_str(text).map(Cow::Owned).map_err(CodeError::not_wasm)
}

/// What decides how a module becomes a component.
#[derive(Default)]
struct Sketch {
    is_described: bool,
    imports: Vec<String>,
    exports: Vec<String>,
}

fn sketch(module: &[u8]) -> Result<Sketch, CodeError> {
    let mut sketch = Sketch::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(CodeError::not_wasm)? {
            Payload::CustomSection(section) => sketch.is_described |= section.name().starts_with(DESCRIBED),
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    sketch.imports.push(import.map_err(CodeError::not_wasm)?.module.to_owned());
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    sketch.exports.push(export.map_err(CodeError::not_wasm)?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(sketch)
}

/// Which world a plain module is meant for.
fn world(exports: &[String]) -> Result<&'static str, CodeError> {
    let has = |name: &str| exports.iter().any(|export| export == name);
    match (has("run"), ["start", "handle", "process"].into_iter().any(has)) {
        (true, false) => Ok("task"),
        (false, true) => Ok("application"),
        (true, true) => Err(wrong_world("it exports `run` as well as what an application has")),
        (false, false) => Err(wrong_world("it exports neither `run` nor `start`, `handle` and `process`")),
    }
}

/// Writes into a module what it is.
fn embed(module: &mut Vec<u8>, world: &str) -> Result<(), CodeError> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("node.wit", WIT).map_err(not_a_component)?;
    let world = resolve.select_world(&[package], Some(world)).map_err(not_a_component)?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8).map_err(not_a_component)
}

fn wrong_world(reason: &str) -> CodeError {
    CodeError::WrongWorld { reason: reason.to_owned() }
}

fn not_a_component(error: impl std::fmt::Display) -> CodeError {
    CodeError::NotAComponent { reason: shorten(format_args!("{error:#}")) }
}
