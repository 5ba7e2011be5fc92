//! Bad input: each kind gets a clear message and the right exit status or readiness reason, and nothing is lost.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use logmesh_tests::binary;
use logmesh_tests::process::line_with;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::writer::{Stamp, Writer};
use tokio::process::Command;

/// For a few lines, or an answer of a command.
const WITHIN: Duration = Duration::from_secs(30);

/// Exit status for bad usage or configuration.
const USAGE: i32 = 2;

/// Exit status for everything else that fails.
const FAILED: i32 = 1;

/// A user that nobody is.
const STRANGER: u32 = 54_321;

/// Wrong configurations: a text, the line of the fault, and words of the message.
const WRONG: [(&str, u32, &[&str]); 10] = [
    ("[agent]\ncompresion = \"zstd\"\n", 2, &["compresion", "compression"]),
    ("[agnet]\nname = \"x\"\n", 1, &["agnet", "agent"]),
    ("[agent]\nname = 7\n", 2, &["agent.name"]),
    ("[agent]\npartial_flush = \"5 parsecs\"\n", 2, &["partial_flush", "parsecs"]),
    ("[agent]\ncompression = \"rar\"\n", 2, &["compression", "zstd", "snappy", "none"]),
    ("[telemetry]\nlog_level = \"loud\"\n", 2, &["log_level"]),
    ("[agent]\nname = \"a\"\nname = \"b\"\n", 3, &["duplicate"]),
    ("[agent\nname = \"a\"\n", 1, &[]),
    ("[index]\nkind = \"solr\"\n", 2, &["index.kind", "elasticsearch"]),
    ("[index]\nkind = \"elasticsearch\"\n", 1, &["index.urls", "https://es1:9200"]),
];

#[tokio::test]
async fn every_kind_of_wrong_configuration_is_refused_with_file_and_line() {
    scenario(async |scene| {
        for (number, (text, line, words)) in WRONG.into_iter().enumerate() {
            let name = format!("wrong{number}.toml");
            let config = scene.write(&name, text)?;
            let ended = scene.up("*.log").config(&config).refused().await?;
            let place = format!("{name}:{line}:");
            ended.require(USAGE, &[&[&*place], words].concat()).with_context(|| text.to_owned())?;
            ensure!(!scene.data().exists(), "a wrong configuration leaves a data directory behind");
        }
        let ended = scene.up("*.log").config(&scene.path("nowhere.toml")).refused().await?;
        ended.require(USAGE, &["nowhere.toml"])
    })
    .await;
}

#[tokio::test]
async fn check_reports_every_fault_of_a_configuration_at_once() {
    scenario(async |scene| {
        let text = "[agent]\ncompresion = \"zstd\"\npartial_flush = \"soon\"\n\n[telemetry]\nlog_level = \"loud\"\n";
        let config = scene.write("wrong.toml", text)?;
        let (code, said) = check(&config).await?;
        ensure!(code == Some(USAGE), "status {code:?}: {said}");
        for words in
            [["wrong.toml:2:", "compression"], ["wrong.toml:3:", "partial_flush"], ["wrong.toml:6:", "log_level"]]
        {
            ensure!(line_with(&said, &words).is_some(), "no line with {words:?}:\n{said}");
        }
        let good = scene.write("good.toml", "[agent]\npartial_flush = \"3s\"\n")?;
        let (code, said) = check(&good).await?;
        ensure!(code == Some(0), "status {code:?}: {said}");
        Ok(())
    })
    .await;
}

async fn check(config: &std::path::Path) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binary::logmesh()?);
    command.arg("check").arg("--config").arg(config).stdin(Stdio::null()).kill_on_drop(true);
    // The environment is configuration, and this one asks for the counts of a soak.
    command.env_remove("LOGMESH_SOAK");
    let output = tokio::time::timeout(WITHIN, command.output()).await.context("the command does not end")??;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

