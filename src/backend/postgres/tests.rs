//! Against a real server.

mod faults;
mod session;
mod statements;
mod types;
