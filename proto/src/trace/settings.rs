//! What an operator writes about the export of spans and metrics; the same for brokers and
//! dispatchers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The section `telemetry`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Export by the protocol of OpenTelemetry.
    pub otlp: Otlp,
    /// Attributes of this process beside `service.name`, `service.instance.id` and `service.version`,
    /// or instead of them.
    pub resource: BTreeMap<String, String>,
}

/// The section `telemetry.otlp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Otlp {
    /// Where a collector listens, as in `http://127.0.0.1:4317`; empty: nothing is exported.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// File with certificates of those who sign the collector's; for `https` only.
    pub ca_file: Option<PathBuf>,
    /// File with headers of each export, one a line: `name: value`.
    pub headers_file: Option<PathBuf>,
    /// Environment variable with such headers: `name=value,name=value`.
    pub headers_env: Option<String>,
    /// Share of the traces that begin here whose spans are exported, from 0 to 1. A trace that began
    /// elsewhere is followed if it was sampled there.
    pub sample: f64,
    /// Between two exports of metrics, in milliseconds; 0 = metrics are not exported.
    pub metrics_ms: u64,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protocol: Protocol::Grpc,
            ca_file: None,
            headers_file: None,
            headers_env: None,
            sample: 1.0,
            metrics_ms: 15_000,
        }
    }
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// OTLP/gRPC, port 4317 by custom.
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP/HTTP with protobuf, port 4318 by custom; `/v1/traces` and `/v1/metrics` are added to the
    /// path.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

impl Telemetry {
    /// Checks what can be checked without touching the machine.
    ///
    /// # Errors
    ///
    /// A key, and what is wrong with its value.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let otlp = &self.otlp;
        if otlp.endpoint.is_empty() {
            let is_set = *otlp != Otlp::default() || !self.resource.is_empty();
            let problem = || "it is empty, so the other settings mean nothing".to_owned();
            return if is_set { Err(("telemetry.otlp.endpoint", problem())) } else { Ok(()) };
        }
        let is_encrypted = otlp.endpoint.starts_with("https://");
        let url = url::Url::parse(&otlp.endpoint).ok().filter(|url| {
            (is_encrypted || otlp.endpoint.starts_with("http://"))
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        let Some(url) = url else {
            let problem = format!(
                "{:?} is no place of a collector; write http://127.0.0.1:4317",
                otlp.endpoint
            );
            return Err(("telemetry.otlp.endpoint", problem));
        };
        if otlp.protocol == Protocol::Grpc && url.path() != "/" {
            let problem = "gRPC has no path: leave it out, or take http/protobuf".to_owned();
            return Err(("telemetry.otlp.endpoint", problem));
        }
        if is_encrypted != otlp.ca_file.is_some() {
            let problem = if is_encrypted {
                "https needs the certificates of those who sign the collector's"
            } else {
                "it means nothing without https://"
            };
            return Err(("telemetry.otlp.ca_file", problem.to_owned()));
        }
        if !(0.0..=1.0).contains(&otlp.sample) {
            return Err(("telemetry.otlp.sample", format!("{} is not in 0..=1", otlp.sample)));
        }
        if otlp.metrics_ms != 0 && !(100..=3_600_000).contains(&otlp.metrics_ms) {
            let problem = format!("{} is neither 0 nor in 100..=3600000", otlp.metrics_ms);
            return Err(("telemetry.otlp.metrics_ms", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(change: impl FnOnce(&mut Otlp)) -> &'static str {
        let mut telemetry = Telemetry::default();
        telemetry.otlp.endpoint = "http://127.0.0.1:4317".to_owned();
        telemetry.check().unwrap();
        change(&mut telemetry.otlp);
        telemetry.check().map_or_else(|(key, _)| key, |()| "nothing")
    }

    #[test]
    fn each_setting_that_makes_no_sense_is_named() {
        let endpoint = "telemetry.otlp.endpoint";
        for text in
            ["127.0.0.1:4317", "ftp://a", "http://", "http://u:p@a", "http://a/?x", "http://a/p"]
        {
            assert_eq!(wrong(|otlp| otlp.endpoint = text.to_owned()), endpoint, "{text}");
        }
        let with_path = |otlp: &mut Otlp| {
            otlp.endpoint = "http://a:4318/base".to_owned();
            otlp.protocol = Protocol::HttpProtobuf;
        };
        assert_eq!(wrong(with_path), "nothing");
        assert_eq!(wrong(|otlp| otlp.endpoint = String::new()), "nothing");
        let alone = |otlp: &mut Otlp| {
            *otlp = Otlp { sample: 0.5, ..Otlp::default() };
        };
        assert_eq!(wrong(alone), endpoint);
        let ca = "telemetry.otlp.ca_file";
        assert_eq!(wrong(|otlp| otlp.ca_file = Some("a.pem".into())), ca);
        assert_eq!(wrong(|otlp| otlp.endpoint = "https://a".to_owned()), ca);
        for sample in [-0.1, 1.1, f64::NAN] {
            assert_eq!(wrong(|otlp| otlp.sample = sample), "telemetry.otlp.sample");
        }
        assert_eq!(wrong(|otlp| otlp.metrics_ms = 99), "telemetry.otlp.metrics_ms");
        assert_eq!(wrong(|otlp| otlp.metrics_ms = 0), "nothing");
    }
}
