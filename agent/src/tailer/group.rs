//! What is said of a group of files beside its streams and its records.

use crate::{kubernetes::Kubernetes, sift::Sift};

/// See the module. By default nothing is said.
#[derive(Clone, Debug)]
pub struct GroupRules {
    /// Which of its records are kept.
    pub sift: Sift,
    /// At what rate its files are read at most, all together, in bytes a second.
    pub rate_limit: Option<u64>,
    /// The share of each of its files, compared with one of weight 1, when more is written than leaves.
    pub weight: u32,
    /// Where paths tell namespace, pod and container.
    pub kubernetes: Kubernetes,
}

impl Default for GroupRules {
    fn default() -> Self {
        Self { sift: Sift::default(), rate_limit: None, weight: 1, kubernetes: Kubernetes::default() }
    }
}
