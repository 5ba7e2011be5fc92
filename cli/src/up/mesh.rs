//! The mesh of one process: a CA in the data directory, a certificate for its gateway, one for its agent.
//!
//! `up` talks to itself as a cluster would, so that nothing is proven on a shortcut; clients elsewhere get certificates
//! from the same CA with `logmesh certs issue`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use logmesh_certs::{
    Authority, AuthorityError, Existing, Request, Role, TlsError, TlsFiles, TlsSource, Validity, describe,
};

/// Name of the mesh that `up` makes.
const MESH: &str = "local";

/// A certificate with less left is renewed at start.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why there is no mesh.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeshError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Both ends' TLS.
pub(crate) struct Mesh {
    directory: PathBuf,
    authority: Authority,
    wanted: Wanted,
    pub(crate) gateway: Arc<TlsSource>,
    pub(crate) agent: Arc<TlsSource>,
    /// What all identities of the mesh begin with, for policies: `spiffe://local/agent/*`.
    pub(crate) agents: String,
}

impl Mesh {
    /// Opens the mesh in `directory`, or makes it. The gateway's certificate is good for loopback, for `host`, and for
    /// the address it listens on.
    pub(crate) fn open(directory: &Path, host: &str, listen: IpAddr, now: SystemTime) -> Result<Self, MeshError> {
        let authority = Authority::load_or_create(directory, MESH, now)?;
        let wanted = Wanted::new(host, listen);
        let (gateway, agent) = wanted.ensure(&authority, directory, now)?;
        Ok(Self {
            gateway: TlsSource::load(gateway)?,
            agent: TlsSource::load(agent)?,
            agents: format!("spiffe://{}/agent/*", authority.mesh()),
            directory: directory.to_owned(),
            authority,
            wanted,
        })
    }

    /// Renews certificates that are near their end, and takes in whatever has changed on disk. Blocks for a moment.
    pub(crate) fn renew(&self, now: SystemTime) -> Result<(), MeshError> {
        self.wanted.ensure(&self.authority, &self.directory, now)?;
        self.gateway.reload()?;
        self.agent.reload()?;
        Ok(())
    }
}

/// What both certificates must say.
struct Wanted {
    name: String,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
}

impl Wanted {
    fn new(host: &str, listen: IpAddr) -> Self {
        let mut ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if !listen.is_loopback() && !listen.is_unspecified() {
            ips.push(listen);
        }
        let dns = ["localhost", host].into_iter().filter(|name| is_host_name(name)).map(str::to_owned).collect();
        Self { name: identity_name(host), dns, ips }
    }

    /// The files of the gateway's and the agent's certificate, issued anew where they are not good enough.
    fn ensure(
        &self,
        authority: &Authority,
        directory: &Path,
        now: SystemTime,
    ) -> Result<(TlsFiles, TlsFiles), MeshError> {
        let (name, validity) = (self.name.clone(), Validity::leaf(now));
        let (dns, ips) = (self.dns.clone(), self.ips.clone());
        let gateway = Request { role: Role::Gateway, name: name.clone(), dns, ips, validity };
        let agent = Request { role: Role::Agent, name, dns: Vec::new(), ips: Vec::new(), validity };
        Ok((
            ensure(authority, directory, "gateway", &gateway, now)?,
            ensure(authority, directory, "agent", &agent, now)?,
        ))
    }
}

/// Keeps a certificate that is good for what is asked and long enough, or issues one.
fn ensure(
    authority: &Authority,
    directory: &Path,
    name: &str,
    request: &Request,
    now: SystemTime,
) -> Result<TlsFiles, MeshError> {
    let path = |suffix: &str| -> PathBuf { directory.join(format!("{name}{suffix}")) };
    let crl = directory.join("crl.pem");
    let files = TlsFiles {
        cert: path(".pem"),
        key: path("-key.pem"),
        ca: directory.join("ca.pem"),
        crl: crl.exists().then_some(crl),
    };
    if !is_good(&files, request, now) {
        authority.issue_recorded(directory, request)?.save(&files.cert, &files.key, Existing::Replace)?;
    }
    Ok(files)
}

