//! MultiNodes (skeleton).
#![allow(dead_code, unused_imports)]
mod addresses;
mod core;
mod description;
mod directory;
mod rendezvous;
mod driver;
