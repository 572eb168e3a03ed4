//! What the definition of a webhook means for the one who runs it.

use weft_proto::resource::{
    self, Disabled, Kind, WEBHOOK_LABEL, WebhookMode, WebhookSpec, WebhookStatus,
};
use weft_proto::v1::Resource;
use weft_proto::{Error, Generation, QualifiedName, ResourceUid, Result};

use crate::function::name_of;

/// A webhook as the runner needs it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) name: QualifiedName,
    pub(super) uid: ResourceUid,
    pub(super) generation: Generation,
    pub(super) spec: WebhookSpec,
    /// Its subscription, as it shall be.
    pub(super) subscription: Resource,
    pub(super) subscription_name: QualifiedName,
    /// Its receiver said that it is gone, and nobody enabled it since.
    pub(super) disabled: Option<Disabled>,
}

impl Plan {
    /// Reads a webhook of the catalog.
    ///
    /// # Errors
    ///
    /// `Invalid`, with a sentence for the status of the webhook.
    pub(super) fn of(resource: &Resource) -> Result<Self> {
        let name = name_of(resource)?;
        let spec: WebhookSpec = resource::parse(Kind::Webhook, &resource.spec)?;
        // The catalog has checked it, perhaps an older one with fewer rules.
        spec.check(&name.name)?;
        let own = WebhookSpec::subscription_name(&name.name)?;
        let json = serde_json::to_vec(&spec.subscription());
        let json = json.map_err(|error| Error::internal(error.to_string()))?;
        let subscription = Resource {
            kind: Kind::Subscription.as_str().to_owned(),
            namespace: name.namespace.to_string(),
            name: own.to_string(),
            labels: [(WEBHOOK_LABEL.to_owned(), name.name.to_string())].into(),
            spec: json.into(),
            ..Resource::default()
        };
        Ok(Self {
            uid: ResourceUid(resource.uid),
            generation: Generation(resource.generation),
            subscription_name: QualifiedName { namespace: name.namespace.clone(), name: own },
            subscription,
            spec,
            disabled: disabled(resource),
            name,
        })
    }

    /// Events of one request, at most.
    pub(super) fn batch_max(&self) -> usize {
        match self.spec.mode {
            WebhookMode::Binary | WebhookMode::Structured => 1,
            WebhookMode::Batch(events) => usize::try_from(events).unwrap_or(1),
        }
    }
}

/// Whether, by the status, the receiver of this definition is gone.
pub(super) fn disabled(resource: &Resource) -> Option<Disabled> {
    // A status that cannot be read is one of another version, and no reason to stop.
    let status: WebhookStatus = serde_json::from_slice(&resource.status).unwrap_or_default();
    status.disabled.filter(|disabled| disabled.generation == resource.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_stays_disabled_until_its_definition_changes() {
        let resource = |generation, status: &str| Resource {
            namespace: "shop".to_owned(),
            name: "billing".to_owned(),
            generation,
            spec: r#"{"stream":"orders","url":"https://h.example/"}"#.into(),
            status: status.to_owned().into(),
            ..Resource::default()
        };
        let gone = r#"{"disabled":{"generation":7,"time":"2026-01-01T00:00:00Z"}}"#;

        let plan = Plan::of(&resource(7, gone)).unwrap();
        assert_eq!(plan.disabled.unwrap().generation, 7);
        assert_eq!(plan.subscription_name.to_string(), "shop/wh-billing");
        assert_eq!(plan.subscription.labels[WEBHOOK_LABEL], "billing");
        assert_eq!(Plan::of(&resource(8, gone)).unwrap().disabled, None);
        assert_eq!(Plan::of(&resource(7, "junk")).unwrap().disabled, None);
    }
}
