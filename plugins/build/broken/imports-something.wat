;; A sizing policy that asks the world outside. All else is as it should be: it would answer a target of 5.
(module
  (import "sluicegate:testing/outside" "look" (func $look (result i32)))
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (local $at i32)
    ;; Never gives back; eight bytes suit everything here.
    (local.set $at (global.get $free))
    (global.set $free (i32.and (i32.add (i32.add (global.get $free) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (local.get $at))
  (func (export "sluicegate:policy/sizing@0.1.0#decide") (param i32) (result i32)
    (drop (call $look))
    (i32.store (i32.const 1024) (i32.const 5))
    (i32.const 1024)))
