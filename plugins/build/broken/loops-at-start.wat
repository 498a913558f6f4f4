;; A validation policy whose instances never come to be: the start function does not end.
(module
  (func $forever (loop $again (br $again)))
  (start $forever)
  (func (export "sluicegate:policy/validation@0.1.0#check")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result f64)
    (f64.const 0)))
