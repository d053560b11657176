//! How many names a type has, with those of the instances and components in it: each as often as it is there.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentType, ComponentTypeDeclaration,
    ComponentTypeRef, InstanceTypeDeclaration, TypeBounds,
};

use crate::code::code_error::CodeError;

/// For each type of a scope how many names it has.
#[derive(Default)]
pub(super) struct Names {
    all: Vec<u64>,
    largest: u64,
}

impl Names {
    pub(super) fn push(&mut self, names: u64) {
        self.largest = self.largest.max(names);
        self.all.push(names);
    }

    pub(super) fn find(&self, index: u32) -> Result<u64, CodeError> {
        find(&self.all, index).copied()
    }

    /// What a type has that comes out of an instance, at the most.
    pub(super) fn largest(&self) -> u64 {
        self.largest.max(1)
    }
}

/// The names of a type, among those of the types that were there before: of the scopes around it, the innermost last.
pub(super) fn of(kind: &ComponentType<'_>, outer: &[&Names]) -> Result<u64, CodeError> {
    let mut within = Within { types: Names::default(), names: 1 };
    match kind {
        ComponentType::Component(declarations) => {
            for declaration in declarations {
                match declaration {
                    ComponentTypeDeclaration::Type(kind) => within.declare(kind, outer)?,
                    ComponentTypeDeclaration::Alias(alias) => within.alias(alias, outer)?,
                    ComponentTypeDeclaration::Export { ty, .. } => within.appear(*ty)?,
                    ComponentTypeDeclaration::Import(import) => within.appear(import.ty)?,
                    ComponentTypeDeclaration::CoreType(_) => within.add(1),
                }
            }
        }
        ComponentType::Instance(declarations) => {
            for declaration in declarations {
                match declaration {
                    InstanceTypeDeclaration::Type(kind) => within.declare(kind, outer)?,
                    InstanceTypeDeclaration::Alias(alias) => within.alias(alias, outer)?,
                    InstanceTypeDeclaration::Export { ty, .. } => within.appear(*ty)?,
                    InstanceTypeDeclaration::CoreType(_) => within.add(1),
                }
            }
        }
        ComponentType::Defined(_) | ComponentType::Func(_) | ComponentType::Resource { .. } => {}
    }
    Ok(within.names)
}

/// A type that is being read.
struct Within {
    types: Names,
    names: u64,
}

impl Within {
    fn declare(&mut self, kind: &ComponentType<'_>, outer: &[&Names]) -> Result<(), CodeError> {
        let names = of(kind, &[outer, &[&self.types]].concat())?;
        self.types.push(names);
        self.add(names);
        Ok(())
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>, outer: &[&Names]) -> Result<(), CodeError> {
        match *alias {
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Type, count, index } => {
                let names = match usize::try_from(count).unwrap_or(usize::MAX).checked_sub(1) {
                    None => self.types.find(index)?,
                    Some(out) => match outer.iter().rev().nth(out) {
                        Some(types) => types.find(index)?,
                        None => return Err(CodeError::not_wasm("an alias leads out of the component")),
                    },
                };
                self.types.push(names);
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Type, .. } => {
                self.types.push(self.types.largest());
            }
            _ => {}
        }
        self.add(1);
        Ok(())
    }

    fn appear(&mut self, kind: ComponentTypeRef) -> Result<(), CodeError> {
        let names = match kind {
            ComponentTypeRef::Instance(index) | ComponentTypeRef::Component(index) => self.types.find(index)?,
            ComponentTypeRef::Type(TypeBounds::Eq(index)) => {
                let names = self.types.find(index)?;
                self.types.push(names);
                1
            }
            ComponentTypeRef::Type(TypeBounds::SubResource) => {
                self.types.push(1);
                1
            }
            _ => 1,
        };
        self.add(names);
        Ok(())
    }

    fn add(&mut self, names: u64) {
        self.names = self.names.saturating_add(names);
    }
}

pub(super) fn find<T>(all: &[T], index: u32) -> Result<&T, CodeError> {
    let found = usize::try_from(index).ok().and_then(|index| all.get(index));
    found.ok_or_else(|| CodeError::not_wasm(format_args!("there is no number {index} of what it refers to")))
}
