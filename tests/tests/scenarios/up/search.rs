//! Searching: over HTTP and with `logmesh search`, whole, paged, counted, while lines still arrive.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use logmesh_tests::api::{Api, encoded};
use logmesh_tests::binary;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::up::Up;
use logmesh_tests::writer::{Pace, Stamp, Writer};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::watch;

/// For some thousand lines.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

/// Access lines whose fields the queries name.
const ACCESS: &str = concat!(
    "10.0.0.1 - - [20/Nov/2026:10:00:00 +0000] \"GET /cart?id=1 HTTP/1.1\" 200 512 \"-\" \"curl/8.0\"\n",
    "10.0.0.2 - - [20/Nov/2026:10:00:01 +0000] \"POST /checkout HTTP/1.1\" 500 99 \"-\" \"Mozilla/5.0 (X11)\"\n",
    "10.0.0.3 - - [20/Nov/2026:10:00:02 +0000] \"GET /missing page HTTP/1.1\" 404 10 \"-\" \"curl/8.0\"\n",
    "2026-11-20T10:00:03Z ERROR payment: card was declined for order 4711\n",
    "2026-11-20T10:00:04Z WARN payment: declined card retried\n",
);

async fn with_access_lines(scene: &Scene) -> Result<Up> {
    std::fs::write(scene.logs().join("access.log"), ACCESS)?;
    let up = scene.up("*.log").start().await?;
    up.api()?.wait_for_count("", 5, FOUND_WITHIN).await?;
    Ok(up)
}

