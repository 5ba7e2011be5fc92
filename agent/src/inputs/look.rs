//! Trying inputs out: what `logmesh check --connect` says of them.
//!
//! Looks at what they need on this machine, and starts nothing: the agent may be at work.

use std::{env, ffi::OsString, fs, os::unix::fs::PermissionsExt as _, path::Path};

use logmesh_runtime::finding::{Finding, Verdict};

use super::{
    config::{InputConfig, Kind},
    syslog::TlsFiles,
};

/// Looks for the certificates and programs of inputs.
pub(crate) fn look(inputs: &[InputConfig]) -> Vec<Finding> {
    inputs.iter().filter_map(look_at).collect()
}

/// `None` where there is nothing that could be missing.
fn look_at(input: &InputConfig) -> Option<Finding> {
    let (found, cure) = match &input.kind {
        Kind::Stdin(_) => return None,
        Kind::Syslog(config) => {
            let loaded = TlsFiles::load(config.tls.clone()?).map_err(|error| error.to_string());
            (loaded.map(|_| "its certificate can be used".to_owned()), "correct its `tls`")
        }
        Kind::Journald(config) => {
            (program(&config.journalctl), "install systemd, or write the program's whole path in `journalctl`")
        }
        Kind::Command(config) => (program(config.command.first()?), "install it, or write its whole path in `command`"),
    };
    let subject = format!("input {}", input.name);
    Some(match found {
        Ok(words) => Finding::new(subject, Verdict::Good, words),
        Err(words) => Finding::new(subject, Verdict::Bad, words).cured_by(cure),
    })
}

/// Finds a program as it would be found to be run: by its path, or in the directories of `PATH`.
fn program(name: &str) -> Result<String, String> {
    // No directory at all is the one that we are in.
    let directories = if name.contains('/') { OsString::new() } else { env::var_os("PATH").unwrap_or_default() };
    let found = env::split_paths(&directories).map(|directory| directory.join(name)).find(|path| is_program(path));
    found.map(|path| format!("runs {}", path.display())).ok_or_else(|| format!("there is no program `{name}`"))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use logmesh_runtime::config::Root;

    use super::*;
    use crate::config::Config;

    #[test]
    fn what_an_input_lacks_is_told_with_a_cure_and_one_that_lacks_nothing_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let no_program = directory.path().join("notes");
        fs::write(&no_program, "text").unwrap();
        let text = format!(
            "[[agent.inputs]]\nkind = \"stdin\"\n\
             [[agent.inputs]]\nname = \"shell\"\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"true\"]\n\
             [[agent.inputs]]\nname = \"notes\"\nkind = \"command\"\ncommand = [{no_program:?}]\n\
             [[agent.inputs]]\nkind = \"journald\"\njournalctl = \"no-journalctl\"\n\
             [[agent.inputs]]\nname = \"plain\"\nkind = \"syslog\"\nlisten = [\"tcp://[::]:601\"]\n\
             [[agent.inputs]]\nname = \"tls\"\nkind = \"syslog\"\nlisten = [\"tls://[::]:6514\"]\n\
             tls = {{ cert = \"/nonexistent/cert.pem\", key = \"/nonexistent/key.pem\" }}\n"
        );
        let root = Root::parse(&text, "logmesh.toml").unwrap();
        let config = Config::read(&root);
        root.finish().unwrap();
        let told: Vec<String> = look(&config.inputs).iter().map(ToString::to_string).collect();
        let [shell, notes, journald, tls] = told.as_slice() else { panic!("{told:?}") };
        assert!(shell.starts_with("good      input shell: runs /") && shell.ends_with("/sh"), "{shell}");
        assert!(notes.starts_with("bad       input notes: there is no program `/"), "{notes}");
        assert!(notes.ends_with("/notes`; install it, or write its whole path in `command`"), "{notes}");
        assert!(journald.starts_with("bad       input journald: there is no program `no-journalctl`; "), "{journald}");
        assert!(
            tls.contains("input tls: /nonexistent/cert.pem cannot be read: ") && tls.ends_with("; correct its `tls`"),
            "{tls}"
        );
    }
}
