//! The PKI of a mesh.
//!
//! Owns what certificates mean here: identities ([`Identity`]), the authority that issues them ([`Authority`]), the
//! reading, checking and swapping of a process's own certificate, key, CA and CRL ([`TlsSource`]), and the words for
//! a refused handshake ([`Refusal`]). It does not own sockets: callers ask for a rustls configuration for each
//! connection and run the handshake themselves.
//!
//! Invariants: TLS 1.3 only, both sides authenticated; the role (agent or gateway) is in the certificate's URI SAN and
//! in its extended key usage, and both must agree; what is loaded is valid as a whole or not used at all.

mod authority;
mod description;
mod error;
mod files;
mod identity;
mod material;
mod refusal;
mod serial;
mod source;
mod verify;

pub use authority::{Authority, AuthorityError, Issued, IssuedEntry, Request, Validity};
pub use description::{Description, describe};
pub use error::TlsError;
pub use files::Existing;
pub use identity::{Identity, IdentityError, Role, peer};
pub use material::TlsFiles;
pub use refusal::{Observed, Reason, Refusal};
pub use serial::Serial;
pub use source::TlsSource;
