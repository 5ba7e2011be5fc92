//! What a record is, over a real directory and a gateway that is a stub: joined lines, pieces, encodings, padding.

use std::{fs, io::Write, os::unix::fs::FileExt, path::Path};

use crate::stub::{Mesh, StubGateway};
use logmesh_agent::{Agent, Config};
use logmesh_runtime::{Context, config::Root, shutdown::Exit};

/// The configuration as an operator writes it.
fn config(mesh: &Mesh, gateway: &StubGateway, directory: &Path) -> Config {
    let logs = directory.join("logs");
    let text = format!(
        "[agent]\npartial_flush = \"300ms\"\n\
         [[agent.files]]\ninclude = [\"{0}/java*\"]\nmultiline = \"java\"\n\
         [[agent.files]]\ninclude = [\"{0}/pod*\"]\nformat = \"cri\"\n\
         [[agent.files]]\ninclude = [\"{0}/wide*\"]\nencoding = \"utf-16\"\n\
         [[agent.files]]\ninclude = [\"{0}/nul*\"]\ndelimiter = \"\\u0000\"\n\
         [[agent.files]]\ninclude = [\"{0}/*\"]\n",
        logs.display()
    );
    let root = Root::parse(&text, "logmesh.toml").unwrap();
    let config = Config::read(&root);
    root.finish().unwrap();
    Config {
        data_dir: directory.join("data"),
        gateways: vec![gateway.endpoint().parse().unwrap()],
        tls: Some(mesh.agent_files()),
        ..config
    }
}

fn append(path: &Path, bytes: impl AsRef<[u8]>) {
    let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
    file.write_all(bytes.as_ref()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_every_kind_arrive_whole_over_rotation_and_restart() {
    let mesh = Mesh::new();
    let gateway = StubGateway::start(&mesh).await;
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let wide = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    append(&logs.join("java.log"), "INFO a\nERROR b\njava.io.IOException: c\n\tat d.E.f(E.java:1)\n");
    append(&logs.join("pod.log"), "2024-01-01T00:00:00Z stdout P one \n2024-01-01T00:00:00Z stdout F two\n");
    append(&logs.join("wide.log"), wide("\u{feff}Grüße\r\n"));
    append(&logs.join("nul.log"), "first\nrecord\0second\0");
    let reserved = fs::File::create(logs.join("reserved.log")).unwrap();
    reserved.set_len(3 << 20).unwrap();
    reserved.write_all_at(b"written\n", 0).unwrap();

    let context = Context::for_tests();
    let agent = Agent::new(config(&mesh, &gateway, directory.path()), mesh.agent(), context.clone()).unwrap();
    let running = tokio::spawn(agent.run());
    gateway.wait_for(7).await;
    fs::rename(logs.join("java.log"), logs.join("java.1")).unwrap();
    append(&logs.join("java.log"), "\tat g.H.i(H.java:2)\nINFO j\n");
    reserved.write_all_at(b"in place\n", 8).unwrap();
    gateway.wait_for(10).await;
    context.shutdown.begin();
    assert_eq!(running.await.unwrap(), Exit::Clean);

    append(&logs.join("wide.log"), wide("☺\n"));
    let context = Context::for_tests();
    let agent = Agent::new(config(&mesh, &gateway, directory.path()), mesh.agent(), context.clone()).unwrap();
    let running = tokio::spawn(agent.run());
    reserved.write_all_at(b"behind a hole\n", 2 << 20).unwrap();
    gateway.wait_for(12).await;
    context.shutdown.begin();
    assert_eq!(running.await.unwrap(), Exit::Clean);
    let mut expected = [
        "INFO a",
        "ERROR b\njava.io.IOException: c\n\tat d.E.f(E.java:1)",
        "2024-01-01T00:00:00Z stdout F one two",
        "Grüße",
        "first\nrecord",
        "second",
        "written",
        "\tat g.H.i(H.java:2)",
        "INFO j",
        "in place",
        "☺",
        "behind a hole",
    ];
    expected.sort_unstable();
    assert_eq!(gateway.bodies(), expected);
}
