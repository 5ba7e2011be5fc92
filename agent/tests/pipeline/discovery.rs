//! A new file in a large real tree, with real watches, on its way to a gateway.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::stub::{Mesh, StubGateway};
use logmesh_agent::{Agent, Config, FilesConfig};
use logmesh_runtime::{Context, shutdown::Exit};

/// What is promised for a new file while hints come.
const PROMISED: Duration = Duration::from_secs(2);

fn make_tree(root: &Path, directories: usize, names: usize) {
    for directory in 0..directories {
        let directory = root.join(format!("d{directory}"));
        fs::create_dir_all(&directory).unwrap();
        (0..names).for_each(|name| drop(fs::File::create(directory.join(format!("name-{name}"))).unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_among_fifty_thousand_names_arrives_within_moments_in_old_directories_and_new_ones() {
    let mesh = Mesh::new();
    let gateway = StubGateway::start(&mesh).await;
    let directory = tempfile::tempdir().unwrap();
    let (logs, data) = (directory.path().join("logs"), directory.path().join("data"));
    make_tree(&logs, 100, 500);
    fs::write(logs.join("d0/a.log"), "one\n").unwrap();
    let config = Config {
        data_dir: data,
        gateways: vec![gateway.endpoint().parse().unwrap()],
        tls: Some(mesh.agent_files()),
        files: vec![FilesConfig { include: vec![format!("{}/**/*.log", logs.display())], ..FilesConfig::default() }],
        ..Config::default()
    };
    let context = Context::for_tests();
    let agent = tokio::spawn(Agent::new(config, mesh.agent(), context.clone()).unwrap().run());
    gateway.wait_for(1).await;
    let written = Instant::now();
    fs::write(logs.join("d77/b.log"), "two\n").unwrap();
    gateway.wait_for(2).await;
    assert!(written.elapsed() < 5 * PROMISED, "{:?}", written.elapsed());
    let written = Instant::now();
    fs::create_dir_all(logs.join("d78/new/deep")).unwrap();
    fs::write(logs.join("d78/new/deep/c.log"), "three\n").unwrap();
    gateway.wait_for(3).await;
    assert!(written.elapsed() < 5 * PROMISED, "{:?}", written.elapsed());
    context.shutdown.begin();
    assert_eq!(agent.await.unwrap(), Exit::Clean);
}
