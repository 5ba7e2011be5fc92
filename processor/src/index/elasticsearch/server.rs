//! What answers at the addresses: product and version, as it says itself.

use std::fmt;

use serde_json::Value;

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Elastic's.
    Elasticsearch,
    /// The fork.
    OpenSearch,
}

impl fmt::Display for Product {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Elasticsearch => "Elasticsearch",
            Self::OpenSearch => "OpenSearch",
        })
    }
}

/// A server that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Which it is.
    pub product: Product,
    /// Its version, such as `8.19.21`.
    pub version: String,
}

impl Server {
    /// Reads the answer to `GET /`. `None` if neither product answers so.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let version = body.get("version")?;
        let number = version.get("number")?.as_str()?.to_owned();
        let product = match version.get("distribution").and_then(Value::as_str) {
            Some("opensearch") => Product::OpenSearch,
            Some(_) => return None,
            None => Product::Elasticsearch,
        };
        // What merely looks like it names itself otherwise.
        let tagline = body.get("tagline").and_then(Value::as_str).unwrap_or_default();
        let known = match product {
            Product::Elasticsearch => tagline == "You Know, for Search",
            Product::OpenSearch => true,
        };
        known.then_some(Self { product, version: number })
    }

    /// What is to be said of a version that logmesh was not run against.
    pub(super) fn caveat(&self) -> Option<String> {
        let major: u32 = self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or_default();
        let tried = match self.product {
            Product::Elasticsearch => 8..=9,
            Product::OpenSearch => 2..=3,
        };
        (!tried.contains(&major))
            .then(|| format!("{self} was not tried with logmesh; Elasticsearch 8 and 9 and OpenSearch 2 and 3 were"))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.product, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELASTICSEARCH: &str = r#"{"name":"n1","cluster_name":"c","cluster_uuid":"u","version":{"number":"8.19.21","build_flavor":"default","lucene_version":"9.12.2","minimum_wire_compatibility_version":"7.17.0"},"tagline":"You Know, for Search"}"#;
    const OPENSEARCH: &str = r#"{"name":"n1","cluster_name":"c","version":{"distribution":"opensearch","number":"2.19.4","build_type":"tar"},"tagline":"The OpenSearch Project: https://opensearch.org/"}"#;

    #[test]
    fn both_products_are_told_apart() {
        let read = |body: &str| Server::read(body.as_bytes()).map(|server| server.to_string());
        assert_eq!(read(ELASTICSEARCH).as_deref(), Some("Elasticsearch 8.19.21"));
        assert_eq!(read(OPENSEARCH).as_deref(), Some("OpenSearch 2.19.4"));
    }

    #[test]
    fn what_is_neither_is_not_taken_for_one() {
        for body in ["", "<html>", "{}", r#"{"version":"1"}"#, r#"{"version":{"number":"1.0"},"tagline":"hello"}"#] {
            assert_eq!(Server::read(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn an_untried_version_is_said() {
        let of = |product, version: &str| Server { product, version: version.into() }.caveat();
        assert!(of(Product::Elasticsearch, "7.17.1").is_some());
        assert!(of(Product::OpenSearch, "1.3.0").is_some());
        assert_eq!(of(Product::Elasticsearch, "9.1.0"), None);
        assert_eq!(of(Product::OpenSearch, "3.6.0"), None);
    }
}
