//! A ruleset's text, whatever it is: an answer, and what compiles runs.
#![no_main]

use halftone_compiler::{compile_file, disassemble, link, render};
use halftone_fuzz::{decides, requests, survives};
use halftone_rules::{Timestamp, VerifiedBundle};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match compile_file(text, "fuzz") {
        Ok(compiled) => {
            let _ = render("fuzz.yaml", text, &compiled.warnings);
            let bundle = link(1, [&compiled]).expect("one ruleset links");
            let _ = disassemble(&bundle);
            let bundle = VerifiedBundle::new(bundle).expect("what the compiler makes verifies");
            survives(&bundle);
            decides(&bundle, &requests(), Timestamp(1_700_000_000_000_000_000));
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let _ = render("fuzz.yaml", text, &problems);
        }
    }
});
