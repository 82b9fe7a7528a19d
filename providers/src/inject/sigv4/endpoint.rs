//! What an AWS host says of service and region: `bucket.s3.eu-central-1.amazonaws.com`.
//!
//! Spec: <https://docs.aws.amazon.com/general/latest/gr/rande.html>

/// What a host's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint<'h> {
    /// The label of the service, without `-fips`: `bedrock-runtime`.
    pub(crate) label: &'h str,
    /// The region that its requests are signed for.
    pub(crate) region: Region<'h>,
}

/// The region of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Region<'h> {
    /// The name holds it.
    Named(&'h str),
    /// A global endpoint (`iam.amazonaws.com`), which is signed for one fixed region.
    Global(&'static str),
    /// An endpoint of all regions, signed for the bucket's own (`s3-accelerate`).
    Any,
}

/// Whether a host is AWS's, and says service and region by its name.
pub(crate) fn is_aws(host: &str) -> bool {
    SUFFIXES
        .iter()
        .any(|(suffix, _)| host == *suffix || below(host, suffix).is_some())
}

impl<'h> Endpoint<'h> {
    /// Reads a canonical host; `None` if it is not AWS's, names no service, or is a customer's own server.
    pub(crate) fn of(host: &'h str) -> Option<Self> {
        let (labels, global) = SUFFIXES
            .iter()
            .find_map(|(suffix, global)| Some((below(host, suffix)?, *global)))?;
        let mut labels = labels
            .rsplit('.')
            .filter(|label| !matches!(*label, "dualstack" | "vpce"));
        let first = labels.next()?;
        if is_region(first) {
            // S3 puts `dualstack`, and interface endpoints put an id, around the service.
            return Some(Self {
                label: service(labels.next()?),
                region: Region::Named(first),
            });
        }
        if let Some(region) = first.strip_prefix("s3-").filter(|rest| is_region(rest)) {
            return Some(Self {
                label: "s3",
                region: Region::Named(region),
            });
        }
        let second = labels.next();
        let region = match (first, second) {
            // Multi-region access points, and global endpoints of EventBridge, are signed for a set of regions.
            ("s3-accelerate" | "s3-global", _) | ("events", Some("endpoint")) => Region::Any,
            // Domains of these services stand below the region: `search-x.us-east-1.es.amazonaws.com`.
            ("es" | "aoss" | "cloudsearch" | "queue", Some(region)) if is_region(region) => {
                Region::Named(region)
            }
            ("us-gov", Some(label)) => {
                return Some(Self {
                    label: service(label),
                    region: Region::Global("us-gov-west-1"),
                });
            }
            // Buckets stand below S3, and one service is `global.health`.
            ("s3" | "s3-external-1", _) | ("health", Some("global")) | (_, None) => {
                Region::Global(global)
            }
            // Customers' own servers: `ec2-1-2-3-4.us-west-2.compute`, `name.us-east-1.elb`.
            _ => return None,
        };
        Some(Self {
            label: service(first),
            region,
        })
    }

    /// Whether requests to this endpoint are signed under that service name.
    pub(crate) fn is_signed_as(&self, name: &str) -> bool {
        self.label == name || self.other_services().contains(&name)
    }

    /// The service names under which it is signed beside its label.
    fn other_services(&self) -> &'static [&'static str] {
        match self.label {
            "s3-accelerate" | "s3-global" | "s3-accesspoint" | "s3-control" | "s3-external-1" => {
                &["s3"]
            }
            label if label.starts_with("s3express-") => &["s3express"],
            label if label.starts_with("bedrock-") => &["bedrock"],
            "email" | "email-smtp" => &["ses"],
            "queue" => &["sqs"],
            "iot" => &[
                "iotdata",
                "iot-jobs-data",
                "execute-api",
                "IoTSecuredTunneling",
            ],
            "marketplace" => &["aws-marketplace"],
            "oidc" => &["sso-oauth"],
            "sso" => &["awsssoportal"],
            "appstream2" => &["appstream"],
            "cloudhsmv2" => &["cloudhsm"],
            "mturk-requester" => &["mturk-requester"],
            "transcribestreaming" => &["transcribe"],
            "runtime-v2-lex" | "models-v2-lex" => &["lex"],
            _ => &[],
        }
    }

    /// The service names under which it is signed, for a message.
    pub(crate) fn services(&self) -> String {
        match self.label {
            label if label.starts_with("s3-") && self.is_signed_as("s3") => "s3".to_owned(),
            label if label.starts_with("s3express-") => "s3express".to_owned(),
            label if label.starts_with("bedrock-") => "bedrock".to_owned(),
            "email" => "ses".to_owned(),
            label => label.to_owned(),
        }
    }
}