#[tokio::test]
async fn bad_usage_is_refused_with_status_two() {
    scenario(async |scene| {
        let mut setup = scene.up("*.log");
        setup.arguments.push("--no-such-flag".into());
        setup.refused().await?.require(USAGE, &["--no-such-flag"])?;
        let mut setup = scene.up("*.log");
        setup.http = String::from("somewhere");
        setup.refused().await?.require(USAGE, &["somewhere"])?;
        let mut setup = scene.up("[.log");
        setup.patterns = vec!["/var/log/[.log".into()];
        setup.refused().await?.require(USAGE, &["[.log"])
    })
    .await;
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused_and_its_owner_goes_on() {
    scenario(async |scene| {
        let first = scene.up("*.log").start().await?;
        let ended = scene.up("*.log").refused().await?;
        ended.require(FAILED, &["data", "another process"])?;
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Always)?;
        writer.write(10)?;
        first.api()?.wait_for_count("app", 10, WITHIN).await
    })
    .await;
}

#[tokio::test]
async fn a_port_in_use_is_refused_by_name() {
    scenario(async |scene| {
        let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = taken.local_addr()?.to_string();
        let mut setup = scene.up("*.log");
        setup.http.clone_from(&address);
        setup.refused().await?.require(FAILED, &[&address, "in use"])?;
        let mut setup = scene.up("*.log");
        setup.ingest.clone_from(&address);
        setup.refused().await?.require(FAILED, &[&address, "in use"])
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_not_loopback_is_refused_without_a_token() {
    scenario(async |scene| {
        let mut setup = scene.up("*.log");
        setup.http = String::from("0.0.0.0:0");
        setup.refused().await?.require(USAGE, &["admin_token"])
    })
    .await;
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_refused_by_name() {
    scenario(async |scene| {
        let file = scene.write("a-file", "")?;
        let mut setup = scene.up("*.log");
        setup.data = file.join("data");
        setup.refused().await?.require(FAILED, &["a-file"])
    })
    .await;
}

#[tokio::test]
async fn an_unreadable_file_is_reported_and_harms_no_other() {
    scenario(async |scene| {
        let secret = scene.logs().join("secret.log");
        std::fs::write(&secret, "secretline\n")?;
        lock_out(&secret)?;
        let mut setup = scene.up("*.log");
        if rustix::process::getuid().is_root() {
            // Within a user namespace root has no power over the files of users that the namespace does not know.
            setup.wrapper = ["unshare", "-Ur"].map(Into::into).to_vec();
        }
        let up = setup.start().await?;
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Always)?;
        writer.write(10)?;
        up.api()?.wait_for_count("app", 10, WITHIN).await?;
        up.says(&["secret.log", "denied"], WITHIN).await?;
        ensure!(up.api()?.count("secretline").await? == 0, "the file was not unreadable");
        // It is found by itself once it can be read.
        let_in(&secret)?;
        up.api()?.wait_for_count("secretline", 1, WITHIN).await
    })
    .await;
}

fn lock_out(path: &std::path::Path) -> Result<()> {
    let mode = if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(path, Some(STRANGER), Some(STRANGER))?;
        0o600
    } else {
        0
    };
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

fn let_in(path: &std::path::Path) -> Result<()> {
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?)
}

#[tokio::test]
async fn things_that_are_no_files_are_left_alone() {
    scenario(async |scene: &Scene| {
        std::fs::create_dir(scene.logs().join("directory.log"))?;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            scene.logs().join("pipe.log"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )?;
        std::os::unix::fs::symlink(scene.path("nowhere"), scene.logs().join("dangling.log"))?;
        let mut writer = Writer::create(&scene.logs(), "app", Stamp::Always)?;
        writer.write(10)?;
        let up = scene.up("*.log").start().await?;
        up.api()?.wait_for_count("", 10, WITHIN).await?;
        ensure!(up.terminate().await?.code() == Some(0), "it does not stop in order");
        Ok(())
    })
    .await;
}
