//! What every index promises, on real servers.

mod servers;

mod elasticsearch {
    use logmesh_processor::index_contract;

    index_contract!(crate::servers::Subject::new(crate::servers::elasticsearch()));
}

mod opensearch {
    use logmesh_processor::index_contract;

    index_contract!(crate::servers::Subject::new(crate::servers::opensearch()));
}
