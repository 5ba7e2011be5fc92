//! What `[index]` says of where documents go: one reader for every kind of index.

use std::time::Duration;

use logmesh_runtime::config::{Root, Section};

#[cfg(feature = "elasticsearch")]
use super::elasticsearch::ElasticsearchOptions;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A kind of index, as `kind` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// The index for one machine.
    Embedded,
    /// Elasticsearch or OpenSearch.
    #[cfg(feature = "elasticsearch")]
    Elasticsearch,
}

impl IndexKind {
    fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            #[cfg(feature = "elasticsearch")]
            Self::Elasticsearch => "elasticsearch",
        }
    }
}

/// Where documents go.
#[derive(Clone, Debug)]
pub enum IndexOptions {
    /// Into the index for one machine.
    Embedded {
        /// Days that a document is kept after its arrival; `None` keeps all.
        retention_days: Option<u32>,
    },
    /// To servers.
    #[cfg(feature = "elasticsearch")]
    Elasticsearch(Box<ElasticsearchOptions>),
}

impl IndexOptions {
    /// Reads the section; faults are noted in `root`. A process takes some kinds only; the first of them is its default.
    ///
    /// # Panics
    /// When `kinds` is empty, which is a fault of the program.
    pub fn read(root: &Root, kinds: &[IndexKind]) -> Self {
        let section = root.section("index");
        let choices: Vec<_> = kinds.iter().map(|kind| (kind.name(), *kind)).collect();
        let kind = section.one_of("kind", choices[0].0, &choices);
        let retention_days = retention_days(&section);
        match kind {
            IndexKind::Embedded => Self::Embedded { retention_days },
            #[cfg(feature = "elasticsearch")]
            IndexKind::Elasticsearch => {
                Self::Elasticsearch(Box::new(ElasticsearchOptions::read(&section, retention_days)))
            }
        }
    }

    /// Days that a document is kept; `None` keeps all.
    #[must_use]
    pub fn retention_days(&self) -> Option<u32> {
        match self {
            Self::Embedded { retention_days } => *retention_days,
            #[cfg(feature = "elasticsearch")]
            Self::Elasticsearch(options) => options.retention_days,
        }
    }
}

fn retention_days(section: &Section) -> Option<u32> {
    let whole_days = DAY..=DAY * 36_500;
    let kept = section.is_set("retention").then(|| section.duration("retention", DAY, whole_days));
    kept.and_then(|kept| u32::try_from(kept.as_secs().div_ceil(DAY.as_secs())).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, kinds: &[IndexKind]) -> Result<IndexOptions, String> {
        let root = Root::parse(text, "logmesh.toml").expect("toml");
        let options = IndexOptions::read(&root, kinds);
        // What the processor itself reads of the section.
        root.section("index").text_opt("keep_original");
        root.finish().map(|_| options).map_err(|faults| faults.to_string())
    }

    #[test]
    fn retention_is_rounded_up_to_whole_days() {
        let days = |text: &str| read(text, &[IndexKind::Embedded]).expect("no fault").retention_days();
        assert_eq!(days(""), None);
        assert_eq!(days("[index]\nretention = '36h'"), Some(2));
    }

    #[test]
    #[cfg(not(feature = "elasticsearch"))]
    fn what_is_not_linked_is_not_accepted() {
        assert!(read("[index]\nkind = 'elasticsearch'", &[IndexKind::Embedded]).is_err());
    }

    #[cfg(feature = "elasticsearch")]
    mod on_servers {
        use super::*;
        use crate::index::elasticsearch::Authentication;

        fn servers(text: &str) -> Result<ElasticsearchOptions, String> {
            let text = format!("[index]\n{text}");
            read(&text, &[IndexKind::Elasticsearch]).map(|options| match options {
                IndexOptions::Elasticsearch(options) => *options,
                IndexOptions::Embedded { .. } => panic!("asked for servers"),
            })
        }

        const URLS: &str = "urls = ['https://es1:9200', 'https://es2:9200/prefix']\n";

        #[test]
        fn the_example_of_the_documentation_is_read() {
            let options = servers(
                "kind = 'elasticsearch'\nurls = ['https://es1:9200']\nusername = 'w'\ncompression = 'gzip'\nbulk_max = '8 MiB'\nretention = '30d'\ntls = { ca = '/etc/ca.pem' }\n[index.password]\nenv = 'PATH'",
            );
            // A variable that surely is set stands for the password.
            let Err(faults) = options else { panic!("only the process environment holds PATH") };
            assert!(faults.contains("PATH") && faults.lines().count() <= 3, "{faults}");
        }

        #[test]
        fn the_defaults_are_those_of_the_options() {
            let read = servers(URLS).expect("no fault");
            let new = ElasticsearchOptions::new(["https://es1:9200".into(), "https://es2:9200/prefix".into()]);
            assert_eq!(format!("{read:?}"), format!("{new:?}"));
            assert!(matches!(read.authentication, Authentication::None));
        }

        #[test]
        fn every_fault_is_said_with_its_cure() {
            for (text, words) in [
                ("", "name the servers"),
                ("urls = ['es1:9200']", "https://host:9200"),
                ("urls = ['ftp://es1']", "no address of an HTTP server"),
                ("urls = ['https://u:p@es1']", "set `username` and `password` instead"),
                ("urls = ['https://es1']\nusername = 'u'", "is useless without `password`"),
                ("urls = ['https://es1']\npassword = 'clear'", "a secret may not stand here"),
                ("urls = ['https://es1']\nbulk_max = '1 KiB'", "is not between"),
                ("urls = ['https://es1']\ncompression = 'zstd'", "not one of none, gzip"),
                ("urls = ['https://es1']\nurl = 'x'", "url"),
            ] {
                let Err(faults) = servers(text) else { panic!("`{text}` has a fault") };
                assert!(faults.contains(words), "`{text}`: {faults}");
                assert!(!faults.contains("u:p@"), "no password is shown: {faults}");
            }
        }

        #[test]
        fn one_way_to_say_who_we_are_is_enough() {
            let directory = tempfile::tempdir().expect("a directory");
            let file = directory.path().join("secret");
            std::fs::write(&file, "s3cret\n").expect("a file");
            let secret = format!("{{ file = '{}' }}", file.display());
            let key = servers(&format!("{URLS}api_key = {secret}")).expect("no fault");
            assert!(matches!(key.authentication, Authentication::ApiKey(key) if key.expose() == "s3cret"));
            let user = servers(&format!("{URLS}username = 'u'\npassword = {secret}")).expect("no fault");
            assert!(matches!(user.authentication, Authentication::Basic { username, .. } if username == "u"));
            let both = servers(&format!("{URLS}api_key = {secret}\nbearer = {secret}"));
            assert!(both.is_err_and(|faults| faults.contains("keep one of")));
            std::fs::write(&file, "two words\n").expect("a file");
            let odd = servers(&format!("{URLS}bearer = {secret}"));
            assert!(odd.is_err_and(|faults| faults.contains("no HTTP header can carry")));
        }

        #[test]
        fn a_process_without_an_index_of_its_own_takes_servers_only() {
            assert!(servers("kind = 'embedded'").is_err());
        }
    }
}
