use super::super::read as read_bytes;
use anyhow::{Context, Result, bail};
use halftone_compiler::{Subject, Tree, render};
use halftone_judge::{Judge, Policy};
use std::path::Path;

const POLICY: Subject = Subject { one: "policy", many: "policies", start: "metrics:" };

/// A policy from YAML or JSON. What is wrong is shown where it is.
pub(super) fn read(path: &Path) -> Result<Judge> {
    let file = path.display().to_string();
    let text = String::from_utf8(read_bytes(path)?).with_context(|| format!("{file} is not UTF-8"))?;
    let problems = |shown: String| format!("the policy cannot be used\n{}", shown.trim_end());
    let tree = match Tree::read(&text, POLICY) {
        Ok(tree) => tree,
        Err(found) => bail!(problems(render(&file, &text, &found))),
    };
    let policy: Policy = match serde_path_to_error::deserialize(tree.value()) {
        Ok(policy) => policy,
        Err(error) => {
            let place = error.path().to_string();
            let found = tree.problem(&place, &error.inner().to_string(), None);
            bail!(problems(render(&file, &text, &found)));
        }
    };
    Judge::new(policy).map_err(|found| {
        let shown = found.iter().flat_map(|problem| {
            let message = format!("`{}` cannot be used", problem.field);
            tree.problem(&problem.field, &message, Some(&problem.message))
        });
        anyhow::anyhow!(problems(render(&file, &text, &shown.collect::<Vec<_>>())))
    })
}
