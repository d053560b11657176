;; A component of its own making that imports WASI. With an argument list that is not empty it uses it.
(component
  (import "wasi:cli/exit@0.2.0" (instance $exit (export "quit" (func))))
  (core module $memory
    (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
  (core instance $memory (instantiate $memory))
  (core func $quit (canon lower (func $exit "quit")))
  (core module $task
    (import "memory" "memory" (memory 1))
    (import "wasi" "quit" (func $quit))
    (func (export "run") (param i32 i32) (result i32)
      (if (i32.gt_u (local.get 1) (i32.const 1)) (then (call $quit)))
      (i32.store (i32.const 4) (local.get 0))
      (i32.store (i32.const 8) (local.get 1))
      (i32.const 0)))
  (core instance $task (instantiate $task
    (with "memory" (instance $memory))
    (with "wasi" (instance (export "quit" (func $quit))))))
  (func (export "run") (param "args" (list u8)) (result (result (list u8) (error string)))
    (canon lift (core func $task "run") (memory $memory "memory") (realloc (func $memory "cabi_realloc")))))
