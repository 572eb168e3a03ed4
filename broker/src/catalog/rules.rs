//! Rules between resources: what refers to what, and what may change.

use weft_proto::resource::{
    self, BindingMode, BindingVersion, FunctionSpec, Kind, StreamSpec, SubscriptionSpec,
};
use weft_proto::{Error, QualifiedName, Reason, v1};

use super::{State, view};

impl State {
    /// Refuses what refers to nothing, and changes that a kind does not allow.
    pub(super) fn check_references(
        &self,
        kind: Kind,
        name: &QualifiedName,
        new: &v1::Resource,
        old: Option<&v1::Resource>,
    ) -> Result<(), Error> {
        match kind {
            Kind::Schema => Ok(()),
            Kind::Stream => {
                let spec: StreamSpec = resource::parse(kind, &new.spec)?;
                if let Some(old) = old {
                    let old: StreamSpec = resource::parse(kind, &old.spec)?;
                    if old.partitions != spec.partitions {
                        let message = format!(
                            "the stream {name} has {} partitions; their number cannot change, or keys would move",
                            old.partitions
                        );
                        return Err(fixed("spec.partitions", message));
                    }
                }
                self.check_bindings(&spec)
            }
            Kind::Subscription => {
                let spec: SubscriptionSpec = resource::parse(kind, &new.spec)?;
                self.check_stream(&spec.stream, "spec.stream")?;
                let Some(old) = old else { return Ok(()) };
                let old: SubscriptionSpec = resource::parse(kind, &old.spec)?;
                let same = SubscriptionSpec { filters: spec.filters.clone(), ..old };
                if same != spec {
                    let message = format!(
                        "only the filters of the subscription {name} can change; its cursor belongs to the rest"
                    );
                    return Err(fixed("spec", message));
                }
                Ok(())
            }
            Kind::Function => {
                let spec: FunctionSpec = resource::parse(kind, &new.spec)?;
                for (place, trigger) in spec.triggers.iter().enumerate() {
                    self.check_stream(&trigger.stream, &format!("spec.triggers[{place}].stream"))?;
                }
                match &spec.reply {
                    Some(reply) => self.check_stream(&reply.stream, "spec.reply.stream"),
                    None => Ok(()),
                }
            }
        }
    }

    fn check_bindings(&self, spec: &StreamSpec) -> Result<(), Error> {
        for (place, binding) in spec.schemas.iter().enumerate() {
            if binding.mode == BindingMode::Off {
                continue;
            }
            let field = format!("spec.schemas[{place}].schema");
            let Ok(name) = binding.schema.parse::<QualifiedName>() else { continue };
            let Some(schema) = self.get(Kind::Schema, &name) else {
                let message = format!("there is no Schema {name}; register it first");
                return Err(Error::new(Reason::UnknownResource, message).with_field(field));
            };
            if let BindingVersion::Number(number) = binding.version {
                let versions = view::schema_status(schema).versions;
                if !versions.iter().any(|version| version.version == number) {
                    let message = format!("the Schema {name} has no version {number}");
                    let field = format!("spec.schemas[{place}].version");
                    return Err(Error::new(Reason::UnknownResource, message).with_field(field));
                }
            }
        }
        Ok(())
    }

    fn check_stream(&self, text: &str, field: &str) -> Result<(), Error> {
        let name: QualifiedName =
            text.parse().map_err(|error: weft_proto::NameError| Error::invalid(error.to_string()))?;
        match self.get(Kind::Stream, &name) {
            Some(_) => Ok(()),
            None => {
                let message = format!("there is no Stream {name}; create it first");
                Err(Error::new(Reason::UnknownStream, message).with_field(field))
            }
        }
    }

    /// Refuses to delete what others stand on, and names them.
    pub(super) fn check_unused(&self, kind: Kind, name: &QualifiedName) -> Result<(), Error> {
        let users: Vec<String> = self
            .resources()
            .iter()
            .filter(|((other, _), resource)| uses(*other, resource, kind, name))
            .map(|((other, user), _)| format!("{other} {user}"))
            .collect();
        if users.is_empty() {
            return Ok(());
        }
        let message = format!("the {kind} {name} is used by {}; delete them first", users.join(", "));
        Err(Error::new(Reason::FailedPrecondition, message))
    }
}

fn fixed(field: &str, message: String) -> Error {
    Error::new(Reason::FailedPrecondition, message).with_field(field)
}

fn uses(kind: Kind, resource: &v1::Resource, used: Kind, name: &QualifiedName) -> bool {
    let is = |text: &str| text.parse::<QualifiedName>().is_ok_and(|other| other == *name);
    match (kind, used) {
        (Kind::Stream, Kind::Schema) => resource::parse::<StreamSpec>(kind, &resource.spec)
            .is_ok_and(|spec| spec.schemas.iter().any(|binding| is(&binding.schema))),
        (Kind::Subscription, Kind::Stream) => {
            resource::parse::<SubscriptionSpec>(kind, &resource.spec)
                .is_ok_and(|spec| is(&spec.stream))
        }
        (Kind::Function, Kind::Stream) => resource::parse::<FunctionSpec>(kind, &resource.spec)
            .is_ok_and(|spec| {
                spec.triggers.iter().any(|trigger| is(&trigger.stream))
                    || spec.reply.is_some_and(|reply| is(&reply.stream))
            }),
        _ => false,
    }
}
