//! `plan = "plan.toml"` or an inline `[plan]`: where the address plan is.

use std::{fmt, path::Path, path::PathBuf};

use onenet_core::plan::AddressPlan;
use onenet_proto::config::{ConfigError, Document, check_plan, read_plan};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

/// Which plan packets are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanSource {
    /// The collector's, which comes signed; that of the configuration until it has come.
    Collector,
    /// That of the configuration, whatever the collector sends.
    File,
}

impl PlanSource {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Collector => "collector",
            Self::File => "file",
        }
    }
}

/// Where the plan is.
#[derive(Clone, Debug, Default)]
pub(super) enum PlanPlace {
    /// Nowhere: RFC 1918 and ULA are inside.
    #[default]
    None,
    /// In a file of its own.
    File(PathBuf),
    /// In the configuration itself.
    Inline(Box<AddressPlan>),
}

impl<'de> Deserialize<'de> for PlanPlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlanVisitor;

        impl<'de> Visitor<'de> for PlanVisitor {
            type Value = PlanPlace;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a plan file, or the plan as a table")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<PlanPlace, E> {
                Ok(PlanPlace::File(PathBuf::from(path)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PlanPlace, A::Error> {
                let plan = AddressPlan::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(PlanPlace::Inline(Box::new(plan)))
            }
        }

        deserializer.deserialize_any(PlanVisitor)
    }
}

impl PlanPlace {
    /// Which plan packets are judged by where nothing is said of that: whoever states a plan means it.
    pub(super) const fn source(&self) -> PlanSource {
        match self {
            Self::None => PlanSource::Collector,
            Self::File(_) | Self::Inline(_) => PlanSource::File,
        }
    }

    /// The plan, read and checked, and the file it came from where it has its own.
    pub(super) fn resolve(self, document: &Document) -> Result<(AddressPlan, Option<PathBuf>), ConfigError> {
        match self {
            Self::None => Ok((AddressPlan::default(), None)),
            Self::Inline(plan) => {
                check_plan(&plan, document, Some("plan"))?;
                Ok((*plan, None))
            }
            Self::File(path) => {
                let path = document.path().parent().unwrap_or(Path::new("")).join(path);
                let (plan, _) = read_plan(&path)?;
                Ok((plan, Some(path)))
            }
        }
    }
}
