//! `logmesh certs`: the PKI of a mesh.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use logmesh_certs::{Authority, Existing, Request, Role, Validity, describe};
use logmesh_runtime::config::parse_duration;

/// The mesh's PKI: a CA, and certificates with identities.
#[derive(Debug, Subcommand)]
pub(crate) enum Certs {
    Init(Init),
    Issue(Issue),
    Show(Show),
}

/// Makes the CA of a new mesh.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logmesh certs init --dir pki --mesh example.com")]
pub(crate) struct Init {
    /// Directory for the CA; its private key stays there (mode 0600).
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Name of the mesh, which all identities begin with: spiffe://MESH/agent/NAME.
    #[arg(long, value_name = "NAME", default_value = "mesh")]
    mesh: String,
}

/// Issues a certificate for an agent or a gateway.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  logmesh certs issue agent edge-1 --dir pki --out edge-1
  logmesh certs issue gateway gw1 --dir pki --out gw1 --dns gw1.example.com --ip 192.0.2.7")]
pub(crate) struct Issue {
    /// What it is for. An agent's certificate cannot pass for a gateway's.
    role: RoleName,
    /// Its name within the mesh.
    name: String,
    /// Directory of the CA.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Directory for cert.pem, key.pem (mode 0600) and ca.pem.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Host name that a gateway is reached by; may be given several times.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// Address that a gateway is reached by; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// How long it is good.
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration)]
    validity: Duration,
    /// Replace what is there.
    #[arg(long)]
    replace: bool,
}

/// Says what a certificate says.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logmesh certs show edge-1/cert.pem --key edge-1/key.pem")]
pub(crate) struct Show {
    /// A PEM file.
    certificate: PathBuf,
    /// Also say whether this is its private key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Agent,
    Gateway,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
}

impl Certs {
    /// Does what was asked.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Init(init) => init.run(),
            Self::Issue(issue) => issue.run(),
            Self::Show(show) => show.run(),
        }
    }
}

impl Init {
    fn run(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        let authority = Authority::create(&self.mesh, Validity::authority(SystemTime::now()))?;
        authority.save(&self.dir)?;
        println!("made the CA of mesh `{}` in {}; keep ca-key.pem there and safe", self.mesh, self.dir.display());
        Ok(())
    }
}

impl Issue {
    fn run(&self) -> anyhow::Result<()> {
        let authority = Authority::load(&self.dir)?;
        let request = Request {
            role: match self.role {
                RoleName::Agent => Role::Agent,
                RoleName::Gateway => Role::Gateway,
            },
            name: self.name.clone(),
            dns: self.dns.clone(),
            ips: self.ip.clone(),
            validity: Validity::starting(SystemTime::now(), self.validity),
        };
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make {}", self.out.display()))?;
        let [certificate, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| self.out.join(name));
        if !self.replace
            && let Some(path) = [&certificate, &key, &ca].into_iter().find(|path| path.exists())
        {
            anyhow::bail!(
                "{} exists already and was left alone; choose another --out, or say --replace",
                path.display()
            );
        }
        let issued = authority.issue_recorded(&self.dir, &request)?;
        issued.save(&certificate, &key, Existing::Replace)?;
        copy_ca(&authority, &ca)?;
        println!("issued {} into {}", issued.identity, self.out.display());
        Ok(())
    }
}

fn copy_ca(authority: &Authority, path: &Path) -> anyhow::Result<()> {
    std::fs::write(path, authority.certificate_pem()).with_context(|| format!("cannot write {}", path.display()))
}

impl Show {
    fn run(&self) -> anyhow::Result<()> {
        let description = describe(&self.certificate, self.key.as_deref(), SystemTime::now())?;
        match &description.identity {
            Ok(identity) => println!("identity:  {identity}"),
            Err(reason) => println!("identity:  none ({reason})"),
        }
        println!("names:     {}", description.names.join(", "));
        println!("usages:    {}", description.usages.join(", "));
        println!("authority: {}", if description.authority { "yes" } else { "no" });
        println!("subject:   {}", description.subject);
        println!("issuer:    {}", description.issuer);
        println!("serial:    {}", description.serial);
        let state = if description.in_time { "good" } else { "NOT GOOD NOW" };
        let (first, last, days) = (&description.not_before, &description.not_after, description.days_left);
        println!("validity:  {first} to {last}, {days} days left, {state}");
        if let Some(matches) = description.key_matches {
            println!("key:       {}", if matches { "matches" } else { "does NOT match" });
        }
        Ok(())
    }
}
