//! Tests with whole images.

mod fixture;
mod pulls;

use std::fs;
use std::path::Path;

use api::error_chain::chain;
use serde_json::json;

use self::fixture::Fixture;
use super::progress::silent;
use super::{Digest, Images, ImagesError};
use crate::sandbox::image::{ImageRequest, ImageRoot, ImageSource, PullPolicy};

struct Place {
    folder: tempfile::TempDir,
    images: Images,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open(&folder.path().join("images")).unwrap();
        Self { folder, images }
    }

    fn import(&self, archive: &[u8], name: Option<&str>) -> Result<Vec<String>, ImagesError> {
        let path = self.folder.path().join("archive");
        fs::write(&path, archive).unwrap();
        self.import_path(&path, name)
    }

    fn import_path(&self, path: &Path, name: Option<&str>) -> Result<Vec<String>, ImagesError> {
        let imported = self.images.import(path, name, &silent())?;
        Ok(imported.into_iter().flat_map(|it| it.references).collect())
    }

    async fn resolve(&self, reference: &str, pull: PullPolicy) -> Result<String, String> {
        let request = ImageRequest {
            reference,
            pull,
            secrets: &[],
        };
        let image = self
            .images
            .resolve(request)
            .await
            .map_err(|error| error.to_string())?;
        let ImageRoot::Folder(root) = image.root else {
            panic!()
        };
        assert_eq!(
            (image.entrypoint, image.env),
            (vec!["/tool".to_owned()], vec!["A=b".to_owned()])
        );
        Ok(fs::read_to_string(root.join("disk/root.img")).unwrap())
    }

    fn left(&self) -> usize {
        let count = |name: &str| {
            fs::read_dir(self.folder.path().join("images").join(name))
                .unwrap()
                .count()
        };
        count("work") + count("blobs")
    }
}

const DEMO: &str = "kubevirt/cirros-registry-disk-demo";
const DEMO_WHOLE: &str = "docker.io/kubevirt/cirros-registry-disk-demo:latest";

#[tokio::test]
async fn an_archive_is_imported_under_any_form_of_its_name() {
    let fixture = Fixture::new("disk");
    for (given, asked) in [(DEMO, DEMO_WHOLE), (DEMO_WHOLE, DEMO)] {
        let place = Place::new();
        assert_eq!(
            place.import(&fixture.archive(None), Some(given)).unwrap(),
            [DEMO_WHOLE]
        );
        for pull in [
            PullPolicy::Always,
            PullPolicy::IfNotPresent,
            PullPolicy::Never,
        ] {
            assert_eq!(place.resolve(asked, pull).await.unwrap(), "disk");
        }
        let by_digest = format!("quay.io/any@{}", Digest::of(&fixture.manifest));
        assert_eq!(
            place.resolve(&by_digest, PullPolicy::Never).await.unwrap(),
            "disk"
        );
        assert_eq!(place.left(), 0);
    }
}

