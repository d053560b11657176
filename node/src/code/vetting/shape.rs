//! What a function costs the compiler.
//!
//! Its time and memory grow with the number of local variables times the number of places where control flow meets, since
//! each variable may need a value of its own at each of them. A heuristic against one measured class of bombs: the
//! compiler's own limits are what holds.

use wasmparser::{BlockType, Error, FuncValidator, FunctionBody, Operator, OperatorsReader, WasmModuleResources};

/// Even a function without variables costs something for each branch.
const BASE: u64 = 8;

/// Validates a function, and gives its variables (the parameters included) times its branches.
pub(super) fn cost<R: WasmModuleResources>(
    function: &mut FuncValidator<R>,
    body: &FunctionBody<'_>,
) -> Result<u64, Error> {
    let mut reader = body.get_binary_reader();
    function.read_locals(&mut reader)?;
    reader.set_features(*function.features());
    let locals = u64::from(function.len_locals());
    let (mut branches, mut widest) = (0_u64, 0);
    let mut operators = OperatorsReader::new(reader);
    while !operators.eof() {
        let position = operators.original_position();
        let operator = operators.read()?;
        function.op(position, &operator)?;
        let (count, carried) = weight(&operator, function.resources());
        branches = branches.saturating_add(count);
        widest = widest.max(carried);
    }
    operators.finish()?;
    Ok((locals + widest + BASE).saturating_mul(branches))
}

/// How many branches an operator adds, and how many values it carries from one block to another.
fn weight(operator: &Operator<'_>, resources: &impl WasmModuleResources) -> (u64, u64) {
    match operator {
        Operator::Block { blockty }
        | Operator::Loop { blockty }
        | Operator::If { blockty }
        | Operator::TryTable { try_table: wasmparser::TryTable { ty: blockty, .. } } => (1, arity(blockty, resources)),
        Operator::BrIf { .. }
        | Operator::BrOnNull { .. }
        | Operator::BrOnNonNull { .. }
        | Operator::BrOnCast { .. }
        | Operator::BrOnCastFail { .. } => (1, 0),
        Operator::BrTable { targets } => (u64::from(targets.len()) + 1, 0),
        _ => (0, 0),
    }
}

fn arity(block: &BlockType, resources: &impl WasmModuleResources) -> u64 {
    match block {
        BlockType::Empty => 0,
        BlockType::Type(_) => 1,
        BlockType::FuncType(index) => resources.sub_type_at(*index).map_or(0, |sub_type| {
            let function = sub_type.unwrap_func();
            (function.params().len() + function.results().len()) as u64
        }),
    }
}
