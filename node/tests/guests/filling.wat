;; Lets instructions compute that take tens of milliseconds each.
(module
  (memory (export "memory") 900)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "run") (param i32 i32) (result i32)
    (loop (memory.fill (i32.const 65536) (i32.const 7) (i32.const 58000000)) (br 0))
    (i32.const 0)))
