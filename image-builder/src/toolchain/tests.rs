use super::*;

const MINIMUM: (u32, u32) = (1, 90);

fn compiler(folder: &str, minor: u32) -> Compiler {
    let folder = Path::new(folder);
    Compiler {
        rustc: folder.join("rustc"),
        cargo: folder.join("cargo"),
        version: (1, minor),
        has_musl_std: false,
        has_glibc_std: true,
        has_std_source: false,
    }
}

/// A machine with rustup's stock toolchain and Debian's one with source.
fn both() -> Facts {
    let mut debian = compiler("/usr/bin", 96);
    debian.has_std_source = true;
    Facts {
        compilers: vec![compiler("/home/u/.cargo/bin", 95), debian],
        musl_gcc: Some("/usr/bin/musl-gcc".into()),
        unwind_dir: Some("/usr/lib/llvm-14/lib".into()),
        glibc_static: true,
    }
}

fn check(facts: &Facts, wanted: Option<Way>, expect: Result<&str, &str>) {
    let got = choose(facts, wanted, MINIMUM).map(|recipe| recipe.to_string());
    assert_eq!(got, expect.map(str::to_owned).map_err(str::to_owned));
}

#[test]
fn musl_library_is_first_then_source_then_glibc() {
    let mut facts = both();
    check(
        &facts,
        None,
        Ok("/usr/bin/rustc 1.96 with the standard library built from source for musl"),
    );
    facts.compilers[0].has_musl_std = true;
    check(
        &facts,
        None,
        Ok("/home/u/.cargo/bin/rustc 1.95 with the toolchain's own musl library"),
    );
    check(
        &facts,
        Some(Way::BuildStd),
        Ok("/usr/bin/rustc 1.96 with the standard library built from source for musl"),
    );
    facts.musl_gcc = None;
    check(
        &facts,
        None,
        Ok(
            "/home/u/.cargo/bin/rustc 1.95 with static glibc, which is larger and can't look names up",
        ),
    );
}

#[test]
fn source_recipe_has_every_flag_it_needs() {
    let recipe = choose(&both(), None, MINIMUM).unwrap();
    assert_eq!(
        recipe.cargo_args,
        [
            "-Zbuild-std=std,panic_abort",
            "-Zbuild-std-features=optimize_for_size"
        ]
    );
    assert_eq!(
        recipe.rustflags.join(" "),
        "-C target-feature=+crt-static -C relocation-model=static -C link-self-contained=no -Lnative=/usr/lib/llvm-14/lib"
    );
    let env: Vec<_> = recipe
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        env,
        [
            "RUSTC_BOOTSTRAP=1",
            "CC_x86_64_unknown_linux_musl=/usr/bin/musl-gcc",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=/usr/bin/musl-gcc",
        ]
    );
}

#[test]
fn a_machine_without_a_way_is_told_each_one() {
    let mut facts = both();
    facts.glibc_static = false;
    facts.unwind_dir = None;
    check(
        &facts,
        None,
        Err("this machine has no way to build a static agent:
  musl: no compiler of at least 1.90 has a library for x86_64-unknown-linux-musl; try: rustup target add x86_64-unknown-linux-musl
  build-std: no LLVM libunwind.a; try: apt-get install --no-install-recommends musl-tools rustc-web cargo-web rust-web-src libunwind-14-dev
  glibc: no libc.a; try: apt-get install libc6-dev"),
    );
    // A compiler that is too old is no compiler.
    facts.compilers[1].version = (1, 85);
    check(
        &facts,
        Some(Way::BuildStd),
        Err("this machine has no way to build a static agent:
  build-std: no compiler of at least 1.90 has the source of its standard library; try: apt-get install --no-install-recommends musl-tools rustc-web cargo-web rust-web-src libunwind-14-dev"),
    );
}

#[test]
fn variables_of_the_outer_cargo_do_not_get_in() {
    for name in [
        "PATH",
        "HOME",
        "http_proxy",
        "CARGO_HOME",
        "CARGO_NET_OFFLINE",
        "CARGO_REGISTRIES_X_INDEX",
        "RUSTUP_HOME",
        "LANG",
    ] {
        assert!(keeps_variable(name), "{name}");
    }
    for name in [
        "CARGO",
        "CARGO_PKG_NAME",
        "CARGO_TARGET_DIR",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "LD_LIBRARY_PATH",
        "CC",
    ] {
        assert!(!keeps_variable(name), "{name}");
    }
}

#[test]
fn versions_are_read() {
    assert_eq!(
        parse_version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"),
        Some((1, 96))
    );
    assert_eq!(parse_version("rustc 1.97.0-nightly (x)"), Some((1, 97)));
    assert_eq!(parse_version("clang 14"), None);
}
