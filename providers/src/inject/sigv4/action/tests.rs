use http::{HeaderName, HeaderValue};

use super::*;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/x-amz-json-1.1");

struct Case<'c> {
    service: &'c str,
    method: &'c str,
    target: &'c str,
    fields: &'c [(&'static str, &'static str)],
    body: &'c str,
}

const POST: Case<'static> = Case {
    service: "iam",
    method: "POST",
    target: "/",
    fields: &[FORM],
    body: "",
};

impl Case<'_> {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in self.fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    fn with<T>(&self, ask: impl Fn(&Asking<'_>) -> T) -> T {
        let (path, query) = self
            .target
            .split_once('?')
            .map_or((self.target, None), |(path, query)| (path, Some(query)));
        ask(&Asking {
            service: self.service,
            method: &self.method.parse().unwrap(),
            host: "x.us-east-1.amazonaws.com",
            path,
            query,
            headers: &self.headers(),
            body: self.body.as_bytes(),
        })
    }

    /// The action, `?` if it is not told, `!` if it is refused.
    fn action(&self) -> String {
        match self.with(|asking| asking.actions(true)) {
            Ok(Some(actions)) => actions.join(" "),
            Ok(None) => "?".to_owned(),
            Err(refusal) => {
                assert_eq!(refusal, SigV4Refusal::TwoActions);
                "!".to_owned()
            }
        }
    }

    /// What it would hand out under a grant that names `named`.
    fn mints(&self, named: &[&str]) -> Option<String> {
        self.with(|asking| {
            let actions = asking.actions(true).unwrap();
            asking.unnamed_minting(actions.as_deref(), |action| named.contains(&action))
        })
    }
}

#[test]
fn each_protocol_says_its_action_in_its_own_place() {
    let target = |value| [JSON, ("x-amz-target", value)];
    for (case, action) in [
        (
            Case {
                fields: &[(
                    "content-type",
                    "application/x-www-form-urlencoded; charset=UTF-8",
                )],
                body: "Action=ListUsers",
                ..POST
            },
            "ListUsers",
        ),
        (
            Case {
                body: "Action=ListUsers&Version=2010-05-08",
                ..POST
            },
            "ListUsers",
        ),
        (
            Case {
                body: "Version=2010-05-08&%41ction=List%55sers",
                ..POST
            },
            "ListUsers",
        ),
        (
            Case {
                method: "GET",
                target: "/?Action=ListUsers",
                fields: &[],
                ..POST
            },
            "ListUsers",
        ),
        (
            Case {
                service: "sqs",
                target: "/123/queue",
                body: "Action=SendMessage",
                ..POST
            },
            "SendMessage",
        ),
        (
            Case {
                service: "sqs",
                fields: &target("AmazonSQS.SendMessage"),
                body: "{}",
                ..POST
            },
            "SendMessage",
        ),
        (
            Case {
                service: "dynamodb",
                fields: &target("DynamoDB_20120810.GetItem"),
                body: "{}",
                ..POST
            },
            "GetItem",
        ),
        (
            Case {
                service: "monitoring",
                target: "/service/GraniteServiceVersion20100801/operation/PutMetricData",
                fields: &[
                    ("content-type", "application/cbor"),
                    ("smithy-protocol", "rpc-v2-cbor"),
                ],
                body: "\u{1}",
                ..POST
            },
            "PutMetricData",
        ),
        (
            Case {
                service: "codeartifact",
                target: "/v1/authorization-token?domain=d",
                fields: &[],
                ..POST
            },
            "GetAuthorizationToken",
        ),
    ] {
        assert_eq!(case.action(), action, "{} {}", case.target, case.body);
    }
}

#[test]
fn an_action_that_is_named_twice_or_oddly_is_refused() {
    for case in [
        Case {
            target: "/?Action=ListUsers",
            body: "Action=CreateAccessKey",
            ..POST
        },
        Case {
            body: "Action=ListUsers&Action=CreateAccessKey",
            ..POST
        },
        Case {
            body: "Action=ListUsers&action=CreateAccessKey",
            ..POST
        },
        Case {
            body: "Action=ListUsers&Action+=CreateAccessKey",
            ..POST
        },
        Case {
            body: "Action=ListUsers&%20Action=CreateAccessKey",
            ..POST
        },
        Case {
            body: "ACTION=CreateAccessKey",
            ..POST
        },
        Case {
            body: "Action=Create%00AccessKey",
            ..POST
        },
        Case {
            body: "Action=",
            ..POST
        },
        Case {
            fields: &[FORM, ("x-amz-target", "A.ListUsers")],
            body: "Action=CreateAccessKey",
            ..POST
        },
        Case {
            fields: &[],
            target: "/?Action=ListUsers",
            body: "Action=CreateAccessKey",
            ..POST
        },
        Case {
            fields: &[("content-type", "text/plain")],
            target: "/?Action=ListUsers",
            body: "Action=CreateAccessKey",
            ..POST
        },
        Case {
            service: "dynamodb",
            fields: &[
                JSON,
                ("x-amz-target", "A.GetItem"),
                ("x-amz-target", "A.PutItem"),
            ],
            body: "{}",
            ..POST
        },
        Case {
            service: "dynamodb",
            fields: &[
                JSON,
                ("x-amz-target", "A.GetItem"),
                ("x-amz_target", "A.PutItem"),
            ],
            ..POST
        },
        Case {
            service: "dynamodb",
            fields: &[JSON, ("x-amz-target", "A.GetItem, A.PutItem")],
            ..POST
        },
        Case {
            service: "dynamodb",
            target: "/?Action=GetItem",
            fields: &[JSON, ("x-amz-target", "A.PutItem")],
            ..POST
        },
        Case {
            service: "monitoring",
            target: "/service/A/operation/B",
            fields: &[("x-amz-target", "A.C")],
            ..POST
        },
    ] {
        assert_eq!(
            case.action(),
            "!",
            "{} {} {:?}",
            case.target,
            case.body,
            case.fields
        );
    }
}

