//! How much an evaluation may do: a peer's description can be as large as its record, and nested macros over it would
//! take for ever.
//!
//! The interpreter has no budget of its own. So a call of [`NAME`] is put around everything that it compares, copies
//! or goes through: it passes its argument on, and takes the argument's size off the budget. When that is used up the
//! call fails, and so does each turn of every loop.

use std::{cell::Cell, sync::Arc};

use cel::{
    ExecutionError,
    common::{
        ast::{CallExpr, EntryExpr, Expr, IdedExpr, operators},
        types::{CelList, CelMap, CelString},
        value::{CowVal, Val},
    },
};

/// The function's name: nobody can write it.
pub(super) const NAME: &str = "@meter";

/// What one evaluation may do: a list with some thousand entries can be searched in about a millisecond.
const BUDGET: usize = 20_000;

/// So many bytes of text cost as much as a number.
const TEXT: usize = 16;

thread_local! {
    /// What is left to the evaluation that runs on this thread. The interpreter's functions carry no state.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Runs an evaluation with a whole budget.
pub(super) fn within_budget<T>(evaluation: impl FnOnce() -> T) -> T {
    LEFT.set(BUDGET);
    evaluation()
}

/// The function: gives its argument, if what is left suffices for it.
pub(super) fn meter<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let mut left = LEFT.get();
    let fits = spend(value.as_ref(), &mut left);
    LEFT.set(left);
    if fits { Ok(value) } else { Err(ExecutionError::InternalError("too much work".to_owned())) }
}

/// Takes the size of a value off what is left; false if that does not suffice.
fn spend(value: &dyn Val, left: &mut usize) -> bool {
    let own = match value.downcast_ref::<CelString<'_>>() {
        Some(text) => 1 + text.inner().len() / TEXT,
        None => 1,
    };
    let Some(rest) = left.checked_sub(own) else {
        *left = 0;
        return false;
    };
    *left = rest;
    if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        return list.inner().iter().all(|entry| spend(entry.as_ref(), left));
    }
    if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        return map.inner().iter().all(|(key, entry)| spend(key.inner(), left) && spend(entry.as_ref(), left));
    }
    true
}

/// How many levels an expression has, the meter's own included.
pub(super) fn depth(expression: &IdedExpr) -> usize {
    let deepest = |parts: &mut dyn Iterator<Item = &IdedExpr>| parts.map(depth).max().unwrap_or(0);
    1 + match &expression.expr {
        Expr::Call(call) => deepest(&mut call.args.iter().chain(call.target.as_deref())),
        Expr::Comprehension(loops) => deepest(
            &mut [&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result].into_iter(),
        ),
        Expr::List(list) => deepest(&mut list.elements.iter()),
        Expr::Map(map) => deepest(&mut map.entries.iter().flat_map(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => [&entry.key, &entry.value],
            EntryExpr::StructField(field) => [&field.value, &field.value],
        })),
        Expr::Select(select) => depth(&select.operand),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => 0,
    }
}

/// Puts the meter into an expression: around operands, elements and what loops go through, and into their conditions.
pub(super) fn install(expression: &mut IdedExpr) {
    match &mut expression.expr {
        Expr::Call(call) => on_call(call),
        Expr::Comprehension(comprehension) => {
            install_around(&mut comprehension.iter_range);
            install(&mut comprehension.accu_init);
            // A literal condition belongs to `map` and `filter`, which the interpreter runs in a fast way then: what
            // they go through is metered, and so is what each turn adds.
            if !matches!(comprehension.loop_cond.expr, Expr::Literal(_)) {
                wrap(&mut comprehension.loop_cond);
            }
            install(&mut comprehension.loop_step);
            install(&mut comprehension.result);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(install_around),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    install_around(&mut entry.key);
                    install_around(&mut entry.value);
                }
            }
        }
        Expr::Select(select) => install(&mut select.operand),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => {}
    }
}

fn on_call(call: &mut CallExpr) {
    let passes_on = matches!(
        call.func_name.as_str(),
        operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::CONDITIONAL
            | operators::NOT_STRICTLY_FALSE
            | operators::INDEX
    );
    let operand = if passes_on { install } else { install_around };
    call.args.iter_mut().for_each(operand);
    if let Some(target) = &mut call.target {
        install_around(target);
    }
}

/// Meters what is in an expression, and what it gives unless that is small, or metered by its parts.
fn install_around(expression: &mut IdedExpr) {
    install(expression);
    let free = match &expression.expr {
        Expr::Literal(_) | Expr::List(_) | Expr::Map(_) | Expr::Unspecified => true,
        // What a loop gathers: the interpreter wants to see that nothing is around it.
        Expr::Ident(name) => name.starts_with('@'),
        _ => false,
    };
    if !free {
        wrap(expression);
    }
}

fn wrap(expression: &mut IdedExpr) {
    let id = expression.id;
    let inner = std::mem::take(expression);
    let call = CallExpr { func_name: NAME.to_owned(), target: None, args: vec![inner] };
    *expression = IdedExpr { id, expr: Expr::Call(call) };
}

/// The environment of all predicates.
pub(super) fn environment() -> Arc<cel::Env> {
    let mut environment = cel::Env::stdlib();
    let added = environment.add_overload(NAME, "meter", vec![cel::common::types::DYN_TYPE], meter);
    debug_assert!(added.is_ok(), "nobody else has a function of that name");
    Arc::new(environment)
}