fn is_good(files: &TlsFiles, request: &Request, now: SystemTime) -> bool {
    let Ok(source) = TlsSource::load(files.clone()) else { return false };
    let Ok(description) = describe(&files.cert, Some(&files.key), now) else { return false };
    let has = |wanted: String| description.names.contains(&wanted);
    source.expires_at().duration_since(now).is_ok_and(|left| left > RENEW_BEFORE)
        && source.identity().name() == request.name
        && request.ips.iter().all(|ip| has(format!("IP {ip}")))
        && request.dns.iter().all(|name| has(format!("DNS {name}")))
}

/// A host name as the last part of an identity: what is not allowed there becomes `-`.
fn identity_name(host: &str) -> String {
    let name: String =
        host.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    if name.trim_matches(['-', '.']).is_empty() { "host".to_owned() } else { name }
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty() && name.len() < 254 && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_mesh_is_made_once_and_kept() {
        let directory = tempfile::tempdir().expect("scratch");
        let now = SystemTime::now();
        let first = Mesh::open(directory.path(), "edge 1", LOOPBACK, now).expect("made");
        let certificate = std::fs::read(&first.agent.files().cert).expect("read");
        let second = Mesh::open(directory.path(), "edge 1", LOOPBACK, now).expect("opened");
        assert_eq!(std::fs::read(&second.agent.files().cert).expect("read"), certificate);
        assert_eq!(second.agent.identity().as_str(), "spiffe://local/agent/edge-1");
    }

    #[test]
    fn certificates_near_their_end_are_renewed_at_start() {
        let directory = tempfile::tempdir().expect("scratch");
        let now = SystemTime::now();
        let long_ago = now - Duration::from_secs(70 * 24 * 60 * 60);
        let first = Mesh::open(directory.path(), "edge", LOOPBACK, long_ago).expect("made");
        let second = Mesh::open(directory.path(), "edge", LOOPBACK, now).expect("opened");
        assert!(second.agent.expires_at() > first.agent.expires_at());
    }

    #[test]
    fn a_running_mesh_renews_and_takes_the_new_certificates_in() {
        let directory = tempfile::tempdir().expect("scratch");
        let now = SystemTime::now();
        let mesh = Mesh::open(directory.path(), "edge", LOOPBACK, now).expect("made");
        let (before, generation) = (mesh.agent.expires_at(), mesh.agent.generation());
        mesh.renew(now + Duration::from_secs(24 * 60 * 60)).expect("nothing to do");
        assert_eq!(mesh.agent.expires_at(), before);
        mesh.renew(now + Duration::from_secs(70 * 24 * 60 * 60)).expect_err("not valid yet by the machine's clock");
        assert_eq!(mesh.agent.expires_at(), before, "a failed reload keeps what it has");
        assert!(mesh.agent.generation() >= generation);
    }

    #[test]
    fn an_address_that_another_begins_with_is_another() {
        let directory = tempfile::tempdir().expect("scratch");
        let now = SystemTime::now();
        let longer: IpAddr = "192.0.2.77".parse().expect("address");
        let shorter: IpAddr = "192.0.2.7".parse().expect("address");
        Mesh::open(directory.path(), "edge", longer, now).expect("made");
        let mesh = Mesh::open(directory.path(), "edge", shorter, now).expect("opened");
        let description = describe(&mesh.gateway.files().cert, None, now).expect("described");
        assert!(description.names.contains(&"IP 192.0.2.7".to_owned()), "{:?}", description.names);
    }

    #[test]
    fn a_new_address_gets_a_certificate_that_names_it() {
        let directory = tempfile::tempdir().expect("scratch");
        let now = SystemTime::now();
        Mesh::open(directory.path(), "edge", LOOPBACK, now).expect("made");
        let outside: IpAddr = "192.0.2.7".parse().expect("address");
        let mesh = Mesh::open(directory.path(), "edge", outside, now).expect("opened");
        let description = describe(&mesh.gateway.files().cert, None, now).expect("described");
        assert!(description.names.iter().any(|name| name.contains("192.0.2.7")), "{:?}", description.names);
    }
}
