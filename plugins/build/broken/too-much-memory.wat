;; A validation policy that wants 64 MiB before it does anything.
(module
  (memory (export "memory") 1024)
  (func (export "sluicegate:policy/validation@0.1.0#check")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result f64)
    (f64.const 0)))
