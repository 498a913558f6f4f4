;; A well-behaved component that is no policy.
(module
  (func (export "sluicegate:testing/greeting#hello") (result i32)
    (i32.const 42)))
