//! `AddImage`: system images on the head's shelf, put there or only looked at.

use std::path::PathBuf;
use std::sync::Arc;

use proto::v1;
use tonic::{Response, Status};

use super::admin::{Answer, stopped};
use super::convert;
use crate::modules::{ImageStore, SystemImage};

/// Answers a request.
pub(super) async fn add(
    images: &Arc<ImageStore>,
    request: v1::AddImageRequest,
) -> Answer<v1::AddImageResponse> {
    let path = PathBuf::from(request.path);
    if !path.is_absolute() {
        return Err(Status::invalid_argument(
            "the absolute path of a folder on the head is wanted",
        ));
    }
    let images = Arc::clone(images);
    let added = tokio::task::spawn_blocking(move || match request.dry_run {
        true => images.check(&path),
        false => images.add(&path),
    });
    match added.await.map_err(stopped)? {
        Ok(added) => Ok(Response::new(v1::AddImageResponse {
            image: Some(message(added.image)),
            replaces: added.replaces.map(message),
            new_files: added.new_files,
            new_bytes: added.new_bytes,
        })),
        Err(error) if error.is_disk_full() => Err(Status::resource_exhausted(error.to_string())),
        Err(error) => Err(convert::invalid(error)),
    }
}

/// An image of the shelf.
pub(super) fn message(image: SystemImage) -> v1::Image {
    v1::Image {
        name: image.name,
        digest: image.digest,
        size_bytes: image.size_bytes,
        security_version: image.security_version,
        added_ms: image.added_ms,
    }
}
