//! How an environment is written.

use std::collections::BTreeMap;

use clap::ValueEnum;
use control_plane::dotenv;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// A way to write variables down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// KEY=VALUE lines, as `claviger env push` and `claviger set import` read them
    Dotenv,
    /// One object
    Json,
    /// Lines for a POSIX shell to source
    Shell,
}

/// Writes all variables, in the order of their names.
pub(super) fn write(
    format: Format,
    variables: &BTreeMap<String, Zeroizing<String>>,
) -> Result<Zeroizing<String>, Failure> {
    match format {
        Format::Dotenv => Ok(all(variables, dotenv::line)),
        Format::Json => json(variables),
        Format::Shell => {
            let held = variables.iter().find(|(_, value)| value.contains('\0'));
            match held {
                None => Ok(all(variables, shell)),
                Some((name, _)) => Err(Failure::new(format!(
                    "the value of {name} has a NUL in it, which no shell holds"
                ))
                .hint("write it with --format json")),
            }
        }
    }
}

fn all(
    variables: &BTreeMap<String, Zeroizing<String>>,
    line: fn(&str, &str) -> Zeroizing<String>,
) -> Zeroizing<String> {
    let lines: Vec<Zeroizing<String>> = variables
        .iter()
        .map(|(name, value)| line(name, value))
        .collect();
    let mut document = Zeroizing::new(String::with_capacity(
        lines.iter().map(|line| line.len()).sum(),
    ));
    for line in &lines {
        document.push_str(line);
    }
    document
}

fn json(variables: &BTreeMap<String, Zeroizing<String>>) -> Result<Zeroizing<String>, Failure> {
    let plain: BTreeMap<&str, &str> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let document = serde_json::to_string(&plain);
    let mut document = Zeroizing::new(document.map_err(|error| Failure::new(error.to_string()))?);
    document.push('\n');
    Ok(document)
}

/// In single quotes nothing has a meaning but the quote itself (POSIX, Shell Command Language, section 2.2.2).
fn shell(name: &str, value: &str) -> Zeroizing<String> {
    let quoted = Zeroizing::new(value.replace('\'', r"'\''"));
    Zeroizing::new(format!("export {name}='{}'\n", *quoted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, Zeroizing<String>> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Zeroizing::new((*value).to_owned())))
            .collect()
    }

    #[test]
    fn each_format_holds_every_value() {
        let variables = variables(&[("B", "it's $x\n`y`"), ("A", "1")]);
        let written = |format| write(format, &variables).unwrap().to_string();
        assert_eq!(written(Format::Dotenv), "A=1\nB=\"it's \\$x\\n`y`\"\n");
        assert_eq!(
            written(Format::Json),
            "{\"A\":\"1\",\"B\":\"it's $x\\n`y`\"}\n"
        );
        assert_eq!(
            written(Format::Shell),
            "export A='1'\nexport B='it'\\''s $x\n`y`'\n"
        );
    }

    #[test]
    fn a_shell_reads_back_what_was_written() {
        let value = "it's \"$HOME\" `id` \\ # \n\t!*";
        let script = write(Format::Shell, &variables(&[("A", value)])).unwrap();
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("{}printf %s \"$A\"", *script)])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
    }

    #[test]
    fn a_nul_is_refused_where_it_would_cut_the_value() {
        let variables = variables(&[("A", "x\0y")]);
        assert!(write(Format::Shell, &variables).is_err());
        assert!(write(Format::Json, &variables).unwrap().contains("\\u0000"));
    }
}
