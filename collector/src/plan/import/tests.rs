//! Each format as its system writes it, and what must be refused, with its place.

use super::{sheet::tests::sheet, *};

fn plan() -> AddressPlan {
    toml::from_str(
        "[[secretariat]]\nid = 'eohhs'\nname = 'Health and Human Services'\n\
         [[secretariat]]\nid = 'massdot'\n[[agency]]\nid = 'dph'\nsecretariat = 'eohhs'\n",
    )
    .expect("a plan")
}

const MAPPING: &str = "
[[map]]
tenant = 'Public Health*'
secretariat = 'eohhs'
agency = 'dph'
[[map]]
tenant = 'Highways'
secretariat = 'massdot'
[[map]]
section = 'Roads'
secretariat = 'massdot'
[[map]]
view = 'health'
secretariat = 'eohhs'
";

fn read(format: ImportFormat, texts: &[&str]) -> Result<Imported, Vec<String>> {
    let mapping: Mapping = toml::from_str(MAPPING).expect("a mapping");
    let sheets: Vec<Sheet> = texts.iter().map(|text| sheet(text)).collect();
    of_sheets(format, &sheets, &plan(), &mapping, Vec::new())
        .map_err(|rejects| rejects.iter().map(ToString::to_string).collect())
}

/// Claims as `cidr secretariat agency status`, and `address secretariat role`.
fn told(imported: &Imported) -> (Vec<String>, Vec<String>) {
    let agency = |agency: &Option<Name>| agency.as_deref().unwrap_or("-").to_owned();
    let prefix = |p: &Prefix| format!("{} {} {} {:?}", p.cidr, p.secretariat, agency(&p.agency), p.status);
    let address = |a: &PlannedAddress| format!("{} {} {:?}", a.address, a.secretariat, a.role);
    (imported.prefixes.iter().map(prefix).collect(), imported.addresses.iter().map(address).collect())
}

const NETBOX_PREFIX: &str = "prefix,vrf,tenant,vlan_group,vlan_site,vlan,status,role,scope_type,scope_name,scope_id,\
                             is_pool,mark_utilized,description,owner,comments,tags\n";
const NETBOX_VRF: &str =
    "name,rd,tenant,enforce_unique,description,import_targets,export_targets,owner,comments,tags\n";

#[test]
fn netbox_prefixes_addresses_and_vrfs_become_claims() {
    let prefixes = format!(
        "{NETBOX_PREFIX}10.1.0.0/16,health,Public Health Dept,,,,container,,,,,false,false,\"wards, all\",,,\n\
         10.1.2.0/24,health,,,,,active,,,,,false,false,,,,\n\
         fd00:2::/32,,Highways,,,,reserved,,,,,false,false,,,,\n"
    );
    let vrfs = format!("{NETBOX_VRF}health,65000:1,Public Health Dept,true,,,,,,\n");
    let addresses = "address,vrf,tenant,status,role,device,virtual_machine,interface,fhrp_group,is_primary,is_oob,\
                     dns_name,description,owner,comments,tags\n\
                     10.1.2.1/24,health,,active,vrrp,,,,,false,false,gw,,,,\n\
                     10.1.2.1/24,health,,active,vrrp,,,,,false,false,gw,,,,\n\
                     10.1.2.9/24,health,,dhcp,,,,,,false,false,,,,,\n";
    let imported = read(ImportFormat::Netbox, &[&prefixes, addresses, &vrfs]).expect("all is well");
    let (prefixes, addresses) = told(&imported);
    assert_eq!(
        prefixes,
        ["10.1.0.0/16 eohhs dph Container", "10.1.2.0/24 eohhs dph Active", "fd00:2::/32 massdot - Reserved"]
    );
    assert_eq!(addresses, ["10.1.2.1 eohhs Some(Vrrp)", "10.1.2.9 eohhs None"]);
    assert_eq!(imported.prefixes[0].description.as_deref(), Some("wards, all"));
}

#[test]
fn infoblox_networks_become_claims_and_other_objects_are_passed_over() {
    let text = "header-network,address*,netmask*,network_view,comment,EA-Site\r\n\
                network,10.1.0.0,255.255.0.0,health,\"main, old\",\r\n\
                header-zone,fqdn,view\r\nzone,example.org,default\r\n\
                header-network,address*,netmask*,network_view\r\nnetwork,10.2.0.0,24,health\r\n";
    let (prefixes, _) = told(&read(ImportFormat::Infoblox, &[text]).expect("all is well"));
    assert_eq!(prefixes, ["10.1.0.0/16 eohhs - Active", "10.2.0.0/24 eohhs - Active"]);
    let none = read(ImportFormat::Infoblox, &["header-zone,fqdn\nzone,a\n"]).expect_err("no networks");
    assert_eq!(none, ["a.csv: no line begins with header-network; expected Infoblox's export"]);
}

#[test]
fn phpipam_subnets_and_addresses_become_claims() {
    let subnets = "section;subnet;mask;description;vlan;domain;vrf\nRoads;10.9.0.0;16;depots;;;\n";
    let addresses = "section,ip_addr,hostname,description,vrf,subnet,mac,owner,device,note,tag,is_gateway,port,location\n\
                     Roads,10.9.0.7,plough-7,,,10.9.0.0/16,,,,,Used,,,\n";
    let imported = read(ImportFormat::Phpipam, &[subnets, addresses]).expect("all is well");
    let (prefixes, addresses) = told(&imported);
    assert_eq!(prefixes, ["10.9.0.0/16 massdot - Active"]);
    assert_eq!(addresses, ["10.9.0.7 massdot None"]);
    assert_eq!(imported.addresses[0].description.as_deref(), Some("plough-7"));
}

