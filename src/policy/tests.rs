//! The room as its users meet it, on components assembled here.

mod fixture;
mod loading;
mod running;
mod swapping;
