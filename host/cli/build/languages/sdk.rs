//! The SDKs and the contract, as they are laid down below a source tree.

/// A file of an SDK: its place in the toolbox and its bytes.
pub(super) type File = (&'static str, &'static [u8]);

macro_rules! files {
    ($($place:literal from $source:literal),* $(,)?) => {
        &[$(($place, include_bytes!(concat!("../../../../guest-sdk/", $source)))),*]
    };
}

/// The worlds and what they are made of; every toolbox that needs it has its own copy.
macro_rules! with_wit {
    ($($place:literal from $source:literal),* $(,)?) => {
        files![
            $($place from $source,)*
            "wit/world.wit" from "world/world.wit",
            "wit/deps/page.wit" from "wit/page.wit",
            "wit/deps/io.wit" from "world/deps/io.wit",
            "wit/deps/clocks.wit" from "world/deps/clocks.wit",
            "wit/deps/http.wit" from "world/deps/http.wit",
            "wit/deps/random.wit" from "world/deps/random.wit",
        ]
    };
}

pub(super) const JAVASCRIPT: &[File] = with_wit![
    "package.json" from "js/package.json",
    "package-lock.json" from "js/package-lock.json",
    "build.mjs" from "js/build.mjs",
    "entry.js" from "js/entry.js",
    "fetch.js" from "js/fetch.js",
    "globals.js" from "js/globals.js",
    "random.js" from "js/random.js",
    "text.js" from "js/text.js",
    "timers.js" from "js/timers.js",
    "trace.js" from "js/trace.js",
    "values.js" from "js/values.js",
    "wisr.js" from "js/wisr.js",
    "wisr.d.ts" from "js/wisr.d.ts",
];

pub(super) const PYTHON: &[File] = with_wit![
    "requirements.txt" from "python/requirements.txt",
    "sdk/wisr_app.py" from "python/wisr_app.py",
    "sdk/wisr/__init__.py" from "python/wisr/__init__.py",
    "sdk/wisr/_fetch.py" from "python/wisr/_fetch.py",
    "sdk/wisr/_host.py" from "python/wisr/_host.py",
    "sdk/wisr/_text.py" from "python/wisr/_text.py",
    "sdk/wisr/py.typed" from "python/wisr/py.typed",
];

pub(super) const C: &[File] = files![
    "wisr.h" from "c/wisr.h",
    "wisr.c" from "c/wisr.c",
    "fetch.c" from "c/fetch.c",
    "text.c" from "c/text.c",
    "internal.h" from "c/internal.h",
    "guest.h" from "c/guest.h",
    "guest.c" from "c/guest.c",
    "guest_component_type.o" from "c/guest_component_type.o",
];