#[test]
fn what_the_service_would_not_look_at_names_nothing() {
    for case in [
        Case {
            fields: &[(
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-16",
            )],
            body: "Action=ListUsers",
            ..POST
        },
        Case { body: "", ..POST },
        Case {
            target: "/?Action=ListUsers",
            fields: &[JSON],
            body: "Action=CreateAccessKey",
            ..POST
        },
        Case {
            fields: &[FORM, ("content-encoding", "gzip")],
            body: "Action=ListUsers",
            ..POST
        },
        Case {
            body: "Action=ListUsers&a;Action=CreateAccessKey",
            ..POST
        },
        Case {
            target: "/odd",
            body: "Action=ListUsers",
            ..POST
        },
        Case {
            fields: &[JSON, ("x-amz-target", "A.ListUsers")],
            ..POST
        },
        Case {
            service: "lambda",
            method: "DELETE",
            target: "/2015-03-31/functions/f?Action=ListFunctions",
            fields: &[],
            ..POST
        },
        Case {
            service: "lambda",
            fields: &[JSON, ("x-amz-target", "A.ListFunctions")],
            ..POST
        },
        Case {
            service: "lambda",
            method: "GET",
            target: "/2015-03-31/functions?action=a&Action+=b",
            fields: &[],
            ..POST
        },
        Case {
            service: "execute-api",
            target: "/service/A/operation/B",
            fields: &[],
            ..POST
        },
        Case {
            service: "dynamodb",
            target: "/x",
            fields: &[JSON, ("x-amz-target", "A.GetItem")],
            ..POST
        },
        Case {
            service: "dynamodb",
            method: "PUT",
            fields: &[JSON, ("x-amz-target", "A.GetItem")],
            ..POST
        },
        Case {
            service: "apigateway",
            method: "DELETE",
            target: "/apikeys",
            fields: &[],
            ..POST
        },
    ] {
        assert_eq!(
            case.action(),
            "?",
            "{} {} {:?}",
            case.target,
            case.body,
            case.fields
        );
    }
}

#[test]
fn what_hands_out_credentials_must_be_named() {
    let sts = |body| Case {
        service: "sts",
        body,
        ..POST
    };
    assert_eq!(
        sts("Action=AssumeRole").mints(&[]),
        Some("sts:AssumeRole".to_owned())
    );
    assert_eq!(
        sts("Action=SomethingNew").mints(&[]),
        Some("sts:SomethingNew".to_owned())
    );
    assert_eq!(sts("Action=AssumeRole").mints(&["AssumeRole"]), None);
    assert_eq!(sts("Action=GetCallerIdentity").mints(&[]), None);
    assert_eq!(sts("").mints(&[]), Some("sts:*".to_owned()));
    assert_eq!(sts("").mints(&["*"]), None);
    let iam = |body| Case { body, ..POST };
    assert_eq!(
        iam("Action=CreateAccessKey").mints(&[]),
        Some("iam:CreateAccessKey".to_owned())
    );
    assert_eq!(iam("Action=ListUsers").mints(&[]), None);
    for (service, target, action) in [
        (
            "codeartifact",
            "/v1/authorization-token",
            "GetAuthorizationToken",
        ),
        (
            "codeartifact",
            "/v1/Authorization%2Dtoken/",
            "GetAuthorizationToken",
        ),
        (
            "iot",
            "/keys-and-certificate?setAsActive=true",
            "CreateKeysAndCertificate",
        ),
        (
            "grafana",
            "/workspaces/w/serviceaccounts/1/tokens",
            "CreateWorkspaceServiceAccountToken",
        ),
        ("s3", "/bucket?session", "CreateSession"),
    ] {
        let case = Case {
            service,
            target,
            fields: &[],
            ..POST
        };
        assert!(may_mint(service));
        assert_eq!(
            case.mints(&[]),
            Some(format!("{service}:{action}")),
            "{target}"
        );
    }
    for (service, target) in [
        ("codeartifact", "/v1/domains"),
        ("s3", "/bucket/key?unheard"),
        ("lambda", "/f"),
    ] {
        let case = Case {
            service,
            target,
            fields: &[],
            ..POST
        };
        assert_eq!(case.mints(&[]), None, "{service}");
    }
    let other = Case {
        service: "codeartifact",
        fields: &[JSON, ("x-amz-target", "A.ListPackages")],
        ..POST
    };
    assert_eq!(other.mints(&[]), None, "another action of that service");
    assert!(!may_mint("dynamodb") && may_mint("ecr"));
}

