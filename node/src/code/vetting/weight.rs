//! What an instance of a component takes besides its memories and tables, and how much there is of what multiplies.
//!
//! A component says how often each of its modules and components is instantiated, and those say so again: a few hundred
//! kilobytes can stand for gigabytes, in the instance and already in the types of a validator. So this goes first, and
//! counts without making any of it: in one pass, with a number for each module and component, and saturating. Whatever it
//! cannot count (modules and components that are passed around as values) is refused where it is instantiated.

use wasmparser::{
    BinaryReaderError, CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ComponentType, ComponentTypeRef, ElementItems, Encoding, FromReader, Instance, Parser,
    Payload, SectionLimited,
};

use super::names::{self, Names, find};

use crate::code::code_error::{CodeError, counted};

/// Core instances, tables and memories that one component may have. Python's has 38 core instances.
pub(crate) const MAX_PARTS: usize = 128;

/// Components that are instantiated within a component.
const MAX_COMPONENTS: u64 = 1_024;

/// Names that come of instantiating components, and of importing and exporting instances: each takes a validator some
/// hundred bytes. A guest for all of WASI has about ten thousand.
const MAX_NAMES: u64 = 250_000;

/// How deep components may lie within each other.
const MAX_DEPTH: usize = 32;

/// Bytes that the engine needs in an instance, at the most: for the instance itself, for each of its memories and tables, for
/// what it imports, its functions, its globals and tags, an element of a segment, and a segment.
const INSTANCE: u64 = 1_024;
const MEMORY: u64 = 1_024;
const TABLE: u64 = 256;
const IMPORT: u64 = 48;
const FUNCTION: u64 = 32;
const GLOBAL: u64 = 24;
const ELEMENT: u64 = 16;
const SEGMENT: u64 = 48;

/// And for what connects instances.
const CONNECTION: u64 = 96;

/// What is made when something is instantiated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Bytes of the engine.
    pub(super) bytes: u64,
    /// Core instances.
    modules: u64,
    /// Instances of components.
    components: u64,
    /// Names in types.
    names: u64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weighed {
    /// Bytes that one instance of all of it takes.
    pub(super) instance: u64,
    /// What the sections list, each once: what the engine keeps of it however often it is instantiated.
    pub(super) items: u64,
}

/// Something that can be instantiated; `None` if it is not known here what that is.
type Known = Option<Weight>;

/// A component that is being read.
#[derive(Default)]
struct Scope {
    modules: Vec<Known>,
    components: Vec<Known>,
    /// For each of its types how many names it has.
    types: Names,
    /// Of what is instantiated when it is.
    weight: Weight,
    /// Names that each instance of it has.
    exports: u64,
}

enum Frame {
    Component(Scope),
    Module(Weight),
}

impl Frame {
    fn types(&self) -> Option<&Names> {
        if let Self::Component(scope) = self { Some(&scope.types) } else { None }
    }
}

/// Counts.
///
/// # Errors
///
/// [`CodeError::NotWasm`], [`CodeError::TooManyParts`].
pub(super) fn weigh(component: &[u8]) -> Result<Weighed, CodeError> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut items = 0_u64;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(CodeError::not_wasm)?;
        items = items.saturating_add(listed(&payload));
        match payload {
            Payload::Version { encoding, .. } => {
                within(counted::NESTED, frames.len() as u64, MAX_DEPTH as u64)?;
                frames.push(match encoding {
                    Encoding::Component => Frame::Component(Scope::default()),
                    Encoding::Module => Frame::Module(Weight { bytes: INSTANCE, modules: 1, ..Weight::default() }),
                });
            }
            Payload::End(_) => {
                let Some(frame) = frames.pop() else { break };
                match (frame, frames.last_mut()) {
                    (Frame::Component(scope), None) => return scope.weight.weighed(items),
                    (Frame::Component(scope), Some(Frame::Component(outer))) => {
                        outer.components.push(Some(scope.whole()))
                    }
                    (Frame::Module(weight), Some(Frame::Component(outer))) => outer.modules.push(Some(weight)),
                    (_, _) => return Err(CodeError::not_wasm("a module with something in it, or by itself")),
                }
            }
            payload => match frames.split_last_mut() {
                Some((Frame::Module(weight), _)) => weight.add(&payload).map_err(CodeError::not_wasm)?,
                Some((Frame::Component(scope), outer)) => scope.read(payload, outer)?,
                None => {}
            },
        }
    }
    Err(CodeError::not_wasm("it ends too early"))
}

