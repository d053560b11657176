//! From a text to an expression that may be evaluated: bounded, checked and metered.

use std::{
    sync::{Arc, LazyLock},
    thread,
};

use cel::{
    Env, ParseErrors,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators},
};

use super::{
    MAX_PREDICATE, PredicateError, PredicateFault, meter,
    values::{ACTION, APP, APPLICATION, DESCRIPTION, LABELS, LOAD, NODE, PEER, Variables},
};

/// Brackets and question marks of a text. The parser recurses at each of them, and its own limit comes late: deep in
/// its recovery from errors.
pub(super) const MAX_BRACKETS: usize = 64;

/// The depth of an expression: the interpreter recurses into it.
pub(super) const MAX_DEPTH: usize = 24;

/// The stack of the thread that parses. The generated parser takes dozens of frames for each bracket: the worst text
/// within the limits needs some 8 MiB without optimisation. Only what is used of it is ever taken from the system.
const PARSER_STACK: usize = 64 * 1024 * 1024;

/// Functions with the number of their arguments; of methods without the value that they are called on.
const FUNCTIONS: [(&str, bool, usize); 13] = [
    ("size", false, 1),
    ("size", true, 0),
    ("contains", true, 1),
    ("startsWith", true, 1),
    ("endsWith", true, 1),
    ("int", false, 1),
    ("uint", false, 1),
    ("double", false, 1),
    ("string", false, 1),
    ("bool", false, 1),
    ("type", false, 1),
    ("dyn", false, 1),
    ("bytes", false, 1),
];

/// What `type()` can give.
const TYPES: [&str; 10] = ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"];

/// What a predicate is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// An application on a node.
    Host,
    /// A node.
    Node,
    /// A peer that wants something of this node.
    Peer,
}

impl Scope {
    /// The variables, for people.
    fn variables(self) -> &'static str {
        match self {
            Self::Host | Self::Node => "only `node`, `app` and `description`",
            Self::Peer => "only `peer`, `application` and `action`",
        }
    }
}

/// An expression that may be evaluated.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) expression: IdedExpr,
    /// How deep the interpreter recurses into it.
    pub(super) depth: usize,
    pub(super) variables: Variables,
    pub(super) looks_at_load: bool,
    pub(super) looks_at_labels: bool,
}

/// The environment of all predicates.
pub(super) fn environment() -> &'static Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(meter::environment);
    &ENVIRONMENT
}

/// Compiles a text. Takes a millisecond or so: on a thread of its own, with a stack that is large enough.
pub(super) fn compile(text: &str, scope: Scope) -> Result<Compiled, PredicateError> {
    let start = |fault| PredicateError::at(text, 0, fault);
    if text.len() > MAX_PREDICATE {
        return Err(start(PredicateFault::TooLong { size: text.len() }));
    }
    let is_bracket = |character: &char| matches!(character, '(' | '[' | '{' | '?');
    if let Some((offset, _)) = text.chars().enumerate().filter(|(_, character)| is_bracket(character)).nth(MAX_BRACKETS)
    {
        return Err(PredicateError::at(text, offset, PredicateFault::TooManyBrackets));
    }
    let unreadable = |reason: &str| start(PredicateFault::Syntax(reason.to_owned()));
    thread::scope(|threads| {
        let parser = thread::Builder::new().name("predicate".to_owned()).stack_size(PARSER_STACK);
        let parsing = parser.spawn_scoped(threads, || parse(text, scope));
        match parsing.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_panic)) => Err(unreadable("the parser broke on it")),
            Err(error) => Err(unreadable(&format!("no thread can be started to read it: {error}"))),
        }
    })
}

fn parse(text: &str, scope: Scope) -> Result<Compiled, PredicateError> {
    let parser = environment().parser().enable_optional_syntax(false);
    let (mut expression, source) = parser.parse_with_source_info(text).map_err(|errors| syntax_error(text, &errors))?;
    let mut check = Check { text, source: &source, scope, names: Vec::new(), found: Found::default() };
    check.expression(&expression, 0)?;
    check.boolean(&expression)?;
    let Found { variables, looks_at_load, looks_at_labels } = check.found;
    meter::install(&mut expression);
    Ok(Compiled { depth: meter::depth(&expression), expression, variables, looks_at_load, looks_at_labels })
}

