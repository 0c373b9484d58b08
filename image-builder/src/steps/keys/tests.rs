use ring::signature::KeyPair as _;

use super::*;

#[test]
fn keys_read_back_and_fit_each_other() {
    let folder = tempfile::tempdir().unwrap();
    run(&KeysArgs {
        folder: folder.path().to_owned(),
    })
    .unwrap();
    let pair = read_cluster_key(folder.path()).unwrap();
    let public = read_cluster_pub(folder.path().join(CLUSTER_PUB).to_str().unwrap()).unwrap();
    assert_eq!(pair.public_key().as_ref(), public);
    let ca_key =
        KeyPair::from_pem(&fs::read_to_string(folder.path().join(CA_KEY)).unwrap()).unwrap();
    assert_eq!(ca_key.algorithm(), &PKCS_ECDSA_P256_SHA256);
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(CLUSTER_KEY);
    let error = read_cluster_key(folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("`kraken-image keys` makes one"),
        "{error:#}"
    );
    for bad in ["", "hello", &make_ca().unwrap().1] {
        fs::write(&path, bad).unwrap();
        let error = read_cluster_key(folder.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("is not an Ed25519 key in PKCS#8 PEM"),
            "{error:#}"
        );
    }
}

#[test]
fn half_a_set_is_not_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let set = [("a", "1", 0o600), ("b", "2", 0o600), ("c", "3", 0o600)];
    fs::write(folder.path().join("c"), "old").unwrap();
    assert!(write_set(folder.path(), &set).is_err());
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["c"]);
    assert_eq!(fs::read_to_string(folder.path().join("c")).unwrap(), "old");
    fs::remove_file(folder.path().join("c")).unwrap();
    write_set(folder.path(), &set).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("b")).unwrap(), "2");
}