impl Weight {
    /// Counts a section of a module.
    fn add(&mut self, payload: &Payload<'_>) -> Result<(), BinaryReaderError> {
        let bytes = match payload {
            Payload::ImportSection(_) => listed(payload).saturating_mul(IMPORT),
            Payload::FunctionSection(section) => u64::from(section.count()).saturating_mul(FUNCTION),
            Payload::TableSection(section) => u64::from(section.count()).saturating_mul(TABLE),
            Payload::MemorySection(section) => u64::from(section.count()).saturating_mul(MEMORY),
            Payload::GlobalSection(section) => u64::from(section.count()).saturating_mul(GLOBAL),
            Payload::TagSection(section) => u64::from(section.count()).saturating_mul(GLOBAL),
            Payload::DataSection(section) => u64::from(section.count()).saturating_mul(SEGMENT),
            Payload::ElementSection(section) => {
                let mut bytes = 0_u64;
                for element in section.clone() {
                    let elements = match element?.items {
                        ElementItems::Functions(items) => items.count(),
                        ElementItems::Expressions(_, items) => items.count(),
                    };
                    bytes = bytes.saturating_add(SEGMENT + u64::from(elements) * ELEMENT);
                }
                bytes
            }
            _ => 0,
        };
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    fn instantiate(&mut self, other: Known) -> Result<(), CodeError> {
        let other = other.ok_or_else(|| {
            CodeError::not_wasm("it instantiates what is passed around as a value, which is not taken")
        })?;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.modules = self.modules.saturating_add(other.modules);
        self.components = self.components.saturating_add(other.components);
        self.name(other.names);
        // At once: what is counted next may be as much again for each byte.
        within(counted::CORE_INSTANCES, self.modules, MAX_PARTS as u64)?;
        within(counted::COMPONENT_INSTANCES, self.components, MAX_COMPONENTS)?;
        within(counted::NAMES, self.names, MAX_NAMES)
    }

    fn name(&mut self, names: u64) {
        self.names = self.names.saturating_add(names);
    }

    fn connect(&mut self, count: u64) {
        self.bytes = self.bytes.saturating_add(count.saturating_mul(CONNECTION));
    }

    fn weighed(self, items: u64) -> Result<Weighed, CodeError> {
        within(counted::NAMES, self.names, MAX_NAMES)?;
        Ok(Weighed { instance: self.bytes, items })
    }
}

impl Scope {
    /// What one instance of it is.
    fn whole(&self) -> Weight {
        let mut weight = self.weight;
        weight.components = weight.components.saturating_add(1);
        weight.name(self.exports);
        weight.connect(1);
        weight
    }

    fn read(&mut self, payload: Payload<'_>, outer: &[Frame]) -> Result<(), CodeError> {
        match payload {
            Payload::InstanceSection(section) => each(section, |instance| match instance {
                Instance::Instantiate { module_index, .. } => {
                    self.weight.instantiate(known(&self.modules, module_index)?)
                }
                Instance::FromExports(exports) => self.connected(exports.len()),
            }),
            Payload::ComponentInstanceSection(section) => each(section, |instance| match instance {
                ComponentInstance::Instantiate { component_index, args } => {
                    self.connected(args.len())?;
                    self.weight.instantiate(known(&self.components, component_index)?)
                }
                ComponentInstance::FromExports(exports) => self.connected(exports.len()),
            }),
            Payload::ComponentAliasSection(section) => each(section, |alias| self.alias(&alias, outer)),
            Payload::ComponentTypeSection(section) => each(section, |kind| {
                let outer: Vec<&Names> = outer.iter().filter_map(Frame::types).collect();
                let names = names::of(&kind, &[&outer[..], &[&self.types]].concat())?;
                self.types.push(names);
                // A table of handles for each resource.
                self.weight.connect(u64::from(matches!(kind, ComponentType::Resource { .. })));
                self.named(names)
            }),
            Payload::ComponentImportSection(section) => each(section, |import| self.appear(import.ty)),
            Payload::ComponentExportSection(section) => each(section, |export| {
                self.exports = self.exports.saturating_add(1);
                match export.kind {
                    ComponentExternalKind::Module => self.modules.push(known(&self.modules, export.index)?),
                    ComponentExternalKind::Component => self.components.push(known(&self.components, export.index)?),
                    ComponentExternalKind::Type => self.types.push(self.types.find(export.index)?),
                    _ => {}
                }
                if let Some(ComponentTypeRef::Instance(index) | ComponentTypeRef::Component(index)) = export.ty {
                    self.weight.name(self.types.find(index)?);
                }
                self.named(1)
            }),
            Payload::ComponentCanonicalSection(section) => each(section, |function| match function {
                CanonicalFunction::Lift { .. } => self.named(1),
                _ => self.connected(1),
            }),
            _ => Ok(()),
        }
    }

