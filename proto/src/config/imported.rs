//! What was imported into an address plan: files in `<plan>.d` beside the plan, `plan.d/netbox.ndjson` beside `plan.toml`.
//!
//! Each is lines of JSON: first `{"import":1,"source":"netbox","time":"…","prefixes":2,"addresses":1}`, then so many lines
//! `{"prefix":{…}}` and `{"address":{…}}`, with the fields of the plan's own tables. A file with more or fewer lines is
//! refused whole, so that half a file is never taken for a plan.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use onenet_core::plan::{AddressPlan, PlannedAddress, Prefix};
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Version of the files.
const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportHeader {
    /// Version, 1.
    pub import: u32,
    /// Name of the source, which is that of the file.
    pub source: String,
    /// When it was imported, RFC 3339.
    pub time: String,
    /// Lines of prefixes.
    pub prefixes: usize,
    /// Lines of addresses.
    pub addresses: usize,
}

/// One line below it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Prefix(Prefix),
    Address(PlannedAddress),
}

/// The directory of the imports of a plan.
pub fn imports_of(plan: &Path) -> PathBuf {
    plan.with_extension("d")
}

/// The file of a source's import.
pub fn import_of(plan: &Path, source: &str) -> PathBuf {
    imports_of(plan).join(format!("{source}.ndjson"))
}

/// A file's text of these claims.
pub fn write_import(
    source: &str,
    time: String,
    prefixes: &[Prefix],
    addresses: &[PlannedAddress],
) -> Result<String, serde_json::Error> {
    let header = ImportHeader {
        import: VERSION,
        source: source.to_owned(),
        time,
        prefixes: prefixes.len(),
        addresses: addresses.len(),
    };
    let mut text = serde_json::to_string(&header)?;
    text.push('\n');
    let prefixes = prefixes.iter().cloned().map(Line::Prefix);
    for line in prefixes.chain(addresses.iter().cloned().map(Line::Address)) {
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
    }
    Ok(text)
}

/// Reads one import.
pub fn read_import(path: &Path) -> Result<(ImportHeader, Vec<Prefix>, Vec<PlannedAddress>), ConfigError> {
    let file = fs::File::open(path)
        .map_err(|error| ConfigError::of_file(path, format!("cannot be read: {error}")))?;
    let at = |line: usize, message: String| ConfigError {
        path: path.to_owned(),
        place: Some((line, 1)),
        key: None,
        message,
    };
    let mut lines = BufReader::new(file).lines().zip(1..);
    let Some((first, _)) = lines.next() else {
        return Err(ConfigError::of_file(path, "it is empty; expected an import"));
    };
    let first = first.map_err(|error| at(1, error.to_string()))?;
    let header: ImportHeader = serde_json::from_str(&first).map_err(|error| at(1, error.to_string()))?;
    if header.import != VERSION {
        return Err(at(1, format!("version {}, expected {VERSION}", header.import)));
    }
    let (mut prefixes, mut addresses) = (Vec::new(), Vec::new());
    for (text, line) in lines {
        let text = text.map_err(|error| at(line, error.to_string()))?;
        match serde_json::from_str(&text).map_err(|error| at(line, error.to_string()))? {
            Line::Prefix(prefix) => prefixes.push(prefix),
            Line::Address(address) => addresses.push(address),
        }
    }
    if (prefixes.len(), addresses.len()) != (header.prefixes, header.addresses) {
        let message = format!(
            "{} prefixes and {} addresses, expected {} and {} by its first line; import it again",
            prefixes.len(),
            addresses.len(),
            header.prefixes,
            header.addresses
        );
        return Err(ConfigError::of_file(path, message));
    }
    Ok((header, prefixes, addresses))
}

/// The imports of a plan, in the order of their names.
pub fn list_imports(plan: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = imports_of(plan);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => {
            entries.map_err(|error| ConfigError::of_file(&directory, format!("cannot be read: {error}")))?
        }
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"))
        .collect();
    files.sort();
    Ok(files)
}

/// Adds all imports to the plan that people write, and checks that each names what the plan has.
pub fn add_imports(plan: &mut AddressPlan, file: &Path) -> Result<(), ConfigError> {
    for path in list_imports(file)? {
        let (_, prefixes, addresses) = read_import(&path)?;
        plan.prefixes.extend(prefixes);
        plan.addresses.extend(addresses);
        plan.check().map_err(|error| ConfigError::of_file(&path, error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let plan = directory.path().join("plan.toml");
        fs::create_dir(imports_of(&plan)).expect("made");
        fs::write(import_of(&plan, "netbox"), text).expect("written");
        (directory, plan)
    }

    fn sample() -> (Prefix, PlannedAddress) {
        let prefix = "cidr = '10.1.0.0/16'\nsecretariat = 'eohhs'\nstatus = 'reserved'";
        let address = "address = 'fd00::1'\nsecretariat = 'eohhs'\nrole = 'vip'";
        (toml::from_str(prefix).expect("a prefix"), toml::from_str(address).expect("an address"))
    }

    #[test]
    fn an_import_reads_back_and_half_of_it_is_refused() {
        let (prefix, address) = sample();
        let of = |prefixes: &[Prefix], addresses: &[PlannedAddress]| {
            write_import("netbox", "2026-11-21T08:00:00Z".to_owned(), prefixes, addresses).expect("JSON")
        };
        let text = of(std::slice::from_ref(&prefix), std::slice::from_ref(&address));
        assert!(text.starts_with("{\"import\":1,\"source\":\"netbox\","), "{text}");
        let (_directory, plan) = written(&text);
        let (_, prefixes, addresses) = read_import(&import_of(&plan, "netbox")).expect("it reads");
        assert_eq!((prefixes, addresses), (vec![prefix], vec![address]));
        let mut whole: AddressPlan = toml::from_str("[[secretariat]]\nid = 'eohhs'").expect("a plan");
        add_imports(&mut whole, &plan).expect("it fits");
        assert_eq!((whole.prefixes.len(), whole.addresses.len()), (1, 1));
        let error = add_imports(&mut AddressPlan::default(), &plan).expect_err("nobody");
        assert!(error.to_string().contains("netbox.ndjson: prefix \"10.1.0.0/16\" names"), "{error}");
        let cut: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
        let (_directory, plan) = written(&cut);
        let error = read_import(&import_of(&plan, "netbox")).expect_err("half").to_string();
        assert!(
            error
                .ends_with("1 prefixes and 0 addresses, expected 1 and 1 by its first line; import it again")
        );
        let (_directory, plan) = written(&text.replace("\"import\":1", "\"import\":2"));
        let error = read_import(&import_of(&plan, "netbox")).expect_err("later").to_string();
        assert!(error.ends_with("netbox.ndjson:1:1: version 2, expected 1"), "{error}");
    }
}
