use super::*;

fn launch(layers: usize) -> Launch {
    Launch {
        name: "demo".into(),
        digest: "d".into(),
        layers: (0..layers)
            .map(|n| PathBuf::from(format!("/run/kraken/images/{n}")))
            .collect(),
        init: vec!["/sbin/init".into()],
        hostname: "n1".into(),
        run_dir: "/run/kraken".into(),
        deaths: 0,
    }
}

fn target(step: &Step) -> Option<&Path> {
    match step {
        Step::Mount(mount) => Some(&mount.target),
        Step::Layer(_, target) => Some(target),
        _ => None,
    }
}

#[test]
fn the_highest_layer_is_the_first_of_overlayfs() {
    let steps = steps(&launch(2)).unwrap();
    let data = steps.iter().find_map(|step| match step {
        Step::Mount(mount) if mount.kind == "overlay" => Some(mount.data.as_str()),
        _ => None,
    });
    assert_eq!(
        data,
        Some(
            "lowerdir=/run/kraken/root/1:/run/kraken/root/0,upperdir=/run/kraken/root/u,workdir=/run/kraken/root/w"
        )
    );
}

#[test]
fn nothing_is_mounted_below_what_comes_later() {
    let steps = steps(&launch(2)).unwrap();
    let targets: Vec<&Path> = steps.iter().filter_map(target).collect();
    for (at, target) in targets.iter().enumerate() {
        let hidden = targets[at + 1..]
            .iter()
            .any(|later| target.starts_with(later));
        assert!(!hidden, "{} would be hidden", target.display());
    }
    assert_eq!(steps[0], Step::Private, "before any mount");
    assert!(
        matches!(steps.last(), Some(Step::Root(_))),
        "after every mount"
    );
}

#[test]
fn only_marks_of_jobs_and_sockets_of_modules_are_shared_with_the_agent() {
    let steps = steps(&launch(1)).unwrap();
    let binds: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Mount(mount) if mount.flags.bind => {
                Some((mount.source.to_str()?, mount.target.to_str()?))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        binds,
        [
            ("/run/kraken/busy.d", "/run/kraken/root/r/run/kraken/busy.d"),
            (
                "/run/kraken/modules.d",
                "/run/kraken/root/r/run/kraken/modules.d"
            )
        ]
    );
}

#[test]
fn as_many_layers_as_a_manifest_may_have_fit() {
    assert!(steps(&launch(crate::image::manifest::MAX_LAYERS)).is_ok());
    assert_eq!(steps(&launch(1000)), Err(TooManyLayers { layers: 1000 }));
}
