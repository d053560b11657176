//! Components that are small and stand for much more.
#![allow(unreachable_pub, reason = "each test program includes it as a module of its own")]
#![allow(dead_code, reason = "each test program uses a part of it")]

/// What a task needs to be one, within a component.
const RUN: &str = r#"
    (core module $run
      (memory (export "memory") 1)
      (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
      (func (export "run") (param i32 i32) (result i32) (i32.const 0)))
    (core instance $task (instantiate $run))
    (func (export "run") (param "args" (list u8)) (result (result (list u8) (error string)))
      (canon lift (core func $task "run") (memory $task "memory") (realloc (func $task "cabi_realloc"))))"#;

/// A task with something else in it.
pub fn task(more: &str) -> Vec<u8> {
    wat::parse_str(format!("(component {more} {RUN})")).unwrap()
}

/// A module, instantiated so many times.
pub fn repeated(module: &str, times: usize) -> Vec<u8> {
    task(&format!("(core module $m {module}) {}", "(core instance (instantiate $m))".repeat(times)))
}

/// So many globals.
pub fn globals(count: usize) -> String {
    "(global i32 (i32.const 0))".repeat(count)
}

/// A passive segment of so many elements.
pub fn elements(count: usize) -> String {
    format!("(func $f) (elem func {})", "$f ".repeat(count))
}

/// A component with so many exports, instantiated so many times: each instance has all the names anew.
pub fn names(exports: usize, times: usize) -> Vec<u8> {
    let exports: String = (0..exports).map(|number| format!(r#"(export "e{number}" (type $t))"#)).collect();
    task(&format!("(component $c (type $t (list u8)) {exports}) {}", "(instance (instantiate $c))".repeat(times)))
}

/// Components within each other, each instantiated twice in the next.
pub fn doubled(depth: usize) -> Vec<u8> {
    let mut text = "(component $c (core module $m) (core instance (instantiate $m)))".to_owned();
    for _ in 0..depth {
        text = format!("(component $c {text} (instance (instantiate $c)) (instance (instantiate $c)))");
    }
    task(&format!("{text} (instance (instantiate $c))"))
}
