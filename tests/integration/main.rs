//! The gateway as its users meet it: the binary, real servers, real clients, faults.
//!
//! One binary, a module a subject. A scenario's name is a sentence.

mod clients;
mod edge;
mod faults;
mod hostile;
mod operate;
mod proxying;
mod queries;
mod rooms;
mod support;
mod swaps;
