//! The ten real logs: every line's document, by expectations read off the logs by eye.

use std::path::Path;

use super::*;

/// Lines of a log as an agent delivers them: CRLF stripped, the last one with or without its end.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect()
}

/// Documents of a log, after every line was found in its document.
fn documents(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/logs").join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = lines(&bytes);
    let mut found = Vec::new();
    for chunk in lines.chunks(100) {
        let (documents, tally) = Build::default().documents(chunk.iter().copied());
        assert_eq!(documents.len(), chunk.len());
        assert_eq!(tally.records, chunk.len() as u64);
        assert_eq!(tally.parse_failed, 0);
        for (document, line) in documents.iter().zip(chunk) {
            let body = read(document);
            assert_eq!(original(&body), *line, "the exact line of {body}");
            assert_eq!(body.get("tags"), None, "nothing is unusual about {body}");
            found.push(body);
        }
    }
    found
}

/// Datasets and levels with their numbers.
fn counts(documents: &[Value]) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for body in documents {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        *counts.entry((text(&body["event"]["dataset"]), text(&body["log"]["level"]))).or_default() += 1;
    }
    counts
}

fn check_counts(documents: &[Value], expected: &[(&str, &str, usize)]) {
    let expected = expected.iter().map(|(dataset, level, number)| (((*dataset).into(), (*level).into()), *number));
    assert_eq!(counts(documents), expected.collect());
}

fn check_times(documents: &[Value], expected: &[(usize, &str)]) {
    for (at, time) in expected {
        let body = if *at == usize::MAX { documents.last() } else { documents.get(*at) };
        assert_eq!(body.unwrap()["@timestamp"], *time, "line {at}");
    }
}

const LAST: usize = usize::MAX;

#[test]
fn apache_error_log() {
    let documents = documents("apache.log");
    check_counts(&documents, &[("apache_error", "error", 595), ("apache_error", "info", 1405)]);
    check_times(&documents, &[(0, "2005-12-04T04:47:44.000Z"), (2, "2005-12-04T04:51:08.000Z"), (LAST, "2005-12-05T19:15:57.000Z")]);
    assert_eq!(documents[1]["message"], "mod_jk child workerEnv in error state 6");
}

#[test]
fn apache_access_log() {
    let documents = documents("apache_access.log");
    check_counts(&documents, &[("combined", "-", 9999), ("common", "-", 1)]);
    check_times(&documents, &[(0, "2015-05-17T10:05:03.000Z"), (LAST, "2015-05-20T21:05:15.000Z")]);
    let last = documents.last().unwrap();
    for (pointer, value) in [
        ("/source/address", Value::from("46.105.14.53")),
        ("/source/ip", "46.105.14.53".into()),
        ("/http/request/method", "GET".into()),
        ("/http/version", "1.1".into()),
        ("/http/response/status_code", 200.into()),
        ("/http/response/body/bytes", 14872.into()),
        ("/url/original", "/blog/tags/puppet?flav=rss20".into()),
        ("/url/path", "/blog/tags/puppet".into()),
        ("/url/query", "flav=rss20".into()),
        ("/user_agent/original", "UniversalFeedParser/4.2-pre-314-svn +http://feedparser.org/".into()),
    ] {
        assert_eq!(last.pointer(pointer), Some(&value), "{pointer}");
    }
    assert_eq!(last["http"]["request"].get("referrer"), None, "a dash is no referrer");
}

#[test]
fn hadoop_log() {
    let documents = documents("hadoop.log");
    check_counts(&documents, &[("text", "error", 150), ("text", "fatal", 2), ("text", "info", 1040), ("text", "warn", 808)]);
    check_times(&documents, &[(0, "2015-10-18T18:01:47.978Z"), (LAST, "2015-10-18T18:10:55.202Z")]);
    assert_eq!(documents[0]["log"]["logger"], "org.apache.hadoop.mapreduce.v2.app.MRAppMaster");
    assert_eq!(documents[0]["process"]["thread"]["name"], "main");
    assert_eq!(documents[0]["message"], "Created MRAppMaster for application appattempt_1445144423722_0020_000001");
}

