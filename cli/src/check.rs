//! `hawser check`: everything that protection needs, in groups, each line with a sign and, where something is to be
//! done, what. Looks with the caller's rights alone; what they do not show is a `?` that names the missing verb.

mod bindings;
mod pods;
mod release;
mod store;

use serde_json::json;

use crate::Found;
use crate::args::CheckArgs;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::print::Out;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// As it should be.
    Fine,
    /// It works, and somebody should look.
    Look,
    /// It does not work.
    Wrong,
    /// The caller may not see it.
    Unknown,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) sign: Sign,
    pub(crate) text: String,
    /// What to do; empty where nothing is.
    pub(crate) hint: String,
}

impl Line {
    pub(crate) fn fine(text: impl Into<String>) -> Line {
        Line { sign: Sign::Fine, text: text.into(), hint: String::new() }
    }

    pub(crate) fn look(text: impl Into<String>, hint: impl Into<String>) -> Line {
        Line { sign: Sign::Look, text: text.into(), hint: hint.into() }
    }

    pub(crate) fn wrong(text: impl Into<String>, hint: impl Into<String>) -> Line {
        Line { sign: Sign::Wrong, text: text.into(), hint: hint.into() }
    }

    /// What a question that failed says of `what`.
    pub(crate) fn failed(what: &str, failure: &Failure) -> Line {
        match failure {
            Failure::Right { verb, resource, namespace } => Line {
                sign: Sign::Unknown,
                text: format!("{what}: not known"),
                hint: format!("you may not {verb} {resource} in namespace {namespace}"),
            },
            failure => Line::wrong(format!("{what}: {}", crate::failure::chain(failure)), ""),
        }
    }
}

/// Runs every check.
pub(crate) async fn run(args: &CheckArgs, out: &mut Out) -> Result<Found, Failure> {
    let cluster = Cluster::connect(&args.kube).await?;
    let mut wrong = false;
    let mut show = |title: String, lines: Vec<Line>, out: &mut Out| {
        wrong |= lines.iter().any(|line| line.sign == Sign::Wrong);
        show(&title, &lines, out)
    };
    show("Hawser".into(), release::check(&cluster).await, out)?;
    let bindings = match cluster.bindings().await {
        Ok(bindings) => bindings,
        Err(failure) => {
            show(format!("Bindings of {}", cluster.namespace), vec![Line::failed("bindings", &failure)], out)?;
            out.flush()?;
            return Ok(if wrong { Found::Wrong } else { Found::Fine });
        }
    };
    show(format!("Namespace {}", cluster.namespace), bindings::namespace(&cluster, &bindings).await, out)?;
    for binding in &bindings {
        show(format!("Binding {}", crate::bindings::name(binding)), bindings::check(&cluster, binding).await, out)?;
    }
    show("Pods".into(), pods::check(&cluster, &bindings).await, out)?;
    if !bindings.is_empty() {
        show("Store".into(), store::check(&cluster).await, out)?;
    }
    out.flush()?;
    Ok(if wrong { Found::Wrong } else { Found::Fine })
}

fn show(title: &str, lines: &[Line], out: &mut Out) -> Result<(), Failure> {
    if out.json() {
        for line in lines {
            let sign = match line.sign {
                Sign::Fine => "fine",
                Sign::Look => "look",
                Sign::Wrong => "wrong",
                Sign::Unknown => "unknown",
            };
            out.object(&json!({ "group": title, "sign": sign, "text": line.text, "hint": line.hint }))?;
        }
        return Ok(());
    }
    if lines.is_empty() {
        return Ok(());
    }
    out.line(title)?;
    for line in lines {
        let sign = match line.sign {
            Sign::Fine => "✓",
            Sign::Look => "!",
            Sign::Wrong => "✗",
            Sign::Unknown => "?",
        };
        out.line(&format!("  {sign} {}", line.text))?;
        if !line.hint.is_empty() {
            out.line(&format!("      → {}", line.hint))?;
        }
    }
    out.line("")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::print::tests::Shown;

    #[test]
    fn each_line_has_its_sign_and_what_to_do() {
        let shown = Shown::default();
        let right = Failure::Right { verb: "list", resource: "pods", namespace: "shop".into() };
        let lines = [Line::fine("a"), Line::look("b", "do b"), Line::wrong("c", "do c"), Line::failed("pods", &right)];
        show("Group", &lines, &mut shown.out(false)).unwrap();
        let wanted = "Group\n  ✓ a\n  ! b\n      → do b\n  ✗ c\n      → do c\n  ? pods: not known\n      → you may not list pods in namespace shop\n\n";
        assert_eq!(shown.text(), wanted);
    }
}
