use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::describe;

fn request(role: Role, name: &str) -> Request {
    let validity = Validity::leaf(SystemTime::now());
    Request { role, name: name.to_owned(), dns: Vec::new(), ips: Vec::new(), validity }
}

fn authority() -> Authority {
    Authority::create("mesh", Validity::authority(SystemTime::now())).unwrap()
}

#[test]
fn an_authority_comes_back_from_its_directory_and_its_key_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("pki/ca");
    let first = Authority::load_or_create(&place, "mesh", SystemTime::now()).unwrap();
    let mode = std::fs::metadata(place.join("ca-key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = Authority::load_or_create(&place, "ignored", SystemTime::now()).unwrap();
    assert_eq!((first.certificate_pem(), second.mesh()), (second.certificate_pem(), "mesh"));
}

#[test]
fn an_authority_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    authority().save(directory.path()).unwrap();
    let before = std::fs::read(directory.path().join("ca-key.pem")).unwrap();
    let error = authority().save(directory.path()).unwrap_err();
    assert!(matches!(error, AuthorityError::Exists(_)), "{error}");
    assert_eq!(std::fs::read(directory.path().join("ca-key.pem")).unwrap(), before);
}

#[test]
fn a_creation_cut_short_is_made_good_by_the_next_but_a_lost_certificate_is_not_papered_over() {
    let directory = tempfile::tempdir().unwrap();
    authority().save(directory.path()).unwrap();
    std::fs::remove_file(directory.path().join("ca.pem")).unwrap();
    let again = Authority::load_or_create(directory.path(), "mesh", SystemTime::now()).unwrap();
    again.issue_recorded(directory.path(), &request(Role::Agent, "edge-1")).unwrap();
    std::fs::remove_file(directory.path().join("ca.pem")).unwrap();
    let error = Authority::load_or_create(directory.path(), "mesh", SystemTime::now()).unwrap_err();
    assert!(matches!(error, AuthorityError::Exists(_)), "{error}");
}

#[test]
fn a_damaged_or_missing_authority_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    authority().save(directory.path()).unwrap();
    let (key, certificate) = (directory.path().join("ca-key.pem"), directory.path().join("ca.pem"));
    let good = std::fs::read_to_string(&key).unwrap();
    let says = |said: &str| {
        let error = Authority::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains(said), "{said:?} is not in {error:?}");
    };
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    says("ca-key.pem: it is not the key of");
    std::fs::write(&key, &good[..good.len() / 2]).unwrap();
    says("ca-key.pem: no private key");
    std::fs::remove_file(&key).unwrap();
    says("its private key ca-key.pem is not");
    std::fs::write(&key, good).unwrap();
    std::fs::write(&certificate, "garbage").unwrap();
    says("ca.pem: no certificate");
}

#[test]
fn what_was_issued_is_on_record_and_a_torn_line_is_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority();
    assert!(Authority::issued(directory.path()).unwrap().is_empty());
    let first = authority.issue_recorded(directory.path(), &request(Role::Agent, "edge-1")).unwrap();
    let second = authority.issue_recorded(directory.path(), &request(Role::Gateway, "gw-1")).unwrap();
    let path = directory.path().join("issued.log");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("0badc0de\tspiffe://mesh/ag");
    std::fs::write(&path, text).unwrap();
    let entries = Authority::issued(directory.path()).unwrap();
    let serials: Vec<_> = entries.iter().map(|entry| entry.serial.clone()).collect();
    assert_eq!(serials, [first.serial, second.serial]);
    assert_eq!(entries[1].identity.as_str(), "spiffe://mesh/gateway/gw-1");
}

#[test]
fn names_and_times_that_make_no_sense_are_refused() {
    let authority = authority();
    assert!(authority.issue(&request(Role::Agent, "a/b")).is_err());
    assert!(authority.issue(&request(Role::Agent, "")).is_err());
    let mut gateway = request(Role::Gateway, "gw");
    gateway.dns = vec!["spiffe://x".to_owned()];
    assert!(matches!(authority.issue(&gateway), Err(AuthorityError::DnsName(_))));
    let mut backwards = request(Role::Agent, "edge");
    backwards.validity = Validity { not_before: SystemTime::now(), not_after: UNIX_EPOCH };
    assert!(matches!(authority.issue(&backwards), Err(AuthorityError::Validity)));
    assert!(Authority::create("no mesh", Validity::authority(SystemTime::now())).is_err());
}

#[test]
fn saving_a_pair_touches_nothing_where_one_of_the_files_exists() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("a.pem"), directory.path().join("a-key.pem"));
    let issued = authority().issue(&request(Role::Agent, "a")).unwrap();
    std::fs::write(&certificate, "mine").unwrap();
    assert!(matches!(issued.save(&certificate, &key, Existing::Keep), Err(AuthorityError::Exists(_))));
    assert!(!key.exists());
    issued.save(&certificate, &key, Existing::Replace).unwrap();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_certificate_is_told_in_plain_words() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("gw.pem"), directory.path().join("gw-key.pem"));
    let mut wanted = request(Role::Gateway, "gw-1");
    wanted.dns = vec!["gw.example".to_owned()];
    wanted.ips = vec!["127.0.0.1".parse().unwrap()];
    let issued = authority().issue(&wanted).unwrap();
    issued.save(&certificate, &key, Existing::Keep).unwrap();
    let told = describe(&certificate, Some(&key), SystemTime::now() + Duration::from_secs(60)).unwrap();
    assert_eq!(told.names, ["URI spiffe://mesh/gateway/gw-1", "DNS gw.example", "IP 127.0.0.1"]);
    assert_eq!((told.usages.as_slice(), told.days_left, told.key_matches), (&["serverAuth"][..], 89, Some(true)));
    assert_eq!(told.serial, issued.serial);
    let text = told.to_string();
    assert!(text.contains("identity     spiffe://mesh/gateway/gw-1") && text.contains("89 days left"), "{text}");
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let told = describe(&certificate, Some(&key), SystemTime::now() + 100 * DAY).unwrap();
    assert!(told.to_string().contains("EXPIRED") && told.to_string().contains("DOES NOT MATCH"), "{told}");
}

#[test]
fn a_serial_reads_back_from_what_it_shows() {
    let serial = Serial::from_bytes(&[0, 0xab, 0x7f]);
    assert_eq!(Serial::parse(&serial.to_string()), Some(serial.clone()));
    assert_eq!(Serial::parse("00:ab:7f"), Some(serial));
    assert_eq!(Serial::parse("xyz"), None);
}
