//! Whether a component imports only what nodes have, and exports what its world must.

use wasmparser::{
    Parser, Payload, PrimitiveValType,
    component_types::{
        ComponentDefinedType, ComponentEntityType, ComponentFuncType, ComponentInstanceTypeId, ComponentValType,
    },
    types::TypesRef,
};

use crate::code::{
    code_error::{CodeError, shorten},
    code_ref::World,
};

/// The types that functions of this package have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Bytes,
    Text,
    /// `result<list<u8>, string>`.
    BytesOrError,
    /// `result<_, string>`.
    DoneOrError,
}

use Type::{Bytes, BytesOrError, DoneOrError, Text};

struct Function {
    name: &'static str,
    parameters: &'static [Type],
    result: Option<Type>,
}

const fn function(name: &'static str, parameters: &'static [Type], result: Option<Type>) -> Function {
    Function { name, parameters, result }
}

const HOST: (&str, &[Function]) = (
    "multinodes:guest/host@0.1.0",
    &[
        function("call", &[Text, Text, Bytes], Some(BytesOrError)),
        function("tell", &[Text, Bytes], Some(DoneOrError)),
        function("describe-node", &[], Some(Bytes)),
        function("log", &[Text], None),
    ],
);

const THIS: (&str, &[Function]) = (
    "multinodes:guest/this@0.1.0",
    &[
        function("name", &[], Some(Text)),
        function("call", &[Text, Bytes], Some(BytesOrError)),
        function("tell", &[Bytes], Some(DoneOrError)),
    ],
);

const TASK: &[Function] = &[function("run", &[Bytes], Some(BytesOrError))];

const APPLICATION: &[Function] = &[
    function("start", &[Bytes], Some(DoneOrError)),
    function("handle", &[Text, Bytes], Some(BytesOrError)),
    function("process", &[Bytes], Some(DoneOrError)),
];

/// What starts so is linked as a trap: guests of some languages import it and never use it.
const WASI: &str = "wasi:";

/// Nothing but interfaces of this package, as they are, and WASI's.
pub(super) fn check_imports(component: &[u8], types: TypesRef<'_>) -> Result<(), CodeError> {
    for name in imports(component)? {
        if name.starts_with(WASI) {
            continue;
        }
        let known = [HOST, THIS].into_iter().find(|(interface, _)| *interface == name);
        let (_, functions) = known.ok_or_else(|| unknown(&name))?;
        match types.component_item_for_import(&name).map(|item| item.ty) {
            Some(ComponentEntityType::Instance(instance)) => check_interface(&name, instance, functions, types)?,
            _ => return Err(unknown(&name)),
        }
    }
    Ok(())
}

/// The world whose exports it has.
pub(super) fn world(component: &[u8], types: TypesRef<'_>) -> Result<World, CodeError> {
    let has = |functions: &[Function]| functions.iter().any(|function| exported(function.name, types).is_some());
    match (has(TASK), has(APPLICATION)) {
        (true, false) => check_exports(TASK, types).map(|()| World::Task),
        (false, true) => check_exports(APPLICATION, types).map(|()| World::Application),
        (true, true) => Err(wrong("it exports `run` as well as what an application has: nobody can tell which it is")),
        (false, false) => Err(neither(&exports(component)?)),
    }
}

fn neither(exports: &[String]) -> CodeError {
    match exports.iter().find(|name| name.starts_with(WASI)) {
        Some(name) => wrong(format_args!(
            "it exports `{name}`, so it is made for a runtime of WASI; a guest exports `run`, or `start`, `handle` and \
             `process`, as the worlds in node/wit/node.wit have them, and examples/guests/README.md shows how"
        )),
        None => wrong("it exports neither `run` nor `start`, `handle` and `process`"),
    }
}

fn check_exports(functions: &[Function], types: TypesRef<'_>) -> Result<(), CodeError> {
    for function in functions {
        match exported(function.name, types) {
            Some(ComponentEntityType::Func(id)) if function.is(&types[id], types) => {}
            Some(_) => return Err(wrong(format_args!("its `{}` has another type", function.name))),
            None => return Err(wrong(format_args!("it exports no `{}`", function.name))),
        }
    }
    Ok(())
}

fn check_interface(
    interface: &str,
    instance: ComponentInstanceTypeId,
    functions: &[Function],
    types: TypesRef<'_>,
) -> Result<(), CodeError> {
    for (name, item) in &types[instance].exports {
        let known = functions.iter().find(|function| function.name == name);
        let fits = match (known, item.ty) {
            (Some(known), ComponentEntityType::Func(id)) => known.is(&types[id], types),
            // A name for a type is no demand.
            (None, ComponentEntityType::Type { .. }) => true,
            _ => false,
        };
        if !fits {
            return Err(unknown(&format!("{interface}#{name}")));
        }
    }
    Ok(())
}

/// The names of what the component itself imports, not of what is within it.
///
/// # Errors
///
/// [`CodeError::NotWasm`].
pub fn imports(component: &[u8]) -> Result<Vec<String>, CodeError> {
    names(component, |payload, names| {
        if let Payload::ComponentImportSection(section) = payload {
            for import in section {
                names.push(import.map_err(CodeError::not_wasm)?.name.name.to_owned());
            }
        }
        Ok(())
    })
}

/// The same of what it exports.
fn exports(component: &[u8]) -> Result<Vec<String>, CodeError> {
    names(component, |payload, names| {
        if let Payload::ComponentExportSection(section) = payload {
            for export in section {
                names.push(export.map_err(CodeError::not_wasm)?.name.name.to_owned());
            }
        }
        Ok(())
    })
}

fn names(
    component: &[u8],
    read: impl Fn(Payload<'_>, &mut Vec<String>) -> Result<(), CodeError>,
) -> Result<Vec<String>, CodeError> {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(CodeError::not_wasm)? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            payload if depth == 1 => read(payload, &mut names)?,
            _ => {}
        }
    }
    Ok(names)
}

fn exported(name: &str, types: TypesRef<'_>) -> Option<ComponentEntityType> {
    types.component_item_for_export(name).map(|item| item.ty)
}

impl Function {
    fn is(&self, given: &ComponentFuncType, types: TypesRef<'_>) -> bool {
        let parameters = given.params.iter().map(|(_, given)| type_of(*given, types));
        !given.async_
            && parameters.eq(self.parameters.iter().map(|parameter| Some(*parameter)))
            && given.result.map(|given| type_of(given, types)) == self.result.map(Some)
    }
}

/// Which of the known types it is.
fn type_of(given: ComponentValType, types: TypesRef<'_>) -> Option<Type> {
    let ComponentValType::Type(id) = given else {
        return matches!(given, ComponentValType::Primitive(PrimitiveValType::String)).then_some(Text);
    };
    match &types[id] {
        ComponentDefinedType::Primitive(PrimitiveValType::String) => Some(Text),
        ComponentDefinedType::List { element: ComponentValType::Primitive(PrimitiveValType::U8), .. } => Some(Bytes),
        ComponentDefinedType::Result { ok, err: Some(error), .. } if type_of(*error, types) == Some(Text) => match ok {
            None => Some(DoneOrError),
            Some(ok) => (type_of(*ok, types) == Some(Bytes)).then_some(BytesOrError),
        },
        _ => None,
    }
}

fn unknown(import: &str) -> CodeError {
    CodeError::UnknownImport { import: shorten(import) }
}

fn wrong(reason: impl std::fmt::Display) -> CodeError {
    CodeError::WrongWorld { reason: shorten(reason) }
}