#[test]
fn a_pattern_that_covers_the_handing_out_of_credentials_is_told() {
    for (service, pattern, expected) in [
        ("sts", "AssumeRole", true),
        ("sts", "GetCallerIdentity", false),
        ("sts", "*", true),
        ("iam", "Create*", true),
        ("iam", "List*", false),
        ("iot", "*", true),
        ("s3", "Get*", true),
        ("s3", "GetObject", false),
        ("dynamodb", "*", false),
    ] {
        assert_eq!(
            may_mint_by(service, pattern),
            expected,
            "{service}:{pattern}"
        );
    }
}

#[test]
fn what_shows_a_key_by_its_name_must_be_named_too() {
    for (service, target) in [
        ("acm", "CertificateManager.ExportCertificate"),
        ("appstream", "PhotonAdminProxyService.CreateStreamingURL"),
        ("athena", "AmazonAthena.CreatePresignedNotebookUrl"),
        (
            "cognito-idp",
            "AWSCognitoIdentityProviderService.CreateUserPoolClient",
        ),
        (
            "cognito-idp",
            "AWSCognitoIdentityProviderService.DescribeUserPoolClient",
        ),
        (
            "cognito-idp",
            "AWSCognitoIdentityProviderService.UpdateUserPoolClient",
        ),
        ("ecs", "AmazonEC2ContainerServiceV20141113.ExecuteCommand"),
        (
            "lightsail",
            "Lightsail_20161128.CreateContainerServiceRegistryLogin",
        ),
        (
            "redshift-serverless",
            "RedshiftServerless.GetIdentityCenterAuthToken",
        ),
        ("sagemaker", "SageMaker.CreatePartnerAppPresignedUrl"),
        ("ssm", "AmazonSSM.GetAccessToken"),
    ] {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static(TARGET),
            HeaderValue::from_static(target),
        )]);
        let asking = Asking {
            service,
            method: &Method::POST,
            host: "x.us-east-1.amazonaws.com",
            path: "/",
            query: None,
            headers: &headers,
            body: b"{}",
        };
        let action = target.rsplit('.').next().unwrap();
        let actions = asking.actions(true).unwrap();
        assert_eq!(actions.as_deref(), Some(&[action.to_owned()][..]));
        let minted = asking.unnamed_minting(actions.as_deref(), |_| false);
        assert_eq!(minted, Some(format!("{service}:{action}")));
        let named = asking.unnamed_minting(actions.as_deref(), |named| named == action);
        assert_eq!(named, None, "{service}:{action}");
    }
}

#[test]
fn what_shows_a_key_by_its_path_must_be_named_too() {
    for (service, method, target, action) in [
        ("apigateway", "POST", "/apikeys", "CreateApiKey"),
        (
            "apigateway",
            "GET",
            "/apikeys?includeValues=true",
            "GetApiKeys",
        ),
        (
            "apigateway",
            "GET",
            "/ApiKeys/k?includeValue=true",
            "GetApiKey",
        ),
        (
            "apigateway",
            "GET",
            "/usageplans/p/keys",
            "GetUsagePlanKeys",
        ),
        ("appsync", "GET", "/v1/apis/a/apikeys", "ListApiKeys"),
        (
            "datazone",
            "GET",
            "/v2/domains/d/environments/e/credentials",
            "GetEnvironmentCredentials",
        ),
        (
            "deadline",
            "GET",
            "/2023-10-12/farms/f/queues/q/user-roles",
            "AssumeQueueRoleForUser",
        ),
        (
            "quicksight",
            "POST",
            "/accounts/1/embed-url/anonymous-user",
            "GenerateEmbedUrlForAnonymousUser",
        ),
        ("ivs", "POST", "/GetStreamKey", "GetStreamKey"),
    ] {
        let case = Case {
            service,
            method,
            target,
            fields: &[],
            ..POST
        };
        assert_eq!(case.mints(&[]), Some(format!("{service}:{action}")));
        assert_eq!(case.mints(&[action]), None, "{target}");
    }
    for (service, method, target) in [
        ("apigateway", "GET", "/restapis"),
        ("apigateway", "DELETE", "/apikeys/k"),
        ("quicksight", "GET", "/accounts/1/dashboards"),
        ("ivs", "POST", "/ListChannels"),
    ] {
        let case = Case {
            service,
            method,
            target,
            fields: &[],
            ..POST
        };
        assert_eq!(case.mints(&[]), None, "{target}");
    }
}

#[test]
fn the_action_of_s3_is_told_without_the_body() {
    for (service, is_needed) in [
        ("s3", false),
        ("s3express", false),
        ("iam", true),
        ("lambda", true),
    ] {
        assert_eq!(needs_body(service), is_needed, "{service}");
    }
}
