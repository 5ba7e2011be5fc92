//! What is kept, as it is configured in `[[agent.files]]`.

use logmesh_runtime::config::Section;

use super::{Level, Share, Sift};

/// What is kept, as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiftConfig {
    /// Only records that one of these matches; all where there is none.
    pub include_lines: Vec<String>,
    /// No record that one of these matches.
    pub exclude_lines: Vec<String>,
    /// No record that is known to be less severe.
    pub level_min: Option<Level>,
    /// Of what is left, this share.
    pub sample: Option<Share>,
}

impl SiftConfig {
    /// Reads it from a group of files. Faults are noted in `section`.
    pub(crate) fn read(section: &Section) -> Self {
        let level_min = section.text_opt("level_min").and_then(|name| {
            let known = Level::NAMES.iter().find(|(known, _)| *known == name);
            if known.is_none() {
                let names: Vec<&str> = Level::NAMES.iter().map(|(name, _)| *name).collect();
                section.fault(
                    "level_min",
                    format!("`{name}` is no level"),
                    format!("write one of {}", names.join(", ")),
                );
            }
            known.map(|(_, level)| *level)
        });
        let sample = section.text_opt("sample").and_then(|text| {
            let share = text.parse().map_err(|what: String| section.fault("sample", what, "write \"10%\" or \"0.5%\""));
            share.ok()
        });
        let sift = Self {
            include_lines: section.texts("include_lines", &[]),
            exclude_lines: section.texts("exclude_lines", &[]),
            level_min,
            sample,
        };
        if let Err(error) = Sift::new(&sift) {
            let cure = "write a regular expression without look-around and back-references, classes of ASCII only";
            section.fault(error.key, error.to_string(), cure);
        }
        sift
    }
}

#[cfg(test)]
mod tests {
    use logmesh_runtime::config::Root;

    use super::*;
    use crate::Config;

    fn read(keys: &str) -> Result<SiftConfig, String> {
        let text = format!("[[agent.files]]\ninclude = [\"/a/*.log\"]\n{keys}\n");
        let root = Root::parse(&text, "logmesh.toml").unwrap();
        let config = Config::read(&root);
        root.finish().map(|_| config.files[0].sift.clone()).map_err(|faults| faults.to_string())
    }

    #[test]
    fn every_way_to_say_what_is_kept_is_read() {
        assert_eq!(read("").unwrap(), SiftConfig::default());
        for (name, level) in Level::NAMES {
            assert_eq!(read(&format!("level_min = \"{name}\"")).unwrap().level_min, Some(level));
        }
        let sift = read("include_lines = ['^a']\nexclude_lines = ['b', 'c$']\nsample = \"2.5%\"").unwrap();
        assert_eq!((sift.include_lines, sift.exclude_lines), (vec!["^a".into()], vec!["b".into(), "c$".into()]));
        assert_eq!(sift.sample, Some("2.5%".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_kept_to_is_told_with_its_place_and_a_cure() {
        for (keys, parts) in [
            ("level_min = \"loud\"", ["logmesh.toml:3", "`loud`", "trace, debug, info"]),
            ("sample = \"a tenth\"", ["logmesh.toml:3", "\"a tenth\"", "\"10%\""]),
            ("sample = \"110%\"", ["logmesh.toml:3", "more than all", "\"10%\""]),
            ("include_lines = ['a', '(b']", ["logmesh.toml:3", "`(b`", "unclosed group"]),
            ("exclude_lines = ['a(?=b)']", ["logmesh.toml:3", "look-around", "without look-around"]),
        ] {
            let faults = read(keys).unwrap_err();
            for part in parts {
                assert!(faults.contains(part), "{keys}: {part:?} is not in\n{faults}");
            }
        }
    }
}
