//! What goes wrong around a gateway, each with its bound; `docs/faults.md` is the operator's list of it.
//!
//! What can be counted at the server is counted there.

mod answers;
mod connecting;
mod failover;
mod leaving;
mod load;
mod machine;
