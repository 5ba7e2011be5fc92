//! Dead letters of a running `logmesh up`, over the command line: listed, shown, tried again, given up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use logmesh_tests::binary;
use logmesh_tests::faults::IndexFault;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::wait::{Look, wait_until};
use serde_json::Value;

/// Five times what any of this should take.
const WITHIN: Duration = Duration::from_secs(60);

/// Lines that are written.
const LINES: u64 = 40;

/// What a command ended with.
struct Ended {
    success: bool,
    out: String,
    err: String,
}

/// Runs `logmesh dead-letters` against the scene's process.
async fn letters(scene: &Scene, words: &[&str]) -> Result<Ended> {
    let mut command = tokio::process::Command::new(binary::logmesh()?);
    command.arg("dead-letters").args(words).arg("--data").arg(scene.data());
    let output = command.output().await?;
    let text = |bytes| String::from_utf8(bytes).context("the output is no text");
    Ok(Ended { success: output.status.success(), out: text(output.stdout)?, err: text(output.stderr)? })
}

fn objects(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))).collect()
}

async fn listed(scene: &Scene, words: &[&str]) -> Result<Vec<Value>> {
    let ended = letters(scene, &[&["list", "--json"], words].concat()).await?;
    ensure!(ended.success, "{}", ended.err);
    objects(&ended.out)
}

fn id(letter: &Value) -> Result<&str> {
    letter["id"].as_str().context("a letter has an id")
}

/// Lines 3, 13, 23, 33 can be cured; 7, 17, 27, 37 never.
fn line(n: u64) -> String {
    match n % 10 {
        3 => format!("{{\"message\":\"unfit curable {n}\",\"level\":\"warn\",\"deep\":{{\"n\":{n}}}}}"),
        7 => format!("unfit hopeless {n}"),
        _ => format!("good {n}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_lines_are_listed_replayed_whole_and_the_hopeless_given_up() {
    scenario(async |scene| {
        let (setup, mut faults) = scene.up_with_faults("app.log")?;
        faults.index(IndexFault::Reject("unfit"))?;
        let up = setup.start().await?;
        let api = up.api()?;
        let all: String = (0..LINES).map(|n| line(n) + "\n").collect();
        std::fs::write(scene.logs().join("app.log"), all)?;
        api.wait_for_count("", LINES, WITHIN).await?;
        ensure!(api.count("tags:dead_lettered").await? == 8, "eight reduced documents stand in");

        let open = listed(scene, &[]).await?;
        ensure!(open.len() == 8, "{open:?}");
        let curable =
            open.iter().find(|letter| letter["preview"].as_str().is_some_and(|text| text.contains("curable 13")));
        let curable = curable.context("the letter of line 13")?;
        let shown = letters(scene, &["show", id(curable)?, "--raw"]).await?;
        ensure!(shown.out == line(13), "the exact bytes: {}", shown.out);
        let table = letters(scene, &["list", "--limit", "2"]).await?;
        ensure!(table.out.contains("REASON") && table.out.contains("2 of 8"), "{}", table.out);

        let dry = letters(scene, &["replay", "--dry-run"]).await?;
        ensure!(dry.success && dry.out.contains("8 can be replayed"), "{}{}", dry.out, dry.err);
        faults.index(IndexFault::Reject("hopeless"))?;
        replayed(scene, id(curable)?).await?;
        let replayed = letters(scene, &["replay", "--json"]).await?;
        let outcomes = objects(&replayed.out)?;
        let count = |outcome: &str| outcomes.iter().filter(|said| said["outcome"] == outcome).count();
        ensure!(!replayed.success, "some stay: {}", replayed.err);
        ensure!((count("replayed"), count("refused")) == (3, 4), "{outcomes:?}");
        ensure!(listed(scene, &[]).await?.len() == 4, "what is refused again stays");

        // The whole document is where the reduced one was, under the same id, and none is there twice.
        let page = api.search("curable", "&limit=100").await?;
        ensure!(page.hits.len() == 4, "{:?}", page.hits);
        let whole = page.hits.iter().find(|hit| hit["message"] == "unfit curable 13").context("line 13 is there")?;
        ensure!(whole["_id"] == *id(curable)? && whole["fields"]["deep"]["n"] == 13, "{whole}");
        ensure!(whole["log"]["level"] == "warn" && whole.get("tags").is_none(), "{whole}");
        ensure!(api.count("").await? == LINES, "none twice, none missing");

        let unsure = letters(scene, &["discard", "--all"]).await?;
        ensure!(!unsure.success && unsure.err.contains("--yes"), "{}", unsure.err);
        let discarded = letters(scene, &["discard", "--all", "--yes"]).await?;
        ensure!(discarded.success && discarded.out.contains("4 discarded"), "{}{}", discarded.out, discarded.err);
        ensure!(listed(scene, &[]).await?.is_empty(), "nothing waits");
        let again = letters(scene, &["replay"]).await?;
        ensure!(again.success && again.out.contains("0 replayed"), "{}{}", again.out, again.err);
        seen_in_status(&api).await?;
        up.terminate().await?;
        Ok(())
    })
    .await;
}

/// Tries one letter until the index takes it: the file of faults is read only now and then, and a try too early is harmless.
async fn replayed(scene: &Scene, id: &str) -> Result<()> {
    wait_until("the letter is replayed", WITHIN, async || {
        let ended = letters(scene, &["replay", id]).await?;
        Ok(if ended.success { Look::Holds(()) } else { Look::NotYet(ended.out) })
    })
    .await
}

/// The count of open letters falls to none.
async fn seen_in_status(api: &logmesh_tests::api::Api) -> Result<()> {
    wait_until("the status counts no open letter", WITHIN, async || {
        let tenants = api.json("/status").await?["dead_letters"]["tenants"].clone();
        Ok(match tenants[0]["open"].as_u64() {
            Some(0) => Look::Holds(()),
            _ => Look::NotYet(tenants.to_string()),
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_wrongly_is_refused_with_words() {
    scenario(async |scene| {
        let up = scene.up("*.log").start().await?;
        let nobody = letters(scene, &["show", "00000000000000000000000000000000"]).await?;
        ensure!(!nobody.success && nobody.err.contains("there is no dead letter"), "{}", nobody.err);
        let unknown = letters(scene, &["replay", "00000000000000000000000000000000"]).await?;
        ensure!(!unknown.success && unknown.err.contains("name no letter"), "{}", unknown.err);
        let which = letters(scene, &["discard", "--yes"]).await?;
        ensure!(!which.success && which.err.contains("say which letters"), "{}", which.err);
        let tenant = letters(scene, &["list", "--tenant", "no such name"]).await?;
        ensure!(!tenant.success && tenant.err.contains("neither a topic's name"), "{}", tenant.err);
        let none = letters(scene, &["list"]).await?;
        ensure!(none.success && none.out == "no dead letters\n", "{}", none.out);
        up.terminate().await?;
        Ok(())
    })
    .await;
}