#[tokio::test]
async fn all_forms_of_archives_are_read() {
    let fixture = Fixture::new("disk");
    let place = Place::new();
    let check = async |name: &str| {
        assert_eq!(
            place.resolve(name, PullPolicy::Never).await.unwrap(),
            "disk"
        );
        place.images.remove(name).unwrap();
        assert!(
            place
                .resolve(name, PullPolicy::Never)
                .await
                .unwrap_err()
                .contains("Never")
        );
    };
    let layout = fixture.layout(place.folder.path(), Some("a.io/layout:v1"));
    assert_eq!(
        place.import_path(&layout, None).unwrap(),
        ["a.io/layout:v1"]
    );
    check("a.io/layout:v1").await;
    place
        .import(
            &fixture::gzip(&fixture.archive(Some("a.io/packed:v1"))),
            None,
        )
        .unwrap();
    check("a.io/packed:v1").await;
    let packed = ruzstd::encoding::compress_to_vec(
        &fixture.archive(Some("a.io/zstd:v1"))[..],
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    place.import(&packed, None).unwrap();
    check("a.io/zstd:v1").await;
    let names = place
        .import(&fixture.saved(&json!(["a.io/one:v1", "two"])), None)
        .unwrap();
    assert_eq!(names, ["a.io/one:v1", "docker.io/library/two:latest"]);
    check("two").await;
    check("a.io/one:v1").await;
    assert_eq!((place.left(), place.images.list().unwrap().len()), (0, 0));
}

#[tokio::test]
async fn the_images_of_our_own_guests_are_read() {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests/oci/demo-disk");
    if !built.join("index.json").exists() {
        println!("skipped: no {}: images/build.sh makes it", built.display());
        return;
    }
    let place = Place::new();
    assert_eq!(
        place.import_path(&built, None).unwrap(),
        ["registry.example/ferrovirt/demo-disk:latest"]
    );
    let request = ImageRequest {
        reference: "registry.example/ferrovirt/demo-disk",
        pull: PullPolicy::Never,
        secrets: &[],
    };
    let ImageRoot::Folder(root) = place.images.resolve(request).await.unwrap().root else {
        panic!()
    };
    let disk = fs::metadata(root.join("disk/root.qcow2")).unwrap();
    assert!(disk.len() > 1 << 20);
}

#[test]
fn archives_that_are_none_are_refused_with_the_reason() {
    let fixture = Fixture::new("disk");
    let place = Place::new();
    let refuse = |archive: &[u8], name: Option<&str>, why: &str| {
        let error = place.import(archive, name).unwrap_err();
        let text = chain(&error);
        assert!(text.contains(why), "{text}");
    };
    refuse(&fixture.archive(None), None, "--name");
    refuse(&fixture.archive(Some("latest")), None, "--name");
    refuse(&fixture.archive(None), Some("Not A Name"), "Not A Name");
    refuse(
        &fixture::tar(&[("x", b"y")]),
        Some("a"),
        "neither index.json",
    );
    refuse(
        b"no archive, but a text of some length",
        Some("a"),
        "archive",
    );
    refuse(&fixture.saved(&json!(null)), None, "--name");
    let mut files = fixture.files(None);
    files.remove(1);
    let files: Vec<_> = files
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_slice()))
        .collect();
    refuse(&fixture::tar(&files), Some("a"), "not complete");
    let mut damaged = fixture.archive(None);
    let at = damaged
        .windows(8)
        .position(|it| it == &fixture.layer[..8])
        .unwrap();
    damaged[at + 30] ^= 1;
    assert!(place.import(&damaged, Some("a")).is_err());
    let hostile =
        json!([{"Config": "/etc/passwd", "RepoTags": ["a:b"], "Layers": ["../../etc/passwd"]}]);
    refuse(
        &fixture::tar(&[("manifest.json", hostile.to_string().as_bytes())]),
        None,
        "not complete",
    );
    assert_eq!((place.left(), place.images.list().unwrap().len()), (0, 0));
}

#[tokio::test]
async fn a_name_moves_to_a_new_image_and_a_restart_cleans_up() {
    let place = Place::new();
    let fixture = Fixture::new("old");
    place
        .import(&fixture.archive(Some("a.io/x:v1")), None)
        .unwrap();
    let other = Images::open(&place.folder.path().join("images")).unwrap();
    place
        .import(&Fixture::new("new").archive(Some("a.io/x:v1")), None)
        .unwrap();
    assert_eq!(
        place.resolve("a.io/x:v1", PullPolicy::Never).await.unwrap(),
        "new"
    );
    assert_eq!(other.list().unwrap().len(), 2);
    let folder = place.folder.path().join("images");
    // What a process leaves that is killed while it makes an image.
    fs::create_dir_all(folder.join("work/abandoned/root")).unwrap();
    fs::create_dir_all(folder.join("roots/0123/root")).unwrap();
    let again = Images::open(&folder).unwrap();
    assert_eq!(again.list().unwrap().len(), 1);
    assert_eq!(fs::read_dir(folder.join("roots")).unwrap().count(), 1);
    assert_eq!(place.left(), 0);
    assert_eq!(
        place.resolve("a.io/x:v1", PullPolicy::Never).await.unwrap(),
        "new"
    );
}

#[test]
fn an_image_that_is_not_there_cannot_be_removed() {
    let place = Place::new();
    let error = place.images.remove("a.io/x").unwrap_err().to_string();
    assert!(
        error.contains("a.io/x:latest") && error.contains("image ls"),
        "{error}"
    );
    let fixture = Fixture::new("disk");
    place
        .import(&fixture.saved(&json!(["a.io/one", "a.io/two"])), None)
        .unwrap();
    place.images.remove("a.io/one").unwrap();
    assert_eq!(
        place.images.list().unwrap()[0].references,
        ["a.io/two:latest"]
    );
    place
        .images
        .remove(&place.images.list().unwrap()[0].digest.to_string())
        .unwrap();
    assert_eq!(place.images.list().unwrap(), []);
}

proptest::proptest! {
    #[test]
    fn no_text_does_harm(text in ".{0,120}", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        if let Ok(reference) = super::Reference::parse(&text) {
            proptest::prop_assert_eq!(super::Reference::parse(&reference.to_string()).unwrap(), reference);
        }
        let _any = super::manifest::document(&bytes);
        let _any = super::manifest::config(&bytes);
        let folder = tempfile::tempdir().unwrap();
        let root = fs::File::open(folder.path()).unwrap().into();
        let unpacked = Digest::of(b"");
        let expected = super::layer::Expected { packed: None, unpacked: &unpacked };
        let _any = super::layer::apply(&bytes[..], expected, &root, &mut super::layer::Budget::default());
    }
}
