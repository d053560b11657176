//! MultiNodes (skeleton).
#![allow(dead_code, unused_imports)]
mod core;
mod description;