/// What a host of AWS's says of the signatures that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAt {
    /// The names of its service in them; at least one, the usual one first.
    pub services: Vec<String>,
    /// Their region; none where any may be meant.
    pub region: Option<String>,
}

impl SignedAt {
    /// Reads a canonical host; `None` if it is not AWS's, names no service, or is a customer's own server.
    pub fn of(host: &str) -> Option<Self> {
        let endpoint = Endpoint::of(host)?;
        let usual = endpoint.services();
        let others = endpoint.other_services().iter();
        let others = others.filter(|other| **other != usual);
        Some(Self {
            region: match endpoint.region {
                Region::Named(region) | Region::Global(region) => Some(region.to_owned()),
                Region::Any => None,
            },
            services: std::iter::once(usual.clone())
                .chain(others.map(|other| (*other).to_owned()))
                .collect(),
        })
    }
}

/// Where requests to a host of Amazon S3's name their bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bucket<'h> {
    /// In the host.
    InHost(&'h str),
    /// First in the path.
    InPath,
}

/// Whether a host is of a service of AWS's own that reads `%2F` as part of a segment, as resource names (ARNs) have it.
///
/// Not so Amazon S3, whose keys hold slashes, nor the servers of customers' own programs.
pub fn takes_encoded_slash(host: &str) -> bool {
    Endpoint::of(host).is_some_and(|endpoint| {
        let label = endpoint.label;
        let is_s3 = label == "s3" || label.starts_with("s3-") || label.starts_with("s3express");
        !is_s3 && !CUSTOMERS.contains(&label)
    })
}

/// Reads a host of Amazon S3's for objects.
///
/// `None` for every other host, those of access points and of S3's control plane, too.
pub(crate) fn s3_host(host: &str) -> Option<Bucket<'_>> {
    let labels = SUFFIXES
        .iter()
        .find_map(|(suffix, _)| below(host, suffix))?;
    let mut end = 0;
    loop {
        let rest = &labels[end..];
        match (names_s3(rest), end) {
            (Some(takes_path), 0) if takes_path => return Some(Bucket::InPath),
            (Some(_), 1..) => return Some(Bucket::InHost(&labels[..end - 1])),
            _ => end += rest.find('.')? + 1,
        }
    }
}

/// Whether labels are S3's own, and then whether the path may name the bucket.
fn names_s3(labels: &str) -> Option<bool> {
    let (first, rest) = labels.split_once('.').unwrap_or((labels, ""));
    let place = rest.strip_prefix("dualstack.").unwrap_or(rest);
    match first {
        "s3" | "s3-fips" if place.is_empty() || is_region(place) => Some(true),
        "s3-external-1" if rest.is_empty() => Some(true),
        "s3-accelerate" if matches!(rest, "" | "dualstack") => Some(false),
        name if name.starts_with("s3express-") && is_region(place) => {
            Some(name == "s3express-control")
        }
        name => {
            let region = name.strip_prefix("s3-")?;
            (rest.is_empty() && is_region(region)).then_some(true)
        }
    }
}

/// Whether a text may stand as region or service in a credential scope.
pub(crate) fn is_scope_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

/// `us-east-1`, `us-gov-west-1`, `ap-southeast-5`: letters, at least one word, a number of one or two digits.
pub(crate) fn is_region(label: &str) -> bool {
    let Some((words, number)) = label.rsplit_once('-') else {
        return false;
    };
    let is_number = (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    let is_word = |word: &str| word.len() >= 2 && word.bytes().all(|b| b.is_ascii_lowercase());
    is_number && words.split('-').count() >= 2 && words.split('-').all(is_word)
}

fn service(label: &str) -> &str {
    label.strip_suffix("-fips").unwrap_or(label)
}

fn below<'h>(host: &'h str, suffix: &str) -> Option<&'h str> {
    host.strip_suffix(suffix)?
        .strip_suffix('.')
        .filter(|labels| !labels.is_empty())
}

/// The labels of endpoints behind which customers' own programs or data stand.
const CUSTOMERS: [&str; 8] = [
    "aoss",
    "appsync-api",
    "cloudsearch",
    "es",
    "execute-api",
    "lambda-url",
    "mediastore",
    "vpc-lattice-svcs",
];

