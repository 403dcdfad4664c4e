//! Regular expressions as finite automata: compiled by the control plane, only run here.

use regex_automata::{
    Input,
    dfa::{Automaton as _, sparse::DFA},
};

/// An automaton whose bytes have been checked.
#[derive(Clone, Debug)]
pub(crate) struct Matcher(DFA<Vec<u8>>);

impl Matcher {
    /// Reads and checks an automaton; the error says what is wrong with it.
    pub(crate) fn new(dfa: &[u8]) -> Result<Self, String> {
        let (automaton, read) = DFA::from_bytes(dfa).map_err(|error| error.to_string())?;
        if read != dfa.len() {
            return Err(format!("{} bytes follow the automaton", dfa.len().saturating_sub(read)));
        }
        Ok(Self(automaton.to_owned()))
    }

    /// Whether it finds something in the text; `None` when it cannot tell, which a compiled expression
    /// never does.
    pub(crate) fn finds(&self, text: &str) -> Option<bool> {
        // The first match decides; where it ends does not matter.
        let input = Input::new(text).earliest(true);
        self.0.try_search_fwd(&input).ok().map(|found| found.is_some())
    }
}