#[tokio::test]
async fn every_form_of_the_query_language_finds_what_it_names() {
    scenario(async |scene| {
        let up = with_access_lines(scene).await?;
        let api = up.api()?;
        for (query, count) in [
            ("", 5),
            ("declined", 2),
            ("DECLINED", 2),
            ("card declined", 2),
            ("\"card was declined\"", 1),
            ("\"declined card\"", 1),
            ("log.level:error", 1),
            ("log.level:\"error\" OR log.level:warn", 2),
            ("http.response.status_code:500", 1),
            ("http.response.status_code:[400 TO 599]", 2),
            ("http.response.status_code:*", 3),
            ("NOT http.response.status_code:*", 2),
            ("declined AND NOT retried", 1),
            ("(declined OR curl) AND 4711", 1),
            ("nothinglikethis", 0),
        ] {
            let found = api.count(query).await.with_context(|| query.to_owned())?;
            ensure!(found == count, "{query:?} counts {found}, not {count}");
            let page = api.search(query, "").await?;
            ensure!(page.total == count && page.hits.len() as u64 == count, "{query:?}: {page:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn documents_come_newest_first_with_their_fields_nested() {
    scenario(async |scene| {
        let up = with_access_lines(scene).await?;
        let api = up.api()?;
        let page = api.search("", "").await?;
        let times: Vec<&str> = page.hits.iter().filter_map(|hit| hit["@timestamp"].as_str()).collect();
        ensure!(times.len() == 5 && times.is_sorted_by(|a, b| a >= b), "{times:?}");
        let post = &api.search("http.request.method:POST", "").await?.hits[0];
        for (pointer, value) in [
            ("/http/response/status_code", Value::from(500)),
            ("/url/path", Value::from("/checkout")),
            ("/source/ip", Value::from("10.0.0.2")),
            ("/event/dataset", Value::from("combined")),
            ("/log/offset", Value::from(ACCESS.find("10.0.0.2").context("a line of the test")?)),
        ] {
            ensure!(post.pointer(pointer) == Some(&value), "{pointer} is not {value} in {post}");
        }
        for pointer in
            ["/_id", "/_index", "/agent/id", "/agent/name", "/host/name", "/event/created", "/event/ingested"]
        {
            ensure!(post.pointer(pointer).is_some_and(Value::is_string), "no {pointer} in {post}");
        }
        let range = "&from=2026-11-20T10:00:01Z&to=2026-11-20T10:00:03Z";
        let times: Vec<_> = api.search("", range).await?.hits.iter().map(|hit| hit["@timestamp"].to_string()).collect();
        ensure!(times.len() == 2 || times.len() == 3, "{times:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_bad_query_gets_a_message_with_its_place() {
    scenario(async |scene| {
        let up = with_access_lines(scene).await?;
        let api = up.api()?;
        for query in ["(declined", "declined AND", "log.level:[a TO", "\"open"] {
            for endpoint in ["search", "count", "export"] {
                let answer = api.fetch(&format!("/api/{endpoint}?q={}", encoded(query))).await?;
                ensure!(answer.status == StatusCode::BAD_REQUEST, "{query:?}: {} {}", answer.status, answer.text());
                let text = answer.text();
                ensure!(text.chars().any(|letter| letter.is_ascii_digit()), "no place in {text:?} for {query:?}");
            }
        }
        let answer = api.fetch("/api/search?limit=many").await?;
        ensure!(answer.status == StatusCode::BAD_REQUEST, "{} {}", answer.status, answer.text());
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_neither_repeat_nor_skip_while_lines_arrive() {
    scenario(async |scene| {
        let mut old = Writer::create(&scene.logs(), "old", Stamp::Always)?;
        old.write(1_000)?;
        let up = scene.up("*.log*").start().await?;
        let api = up.api()?;
        api.wait_for_count("old", 1_000, FOUND_WITHIN).await?;
        let pace = Pace { lines: 3_000, per_second: 1_000, rotate_every: 10_000 };
        let new = tokio::spawn(Writer::create(&scene.logs(), "new", Stamp::Always)?.run(pace, watch::channel(0).0));
        let ids = all_pages(api, "old", 90).await?;
        ensure!(ids.len() == 1_000, "{} ids on the pages", ids.len());
        ensure!(ids.iter().collect::<BTreeSet<_>>().len() == 1_000, "ids are repeated");
        new.await??;
        api.wait_for_count("new", 3_000, FOUND_WITHIN).await?;
        let exported = api.export("old").await?;
        let paged: BTreeSet<_> = ids.into_iter().collect();
        ensure!(
            exported.len() == 1_000 && exported.iter().all(|document| paged.contains(&document.id)),
            "not the same"
        );
        Ok(())
    })
    .await;
}

async fn all_pages(api: Api, query: &str, limit: usize) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let parameters = match &cursor {
            Some(cursor) => format!("&limit={limit}&cursor={}", encoded(cursor)),
            None => format!("&limit={limit}"),
        };
        let page = api.search(query, &parameters).await?;
        ensure!(page.hits.len() <= limit, "a page of {}", page.hits.len());
        ids.extend(page.hits.iter().filter_map(|hit| hit["_id"].as_str()).map(str::to_owned));
        match page.next {
            Some(next) if !page.hits.is_empty() => cursor = Some(next),
            Some(_) | None => return Ok(ids),
        }
    }
}

#[tokio::test]
async fn the_command_finds_what_the_api_finds() {
    scenario(async |scene| {
        let up = with_access_lines(scene).await?;
        let url = format!("http://{}", up.addresses()?.http);
        let lines = search(&["--data", &text(&scene.data())?, "declined"]).await?;
        ensure!(lines.len() == 2 && lines.iter().all(|line| line.contains("declined")), "{lines:?}");
        let count = search(&["--url", &url, "--count", "log.level:error"]).await?;
        ensure!(count == ["1"], "{count:?}");
        let one = search(&["--url", &url, "--json", "--limit", "1", ""]).await?;
        let document: Value = serde_json::from_str(one.first().context("no output")?)?;
        let time = document["@timestamp"].as_str().unwrap_or_default();
        ensure!(one.len() == 1 && time.starts_with("2026-11-20T10:00:04"), "{document}");
        let all = search(&["--url", &url, "--json", "--all", ""]).await?;
        ensure!(all.len() == 5, "{} lines", all.len());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_command_says_what_is_wrong_and_where() {
    scenario(async |scene| {
        let up = with_access_lines(scene).await?;
        let url = format!("http://{}", up.addresses()?.http);
        let bad = run(&["search", "--url", &url, "(declined"]).await?;
        ensure!(bad.status.code() == Some(2), "{bad:?}");
        ensure!(String::from_utf8_lossy(&bad.stderr).contains('('), "{bad:?}");
        let nowhere = scene.path("nowhere");
        let none = run(&["search", "--data", &text(&nowhere)?, "x"]).await?;
        ensure!(none.status.code().is_some_and(|code| code == 1 || code == 2), "{none:?}");
        ensure!(String::from_utf8_lossy(&none.stderr).contains("nowhere"), "{none:?}");
        Ok(())
    })
    .await;
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path that is not UTF-8")
}

async fn search(arguments: &[&str]) -> Result<Vec<String>> {
    let output = run(&[&["search"], arguments].concat()).await?;
    ensure!(output.status.success(), "logmesh search {arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

async fn run(arguments: &[&str]) -> Result<Output> {
    let output = Command::new(binary::logmesh()?).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    Ok(tokio::time::timeout(FOUND_WITHIN, output).await.context("the command does not end")??)
}
