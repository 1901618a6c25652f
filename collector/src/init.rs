//! The command `init`: everything a collector needs, made in one directory. It never overwrites.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    ca::Authority,
    cli::{self, CliError},
    clock,
    config::Config,
};

/// The configuration that `init` writes, with its comments.
const CONFIG: &str = include_str!("../../packaging/collector.toml");

/// The example of an address plan that `init` writes.
const PLAN: &str = include_str!("../../packaging/plan.toml");

/// Addresses in [`CONFIG`] that `init` replaces.
const LISTEN: &str = "listen = \"127.0.0.1:7443\"";
const WEB_LISTEN: &str = "listen = \"127.0.0.1:7480\"";

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Directory to make; what is in it already is never overwritten.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Host name or address that sensors connect to, for the server certificate; may be given more than once.
    /// The address of --listen, localhost and 127.0.0.1 are always in it.
    #[arg(long, value_name = "HOST")]
    name: Vec<String>,
    /// Address and port for the sensors.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7443")]
    listen: SocketAddr,
    /// Address and port of the web page and the API.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7480")]
    web: SocketAddr,
    /// Make only the certificate authority, keys and certificates, for a configuration that names them and is there
    /// already, as that of a package is.
    #[arg(long, conflicts_with_all = ["listen", "web"])]
    keys_only: bool,
}

/// Runs the command.
pub fn run(args: &InitArgs) -> Result<(), CliError> {
    let names = names(args);
    if args.keys_only {
        create_keys(&args.dir, &names)?;
        let (dir, names) = (args.dir.display(), names.join(", "));
        return cli::print(&format!(
            "made in {dir}: certificate authority, keys and certificates for {names}\n"
        ));
    }
    create(&args.dir, &names, args.listen, args.web)?;
    let dir = args.dir.display();
    let text = format!(
        "made in {dir}: collector.toml, plan.toml (an example), and keys and certificates for {}\n\
         next: edit {dir}/plan.toml, then\n  \
         onenet-collector run --dir {dir}\n  \
         onenet-collector token create --sensor boston-1 --site boston --dir {dir}\n",
        names.join(", ")
    );
    cli::print(&text)
}

/// The names of the server certificate, each once.
fn names(args: &InitArgs) -> Vec<String> {
    let mut names = args.name.clone();
    if !args.listen.ip().is_unspecified() {
        names.push(args.listen.ip().to_string());
    }
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}

/// Makes a collector's directory. Nothing is written where any of its files is there already.
pub fn create(dir: &Path, names: &[String], listen: SocketAddr, web: SocketAddr) -> Result<(), CliError> {
    let keys = keys(names)?;
    let config = CONFIG
        .replace(WEB_LISTEN, &format!("listen = \"{web}\""))
        .replace(LISTEN, &format!("listen = \"{listen}\""));
    let rest = [
        ("plan.toml", 0o644, PLAN.to_owned()),
        // Last, so that what has a configuration has everything it names.
        ("collector.toml", 0o644, config),
    ];
    write_all(dir, keys.into_iter().chain(rest).collect())?;
    Config::read(&dir.join("collector.toml"))?;
    Ok(())
}

/// Makes the certificate authority and the server's certificate alone.
fn create_keys(dir: &Path, names: &[String]) -> Result<(), CliError> {
    write_all(dir, keys(names)?.into())
}

/// A file to be made: its name, permissions and content.
type Made = (&'static str, u32, String);

fn keys(names: &[String]) -> Result<[Made; 4], CliError> {
    let now = clock::now();
    let (authority, ca) = Authority::create(now)?;
    let server = authority.issue_server(names, now).map_err(|error| {
        CliError::usage(
            error.context(format!("--name {}: expected host names or addresses", names.join(", "))),
        )
    })?;
    Ok([
        ("ca.key", 0o600, ca.key),
        ("ca.pem", 0o644, ca.certificate),
        ("server.key", 0o600, server.key),
        ("server.pem", 0o644, server.certificate),
    ])
}

fn write_all(dir: &Path, files: Vec<Made>) -> Result<(), CliError> {
    if let Some((name, _, _)) = files.iter().find(|(name, _, _)| dir.join(name).exists()) {
        let error = anyhow::anyhow!("{}: exists and is not overwritten", dir.join(name).display());
        return Err(CliError::usage(error));
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
    for (name, mode, content) in files {
        let path = dir.join(name);
        write_new(dir, &path, mode, &content).map_err(failed(&path))?;
    }
    Ok(())
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    let path = path.to_owned();
    move |error| CliError::failure(anyhow::Error::new(error).context(path.display().to_string()))
}

/// Root makes it a file of whoever the directory belongs to: a collector that runs as another user has to read it.
fn write_new(dir: &Path, path: &Path, mode: u32, content: &str) -> std::io::Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(mode).open(path)?;
    if nix::unistd::geteuid().is_root() {
        let owner = fs::metadata(dir)?;
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use onenet_core::plan::AddressPlan;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn what_is_made_is_a_configuration_with_private_keys() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = temp.path().join("collector");
        create(&dir, &["collector.example".to_owned()], address(1), address(2)).expect("it is made");
        let config = Config::read(&dir.join("collector.toml")).expect("it reads");
        assert_eq!((config.server.listen, config.web.listen), (address(1), address(2)));
        assert_eq!(config.store.directory, dir.join("data"));
        for key in ["ca.key", "server.key"] {
            let mode = fs::metadata(dir.join(key)).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        crate::tls::server_config(&config.server).expect("certificates and keys fit");
        Authority::load(&config.server.ca_certificate, &config.server.ca_key).expect("the authority reads");
    }

    #[test]
    fn nothing_is_overwritten() {
        let temp = tempfile::tempdir().expect("a directory");
        fs::write(temp.path().join("plan.toml"), "mine").expect("written");
        let error = create(temp.path(), &[], address(1), address(2)).expect_err("the plan is there");
        assert!(error.to_string().ends_with("plan.toml: exists and is not overwritten"), "{error}");
        assert_eq!(fs::read_dir(temp.path()).expect("readable").count(), 1);
    }

    #[test]
    fn the_example_plan_holds_and_names_the_nine_secretariats() {
        let plan: AddressPlan = toml::from_str(PLAN).expect("it parses");
        assert_eq!(plan.check(), Ok(()));
        assert_eq!((plan.secretariats.len(), plan.segments.len()), (9, 18));
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let temp = tempfile::tempdir().expect("a directory");
        let error = create(temp.path(), &["é".to_owned()], address(1), address(2)).expect_err("no host name");
        assert!(error.to_string().contains("--name"), "{error}");
    }
}