    /// Something is imported, or declared to be there.
    fn appear(&mut self, kind: ComponentTypeRef) -> Result<(), CodeError> {
        match kind {
            ComponentTypeRef::Module(_) => self.modules.push(None),
            ComponentTypeRef::Component(index) => {
                self.components.push(None);
                self.weight.name(self.types.find(index)?);
            }
            ComponentTypeRef::Instance(index) => self.weight.name(self.types.find(index)?),
            ComponentTypeRef::Type(wasmparser::TypeBounds::Eq(index)) => self.types.push(self.types.find(index)?),
            ComponentTypeRef::Type(wasmparser::TypeBounds::SubResource) => self.types.push(1),
            _ => {}
        }
        self.connected(1)
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>, outer: &[Frame]) -> Result<(), CodeError> {
        match *alias {
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => self.modules.push(None),
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => self.components.push(None),
            // Of what an instance has, no one type is known: it has no more names than were counted with the instance.
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Type, .. } => {
                self.types.push(self.types.largest());
            }
            ComponentAlias::Outer { kind, count, index } => {
                let scope = match usize::try_from(count).unwrap_or(usize::MAX).checked_sub(1) {
                    None => &*self,
                    Some(out) => match outer.iter().rev().nth(out) {
                        Some(Frame::Component(scope)) => scope,
                        _ => return Err(CodeError::not_wasm("an alias leads out of the component")),
                    },
                };
                match kind {
                    ComponentOuterAliasKind::CoreModule => {
                        let module = known(&scope.modules, index)?;
                        self.modules.push(module);
                    }
                    ComponentOuterAliasKind::Component => {
                        let component = known(&scope.components, index)?;
                        self.components.push(component);
                    }
                    ComponentOuterAliasKind::Type => {
                        let names = scope.types.find(index)?;
                        self.types.push(names);
                    }
                    ComponentOuterAliasKind::CoreType => {}
                }
            }
            _ => {}
        }
        self.named(1)
    }

    fn connected(&mut self, count: usize) -> Result<(), CodeError> {
        self.weight.connect(count as u64);
        self.named(count as u64)
    }

    fn named(&mut self, count: u64) -> Result<(), CodeError> {
        self.weight.name(count);
        within(counted::NAMES, self.weight.names, MAX_NAMES)
    }
}

/// How many items a section has.
fn listed(payload: &Payload<'_>) -> u64 {
    let count = match payload {
        Payload::TypeSection(section) => section.count(),
        Payload::ImportSection(section) => section.clone().into_imports().count() as u32,
        Payload::FunctionSection(section) => section.count(),
        Payload::TableSection(section) => section.count(),
        Payload::MemorySection(section) => section.count(),
        Payload::TagSection(section) => section.count(),
        Payload::GlobalSection(section) => section.count(),
        Payload::ExportSection(section) => section.count(),
        Payload::ElementSection(section) => section.count(),
        Payload::DataSection(section) => section.count(),
        Payload::CoreTypeSection(section) => section.count(),
        Payload::ComponentTypeSection(section) => section.count(),
        Payload::ComponentAliasSection(section) => section.count(),
        Payload::ComponentImportSection(section) => section.count(),
        Payload::ComponentExportSection(section) => section.count(),
        Payload::InstanceSection(section) => section.count(),
        Payload::ComponentInstanceSection(section) => section.count(),
        _ => 0,
    };
    u64::from(count)
}

fn each<'a, T: FromReader<'a>>(
    section: SectionLimited<'a, T>,
    mut take: impl FnMut(T) -> Result<(), CodeError>,
) -> Result<(), CodeError> {
    section.into_iter().try_for_each(|item| take(item.map_err(CodeError::not_wasm)?))
}

fn known(all: &[Known], index: u32) -> Result<Known, CodeError> {
    find(all, index).copied()
}

fn within(what: &'static str, count: u64, limit: u64) -> Result<(), CodeError> {
    if count > limit { Err(CodeError::TooManyParts { what, count, limit }) } else { Ok(()) }
}
