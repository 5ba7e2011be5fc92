//! Rotation that compresses, over a real directory and a gateway that is a stub.

use std::{fs, io::Write, path::Path, time::Duration};

use crate::stub::{Mesh, StubGateway};
use logmesh_agent::{Agent, Config, FilesConfig};
use logmesh_runtime::{Context, shutdown::Exit};

fn config(gateway: &StubGateway, mesh: &Mesh, logs: &Path, data: &Path) -> Config {
    let include = vec![format!("{}/a.log*", logs.display())];
    Config {
        data_dir: data.into(),
        gateways: vec![gateway.endpoint().parse().unwrap()],
        tls: Some(mesh.agent_files()),
        files: vec![FilesConfig { include, compressed: true, ..FilesConfig::default() }],
        shutdown_grace: Duration::from_secs(5),
        ..Config::default()
    }
}

fn lines(from: usize, to: usize) -> String {
    (from..to).map(|line| format!("line {line:05} of a file that is rotated and compressed\n")).collect()
}

/// As `gzip` does: beside the file, which then goes.
fn compress(path: &Path) {
    let mut archive = path.as_os_str().to_owned();
    archive.push(".gz");
    let mut encoder = flate2::write::GzEncoder::new(fs::File::create(archive).unwrap(), flate2::Compression::fast());
    encoder.write_all(&fs::read(path).unwrap()).unwrap();
    encoder.finish().unwrap().sync_all().unwrap();
    fs::remove_file(path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_arrives_once_over_rotations_that_compress_live_and_while_the_agent_is_down() {
    let mesh = Mesh::new();
    let gateway = StubGateway::start(&mesh).await;
    let directory = tempfile::tempdir().unwrap();
    let (logs, data) = (directory.path().join("logs"), directory.path().join("data"));
    fs::create_dir(&logs).unwrap();
    let (file, rotated) = (logs.join("a.log"), logs.join("a.log.1"));
    let start = || {
        let context = Context::for_tests();
        let agent = Agent::new(config(&gateway, &mesh, &logs, &data), mesh.agent(), context.clone()).unwrap();
        (context, tokio::spawn(agent.run()))
    };
    fs::write(&file, lines(0, 100)).unwrap();
    let (context, task) = start();
    gateway.wait_for(100).await;
    fs::rename(&file, &rotated).unwrap();
    compress(&rotated);
    fs::write(&file, lines(100, 200)).unwrap();
    gateway.wait_for(200).await;
    context.shutdown.begin();
    assert_eq!(task.await.unwrap(), Exit::Clean);
    let mut open = fs::File::options().append(true).open(&file).unwrap();
    open.write_all(lines(200, 300).as_bytes()).unwrap();
    fs::rename(logs.join("a.log.1.gz"), logs.join("a.log.2.gz")).unwrap();
    fs::rename(&file, &rotated).unwrap();
    compress(&rotated);
    fs::write(&file, lines(300, 310)).unwrap();
    let (context, task) = start();
    // The tail comes out of the archive, and nothing of the other one: what is new was written after both.
    gateway.wait_for(310).await;
    context.shutdown.begin();
    assert_eq!(task.await.unwrap(), Exit::Clean);
    let mut bodies = gateway.bodies();
    bodies.sort();
    let expected = lines(0, 310);
    assert_eq!(bodies, expected.lines().collect::<Vec<_>>());
}
