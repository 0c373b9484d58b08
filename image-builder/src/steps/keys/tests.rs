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