/// The first of the parser's errors, in words for people.
fn syntax_error(text: &str, errors: &ParseErrors) -> PredicateError {
    let positive = |number: isize| usize::try_from(number).ok().filter(|number| *number > 0);
    let place = |error: &cel::ParseError| Some((positive(error.pos.0)?, positive(error.pos.1)?));
    let Some((error, (line, column))) = errors.errors.iter().find_map(|error| Some((error, place(error)?))) else {
        // The one error without a place is the parser's limit of recursion.
        return PredicateError::at(text, 0, PredicateFault::TooDeep);
    };
    let message = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    let message = message.split(" expecting ").next().unwrap_or(message).replace("'<EOF>'", "the end");
    PredicateError::on(text, line, column, PredicateFault::Syntax(message))
}

/// Goes through an expression once, and refuses what can be known to be wrong.
struct Check<'a> {
    text: &'a str,
    source: &'a SourceInfo,
    scope: Scope,
    /// The variables of the macros around, innermost last.
    names: Vec<&'a str>,
    found: Found,
}

#[derive(Default)]
struct Found {
    variables: Variables,
    looks_at_load: bool,
    looks_at_labels: bool,
}

impl<'a> Check<'a> {
    fn expression(&mut self, expression: &'a IdedExpr, depth: usize) -> Result<(), PredicateError> {
        let deeper = depth + 1;
        if depth > MAX_DEPTH {
            return Err(self.error(expression, PredicateFault::TooDeep));
        }
        match &expression.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(expression, name, None),
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr {
                    return self.name(&select.operand, name, Some((expression, &select.field)));
                }
                self.expression(&select.operand, deeper)
            }
            Expr::Call(call) => self.call(expression, call, deeper),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.expression(element, deeper)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&entry.key, deeper)?;
                    self.expression(&entry.value, deeper)
                }
                EntryExpr::StructField(_) => Err(self.error(expression, PredicateFault::Unsupported("a message"))),
            }),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, deeper),
            Expr::Struct(_) => Err(self.error(expression, PredicateFault::Unsupported("a message"))),
            Expr::Unspecified => Err(self.error(expression, PredicateFault::Syntax("something is missing".to_owned()))),
        }
    }

    fn comprehension(&mut self, comprehension: &'a ComprehensionExpr, depth: usize) -> Result<(), PredicateError> {
        self.expression(&comprehension.iter_range, depth)?;
        self.expression(&comprehension.accu_init, depth)?;
        self.names.push(&comprehension.accu_var);
        self.names.push(&comprehension.iter_var);
        let parts = [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result];
        let outcome = parts.into_iter().try_for_each(|part| self.expression(part, depth));
        self.names.truncate(self.names.len() - 2);
        outcome
    }

    fn call(&mut self, expression: &'a IdedExpr, call: &'a CallExpr, depth: usize) -> Result<(), PredicateError> {
        let (name, method, count) = (call.func_name.as_str(), call.target.is_some(), call.args.len());
        // Operators have names that nobody can write.
        let known = is_operator(name) || FUNCTIONS.contains(&(name, method, count));
        if let (Some(target), false) = (&call.target, known) {
            // An unknown variable is what is wrong then: `optional.of(1)`.
            self.expression(target, depth)?;
        }
        if !known {
            let name = name.to_owned();
            return Err(self.error(expression, PredicateFault::UnknownFunction { name, method, count }));
        }
        if let (operators::INDEX, [container, key]) = (name, call.args.as_slice())
            && let (Expr::Ident(variable), Some(field)) = (&container.expr, literal_text(key))
        {
            return self.name(container, variable, Some((key, field)));
        }
        call.target.as_deref().into_iter().chain(&call.args).try_for_each(|part| self.expression(part, depth))
    }

    /// A variable, and the field of it that is looked at. A whole node has its load in it.
    fn name(
        &mut self,
        expression: &IdedExpr,
        name: &str,
        field: Option<(&IdedExpr, &str)>,
    ) -> Result<(), PredicateError> {
        if self.names.contains(&name) {
            return Ok(());
        }
        // A name with a point before it is meant from outside of all macros.
        let global = name.strip_prefix('.').unwrap_or(name);
        if field.is_none() && TYPES.contains(&global) {
            return Ok(());
        }
        let fields = match global {
            _ if self.scope == Scope::Peer => match global {
                _ if global == PEER.0 => {
                    self.found.variables.peer = true;
                    self.found.looks_at_labels |= field.is_none_or(|(_, field)| field == LABELS);
                    PEER.1
                }
                _ if global == APPLICATION || global == ACTION => {
                    self.found.variables.request = true;
                    return Ok(());
                }
                _ => return Err(self.unknown(expression, name)),
            },
            _ if global == NODE.0 => {
                self.found.variables.node = true;
                NODE.1
            }
            _ if global != APP.0 && global != DESCRIPTION => {
                return Err(self.unknown(expression, name));
            }
            _ if self.scope == Scope::Node => {
                return Err(self.error(expression, PredicateFault::NoApplication { name: name.to_owned() }));
            }
            _ if global == APP.0 => {
                self.found.variables.app = true;
                APP.1
            }
            _ => {
                self.found.variables.description = true;
                return Ok(());
            }
        };
        let Some((place, field)) = field else {
            self.found.looks_at_load = true;
            return Ok(());
        };
        self.found.looks_at_load |= field == LOAD;
        if fields.contains(&field) {
            return Ok(());
        }
        let fields = fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ");
        let fault = PredicateFault::UnknownField { variable: global.to_owned(), field: field.to_owned(), fields };
        Err(self.error(place, fault))
    }

    /// Refuses what never gives a boolean, and logical operators over that.
    fn boolean(&self, expression: &IdedExpr) -> Result<(), PredicateError> {
        let can_be = match &expression.expr {
            Expr::Literal(literal) => matches!(literal, LiteralValue::Boolean(_)),
            Expr::Ident(name) => !self.is_fixed(name) && !TYPES.contains(&name.as_str()),
            Expr::Select(select) => {
                // Each field of a node and an application is known, and none is a boolean.
                let of_fixed = matches!(&select.operand.expr, Expr::Ident(name) if self.is_fixed(name));
                select.test || !of_fixed
            }
            Expr::Call(call) => {
                let operands = match call.func_name.as_str() {
                    operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => &call.args[..],
                    operators::CONDITIONAL => call.args.get(1..).unwrap_or_default(),
                    _ => &[],
                };
                operands.iter().try_for_each(|operand| self.boolean(operand))?;
                !GIVE_OTHERS.contains(&call.func_name.as_str())
            }
            Expr::Comprehension(comprehension) => {
                matches!(comprehension.accu_init.expr, Expr::Literal(LiteralValue::Boolean(_)))
                    || matches!(&comprehension.result.expr, Expr::Call(_))
            }
            Expr::List(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => false,
        };
        if can_be { Ok(()) } else { Err(self.error(expression, PredicateFault::NotBoolean)) }
    }

    fn is_fixed(&self, name: &str) -> bool {
        let global = name.strip_prefix('.').unwrap_or(name);
        match self.scope {
            Scope::Host | Scope::Node => global == NODE.0 || global == APP.0,
            Scope::Peer => [PEER.0, APPLICATION, ACTION].contains(&global),
        }
    }

    fn unknown(&self, expression: &IdedExpr, name: &str) -> PredicateError {
        let (name, known) = (name.to_owned(), self.scope.variables());
        self.error(expression, PredicateFault::UnknownVariable { name, known })
    }

    fn error(&self, expression: &IdedExpr, fault: PredicateFault) -> PredicateError {
        let begin = |expression: &IdedExpr| self.source.offset_for(expression.id).map_or(0, |(start, _)| start);
        PredicateError::at(self.text, begin(expression) as usize, fault)
    }
}

/// Operators and functions that never give a boolean.
const GIVE_OTHERS: [&str; 12] = [
    operators::ADD,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
    "size",
    "int",
    "uint",
    "double",
    "string",
    "type",
];

fn is_operator(name: &str) -> bool {
    name.starts_with(['_', '!', '-', '@'])
        && !name.chars().all(|character| character.is_alphanumeric() || character == '_')
}

fn literal_text(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}
