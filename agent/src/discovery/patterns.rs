//! Glob patterns: `*` and `?` within a name, `**` over directories, `[ab]`, `{a,b}`.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use thiserror::Error;

/// A pattern that cannot be read.
#[derive(Debug, Error)]
#[error("`{pattern}` is no pattern: {reason}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The files of one `[[agent.files]]`.
#[derive(Clone, Debug)]
pub struct Group {
    include: GlobSet,
    exclude: GlobSet,
    roots: BTreeMap<PathBuf, usize>,
}

impl Group {
    /// Reads patterns; relative ones stand for paths under `working_directory`.
    ///
    /// # Errors
    /// The first pattern that cannot be read.
    pub fn new(include: &[String], exclude: &[String], working_directory: &Path) -> Result<Self, PatternError> {
        let mut roots = BTreeMap::new();
        let mut included = Vec::new();
        // Walks meet neither doubled slashes nor dots.
        let normal = |pattern: &String| working_directory.join(pattern).components().collect::<PathBuf>();
        for pattern in include {
            let absolute = normal(pattern);
            let (root, depth) = root(&absolute);
            let deepest = roots.entry(root).or_insert(0);
            *deepest = depth.max(*deepest);
            included.push(absolute.to_string_lossy().into_owned());
        }
        let excluded = exclude.iter().map(|pattern| {
            // Such a pattern means any directory, not any below this one.
            if pattern.starts_with("**") { pattern.clone() } else { normal(pattern).to_string_lossy().into_owned() }
        });
        Ok(Self { include: set(&included)?, exclude: set(&excluded.collect::<Vec<_>>())?, roots })
    }

    /// The directories above the first wildcards, with how many levels of names are looked at below each.
    #[must_use]
    pub fn roots(&self) -> &BTreeMap<PathBuf, usize> {
        &self.roots
    }

    fn matches(&self, path: &Path) -> bool {
        self.include.is_match(path) && !self.exclude.is_match(path)
    }
}

fn set(patterns: &[String]) -> Result<GlobSet, PatternError> {
    let fault = |pattern: &str, error: &globset::Error| PatternError {
        pattern: pattern.into(),
        reason: error.kind().to_string(),
    };
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(glob(pattern).map_err(|error| fault(pattern, &error))?);
    }
    builder.build().map_err(|error| fault(&patterns.join(", "), &error))
}

fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()
}

/// The directory above the first wildcard, and how many levels below it names are looked at.
fn root(pattern: &Path) -> (PathBuf, usize) {
    let components: Vec<Component<'_>> = pattern.components().collect();
    let wild = |component: &Component<'_>| component.as_os_str().to_string_lossy().contains(['*', '?', '[', '{', '\\']);
    let literal = components.iter().position(wild).unwrap_or(components.len().saturating_sub(1));
    let root = components[..literal].iter().collect();
    let rest = &components[literal..];
    let recursive = rest.iter().any(|component| component.as_os_str().to_string_lossy().contains("**"));
    // A brace may hold separators: `{a/b,c}` reaches as deep as it has.
    let deep = rest.iter().any(|component| component.as_os_str().to_string_lossy().contains('{'));
    (root, if recursive || deep { usize::MAX } else { rest.len() })
}

/// All groups; a file belongs to the first one that matches it.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    groups: Vec<Group>,
    own: Vec<PathBuf>,
}

impl Patterns {
    /// Puts groups together.
    #[must_use]
    pub fn new(groups: Vec<Group>) -> Self {
        Self { groups, own: Vec::new() }
    }

    /// The same without what the agent itself writes, files and directories: to read that would write it.
    #[must_use]
    pub fn leaving(self, own: Vec<PathBuf>) -> Self {
        Self { own, ..self }
    }

    /// The group that a path belongs to.
    #[must_use]
    pub fn group(&self, path: &Path) -> Option<usize> {
        let group = self.groups.iter().position(|group| group.matches(path))?;
        (!self.own.iter().any(|own| path.starts_with(own))).then_some(group)
    }

    /// What is left alone, whatever matches it.
    #[must_use]
    pub fn own(&self) -> &[PathBuf] {
        &self.own
    }

    /// The directories to walk, and how many levels of names are looked at.
    #[must_use]
    pub fn roots(&self) -> BTreeMap<PathBuf, usize> {
        let mut all: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for (root, depth) in self.groups.iter().flat_map(|group| &group.roots) {
            let deepest = all.entry(root.clone()).or_insert(0);
            *deepest = (*depth).max(*deepest);
        }
        all
    }

    /// How many levels of names are looked at below a directory; `None` for one that no walk comes to.
    #[must_use]
    pub fn depth_below(&self, directory: &Path) -> Option<usize> {
        let roots = self.groups.iter().flat_map(|group| &group.roots);
        let below = roots.filter_map(|(root, depth)| {
            let levels = directory.strip_prefix(root).ok()?.components().count();
            depth.checked_sub(levels).filter(|left| *left > 0)
        });
        below.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(include: &[&str], exclude: &[&str]) -> Group {
        let own = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        Group::new(&own(include), &own(exclude), Path::new("/home")).unwrap()
    }

    #[test]
    fn stars_stay_within_names_and_double_stars_do_not() {
        let group = group(&["/var/log/*.log", "/srv/**/*.txt"], &["**/debug.*"]);
        for (path, matches) in [
            ("/var/log/a.log", true),
            ("/var/log/deep/a.log", false),
            ("/srv/a.txt", true),
            ("/srv/x/y/a.txt", true),
            ("/srv/x/debug.txt", false),
            ("/var/log/debug.log", false),
        ] {
            assert_eq!(group.matches(Path::new(path)), matches, "{path}");
        }
    }

    #[test]
    fn only_directories_that_can_hold_a_match_are_walked() {
        let group = group(&["/var/log/*.log", "/var/log/*/x/*.log", "/srv/**/*.txt", "/one/file", "near/*"], &[]);
        let roots = Patterns::new(vec![group]).roots();
        let expected = [("/home/near", 1), ("/one", 1), ("/srv", usize::MAX), ("/var/log", 3)];
        assert_eq!(roots, expected.map(|(root, depth)| (PathBuf::from(root), depth)).into());
    }

    #[test]
    fn a_directory_below_a_root_is_looked_into_as_deep_as_the_walk_would() {
        let patterns = Patterns::new(vec![group(&["/var/log/*/x/*.log", "/srv/**/*.txt", "/one/file"], &[])]);
        for (directory, depth) in [
            ("/var/log", Some(3)),
            ("/var/log/a", Some(2)),
            ("/var/log/a/b", Some(1)),
            ("/var/log/a/b/c", None),
            ("/srv/a", Some(usize::MAX - 1)),
            ("/one", Some(1)),
            ("/elsewhere", None),
        ] {
            assert_eq!(patterns.depth_below(Path::new(directory)), depth, "{directory}");
        }
    }

    #[test]
    fn doubled_slashes_and_dots_change_nothing() {
        let group = group(&["/var//log/./*.log", "./near/*"], &["near/b", "/var/./log//b.log"]);
        assert!(group.matches(Path::new("/var/log/a.log")) && group.matches(Path::new("/home/near/a")));
        assert!(!group.matches(Path::new("/var/log/b.log")) && !group.matches(Path::new("/home/near/b")));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = Group::new(&["/var/[log".into()], &[], Path::new("/")).unwrap_err();
        assert_eq!(error.pattern, "/var/[log");
    }
}
