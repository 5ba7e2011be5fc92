//! What the path of a container's log says of it: namespace, pod and container, without asking anyone.
//!
//! The kubelet names logs `/var/log/pods/<namespace>_<pod>_<uid>/<container>/<restarts>.log` (and adds a time where it
//! rotates them), and keeps links `/var/log/containers/<pod>_<namespace>_<container>-<container id>.log` to them. Names
//! in Kubernetes have no underscore, so such a path can be read in one way only; what does not follow the layout to the
//! letter says nothing. Pure.

use std::path::{Component, Path};

/// Where paths are believed to be the kubelet's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kubernetes {
    /// Under `/var/log`.
    #[default]
    Auto,
    /// Under any directory, as where a host's `/var/log` is mounted elsewhere.
    On,
    /// Nowhere.
    Off,
}

impl Kubernetes {
    /// All names with what they mean.
    pub const NAMES: [(&str, Self); 3] = [("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)];

    /// What a path says.
    #[must_use]
    pub fn read(self, path: &Path) -> Option<Container> {
        let container = read(path)?;
        let root = path.ancestors().nth(if container.uid.is_some() { 4 } else { 2 })?;
        let is_believed = match self {
            Self::Auto => root == Path::new("/var/log"),
            Self::On => true,
            Self::Off => false,
        };
        is_believed.then_some(container)
    }
}

/// A container, as far as the path of its log tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its name within the pod.
    pub name: String,
    /// The pod's uid; a path under `pods` has it.
    pub uid: Option<String>,
    /// Its own id; a path under `containers` has it.
    pub id: Option<String>,
}

impl Container {
    /// Labels of its records.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let known = [
            ("kubernetes_namespace", Some(&self.namespace)),
            ("kubernetes_pod", Some(&self.pod)),
            ("kubernetes_container", Some(&self.name)),
            ("kubernetes_pod_uid", self.uid.as_ref()),
            ("kubernetes_container_id", self.id.as_ref()),
        ];
        known.into_iter().filter_map(|(key, value)| value.map(|value| (key, value.as_str())))
    }
}

fn read(path: &Path) -> Option<Container> {
    let mut names = path.components().rev().map(|component| match component {
        Component::Normal(name) => name.to_str(),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
    });
    let (file, directory) = (names.next()??, names.next()??);
    if directory == "containers" {
        return of_link(file);
    }
    let (pod, root) = (names.next()??, names.next()??);
    if root == "pods" { of_log(pod, directory, file) } else { None }
}

/// `<pod>_<namespace>_<container>-<container id>.log`
fn of_link(file: &str) -> Option<Container> {
    let [pod, namespace, rest] = parts(file.strip_suffix(".log")?)?;
    let (name, id) = rest.rsplit_once('-')?;
    let is_sound = is_subdomain(pod) && is_label(namespace) && is_label(name) && id.len() == 64 && is_hex(id);
    is_sound.then(|| Container {
        namespace: namespace.into(),
        pod: pod.into(),
        name: name.into(),
        uid: None,
        id: Some(id.into()),
    })
}

/// `<namespace>_<pod>_<uid>`, `<container>`, `<restarts>.log`, rotated or not
fn of_log(directory: &str, name: &str, file: &str) -> Option<Container> {
    let [namespace, pod, uid] = parts(directory)?;
    let (restarts, rotated) = file.split_once(".log")?;
    let is_log = !restarts.is_empty() && is_number(restarts) && is_rotation(rotated);
    // The uid of a static pod is a hash without dashes.
    let is_uid = (32..=36).contains(&uid.len()) && uid.split('-').all(is_hex);
    let is_sound = is_log && is_uid && is_label(namespace) && is_subdomain(pod) && is_label(name);
    is_sound.then(|| Container {
        namespace: namespace.into(),
        pod: pod.into(),
        name: name.into(),
        uid: Some(uid.into()),
        id: None,
    })
}

/// Nothing, or `.20260102-150405` with or without `.gz`.
fn is_rotation(text: &str) -> bool {
    let time = text.strip_suffix(".gz").unwrap_or(text);
    let day = time.strip_prefix('.').and_then(|time| time.split_once('-'));
    text.is_empty()
        || day.is_some_and(|(day, time)| (day.len(), time.len()) == (8, 6) && is_number(day) && is_number(time))
}

fn parts(name: &str) -> Option<[&str; 3]> {
    let mut parts = name.split('_');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(three)
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A DNS label as RFC 1123 has it.
fn is_label(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last()).is_some_and(|(first, last)| is_letter(*first) && is_letter(*last));
    ends && bytes.len() <= 63 && bytes.iter().all(|byte| is_letter(*byte) || *byte == b'-')
}

