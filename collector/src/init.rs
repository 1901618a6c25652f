//! The command `init`: everything a collector needs, made in one directory. It never overwrites.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use clap::Args;
use onenet_proto::owner::as_owner_of;

use crate::{
    ca::Authority,
    cli::{self, CliError},
    clock,
    config::{Config, ServerConfig},
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
    #[arg(long, value_name = "DIR", required_unless_present = "keys_only")]
    dir: Option<PathBuf>,
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
    /// Make only the certificate authority, keys and certificates, where a configuration that is there already names
    /// them, as that of a package does; its address is in the certificate, too.
    #[arg(long, conflicts_with_all = ["dir", "listen", "web"])]
    keys_only: bool,
    /// The configuration, with --keys-only.
    #[arg(long, value_name = "FILE", requires = "keys_only", default_value = "/etc/onenet/collector.toml")]
    config: PathBuf,
}

/// Runs the command.
pub fn run(args: &InitArgs) -> Result<(), CliError> {
    let Some(dir) = &args.dir else {
        let server = Config::read(&args.config)?.server;
        let names = names(&args.name, server.listen);
        write_all(keys(&names, &server)?)?;
        return cli::print(&format!(
            "made as {} says: certificate authority, keys and certificates for {}\n\
             next: onenet-collector run, or systemctl start onenet-collector; then\n  \
             onenet-collector token create --sensor boston-1 --site boston\n",
            args.config.display(),
            names.join(", ")
        ));
    };
    let names = names(&args.name, args.listen);
    create(dir, &names, args.listen, args.web)?;
    let dir = dir.display();
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
fn names(stated: &[String], listen: SocketAddr) -> Vec<String> {
    let mut names = stated.to_vec();
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
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
    let text = CONFIG
        .replace(WEB_LISTEN, &format!("listen = \"{web}\""))
        .replace(LISTEN, &format!("listen = \"{listen}\""));
    let file = dir.join("collector.toml");
    let mut config: Config = toml::from_str(&text).map_err(CliError::failure)?;
    config.resolve(dir);
    let mut files = keys(names, &config.server)?.to_vec();
    files.push((dir.join("plan.toml"), 0o644, PLAN.to_owned()));
    // Last, so that what has a configuration has everything it names.
    files.push((file, 0o644, text));
    write_all(files)
}

/// A file to be made: its path, permissions and content.
type Made = (PathBuf, u32, String);

/// The certificate authority and the server's certificate, for where the configuration names them.
fn keys(names: &[String], server: &ServerConfig) -> Result<[Made; 4], CliError> {
    let now = clock::now();
    let (authority, ca) = Authority::create(now)?;
    let issued = authority.issue_server(names, now).map_err(|error| {
        CliError::usage(
            error.context(format!("--name {}: expected host names or addresses", names.join(", "))),
        )
    })?;
    Ok([
        (server.ca_key.clone(), 0o600, ca.key),
        (server.ca_certificate.clone(), 0o644, ca.certificate),
        (server.key.clone(), 0o600, issued.key),
        (server.certificate.clone(), 0o644, issued.certificate),
    ])
}

/// Each file belongs to whom its directory does: root makes them, and the collector may run as another user.
fn write_all(files: impl IntoIterator<Item = Made> + AsRef<[Made]>) -> Result<(), CliError> {
    if let Some((path, _, _)) = files.as_ref().iter().find(|(path, _, _)| path.exists()) {
        return Err(CliError::usage(anyhow::anyhow!("{}: exists and is not overwritten", path.display())));
    }
    for (path, mode, content) in files {
        let dir = path.parent().unwrap_or_else(|| Path::new("."));
        as_owner_of(dir, || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
            write_new(&path, mode, &content).map_err(failed(&path))
        })?;
    }
    Ok(())
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    let path = path.to_owned();
    move |error| CliError::failure(anyhow::Error::new(error).context(path.display().to_string()))
}

fn write_new(path: &Path, mode: u32, content: &str) -> std::io::Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(mode).open(path)?;
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
    fn keys_go_where_a_configuration_that_is_there_names_them() {
        let temp = tempfile::tempdir().expect("a directory");
        let (config, keys) = (temp.path().join("etc/collector.toml"), temp.path().join("keys"));
        fs::create_dir(temp.path().join("etc")).expect("made");
        let text =
            ["ca.pem", "ca.key", "server.pem", "server.key"].iter().fold(CONFIG.to_owned(), |text, name| {
                text.replace(&format!(" = \"{name}\""), &format!(" = \"../keys/{name}\""))
            });
        fs::write(&config, text.replace(LISTEN, "listen = \"192.0.2.1:7443\"")).expect("written");
        let (any, name) = (address(1), vec!["collector.example".to_owned()]);
        let args =
            InitArgs { dir: None, name, listen: any, web: any, keys_only: true, config: config.clone() };
        run(&args).expect("they are made");
        let server = Config::read(&config).expect("it reads").server;
        crate::tls::server_config(&server).expect("certificates and keys fit");
        let certificate = fs::read_to_string(keys.join("server.pem")).expect("it is there");
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).expect("PEM");
        let names = format!("{:?}", pem.parse_x509().expect("a certificate").subject_alternative_name());
        assert!(names.contains("collector.example") && names.contains("[192, 0, 2, 1]"), "{names}");
        let error = run(&args).expect_err("they are there already");
        assert!(error.code() == 2 && error.to_string().contains("is not overwritten"), "{error}");
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
