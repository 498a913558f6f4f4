;; A policy that introduces itself and takes its configuration, then traps in the self-check and in every decision.
(module
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 4096))
  ;; The description: name, version, schema, each as address and length; carry-version. All of them in page zero.
  (data (i32.const 1024) "\80\04\00\00\0d\00\00\00\90\04\00\00\05\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
  (data (i32.const 1152) "traps-at-once")
  (data (i32.const 1168) "0.1.0")
  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (local $at i32)
    ;; Never gives back; eight bytes suit everything here.
    (local.set $at (global.get $free))
    (global.set $free (i32.and (i32.add (i32.add (global.get $free) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (local.get $at))
  (func (export "sluicegate:policy/lifecycle@0.1.0#describe") (result i32)
    (i32.const 1024))
  ;; `ok`: the case is zero.
  (func (export "sluicegate:policy/lifecycle@0.1.0#configure") (param i32 i32) (result i32)
    (i32.const 2048))
  (func (export "sluicegate:policy/lifecycle@0.1.0#self-check") (result i32)
    unreachable)
  (func (export "sluicegate:policy/sizing@0.1.0#decide") (param i32) (result i32)
    unreachable)
  (func (export "sluicegate:policy/eviction@0.1.0#review") (param i32) (result i32)
    unreachable)
  (func (export "sluicegate:policy/validation@0.1.0#check")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result f64)
    unreachable))
