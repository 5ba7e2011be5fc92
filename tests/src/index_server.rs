//! The index server of a cluster, as an operator sees it: what `[index]` says of it, and every document that it holds.
//!
//! The rig's calls block: they are made where tokio knows of it, so that scenarios need two workers.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use logmesh_rig::{Credentials, SearchServer};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::api::Found;
use crate::binary;
use crate::process::Process;
use crate::scene::Scene;
use crate::wait::{Look, wait_until};

/// Documents that one page of a scroll bears.
const PAGE: u64 = 5_000;

/// The body of `[index]` for a writer that may write `logmesh-*` and nothing else. Its password is kept on the stage.
///
/// # Errors
///
/// When the writer cannot be made or its password not be written.
pub fn toml(server: &SearchServer, scene: &Scene) -> Result<String> {
    toml_as(&block_in_place(|| server.writer())?, server, scene)
}

/// The body of `[index]` for anybody. The password is kept on the stage.
///
/// # Errors
///
/// When the password cannot be written.
pub fn toml_as(user: &Credentials, server: &SearchServer, scene: &Scene) -> Result<String> {
    let password = scene.write(&format!("{}-password", user.user), &user.password)?;
    Ok(format!(
        "kind = \"elasticsearch\"\nurls = [\"{}\"]\nusername = \"{}\"\npassword = {{ file = {:?} }}\n\
         tls = {{ ca = {:?} }}",
        server.url(),
        user.user,
        password.display().to_string(),
        server.ca().display().to_string()
    ))
}

/// Sets the server up for logmesh, as the documentation says: `logmesh check --connect` with an administrator's credentials.
///
/// # Errors
///
/// When it finds anything bad.
pub async fn set_up(server: &SearchServer, scene: &Scene, bus: &str) -> Result<()> {
    let index = toml_as(&server.admin(), server, scene)?;
    let file = scene.write("administrator.toml", &format!("[bus]\n{bus}\n[index]\n{index}\n"))?;
    let words = ["check", "--role", "processor", "--connect", "--config"].map(OsString::from);
    let words: Vec<OsString> = [binary::logmesh()?.into()].into_iter().chain(words).chain([file.into()]).collect();
    let ended = Process::spawn(&words, &[], &scene.path("check"))?.ended().await?;
    let said = std::fs::read_to_string(scene.path("check.stdout"))?;
    ensure!(ended.code() == Some(0), "{} {said}{}", ended.status, ended.stderr);
    Ok(())
}

/// Asks as the administrator for what must be answered with 2xx.
///
/// # Errors
///
/// When there is no answer, or another one.
pub fn must(server: &SearchServer, method: &str, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = block_in_place(|| server.request(method, path, body))?;
    ensure!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    Ok(answer)
}

/// Number of documents of a tenant that a search finds now.
///
/// # Errors
///
/// When the server does not answer.
pub fn count(server: &SearchServer, tenant: &str) -> Result<u64> {
    must(server, "POST", &format!("/logmesh-{tenant}-*/_refresh"), &Value::Null)?;
    let answer = must(server, "GET", &format!("/logmesh-{tenant}-*/_count"), &Value::Null)?;
    answer["count"].as_u64().context("a count without a number")
}

/// Waits until exactly this many documents of a tenant are found.
///
/// # Errors
///
/// When the deadline passes.
pub async fn wait_for_count(server: &SearchServer, tenant: &str, wanted: u64, deadline: Duration) -> Result<()> {
    wait_until(&format!("{wanted} documents of {tenant}"), deadline, async || {
        Ok(match count(server, tenant) {
            Ok(found) if found == wanted => Look::Holds(()),
            Ok(found) => Look::NotYet(format!("{found} documents")),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })
    .await
}

/// Waits until every request to write that the server is at work on by now has ended. A block lets those through that had
/// passed before it.
///
/// # Errors
///
/// When the server does not answer, or is at work for too long.
pub async fn wait_for_writes_under_way(server: &SearchServer) -> Result<()> {
    let begun = Instant::now();
    wait_until("what was under way is written", Duration::from_secs(60), async || {
        let age = begun.elapsed().as_nanos();
        let tasks = must(server, "GET", "/_tasks?actions=indices:data/write/*&group_by=none", &Value::Null)?;
        let tasks = tasks["tasks"].as_array().context("an answer without tasks")?;
        let is_older =
            |task: &&Value| task["running_time_in_nanos"].as_u64().is_none_or(|nanos| u128::from(nanos) > age);
        Ok(match tasks.iter().filter(is_older).count() {
            0 => Look::Holds(()),
            count => Look::NotYet(format!("{count} requests")),
        })
    })
    .await
}

/// Every document of a tenant.
///
/// # Errors
///
/// When the server does not answer, or a document is none of ours.
pub fn documents(server: &SearchServer, tenant: &str) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    if count(server, tenant)? == 0 {
        return Ok(found);
    }
    let query = json!({ "size": PAGE, "sort": ["_doc"], "query": { "match_all": {} } });
    let mut page = must(server, "POST", &format!("/logmesh-{tenant}-*/_search?scroll=2m"), &query)?;
    loop {
        let hits = page.pointer("/hits/hits").and_then(Value::as_array).context("a page without hits")?;
        if hits.is_empty() {
            return Ok(found);
        }
        for hit in hits {
            found.push(read(hit)?);
        }
        let next = json!({ "scroll": "2m", "scroll_id": page["_scroll_id"] });
        page = must(server, "POST", "/_search/scroll", &next)?;
    }
}

/// A hit as the product's own search would give the document.
fn read(hit: &Value) -> Result<Found> {
    let mut document = hit.get("_source").context("a hit without its source")?.clone();
    document["_id"] = hit["_id"].clone();
    document["_index"] = hit["_index"].clone();
    Found::read(&document)
}
