//! RPM packages, by rpmbuild, which finds out by itself which libraries a program needs. It names them as this system
//! does: for Red Hat's systems a package is built on one of them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    About,
    layout::{self, Files, Program},
};

/// What `%post` and the others run.
const SCRIPTS: [(&str, &str); 4] = [
    (
        "pre",
        "getent passwd @PACKAGE@ >/dev/null || useradd --system --user-group --no-create-home \\\n    \
         --home-dir /var/lib/onenet/@KIND@ --shell /sbin/nologin --comment '@SUMMARY@' @PACKAGE@",
    ),
    (
        "post",
        "install -d -m 0755 /var/lib/onenet\n\
         install -d -m 0700 -o @PACKAGE@ -g @PACKAGE@ /var/lib/onenet/@KIND@\n\
         if [ -d /run/systemd/system ]; then\n    systemctl daemon-reload\n    \
         if [ \"$1\" -gt 1 ]; then systemctl try-restart @UNITS@ || :; fi\nfi",
    ),
    (
        "preun",
        "if [ \"$1\" = 0 ] && [ -d /run/systemd/system ]; then systemctl disable --now @UNITS@ || :; fi",
    ),
    ("postun", "if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi"),
];

/// Makes the package in `out` and gives its path.
pub(super) fn make(program: &Program, files: &Files, about: &About<'_>, out: &Path) -> Result<PathBuf> {
    let root = layout::fresh(out.join("stage").join(format!("{}-rpm", program.name)))?;
    let (tree, build) = (root.join("tree"), root.join("build"));
    layout::stage(files, &tree, about.moment)?;
    fs::create_dir_all(&build)?;
    let file = root.join("package.spec");
    fs::write(&file, spec(program, files, about, &tree)?)?;
    let architecture = about.architecture.rpm();
    let define = |name: &str, value: &str| format!("{name} {value}");
    let built = Command::new("rpmbuild")
        .env("SOURCE_DATE_EPOCH", about.moment.0.to_string())
        .env("LC_ALL", "C")
        .args(["-bb", "--quiet", "--target", &format!("{architecture}-linux")])
        .args(["--define", &define("_topdir", &build.to_string_lossy())])
        .args(["--define", &define("_rpmdir", &root.join("done").to_string_lossy())])
        .args(["--define", "_rpmfilename package.rpm", "--define", "_buildhost localhost"])
        .args(["--define", "use_source_date_epoch_as_buildtime 1"])
        .args(["--define", "clamp_mtime_to_source_date_epoch 1"])
        .args(["--define", "_build_id_links none", "--define", "debug_package %{nil}"])
        // The programs are stripped and the pages compressed already, and the tree stays where it is.
        .args(["--define", "__os_install_post %{nil}", "--define", "_binary_payload w9.xzdio"])
        .arg(&file)
        .output()
        .context("cannot run rpmbuild")?;
    if !built.status.success() {
        bail!("rpmbuild failed:\n{}", String::from_utf8_lossy(&built.stderr));
    }
    let package = out.join(format!("{}-{}-1.{architecture}.rpm", program.name, about.version));
    fs::rename(root.join("done/package.rpm"), &package)?;
    fs::set_permissions(&package, fs::Permissions::from_mode(0o644))?;
    fs::remove_dir_all(&root)?;
    Ok(package)
}

fn spec(program: &Program, files: &Files, about: &About<'_>, tree: &Path) -> Result<String> {
    let mut text = format!(
        "Name: {}\nVersion: {}\nRelease: 1\nSummary: {}\nLicense: Apache-2.0\nGroup: Applications/Internet\n\
         Requires(pre): /usr/sbin/useradd\n\n%description\n{}\n\n%install\nmkdir -p %{{buildroot}}\ncp -a {}/. %{{buildroot}}\n\n",
        program.name,
        about.version,
        program.summary,
        program.description.join("\n"),
        tree.display(),
    );
    for (name, lines) in SCRIPTS {
        let lines = layout::filled(program, lines);
        text += &format!("%{name}\n{lines}\n\n");
    }
    text += "%files\n%defattr(-,root,root,-)\n";
    let conffiles: Vec<String> = program.conffiles().collect();
    for place in files.keys() {
        let kind = match place {
            place if conffiles.contains(place) => "%config(noreplace) ",
            place if place.starts_with("/usr/share/man/") => "%doc ",
            place if place.starts_with("/usr/share/doc/") => "%doc ",
            _ => "",
        };
        text += &format!("{kind}{place}\n");
    }
    let date = about.moment.format("%a %b %d %Y")?;
    text +=
        &format!("\n%changelog\n* {date} {} - {}-1\n- See changelog.gz\n", about.maintainer, about.version);
    Ok(text)
}
