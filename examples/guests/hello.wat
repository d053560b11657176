;; Greets from where it runs: gives the text "hello from " and the name of what it is bound to.
(module
  (import "multinodes:guest/this@0.1.0" "name" (func $name (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "hello from ")

  ;; The node asks for memory for what it hands in. It is never given back: a task is gone when it has run.
  (global $free (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get $size))))

  ;; Takes where its arguments lie and how long they are, and gives where its result lies: 0 or 1 for a failure, then where
  ;; its bytes lie and how many they are.
  (func (export "run") (param $args i32) (param $length i32) (result i32)
    (local $text i32)
    ;; Where the name lies is written to 0, its length to 4.
    (call $name (i32.const 0))
    (local.set $text (global.get $free))
    ;; CBOR: a text whose length has two bytes, the higher one first.
    (local.set $length (i32.add (i32.const 11) (i32.load (i32.const 4))))
    (i32.store8 (local.get $text) (i32.const 0x79))
    (i32.store8 offset=1 (local.get $text) (i32.shr_u (local.get $length) (i32.const 8)))
    (i32.store8 offset=2 (local.get $text) (local.get $length))
    (memory.copy (i32.add (local.get $text) (i32.const 3)) (i32.const 16) (i32.const 11))
    (memory.copy (i32.add (local.get $text) (i32.const 14)) (i32.load (i32.const 0)) (i32.load (i32.const 4)))
    (i32.store (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (local.get $text))
    (i32.store (i32.const 8) (i32.add (i32.const 3) (local.get $length)))
    (i32.const 0)))
