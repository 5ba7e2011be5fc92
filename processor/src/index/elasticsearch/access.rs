//! What connections are made with: the nodes' addresses, the authority that we trust, and who we are.
//!
//! The last two may be renewed where they lie while the process runs. That is looked for when a node refuses us, or we it:
//! a renewal before that changes nothing that matters.

use std::{error::Error as StdError, io, path::Path};

use elasticsearch::{
    auth::Credentials,
    cert::{Certificate, CertificateValidation},
    http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder},
};

use super::{
    options::{Authentication, ElasticsearchOptions},
    transport::causes,
};

/// Why a cluster cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The CA's file cannot be read.
    #[error("the CA {path} of the index servers cannot be read: {source}; correct `tls.ca` in [index]")]
    ReadCa {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The CA's file holds no certificate.
    #[error("the CA {path} of the index servers holds no PEM certificate; correct `tls.ca` in [index]")]
    ParseCa {
        /// The file.
        path: String,
    },
    /// An address is none.
    #[error(
        "`{url}` is no address of an index server: {words}; write it as \"https://host:9200\" in `urls` of [index]"
    )]
    Url {
        /// As configured.
        url: String,
        /// Why.
        words: String,
    },
}

/// One way in, whole.
#[derive(Debug)]
pub(super) struct Access {
    /// One for each node, in the order of the options.
    transports: Vec<Transport>,
    authentication: Authentication,
    /// What the CA's file held.
    authority: Option<Vec<u8>>,
}

impl Access {
    pub(super) fn new(options: &ElasticsearchOptions) -> Result<Self, OpenError> {
        let authority = options.ca.as_deref().map(read_ca).transpose()?;
        Self::with(options, options.authentication.clone(), authority)
    }

    /// The same with what its files hold now, if that has changed; a file that cannot be read has not.
    pub(super) fn renewed(&self, options: &ElasticsearchOptions) -> Option<Result<Self, OpenError>> {
        let authentication = self.authentication.renewed();
        let authority = options.ca.as_deref().and_then(|path| read_ca(path).ok()).or_else(|| self.authority.clone());
        if authentication.is_none() && authority == self.authority {
            return None;
        }
        Some(Self::with(options, authentication.unwrap_or_else(|| self.authentication.clone()), authority))
    }

    fn with(
        options: &ElasticsearchOptions,
        authentication: Authentication,
        authority: Option<Vec<u8>>,
    ) -> Result<Self, OpenError> {
        let transport = |url: &String| {
            let wrong = |words: String| OpenError::Url { url: url.clone(), words };
            let parsed = reqwest::Url::parse(url).map_err(|error| wrong(error.to_string()))?;
            let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(parsed))
                .timeout(options.request_timeout)
                .enable_meta_header(false);
            if let Some(credentials) = credentials(&authentication) {
                builder = builder.auth(credentials);
            }
            if let Some(pem) = &authority {
                let certificate = Certificate::from_pem(pem).map_err(|_| OpenError::ParseCa {
                    path: options.ca.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
                })?;
                builder = builder.cert_validation(CertificateValidation::Full(certificate));
            }
            builder.build().map_err(|error| wrong(chain(&error)))
        };
        let transports = options.urls.iter().map(transport).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { transports, authentication, authority })
    }

    /// Of a node, by its place in the options.
    pub(super) fn transport(&self, node: usize) -> Option<&Transport> {
        self.transports.get(node)
    }
}

fn read_ca(path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path).map_err(|source| OpenError::ReadCa { path: path.display().to_string(), source })
}

fn credentials(authentication: &Authentication) -> Option<Credentials> {
    match authentication {
        Authentication::None => None,
        Authentication::Basic { username, password } => {
            Some(Credentials::Basic(username.clone(), password.expose().to_owned()))
        }
        // Elasticsearch shows keys in both forms.
        Authentication::ApiKey(key) => Some(match key.expose().split_once(':') {
            Some((id, secret)) => Credentials::ApiKey(id.to_owned(), secret.to_owned()),
            None => Credentials::EncodedApiKey(key.expose().to_owned()),
        }),
        Authentication::Bearer(token) => Some(Credentials::Bearer(token.expose().to_owned())),
    }
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use logmesh_runtime::config::Root;

    use super::*;

    fn key_of(access: &Access) -> String {
        match &access.authentication {
            Authentication::ApiKey(key) => key.expose().to_owned(),
            other @ (Authentication::None | Authentication::Basic { .. } | Authentication::Bearer(_)) => {
                format!("{other:?}")
            }
        }
    }

    #[test]
    fn another_secret_is_another_access_and_the_same_or_an_impossible_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("key");
        let write = |text: &str| std::fs::write(&file, text).expect("writable");
        write("one\n");
        let text = format!("[index]\nurls = [\"http://es1:9200\"]\napi_key = {{ file = {:?} }}\n", file.display());
        let root = Root::parse(&text, "logmesh.toml").expect("toml");
        let options = ElasticsearchOptions::read(&root.section("index"), None);
        let access = Access::new(&options).expect("possible");
        assert!(access.renewed(&options).is_none());
        write("with a blank\n");
        assert!(access.renewed(&options).is_none(), "no header carries it");
        write("two\n");
        let renewed = access.renewed(&options).expect("another one").expect("possible");
        assert_eq!(key_of(&renewed), "two");
        assert!(renewed.renewed(&options).is_none());
    }
}