/// Labels with dots between them, of any length on their own.
fn is_subdomain(text: &str) -> bool {
    let is_part = |part: &str| part.as_bytes().chunks(63).all(|chunk| chunk.iter().all(|byte| is_name_byte(*byte)));
    let ends = !text.starts_with('-') && !text.ends_with('-');
    text.len() <= 253 && ends && text.split('.').all(|part| !part.is_empty() && is_part(part))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "3f0f6a39-8f0b-4a3e-9a1c-0a2b3c4d5e6f";

    fn labels(kubernetes: Kubernetes, path: &str) -> Option<String> {
        let container = kubernetes.read(Path::new(path))?;
        Some(container.labels().map(|(_, value)| value).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn both_layouts_of_the_kubelet_are_read() {
        for (path, expected) in [
            (
                format!("/var/log/containers/web-7d4b9c6f5-x2x9z_shop_nginx-{ID}.log"),
                format!("shop web-7d4b9c6f5-x2x9z nginx {ID}"),
            ),
            (
                format!("/var/log/containers/etcd-node.example.com_kube-system_my-etcd-{ID}.log"),
                format!("kube-system etcd-node.example.com my-etcd {ID}"),
            ),
            (format!("/var/log/pods/shop_web-0_{UID}/nginx/0.log"), format!("shop web-0 nginx {UID}")),
            (format!("/var/log/pods/shop_web-0_{UID}/nginx/12.log.20260102-150405"), format!("shop web-0 nginx {UID}")),
            (
                format!("/var/log/pods/shop_web-0_{UID}/nginx/12.log.20260102-150405.gz"),
                format!("shop web-0 nginx {UID}"),
            ),
            (
                format!("/var/log/pods/kube-system_etcd-a_{}/etcd/3.log", &ID[..32]),
                format!("kube-system etcd-a etcd {}", &ID[..32]),
            ),
        ] {
            assert_eq!(labels(Kubernetes::Auto, &path), Some(expected), "{path}");
        }
        let keys = Kubernetes::Auto.read(Path::new(&format!("/var/log/pods/a_b_{UID}/c/0.log"))).unwrap();
        let keys: Vec<&str> = keys.labels().map(|(key, _)| key).collect();
        assert_eq!(keys, ["kubernetes_namespace", "kubernetes_pod", "kubernetes_container", "kubernetes_pod_uid"]);
    }

    #[test]
    fn a_host_mounted_elsewhere_is_believed_on_request_and_nothing_where_it_is_off() {
        let path = format!("/host/var/log/pods/shop_web-0_{UID}/nginx/0.log");
        assert_eq!(labels(Kubernetes::Auto, &path), None);
        assert_eq!(labels(Kubernetes::On, &path), Some(format!("shop web-0 nginx {UID}")));
        assert_eq!(labels(Kubernetes::Off, &format!("/var/log/pods/shop_web-0_{UID}/nginx/0.log")), None);
    }

    #[test]
    fn what_does_not_follow_the_layout_to_the_letter_says_nothing() {
        let long = "a".repeat(64);
        for path in [
            "/".into(),
            "0.log".into(),
            "/var/log/syslog".into(),
            "/var/log/containers/web.log".into(),
            format!("/var/log/containers/web_shop-{ID}.log"),
            format!("/var/log/containers/web_shop_nginx_more-{ID}.log"),
            format!("/var/log/containers/_shop_nginx-{ID}.log"),
            format!("/var/log/containers/web__nginx-{ID}.log"),
            format!("/var/log/containers/web_shop_-{ID}.log"),
            format!("/var/log/containers/web_shop_nginx-{}.log", &ID[1..]),
            format!("/var/log/containers/web_shop_nginx-{}.log", ID.to_uppercase()),
            format!("/var/log/containers/web_shop_nginx-{ID}.log.1"),
            format!("/var/log/containers/web_Shop_nginx-{ID}.log"),
            format!("/var/log/containers/web..x_shop_nginx-{ID}.log"),
            format!("/var/log/containers/web_{long}_nginx-{ID}.log"),
            format!("/var/log/containers/web\u{0}_shop_nginx-{ID}.log"),
            format!("/var/log/containers/wéb_shop_nginx-{ID}.log"),
            format!("/var/log/containers/more/web_shop_nginx-{ID}.log"),
            format!("/var/log/pods/shop_web-0_{UID}/nginx/x.log"),
            format!("/var/log/pods/shop_web-0_{UID}/nginx/.log"),
            format!("/var/log/pods/shop_web-0_{UID}/nginx/0.log.tmp"),
            format!("/var/log/pods/shop_web-0_{UID}/nginx/0.log.20260102-15040x"),
            format!("/var/log/pods/shop_web-0_{UID}/-nginx/0.log"),
            format!("/var/log/pods/shop_web-0_{UID}/0.log"),
            format!("/var/log/pods/../pods/shop_web-0_{UID}/0.log"),
            "/var/log/pods/shop_web-0_not-a-uid/nginx/0.log".into(),
            "/var/log/pods/shop_web-0/nginx/0.log".into(),
        ] {
            assert_eq!(Kubernetes::On.read(Path::new(&path)), None, "{path}");
        }
        let bytes = [b"/var/log/containers/\xff_shop_nginx-", ID.as_bytes(), b".log"].concat();
        assert_eq!(Kubernetes::On.read(Path::new(OsStr::from_bytes(&bytes))), None);
    }
}
