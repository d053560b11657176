;; Calls `add` of `calculator` with its own arguments, and gives the result.
(module
  (import "multinodes:guest/host@0.1.0" "call" (func $call (param i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8)))))
  (data (i32.const 16) "calculatoradd")
  (func (export "run") (param i32 i32) (result i32)
    (call $call (i32.const 16) (i32.const 10) (i32.const 26) (i32.const 3) (local.get 0) (local.get 1) (i32.const 0))
    (i32.const 0)))
