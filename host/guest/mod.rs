//! WebAssembly guests.
