//! The pool as a whole, against a scripted server, on a paused clock.

mod cleaning;
mod figures;
mod load;
mod operate;
mod outage;
mod reload;
mod scripted;
mod sisters;
mod size;
mod upkeep;
mod waiting;
