//! Images: there already, or fetched.

use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;

use crate::launch::{Failure, FailureKind, Progress};

/// When fetching is tried again, at the earliest.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Makes sure that an image is there, and returns how the engine is to be told of it.
pub(super) async fn present(
    docker: &Docker,
    image: &str,
    may_pull: bool,
    progress: &Progress,
) -> Result<String, Failure> {
    match docker.inspect_image(image).await {
        Ok(_) => return Ok(image.to_owned()),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
        Err(error) => return Err(pull_failure(image, &error)),
    }
    if !may_pull {
        let message = format!("there is no image {image}, and none are fetched here (docker.pull)");
        return Err(Failure::new(FailureKind::ImagePull, message));
    }
    progress.trouble(Failure::new(
        FailureKind::ImagePull,
        format!("the image {image} is being fetched"),
    ));
    // Without a tag an engine would fetch all there are.
    let is_named = image.contains('@') || image.rsplit('/').next().unwrap_or("").contains(':');
    let reference = if is_named { image.to_owned() } else { format!("{image}:latest") };
    let options = CreateImageOptionsBuilder::new().from_image(&reference).build();
    let mut pulling = docker.create_image(Some(options), None, None);
    while let Some(told) = pulling.next().await {
        told.map_err(|error| pull_failure(image, &error))?;
    }
    progress.clear();
    Ok(reference)
}

fn pull_failure(image: &str, error: &Error) -> Failure {
    let text = match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => other.to_string(),
    };
    let (what, kind, is_retryable) = classify(&text);
    let mut failure = Failure::new(kind, format!("cannot fetch the image {image}: {what}: {text}"));
    failure.is_retryable = is_retryable;
    failure.retry_after = is_retryable.then_some(RETRY_AFTER);
    failure
}

/// What is meant by what an engine says, which has no codes for it.
fn classify(text: &str) -> (&'static str, FailureKind, bool) {
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["no space left"]) {
        ("no space is left", FailureKind::ImagePull, true)
    } else if has(&["unauthorized", "denied", "authentication required", "no basic auth"]) {
        // Many registries say so too of what does not exist.
        ("the registry refuses access", FailureKind::ImagePull, false)
    } else if has(&["manifest unknown", "not found", "no such image", "does not exist"]) {
        ("it does not exist", FailureKind::ImagePull, false)
    } else if has(&["invalid reference", "must be lowercase", "invalid checksum digest"]) {
        ("that is no name of an image", FailureKind::BadImage, false)
    } else {
        ("the registry cannot be reached", FailureKind::ImagePull, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_apart() {
        for (text, word, is_retryable) in [
            ("manifest for a/b:1 not found: manifest unknown", "does not exist", false),
            ("pull access denied for a/b, repository does not exist", "refuses", false),
            ("Get \"https://r/v2/\": unauthorized: authentication required", "refuses", false),
            ("write /var/lib/x: no space left on device", "no space", true),
            ("Get \"https://r/v2/\": dial tcp 127.0.0.1:443: connection refused", "reached", true),
            ("invalid reference format", "no name", false),
        ] {
            let (what, _, retryable) = classify(text);
            assert!(what.contains(word), "{text}: {what}");
            assert_eq!(retryable, is_retryable, "{text}");
        }
    }
}
