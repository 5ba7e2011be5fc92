//! Trying gateways out: what `logmesh check --connect` says of them.
//!
//! Asks each address for its health over mutual TLS. No session is opened: an agent of the same name may be at work.

use std::time::Duration;

use logmesh_certs::TlsSource;
use logmesh_runtime::finding::{Finding, Verdict};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{
    connect::{Endpoint, Target, connect, resolve},
    describe_status,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Tries every address of every gateway.
pub async fn look(gateways: &[Endpoint], tls: &TlsSource) -> Vec<Finding> {
    let mut findings = Vec::new();
    for endpoint in gateways {
        match resolve(endpoint.clone()).await {
            Err(error) => findings.push(
                Finding::new(format!("gateway {endpoint}"), Verdict::Bad, error.to_string())
                    .cured_by("correct agent.gateways, or the name's DNS entry"),
            ),
            Ok(addresses) => {
                for address in addresses {
                    findings.push(try_out(&Target { endpoint: endpoint.clone(), address }, tls).await);
                }
            }
        }
    }
    findings
}

async fn try_out(target: &Target, tls: &TlsSource) -> Finding {
    let subject = format!("gateway {target}");
    let channel = match connect(target, tls, ANSWER_WITHIN).await {
        Ok(channel) => channel,
        Err(error) => {
            return Finding::new(subject, Verdict::Bad, error.to_string())
                .cured_by("check that it runs, and both certificates with `logmesh certs show`");
        }
    };
    let asked = HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await;
    match asked.map(|answer| answer.into_inner().status()) {
        Ok(ServingStatus::Serving) => Finding::new(subject, Verdict::Good, "lets this agent in, and is ready"),
        Ok(_) => Finding::new(subject, Verdict::Doubtful, "lets this agent in, and is not ready")
            .cured_by("ask its /readyz for the reason"),
        Err(status) => Finding::new(subject, Verdict::Bad, describe_status(&status))
            .cured_by("the gateway's log says which check failed"),
    }
}
