//! Reloads and the end, on a gateway without worker threads: tests hold the other end of the workers' channels.

mod bench;
mod ending;
mod listeners;
mod pools;
mod reload;
mod replicas;
