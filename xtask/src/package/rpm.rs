//! RPM packages for Red Hat's systems and their kin, by rpmbuild, which finds out by itself which libraries a program needs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use memchr::memmem;

use super::{
    About, REVISION,
    layout::{self, Files, Placed, Program},
};

/// The scripts of a package, each a file of the same name.
const SCRIPTS: [&str; 4] = ["pre", "post", "preun", "postun"];

/// Makes the package in `out` and gives its path.
pub(super) fn make(program: &Program, files: &Files, about: &About<'_>, out: &Path) -> Result<PathBuf> {
    let root = layout::fresh(out.join("stage").join(format!("{}-rpm", program.name)))?;
    let (tree, build) = (root.join("tree"), root.join("build"));
    let files = &of_red_hat(program, files)?;
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
    let package = out.join(format!("{}-{}-{REVISION}.{architecture}.rpm", program.name, about.version));
    fs::rename(root.join("done/package.rpm"), &package)?;
    fs::set_permissions(&package, fs::Permissions::from_mode(0o644))?;
    fs::remove_dir_all(&root)?;
    Ok(package)
}

/// What lies elsewhere, or is there only, on Red Hat's systems.
fn of_red_hat(program: &Program, files: &Files) -> Result<Files> {
    let mut moved = Files::new();
    for (place, file) in files {
        let mut file = file.clone();
        if file.executable {
            name_libpcap(&mut file.content)?;
        }
        moved.insert(place.replace("/zsh/vendor-completions/", "/zsh/site-functions/"), file);
    }
    let preset = fs::read(crate::workspace().join(format!("packaging/systemd/{}.preset", program.name)))?;
    let place = format!("/usr/lib/systemd/system-preset/80-{}.preset", program.name);
    moved.insert(place, Placed { content: preset, executable: false });
    Ok(moved)
}

/// Debian calls libpcap `libpcap.so.0.8`, for reasons of its own history, and everybody else `libpcap.so.1`; the interface
/// is the same, and neither has symbol versions. The shorter name takes the place of the longer.
fn name_libpcap(program: &mut [u8]) -> Result<()> {
    const DEBIAN: &[u8] = b"\0libpcap.so.0.8\0";
    const OTHERS: &[u8] = b"\0libpcap.so.1\0\0\0";
    let places: Vec<usize> = memmem::find_iter(program, DEBIAN).collect();
    ensure!(places.len() <= 1, "the program names libpcap {} times, expected once", places.len());
    if let Some(name) = places.first().and_then(|at| program.get_mut(*at..at + DEBIAN.len())) {
        name.copy_from_slice(OTHERS);
    }
    Ok(())
}

fn spec(program: &Program, files: &Files, about: &About<'_>, tree: &Path) -> Result<String> {
    let mut text = format!(
        "Name: {}\nVersion: {}\nRelease: {REVISION}\nSummary: {}\nLicense: Apache-2.0\nGroup: Applications/Internet\nPackager: {}\n\
         Requires(pre): /usr/sbin/useradd\n\n%description\n{}\n\n%install\nmkdir -p %{{buildroot}}\ncp -a {}/. %{{buildroot}}\n\n",
        program.name,
        about.version,
        program.summary,
        about.maintainer,
        program.description.join("\n"),
        tree.display(),
    );
    let version = format!("{}-{REVISION}", about.version);
    for name in SCRIPTS {
        // What is a macro to rpmbuild is none to the shell.
        let script = layout::script(program, &format!("rpm/{name}"), &version)?.replace('%', "%%");
        text += &format!("%{name}\n{script}\n");
    }
    text += "%files\n%defattr(-,root,root,-)\n%dir /etc/onenet\n";
    text += &format!("%dir /usr/share/doc/{}\n", program.name);
    // Of no package that every system has.
    for folder in ["fish", "fish/vendor_completions.d", "zsh", "zsh/site-functions"] {
        text += &format!("%dir /usr/share/{folder}\n");
    }
    let conffiles: Vec<String> = program.conffiles().collect();
    for place in files.keys() {
        let kind = match place {
            place if conffiles.contains(place) => "%config(noreplace) ",
            place if place.ends_with("/copyright") => "%license ",
            place if place.starts_with("/usr/share/man/") => "%doc ",
            place if place.starts_with("/usr/share/doc/") => "%doc ",
            _ => "",
        };
        text += &format!("{kind}{place}\n");
    }
    let date = about.moment.format("%a %b %d %Y")?;
    text += &format!("\n%changelog\n* {date} {} - {version}\n- See changelog.gz\n", about.maintainer);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libpcap_is_named_as_red_hat_names_it() {
        let mut program = b"\x7fELF\0libpcap.so.0.8\0libc.so.6\0".to_vec();
        name_libpcap(&mut program).expect("named once");
        assert_eq!(program, b"\x7fELF\0libpcap.so.1\0\0\0libc.so.6\0");
        name_libpcap(&mut program).expect("nothing to do");
        let mut twice = b"\0libpcap.so.0.8\0\0libpcap.so.0.8\0".to_vec();
        assert!(name_libpcap(&mut twice).is_err());
    }
}
