//! What `[index]` says with `kind = "elasticsearch"`.

use std::{path::PathBuf, time::Duration};

use logmesh_runtime::config::{Secret, Section};

const MIB: u64 = 1 << 20;

/// How to speak to Elasticsearch or OpenSearch.
#[derive(Clone, Debug)]
pub struct ElasticsearchOptions {
    /// The nodes' addresses, at least one.
    pub urls: Vec<String>,
    /// Who we are.
    pub authentication: Authentication,
    /// PEM file with the CA that signed the servers' certificates, beside the well-known ones.
    pub ca: Option<PathBuf>,
    /// Request bodies are packed with gzip.
    pub gzip: bool,
    /// Bytes of a bulk request at most, uncompressed; a single larger document is sent by itself.
    pub bulk_bytes_max: usize,
    /// Bulk requests under way at most.
    pub concurrency_max: usize,
    /// From a request's first byte to its answer's last.
    pub request_timeout: Duration,
    /// Documents go to the data streams `logs-logmesh-<tenant>` instead of daily indices.
    pub data_streams: bool,
    /// Templates are installed at start, where that is allowed.
    pub install_templates: bool,
    /// Days after which the server removes documents by its own lifecycle management; `None` leaves it alone.
    pub retention_days: Option<u32>,
}

/// Who we are.
#[derive(Clone, Debug, Default)]
pub enum Authentication {
    /// Nobody in particular.
    #[default]
    None,
    /// A user.
    Basic {
        /// The user's name.
        username: String,
        /// The user's password.
        password: Secret,
    },
    /// An API key: as Elasticsearch encodes it, or `id:key`.
    ApiKey(Secret),
    /// A bearer token.
    Bearer(Secret),
}

impl Authentication {
    /// The same with what the secret's file holds now, if that is another one that a request can carry.
    pub(super) fn renewed(&self) -> Option<Self> {
        match self {
            Self::None => None,
            Self::Basic { username, password } => {
                Some(Self::Basic { username: username.clone(), password: password.renewed()? })
            }
            Self::ApiKey(key) => key.renewed().filter(fits_header).map(Self::ApiKey),
            Self::Bearer(token) => token.renewed().filter(fits_header).map(Self::Bearer),
        }
    }
}

/// Basic credentials are encoded; these go out as they are.
fn fits_header(secret: &Secret) -> bool {
    secret.expose().bytes().all(|byte| byte.is_ascii_graphic())
}

impl ElasticsearchOptions {
    /// The defaults, for the servers at these addresses.
    #[must_use]
    pub fn new(urls: impl IntoIterator<Item = String>) -> Self {
        Self {
            urls: urls.into_iter().collect(),
            authentication: Authentication::None,
            ca: None,
            gzip: false,
            bulk_bytes_max: 5 << 20,
            concurrency_max: 8,
            request_timeout: Duration::from_secs(30),
            data_streams: false,
            install_templates: true,
            retention_days: None,
        }
    }

    /// Reads the section; faults are noted in it. `kind` and `retention` are read by whoever chose this reader.
    pub(in crate::index) fn read(section: &Section, retention_days: Option<u32>) -> Self {
        let urls = section.texts("urls", &[]);
        if urls.is_empty() {
            section.fault("urls", "missing", "name the servers: urls = [\"https://es1:9200\"]");
        }
        for url in &urls {
            if let Err((what, cure)) = check_url(url) {
                section.fault("urls", format!("`{}` {what}", masked(url)), cure);
            }
        }
        let tls = section.table("tls");
        Self {
            authentication: authentication(section),
            ca: tls.and_then(|tls| tls.path_opt("ca")),
            gzip: section.one_of("compression", "none", &[("none", false), ("gzip", true)]),
            bulk_bytes_max: usize::try_from(section.size("bulk_max", 5 * MIB, 64 << 10..=64 * MIB)).unwrap_or(5 << 20),
            concurrency_max: usize::try_from(section.integer("concurrency_max", 8, 1..=64)).unwrap_or(8),
            request_timeout: section.duration(
                "request_timeout",
                Duration::from_secs(30),
                Duration::from_secs(1)..=Duration::from_secs(600),
            ),
            data_streams: section.flag("data_streams", false),
            install_templates: section.flag("install_templates", true),
            retention_days,
            urls,
        }
    }
}

fn authentication(section: &Section) -> Authentication {
    let api_key = section.secret("api_key");
    let bearer = section.secret("bearer");
    let username = section.text_opt("username");
    let password = section.secret("password");
    let set = |keys: &[&'static str]| keys.iter().copied().filter(|key| section.is_set(key)).collect::<Vec<_>>();
    if let [first, second, ..] = set(&["api_key", "bearer", "username"])[..] {
        let what = format!("stands beside `{first}`, and a request can carry one of them");
        section.fault(second, what, "keep one of api_key, bearer, and username with password");
    }
    if section.is_set("username") != section.is_set("password") {
        let (there, missing) =
            if section.is_set("username") { ("username", "password") } else { ("password", "username") };
        section.fault(there, format!("is useless without `{missing}`"), format!("set `{missing}` too"));
    }
    for (key, secret) in [("api_key", &api_key), ("bearer", &bearer)] {
        if secret.as_ref().is_some_and(|secret| !fits_header(secret)) {
            section.fault(
                key,
                "holds letters that no HTTP header can carry",
                "copy it again, without blanks around it",
            );
        }
    }
    match (api_key, bearer, username, password) {
        (Some(key), ..) => Authentication::ApiKey(key),
        (None, Some(token), ..) => Authentication::Bearer(token),
        (None, None, Some(username), Some(password)) => Authentication::Basic { username, password },
        (None, None, _, _) => Authentication::None,
    }
}

fn check_url(url: &str) -> Result<(), (String, &'static str)> {
    const CURE: &str = "write it as \"https://host:9200\"";
    let parsed = reqwest::Url::parse(url).map_err(|error| (format!("is no address: {error}"), CURE))?;
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
        return Err(("is no address of an HTTP server".to_owned(), CURE));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(("holds credentials".to_owned(), "set `username` and `password` instead"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(("has a query".to_owned(), CURE));
    }
    Ok(())
}

/// The address without what may be a password.
fn masked(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}