#[test]
fn hdfs_log() {
    let documents = documents("hdfs.log");
    check_counts(&documents, &[("text", "info", 1920), ("text", "warn", 80)]);
    check_times(&documents, &[(0, "2008-11-09T20:36:15.000Z"), (LAST, "2008-11-11T10:20:17.000Z")]);
    assert_eq!(documents[0]["log"]["logger"], "dfs.DataNode$PacketResponder");
    assert_eq!(documents[0]["process"]["pid"], 148);
    assert_eq!(documents[0]["message"], "PacketResponder 1 for block blk_38865049064139660 terminating");
}

#[test]
fn linux_log() {
    let documents = documents("linux.log");
    check_counts(&documents, &[("syslog3164", "-", 2000)]);
    check_times(&documents, &[(0, "2026-06-14T15:16:01.000Z"), (LAST, "2026-07-27T14:42:00.000Z")]);
    assert_eq!(documents[0]["host"]["name"], "combo");
    assert_eq!(documents[0]["process"]["name"], "sshd(pam_unix)");
    assert_eq!(documents[0]["process"]["pid"], 19939);
    assert_eq!(documents[0]["service"]["name"], "sshd(pam_unix)");
}

#[test]
fn nginx_json_log() {
    let documents = documents("nginx_json.log");
    check_counts(&documents, &[("json", "-", 500)]);
    check_times(&documents, &[(0, "2015-10-30T23:58:19.322Z"), (1, "2015-10-30T23:58:24.427Z"), (LAST, "2015-10-31T00:40:53.399Z")]);
    for body in &documents {
        let mut line: Value = serde_json::from_slice(&original(body)).unwrap();
        let line = line.as_object_mut().unwrap();
        line.remove("timestamp");
        line.remove("pid");
        assert_eq!(body["fields"].as_object(), Some(&*line), "all else of the line stands among the fields");
    }
}

#[test]
fn openssh_log() {
    let documents = documents("openssh.log");
    check_counts(&documents, &[("syslog3164", "-", 2000)]);
    check_times(&documents, &[(0, "2025-12-10T06:55:46.000Z"), (LAST, "2025-12-10T11:04:45.000Z")]);
    assert_eq!(documents[1]["message"], "Invalid user webmaster from 173.234.31.186");
    assert_eq!(documents[1]["host"]["name"], "LabSZ");
}

#[test]
fn openstack_log() {
    let documents = documents("openstack.log");
    check_counts(&documents, &[("text", "info", 1969), ("text", "warn", 31)]);
    check_times(&documents, &[(0, "2017-05-16T00:00:00.008Z"), (LAST, "2017-05-16T00:14:47.687Z")]);
    let first = &documents[0];
    assert_eq!(first["log"]["logger"], "nova.osapi_compute.wsgi.server");
    assert_eq!(first["process"]["pid"], 25746);
    assert_eq!(first["fields"]["request_id"], "req-38101a0b-2096-447d-96ea-a692162415ae");
    assert_eq!(first["fields"]["prefix"], "nova-api.log.1.2017-05-16_13:53:08");
    assert!(first["message"].as_str().unwrap().starts_with("10.11.10.1 \"GET /v2/"));
}

#[test]
fn spark_log() {
    let documents = documents("spark.log");
    check_counts(&documents, &[("text", "info", 2000)]);
    check_times(&documents, &[(0, "2017-06-09T20:10:40.000Z"), (LAST, "2017-06-09T20:11:11.000Z")]);
    assert_eq!(documents[0]["log"]["logger"], "executor.CoarseGrainedExecutorBackend");
    assert_eq!(documents[0]["message"], "Registered signal handlers for [TERM, HUP, INT]");
}

#[test]
fn zookeeper_log() {
    let documents = documents("zookeeper.log");
    check_counts(&documents, &[("text", "error", 13), ("text", "info", 669), ("text", "warn", 1318)]);
    check_times(&documents, &[(0, "2015-07-29T17:41:44.747Z"), (LAST, "2015-08-10T18:12:34.004Z")]);
    assert_eq!(documents[0]["process"]["thread"]["name"], "QuorumPeer[myid=1]/0:0:0:0:0:0:0:0:2181:FastLeaderElection@774");
    assert_eq!(documents[0]["message"], "Notification time out: 3200");
}