#[test]
fn every_row_that_makes_no_sense_is_told_with_its_place_and_nothing_is_imported() {
    let row = |prefix: &str, vrf: &str, tenant: &str, status: &str| {
        format!("{prefix},{vrf},{tenant},,,,{status},,,,,,,,,,\n")
    };
    let text = [
        NETBOX_PREFIX.to_owned(),
        row("10.1.2.3/16", "a", "Highways", "active"),
        row("10.1.0.0/33", "a", "Highways", "active"),
        row("10.1.0.0", "a", "Highways", "active"),
        row("fd00::/129", "a", "Highways", "active"),
        row("10.2.0.0/16", "a", "Nobody", "active"),
        row("10.2.0.0/16", "a", "", "active"),
        row("10.2.0.0/16", "a", "Highways", "free"),
        row("10.3.0.0/16", "a", "Highways", "active"),
        row("10.3.0.0/16", "a", "Highways", "reserved"),
        row("10.3.4.0/24", "a", "Public Health", "active"),
        row("10.3.4.0/24", "b", "Public Health", "active"),
        "10.4.0.0/16,a\n".to_owned(),
    ]
    .concat();
    let rejects = read(ImportFormat::Netbox, &[&text]).expect_err("nothing of it");
    let expected = [
        "a.csv:2: column 1 (prefix): 10.1.2.3/16 has bits set behind its length; expected 10.1.0.0/16 or an address alone",
        "a.csv:3: column 1 (prefix): \"10.1.0.0/33\": expected a length from 0 to 32 behind an IPv4 address",
        "a.csv:4: column 1 (prefix): \"10.1.0.0\": expected a prefix such as 10.1.0.0/16 or fd00:1::/48",
        "a.csv:5: column 1 (prefix): \"fd00::/129\": expected a length from 0 to 128 behind an IPv6 address",
        "a.csv:6: column 3 (tenant): no secretariat is known for tenant \"Nobody\" vrf \"a\"; expected an entry of \
         --mapping, or its id",
        "a.csv:7: column 3 (tenant): no secretariat is known for vrf \"a\"; expected an entry of --mapping, or its id",
        "a.csv:8: column 7 (status): \"free\": expected container, active, reserved or deprecated (addresses also dhcp, \
         slaac)",
        "a.csv:10: 10.3.0.0/16 is stated already in this VRF (line 9 of a.csv)",
        "a.csv:11: 10.3.4.0/24 of eohhs is within 10.3.0.0/16 of massdot (line 9 of a.csv)",
        "a.csv:13: 2 cells, expected the header's 17: half a file?",
    ];
    assert_eq!(rejects, expected);
}

#[test]
fn families_that_are_mixed_in_a_row_and_headers_of_another_system_are_refused() {
    let text = "section,subnet,mask,description,vlan,domain,vrf\nRoads,fd00::,255.255.0.0,,,,\nRoads,10.0.0.0,64,,,,\n";
    let rejects = read(ImportFormat::Phpipam, &[text]).expect_err("mixed");
    assert_eq!(
        rejects,
        [
            "a.csv:2: column 3 (mask): \"255.255.0.0\": the mask of an IPv4 network with an IPv6 address; expected a length",
            "a.csv:3: column 3 (mask): \"64\": expected a mask such as 255.255.0.0, or a length",
        ]
    );
    let other = read(ImportFormat::Netbox, &["section,subnet\n"]).expect_err("phpIPAM's");
    let expected =
        "a.csv:1: the header has section, subnet; expected a column prefix, address, or name and rd";
    assert_eq!(other, [expected]);
}

#[test]
fn our_own_columns_name_secretariats_and_agencies_of_the_plan() {
    let text = "prefix,secretariat,agency,status,description\n10.1.0.0/16,eohhs,dph,container,x\n\
                10.2.0.0/16,eohhs,roads,,\n10.3.0.0/16,nobody,,,\n";
    let rejects = read(ImportFormat::Csv, &[text]).expect_err("two rows");
    assert_eq!(
        rejects,
        [
            "a.csv:3: column 3 (agency): \"roads\" is no agency of eohhs in the plan",
            "a.csv:4: column 2 (secretariat): \"nobody\" is no secretariat of the plan",
        ]
    );
}

#[test]
fn a_difference_says_what_was_added_removed_and_changed() {
    let header = "prefix,secretariat,agency,status,description\n";
    let of = |rows: &str| read(ImportFormat::Csv, &[&format!("{header}{rows}")]).expect("all is well");
    let before = of("10.1.0.0/16,eohhs,,active,\n10.2.0.0/16,eohhs,,active,\n10.3.0.0/16,eohhs,,active,\n");
    let now =
        of("10.1.0.0/16,eohhs,dph,active,\n10.3.0.0/16,eohhs,,active,\n10.4.0.0/16,massdot,,reserved,new\n");
    let difference = Difference::of(&before, &now);
    assert_eq!(difference.counts(), [1, 1, 1]);
    let lines: Vec<String> = difference.lines.iter().map(|(sign, line)| format!("{sign} {line}")).collect();
    assert_eq!(
        lines,
        [
            "~ 10.1.0.0/16 eohhs/dph active (was eohhs active)",
            "- 10.2.0.0/16 eohhs active",
            "+ 10.4.0.0/16 massdot reserved \"new\"",
        ]
    );
    assert_eq!(Difference::of(&now, &now).counts(), [0; 3]);
}
