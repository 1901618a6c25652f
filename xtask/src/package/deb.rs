//! Debian packages, by dpkg-deb.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use memchr::memmem;

use super::{
    About, REVISION,
    layout::{self, Files, Placed, Program},
};

/// Makes the package in `out` and gives its path.
pub(super) fn make(program: &Program, files: &Files, about: &About<'_>, out: &Path) -> Result<PathBuf> {
    let architecture = about.architecture.debian();
    let version = format!("{}-{REVISION}", about.version);
    let root = layout::fresh(out.join("stage").join(format!("{}-deb", program.name)))?;
    let mut files = files.clone();
    let changes = layout::gzip(change_log(program, &version, about)?.as_bytes())?;
    let place = format!("/usr/share/doc/{}/changelog.Debian.gz", program.name);
    files.insert(place, Placed { content: changes, executable: false });
    let overrides = layout::script(program, "deb/lintian-overrides", &version)?.into_bytes();
    let place = format!("/usr/share/lintian/overrides/{}", program.name);
    files.insert(place, Placed { content: overrides, executable: false });
    let mut control = Files::new();
    let mut add = |name: &str, text: String, executable| {
        control.insert(format!("/DEBIAN/{name}"), Placed { content: text.into_bytes(), executable });
    };
    add("control", description(program, &files, &version, architecture, about), false);
    add("conffiles", program.conffiles().map(|file| file + "\n").collect(), false);
    add("md5sums", sums(&files)?, false);
    for name in ["preinst", "postinst", "prerm", "postrm"] {
        add(name, layout::script(program, &format!("deb/{name}"), &version)?, true);
    }
    control.append(&mut files);
    layout::stage(&control, &root, about.moment)?;
    let package = out.join(format!("{}_{version}_{architecture}.deb", program.name));
    let built = Command::new("dpkg-deb")
        .env("SOURCE_DATE_EPOCH", about.moment.0.to_string())
        // Blocks of xz are cut by the number of threads.
        .env("DPKG_DEB_THREADS_MAX", "1")
        .args(["--root-owner-group", "-Zxz", "--build"])
        .args([&root, &package])
        .output()
        .context("cannot run dpkg-deb")?;
    if !built.status.success() {
        bail!("dpkg-deb failed:\n{}", String::from_utf8_lossy(&built.stderr));
    }
    fs::set_permissions(&package, fs::Permissions::from_mode(0o644))?;
    fs::remove_dir_all(&root)?;
    Ok(package)
}

fn description(
    program: &Program,
    files: &Files,
    version: &str,
    architecture: &str,
    about: &About<'_>,
) -> String {
    let kib: usize = files.values().map(|file| file.content.len().div_ceil(1024)).sum();
    let needs = needs(files.get(&format!("/usr/bin/{}", program.name)));
    let text: String = program.description.iter().map(|line| format!(" {line}\n")).collect();
    format!(
        // For useradd, by which the service gets its user before anything is unpacked.
        "Package: {}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {}\nInstalled-Size: {kib}\n\
         Pre-Depends: passwd\n{needs}Section: net\nPriority: optional\nDescription: {}\n{text}",
        program.name, about.maintainer, program.summary
    )
}

/// The field that names the packages of the libraries which a program asks for, by what stands in it.
fn needs(program: Option<&Placed>) -> String {
    let content = program.map_or(&[][..], |file| &file.content);
    let mut needs = Vec::new();
    if let Some(minor) = newest_glibc(content) {
        needs.push(format!("libc6 (>= 2.{minor})"));
    }
    if contains(content, b"libgcc_s.so.1") {
        needs.push("libgcc-s1".to_owned());
    }
    if contains(content, b"libpcap.so.0.8") {
        needs.push("libpcap0.8 | libpcap0.8t64".to_owned());
    }
    if needs.is_empty() { String::new() } else { format!("Depends: {}\n", needs.join(", ")) }
}

fn contains(content: &[u8], wanted: &[u8]) -> bool {
    memmem::find(content, wanted).is_some()
}

/// The latest minor version of the C library whose symbols the program asks for.
fn newest_glibc(content: &[u8]) -> Option<u32> {
    const MARK: &[u8] = b"\0GLIBC_2.";
    let minors = memmem::find_iter(content, MARK).filter_map(|at| {
        let rest = content.get(at + MARK.len()..)?.iter();
        let digits: Vec<u8> = rest.take_while(|byte| byte.is_ascii_digit()).copied().collect();
        String::from_utf8(digits).ok()?.parse().ok()
    });
    minors.max()
}

/// The list by which dpkg verifies what is installed.
fn sums(files: &Files) -> Result<String> {
    let mut sums = String::new();
    for (place, file) in files.iter().filter(|(place, _)| !place.starts_with("/etc/")) {
        let printed = layout::piped("md5sum", &["-"], &file.content)?;
        let sum = String::from_utf8(printed)?;
        let sum = sum.split_whitespace().next().context("md5sum printed nothing")?;
        sums += &format!("{sum}  {}\n", place.trim_start_matches('/'));
    }
    Ok(sums)
}

fn change_log(program: &Program, version: &str, about: &About<'_>) -> Result<String> {
    Ok(format!(
        "{} ({version}) unstable; urgency=medium\n\n  * Version {}; what has changed is in changelog.gz.\n\n -- {}  {}\n",
        program.name,
        about.version,
        about.maintainer,
        about.moment.format("%a, %d %b %Y %H:%M:%S +0000")?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_needs_the_libraries_that_stand_in_the_program() {
        let needs_of = |content: &[u8]| needs(Some(&Placed { content: content.to_vec(), executable: true }));
        assert_eq!(needs_of(b"#!/bin/sh\n"), "");
        let program = b"\x7fELF\0libpcap.so.0.8\0libgcc_s.so.1\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0";
        assert_eq!(needs_of(program), "Depends: libc6 (>= 2.34), libgcc-s1, libpcap0.8 | libpcap0.8t64\n");
    }
}
