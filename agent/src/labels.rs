//! What is said of all records of a group or an input: labels and the service.
//!
//! Bounded where they are configured: gateways refuse streams that bring more than 16 KiB of such words along, and processors
//! leave out labels beyond their bounds.

use std::collections::BTreeMap;

use logmesh_runtime::config::Section;

/// Labels of one group.
const LABELS_MAX: usize = 64;
/// Bytes of a label's name, and of the name of a service.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of a label's value.
const VALUE_BYTES_MAX: usize = 1024;
/// Bytes of all names and values of a group: with a path of any length they stay below what gateways take.
const BYTES_MAX: usize = 8 << 10;

/// Reads `labels`. Faults are noted.
pub(crate) fn read_labels(section: &Section) -> BTreeMap<String, String> {
    let labels = section.map("labels");
    let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    for (name, value) in &labels {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let what = format!("a label's name has {} bytes", name.len());
            section.fault("labels", what, format!("use 1 to {NAME_BYTES_MAX}"));
        }
        if value.len() > VALUE_BYTES_MAX {
            let what = format!("the label `{name}` has {} bytes", value.len());
            section.fault("labels", what, format!("use {VALUE_BYTES_MAX} at most"));
        }
    }
    if labels.len() > LABELS_MAX || bytes > BYTES_MAX {
        let what = format!("{} labels have {bytes} bytes", labels.len());
        section.fault("labels", what, format!("use {LABELS_MAX} with {BYTES_MAX} bytes at most, names included"));
    }
    labels
}

/// Reads `service`. Faults are noted.
pub(crate) fn read_service(section: &Section) -> String {
    let service = section.text("service", "");
    if service.len() > NAME_BYTES_MAX {
        let what = format!("the name of the service has {} bytes", service.len());
        section.fault("service", what, format!("use {NAME_BYTES_MAX} at most"));
    }
    service
}

#[cfg(test)]
mod tests {
    use logmesh_runtime::config::Root;

    use crate::config::Config;

    fn faults(keys: &str) -> String {
        let text = format!(
            "[[agent.files]]\ninclude = [\"/a\"]\n{keys}\n[[agent.inputs]]\nkind = \"syslog\"\nlisten = [\"udp://127.0.0.1:0\"]\n{keys}\n"
        );
        let root = Root::parse(&text, "logmesh.toml").unwrap();
        Config::read(&root);
        root.finish().map(|_| String::new()).unwrap_or_else(|faults| faults.to_string())
    }

    #[test]
    fn what_no_gateway_or_processor_would_take_is_told_with_its_place_for_files_and_inputs() {
        assert_eq!(faults(&format!("service = \"web\"\nlabels = {{ a = \"{}\", b = \"\" }}", "x".repeat(1024))), "");
        let many: Vec<String> = (0..65).map(|number| format!("l{number} = \"x\"")).collect();
        let large: Vec<String> = (0..9).map(|number| format!("l{number} = \"{}\"", "x".repeat(1000))).collect();
        for (keys, word) in [
            (format!("labels = {{ a = \"{}\" }}", "x".repeat(1025)), "`a` has 1025 bytes"),
            (format!("labels = {{ {} = \"x\" }}", "n".repeat(257)), "name has 257 bytes"),
            ("labels = { \"\" = \"x\" }".to_owned(), "name has 0 bytes"),
            (format!("labels = {{ {} }}", many.join(", ")), "65 labels"),
            (format!("labels = {{ {} }}", large.join(", ")), "9 labels have 9018 bytes"),
            (format!("service = \"{}\"", "s".repeat(257)), "service has 257 bytes"),
        ] {
            let faults = faults(&keys);
            for part in ["logmesh.toml:3", "logmesh.toml:7", word] {
                assert!(faults.contains(part), "{part:?} is not in\n{faults}");
            }
        }
    }
}
