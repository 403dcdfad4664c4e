//! Reads where requests without a unit get one from.

use super::{
    fields::Fields,
    reader::Reader,
    shape::{UNIT_COOKIE, same_sites},
};
use crate::{diagnostic::Code, suggest::did_you_mean, yaml::Node};
use halftone_rules::{
    anonymous::{SameSite, UnitCookie},
    limits::MAX_NAME_BYTES,
};
use std::time::Duration;

const DEFAULT_NAME: &str = "halftone-unit";
/// A year.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Browsers keep no cookie for longer than 400 days.
const MAX_AGE: Duration = Duration::from_secs(400 * 24 * 3600);

impl Reader<'_, '_> {
    pub(super) fn unit_cookie(&mut self, node: Node) -> Option<UnitCookie> {
        let mut fields = Fields::of(node, &UNIT_COOKIE, self.diagnostics)?;
        let name = fields.optional("name");
        let name_span = name.as_ref().map(|node| node.span.clone());
        let name = match name {
            Some(node) => self.cookie_name(&node)?,
            None => DEFAULT_NAME.to_owned(),
        };
        let max_age_seconds = match fields.optional("max_age") {
            Some(node) => self.duration(&node, "max_age", Duration::ZERO..=MAX_AGE)?.as_secs(),
            None => DEFAULT_MAX_AGE.as_secs(),
        };
        let max_age_seconds = u32::try_from(max_age_seconds).unwrap_or(u32::MAX);
        let same_site_node = fields.optional("same_site");
        let same_site = match &same_site_node {
            Some(node) => self.same_site(node)?,
            None => SameSite::Lax,
        };
        let secure = match fields.optional("secure") {
            Some(node) => self.bool(&node, "`secure`")?,
            None => true,
        };
        if let (Some(node), SameSite::None, false) = (&same_site_node, same_site, secure) {
            let help = "write `secure: true`, or another value for `same_site`";
            self.wrong(
                &node.span,
                "browsers refuse a cookie with `same_site: none` that is not secure",
                help,
            );
        }
        if let Some(span) = name_span.filter(|_| !secure && name.starts_with("__")) {
            let help = "write `secure: true`, or another name";
            self.wrong(&span, format!("browsers refuse a cookie `{name}` that is not secure"), help);
        }
        Some(UnitCookie { name, max_age_seconds, same_site, secure })
    }

    fn cookie_name(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node, "a cookie's name")?;
        if !UnitCookie::is_name(&name.value) || name.value.len() > MAX_NAME_BYTES {
            let message = format!("{:?} is not a cookie's name", name.value);
            let help = format!("use letters, digits, `_` and `-`, at most {MAX_NAME_BYTES}");
            self.diagnostics.report_with_help(Code::InvalidName, &name.span, message, help);
            return None;
        }
        Some(name.value)
    }

    fn same_site(&mut self, node: &Node) -> Option<SameSite> {
        let word = self.text(node, "`same_site`")?;
        let found = SameSite::ALL.into_iter().find(|site| site.name().eq_ignore_ascii_case(&word.value));
        if found.is_none() {
            let help = did_you_mean(&word.value, same_sites());
            self.wrong(&word.span, format!("`same_site` has no value {:?}", word.value), &help);
        }
        found
    }

    /// `true` or `false`.
    fn bool(&mut self, node: &Node, what: &str) -> Option<bool> {
        let text = self.text(node, what)?;
        match text.value.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.wrong(&text.span, format!("{what} is true or false"), "write `true` or `false`");
                None
            }
        }
    }
}