/// The suffixes, each with the region that its global endpoints are signed for.
const SUFFIXES: [(&str, &str); 3] = [
    ("amazonaws.com", "us-east-1"),
    ("amazonaws.com.cn", "cn-north-1"),
    ("api.aws", "us-east-1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(host: &str) -> (String, Region<'_>) {
        let endpoint = Endpoint::of(host).unwrap_or_else(|| panic!("{host}"));
        (endpoint.services(), endpoint.region)
    }

    #[test]
    fn a_host_says_the_services_and_the_region_of_its_signatures() {
        for (host, services, region) in [
            ("data.s3.eu-west-3.amazonaws.com", "s3", "eu-west-3"),
            ("data.s3-accelerate.amazonaws.com", "s3", ""),
            (
                "bedrock-runtime.us-east-1.amazonaws.com",
                "bedrock",
                "us-east-1",
            ),
            ("us-east-1.queue.amazonaws.com", "queue sqs", "us-east-1"),
            ("iam.amazonaws.com", "iam", "us-east-1"),
        ] {
            let told = SignedAt::of(host).unwrap();
            assert_eq!(told.services.join(" "), services, "{host}");
            assert_eq!(told.region.unwrap_or_default(), region, "{host}");
        }
        assert_eq!(SignedAt::of("api.example.com"), None);
    }

    #[test]
    fn an_encoded_slash_is_part_of_a_segment_at_services_of_awss_own() {
        for host in [
            "bedrock-runtime.us-east-1.amazonaws.com",
            "eks.us-east-1.amazonaws.com",
            "apigateway.us-east-1.amazonaws.com",
            "abc-ats.iot.us-east-1.amazonaws.com",
            "s3tables.us-east-1.amazonaws.com",
            "kafka.us-east-1.api.aws",
            "lambda.us-east-1.amazonaws.com",
        ] {
            assert!(takes_encoded_slash(host), "{host}");
        }
        for host in [
            "s3.us-east-1.amazonaws.com",
            "eks.s3.us-east-1.amazonaws.com",
            "data.s3.amazonaws.com",
            "data.s3-accelerate.amazonaws.com",
            "ap-1.s3-accesspoint.us-east-1.amazonaws.com",
            "1.s3-control.us-east-1.amazonaws.com",
            "b--x-s3.s3express-use1-az4.us-east-1.amazonaws.com",
            "data.vpce-0a.s3.us-east-1.vpce.amazonaws.com",
            "x.execute-api.us-east-1.amazonaws.com",
            "search-x.us-east-1.es.amazonaws.com",
            "ec2-1-2-3-4.us-west-2.compute.amazonaws.com",
            "name.us-east-1.elb.amazonaws.com",
            "api.example.com",
        ] {
            assert!(!takes_encoded_slash(host), "{host}");
        }
    }

    #[test]
    fn a_host_says_service_and_region() {
        for (host, service, region) in [
            ("dynamodb.us-east-1.amazonaws.com", "dynamodb", "us-east-1"),
            (
                "streams.dynamodb.us-east-1.amazonaws.com",
                "dynamodb",
                "us-east-1",
            ),
            (
                "dynamodb-fips.us-gov-west-1.amazonaws.com",
                "dynamodb",
                "us-gov-west-1",
            ),
            ("s3.us-west-2.amazonaws.com", "s3", "us-west-2"),
            ("s3-us-west-2.amazonaws.com", "s3", "us-west-2"),
            ("bucket.s3.eu-central-1.amazonaws.com", "s3", "eu-central-1"),
            (
                "my.dotted.bucket.s3.eu-central-1.amazonaws.com",
                "s3",
                "eu-central-1",
            ),
            (
                "iam.us-east-1.bucket.s3.eu-west-3.amazonaws.com",
                "s3",
                "eu-west-3",
            ),
            (
                "bucket.s3.dualstack.ap-southeast-5.amazonaws.com",
                "s3",
                "ap-southeast-5",
            ),
            ("123.s3-control.us-east-2.amazonaws.com", "s3", "us-east-2"),
            (
                "b--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com",
                "s3express",
                "us-west-2",
            ),
            (
                "bucket.vpce-0a-1b.s3.us-east-1.vpce.amazonaws.com",
                "s3",
                "us-east-1",
            ),
            (
                "bedrock-runtime.us-east-1.amazonaws.com",
                "bedrock",
                "us-east-1",
            ),
            ("email.eu-west-1.amazonaws.com", "ses", "eu-west-1"),
            (
                "abc123.execute-api.us-east-1.amazonaws.com",
                "execute-api",
                "us-east-1",
            ),
            ("search-x-abc.us-east-1.es.amazonaws.com", "es", "us-east-1"),
            ("lambda.eu-north-1.api.aws", "lambda", "eu-north-1"),
            ("s3.cn-north-1.amazonaws.com.cn", "s3", "cn-north-1"),
            ("sts.us-east-1.amazonaws.com", "sts", "us-east-1"),
        ] {
            assert_eq!(
                of(host),
                (service.to_owned(), Region::Named(region)),
                "{host}"
            );
        }
    }

    #[test]
    fn a_global_endpoint_is_signed_for_one_region() {
        assert_eq!(
            of("iam.amazonaws.com"),
            ("iam".to_owned(), Region::Global("us-east-1"))
        );
        assert_eq!(
            of("sts.amazonaws.com"),
            ("sts".to_owned(), Region::Global("us-east-1"))
        );
        assert_eq!(
            of("bucket.s3.amazonaws.com"),
            ("s3".to_owned(), Region::Global("us-east-1"))
        );
        assert_eq!(
            of("iam.us-gov.amazonaws.com"),
            ("iam".to_owned(), Region::Global("us-gov-west-1"))
        );
        for host in [
            "bucket.s3-accelerate.amazonaws.com",
            "a.mrap.accesspoint.s3-global.amazonaws.com",
            "id.endpoint.events.amazonaws.com",
        ] {
            assert_eq!(of(host).1, Region::Any, "{host}");
        }
    }

    #[test]
    fn a_service_may_be_signed_under_another_name_than_its_endpoints() {
        for (host, services) in [
            ("dynamodb", &["dynamodb"][..]),
            ("s3-control", &["s3"]),
            ("s3express-use1-az4", &["s3express"]),
            ("bedrock-runtime", &["bedrock"]),
            ("email", &["ses", "email"]),
            ("email-smtp", &["ses"]),
            ("queue", &["sqs"]),
            (
                "iot",
                &[
                    "iot",
                    "iotdata",
                    "iot-jobs-data",
                    "execute-api",
                    "IoTSecuredTunneling",
                ],
            ),
            ("marketplace", &["aws-marketplace"]),
            ("oidc", &["sso-oauth"]),
            ("sso", &["awsssoportal"]),
            ("appstream2", &["appstream"]),
            ("cloudhsmv2", &["cloudhsm"]),
            ("mturk-requester", &["mturk-requester"]),
            ("transcribestreaming", &["transcribe"]),
            ("runtime-v2-lex", &["lex"]),
            ("models-v2-lex", &["lex"]),
        ] {
            let host = format!("{host}.us-east-1.amazonaws.com");
            let endpoint = Endpoint::of(&host).unwrap_or_else(|| panic!("{host}"));
            for service in services {
                assert!(endpoint.is_signed_as(service), "{host} {service}");
            }
            assert!(!endpoint.is_signed_as("sts"), "{host}");
        }
    }

    #[test]
    fn a_bucket_named_like_a_region_or_a_service_changes_nothing() {
        assert_eq!(
            of("my-data-1.s3.amazonaws.com"),
            ("s3".to_owned(), Region::Global("us-east-1"))
        );
        assert_eq!(
            of("iam.s3.eu-west-1.amazonaws.com"),
            ("s3".to_owned(), Region::Named("eu-west-1"))
        );
    }

    #[test]
    fn the_servers_of_customers_are_no_endpoints() {
        for host in [
            "ec2-1-2-3-4.us-west-2.compute.amazonaws.com",
            "ec2-1-2-3-4.compute-1.amazonaws.com",
            "name-123.us-east-1.elb.amazonaws.com",
            "db.abc.us-east-1.rds.amazonaws.com",
        ] {
            assert_eq!(Endpoint::of(host), None, "{host}");
        }
    }

    #[test]
    fn other_hosts_say_nothing() {
        for host in [
            "amazonaws.com",
            "evilamazonaws.com",
            "s3.us-east-1.amazonaws.com.evil.io",
            "us-east-1.amazonaws.com",
            "example.com",
        ] {
            assert_eq!(Endpoint::of(host), None, "{host}");
        }
        assert!(is_aws("amazonaws.com") && !is_aws("evilamazonaws.com"));
    }
}
