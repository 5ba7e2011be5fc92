//! Plain text as many programs write it.

use super::*;

const TIME: &str = "2015-07-29T17:41:44.747Z";

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "expectations are written in place")]
fn check(line: &str, expected: Found) {
    assert_eq!(auto(line), expected, "{line}");
}

fn at(level: &'static str, message: &str) -> Found {
    Found { time: some(TIME), level: Some(level), message: some(message), ..found("text") }
}

#[test]
fn java() {
    let logger = some("org.apache.Main");
    let hadoop = Found { logger: logger.clone(), thread: some("main"), ..at("info", "Created it: now") };
    check("2015-07-29 17:41:44,747 INFO [main] org.apache.Main: Created it: now", hadoop);
    let zookeeper = Found { thread: some("Quorum[myid=1]/0:0:2181:Fast@774"), ..at("warn", "Time out: 3200") };
    check("2015-07-29 17:41:44,747 - WARN  [Quorum[myid=1]/0:0:2181:Fast@774] - Time out: 3200", zookeeper);
    let logback = Found { logger: logger.clone(), thread: some("http-1"), ..at("debug", "x - y") };
    check("2015-07-29 17:41:44.747 [http-1] DEBUG org.apache.Main - x - y", logback);
    let spring = Found { logger, thread: some("main"), pid: Some(1234), ..at("info", "Started") };
    check("2015-07-29 17:41:44.747  INFO 1234 --- [           main] org.apache.Main            : Started", spring);
}

#[test]
fn hdfs_and_spark() {
    let hdfs = Found {
        time: some("2008-11-09T20:36:15Z"),
        level: Some("info"),
        message: some("PacketResponder 1: done"),
        logger: some("dfs.DataNode$PacketResponder"),
        pid: Some(148),
        ..found("text")
    };
    check("081109 203615 148 INFO dfs.DataNode$PacketResponder: PacketResponder 1: done", hdfs);
    let spark = Found {
        time: some("2017-06-09T20:10:40Z"),
        level: Some("info"),
        message: some("Changing acls to: yarn"),
        logger: some("spark.SecurityManager"),
        ..found("text")
    };
    check("17/06/09 20:10:40 INFO spark.SecurityManager: Changing acls to: yarn", spark);
}

#[test]
fn python_go_and_rust() {
    let python = Found { logger: some("my_app"), ..at("warn", "low disk") };
    check("2015-07-29 17:41:44,747 - my_app - WARNING - low disk", python);
    check("2015-07-29T17:41:44.747Z ERROR disk full", at("error", "disk full"));
    let tracing = Found { logger: some("my_crate::disk"), ..at("info", "ready port=1") };
    check("2015-07-29T17:41:44.747000Z  INFO my_crate::disk: ready port=1", tracing);
    let env_logger = Found { logger: some("my_crate::disk"), ..at("error", "full") };
    check("[2015-07-29T17:41:44.747Z ERROR my_crate::disk] full", env_logger);
    check("2015-07-29T17:41:44.747Z\tinfo\tready", at("info", "ready"));
    let glog = Found {
        time: some("2026-07-29T17:41:44.747Z"),
        level: Some("warn"),
        message: some("slow"),
        logger: some("file.go:12"),
        pid: Some(4711),
        ..found("text")
    };
    check("W0729 17:41:44.747000    4711 file.go:12] slow", glog);
}

#[test]
fn openstack() {
    let expected = Found { logger: some("nova.compute.manager"), pid: Some(25746), ..at("info", "[instance: a] gone") };
    let line =
        "nova.log.1 2015-07-29 17:41:44.747 25746 INFO nova.compute.manager [req-1 u p - - -] [instance: a] gone";
    check(line, expected);
    let Detail::Text { prefix, request } = text::parse(line.as_bytes(), OBSERVED).detail else {
        panic!("{line}");
    };
    assert_eq!((prefix, request), (Some(&b"nova.log.1"[..]), Some(&b"req-1"[..])));
}

#[test]
fn databases_and_others() {
    let postgres = Found { pid: Some(123), ..at("error", "relation \"x\" does not exist") };
    check("2015-07-29 17:41:44.747 UTC [123] ERROR:  relation \"x\" does not exist", postgres);
    let mysql = Found { pid: Some(0), ..at("warn", "[MY-010068] [Server] CA is self signed") };
    check("2015-07-29T17:41:44.747000Z 0 [Warning] [MY-010068] [Server] CA is self signed", mysql);
    check("2015-07-29 17:41:44.747 [info] <0.1.0> started", at("info", "<0.1.0> started"));
    check("[2015-07-29 17:41:44,747] [ERROR] boom", at("error", "boom"));
    check("[error] 2015-07-29 17:41:44,747 boom", at("error", "boom"));
    check("INFO 2015-07-29 17:41:44,747 boom", at("info", "boom"));
    let squid = "1438191704.747    921 192.168.0.68 TCP_MISS/200 507 POST http://x/";
    check(squid, Found { level: None, ..at("info", "921 192.168.0.68 TCP_MISS/200 507 POST http://x/") });
}

#[test]
fn a_time_without_a_level_leaves_all_else_as_message() {
    for message in ["an error occurred", "[main] x", "7 users", "name - value", "Info desk is open"] {
        let expected = Found { level: None, ..at("info", message) };
        check(&format!("2015-07-29 17:41:44.747 {message}"), expected);
    }
}

#[test]
fn a_level_without_a_time_leaves_the_line_whole() {
    for (line, level) in
        [("ERROR: no space left", "error"), ("[warning] hot", "warn"), ("INFO started", "info"), ("warn: x", "warn")]
    {
        check(line, Found { level: Some(level), ..found("text") });
    }
}

#[test]
fn prose_is_prose() {
    for line in [
        "",
        " ",
        "Information is free",
        "error while loading",
        "See 2015-07-29 17:41:44.747 for more",
        "12345",
        "[",
        "[]",
        "[x",
        "2015-07-29",
        "- - -",
        "Errors: none",
        "INFOrmation",
        "\tat java.lang.Thread.run(Thread.java:745)",
        "ALERT exited",
        "{x}",
        "2015-07-29T17:41:44.747Zebra",
        "Caused by: java.io.IOException: x=y",
    ] {
        check(line, found("text"));
    }
}
