//! What functions may be made of: the policy that a function names must allow it.

use weft_proto::resource::{
    self, Asked, ContainerPolicySpec, FunctionSpec, Kind, Policy, RESTRICTED,
};
use weft_proto::{Error, Name, NameError, QualifiedName, Reason};

use super::State;

impl State {
    /// Refuses a function that its policy does not allow. Those that are there already are judged
    /// again before each start, by the dispatcher.
    pub(super) fn check_policy(
        &self,
        name: &QualifiedName,
        spec: &FunctionSpec,
    ) -> Result<(), Error> {
        let policy: Name =
            spec.policy.parse().map_err(|error: NameError| Error::invalid(error.to_string()))?;
        let policy = self.policy(&name.namespace, &policy)?;
        policy.judge(&Asked::of(&name.namespace, spec)).map_err(|denial| {
            Error::new(Reason::FailedPrecondition, denial.message).with_field(denial.field)
        })
    }

    fn policy(&self, namespace: &Name, policy: &Name) -> Result<Policy, Error> {
        for place in Policy::places(namespace, policy) {
            if let Some(stored) = self.get(Kind::ContainerPolicy, &place) {
                let spec: ContainerPolicySpec =
                    resource::parse(Kind::ContainerPolicy, &stored.spec)?;
                return Ok(Policy::new(&place, spec));
            }
        }
        if policy.as_str() == RESTRICTED {
            return Ok(Policy::built_in());
        }
        let message = format!(
            "there is no ContainerPolicy {policy}, neither in weft-system nor in {namespace}"
        );
        Err(Error::new(Reason::UnknownResource, message).with_field("spec.policy"))
    }
}
