//! The rig's Elasticsearch and OpenSearch.

use anyhow::Result;
use logmesh_rig::{Credentials, Elasticsearch, OpenSearch, SearchServer, unique};
use serde_json::json;

fn put(server: &SearchServer, credentials: &Credentials, index: &str) -> Result<u16> {
    let path = format!("/{index}/_create/1");
    Ok(server.request_as(credentials, "PUT", &path, json!({ "message": "a line" }))?.0)
}

fn writer_may_write_logmesh_and_nothing_else(server: &SearchServer) -> Result<()> {
    let writer = server.writer()?;
    assert_eq!(put(server, &writer, &unique("logmesh-mine"))?, 201);
    assert_eq!(put(server, &writer, &unique("other"))?, 403);
    let wrong = Credentials { password: "wrong".into(), ..writer };
    assert_eq!(put(server, &wrong, &unique("logmesh-mine"))?, 401);
    Ok(())
}

fn killed_keeps_what_it_acknowledged(server: &SearchServer) -> Result<()> {
    let (url, index) = (server.url(), unique("kept"));
    assert_eq!(put(server, &server.admin(), &index)?, 201);
    server.kill()?;
    server.request("GET", "/", "").expect_err("a killed server answered");
    server.start_again()?;
    assert_eq!(server.url(), url);
    let (status, document) = server.request("GET", &format!("/{index}/_doc/1"), "")?;
    assert_eq!((status, &document["_source"]["message"]), (200, &json!("a line")));
    Ok(())
}

#[test]
fn elasticsearch_holds_its_writer_to_logmesh() -> Result<()> {
    writer_may_write_logmesh_and_nothing_else(Elasticsearch::shared())
}

#[test]
fn elasticsearch_tells_who_it_is() -> Result<()> {
    let server = Elasticsearch::shared();
    let (status, body) = server.request("GET", "/", "")?;
    assert_eq!((status, &body["version"]["number"]), (200, &json!(server.version())));
    Ok(())
}

#[test]
fn elasticsearch_takes_api_keys_and_bearer_tokens() -> Result<()> {
    let server = Elasticsearch::shared();
    let key = server.api_key(&json!({ "cluster": ["monitor"] }))?;
    let token = server.bearer_token(&server.admin())?;
    let ca = reqwest::Certificate::from_pem(&std::fs::read(server.ca())?)?;
    let client = reqwest::Client::builder().add_root_certificate(ca).build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (authorization, expected) in
        [(format!("ApiKey {key}"), 200), (format!("Bearer {token}"), 200), ("ApiKey d3Jvbmc6a2V5".to_owned(), 401)]
    {
        let request = client.get(format!("{}/_cluster/health", server.url())).header("authorization", &authorization);
        let response = runtime.block_on(request.send())?;
        assert_eq!(response.status().as_u16(), expected, "{authorization}");
    }
    Ok(())
}

#[test]
fn a_killed_elasticsearch_keeps_what_it_acknowledged() -> Result<()> {
    killed_keeps_what_it_acknowledged(&*Elasticsearch::start(&[("http.max_content_length", "1mb")])?)
}

#[test]
fn newer_servers_run_where_there_is_a_java_for_them() -> Result<()> {
    if let Some(server) = Elasticsearch::newer() {
        assert!(server.version().starts_with("9."));
        writer_may_write_logmesh_and_nothing_else(server)?;
        assert_eq!(server.request("GET", "/", "")?.0, 200);
    }
    if let Some(server) = OpenSearch::newer() {
        let (status, body) = server.request("GET", "/", "")?;
        assert_eq!((status, &body["version"]["number"]), (200, &json!(server.version())));
        server.writer().expect_err("a user of a server that has none");
    }
    Ok(())
}

#[test]
fn opensearch_holds_its_writer_to_logmesh() -> Result<()> {
    writer_may_write_logmesh_and_nothing_else(OpenSearch::shared())
}

#[test]
fn a_killed_opensearch_keeps_what_it_acknowledged() -> Result<()> {
    killed_keeps_what_it_acknowledged(&*OpenSearch::start(&[])?)
}
