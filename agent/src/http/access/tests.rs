//! The whole matrix of access decisions.

use super::*;

const TOKEN: &str = "a-token-of-good-length";
const AGENT: u32 = 990;

fn policy(token: bool, trusted: &[&str]) -> Policy {
    Policy {
        token: token.then(|| TokenHash::new(TOKEN).unwrap()),
        trusted: trusted.iter().map(|network| network.parse().unwrap()).collect(),
        origins: vec!["https://panel.example".to_owned()],
        hosts: vec!["node1.example".to_owned()],
        agent_uid: AGENT,
    }
}

fn decide(
    policy: &Policy,
    peer: Peer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(), Denial> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let (method, uri) = (method.parse().unwrap(), path.parse().unwrap());
    policy.decide(peer, &Call { method: &method, uri: &uri, headers: &map })
}

fn remote(ip: &str) -> Peer {
    Peer::Remote(ip.parse().unwrap())
}

#[test]
fn the_matrix() {
    let peers = [
        ("root", Peer::Local(Some(0))),
        ("agent", Peer::Local(Some(AGENT))),
        ("game", Peer::Local(Some(1001))),
        ("unknown", Peer::Local(None)),
        ("trusted", remote("10.60.0.7")),
        ("foreign", remote("192.0.2.9")),
    ];
    // For each configuration, who gets in with which token (none, wrong, right); `c` also to POST /config.
    let rows = [
        // (token set, networks trusted) → per peer: [none, wrong, right]
        (
            (false, false),
            [["c", "c", "c"], ["c", "c", "c"], ["", "", ""], ["", "", ""], ["", "", ""], ["", "", ""]],
        ),
        (
            (false, true),
            [["c", "c", "c"], ["c", "c", "c"], ["", "", ""], ["", "", ""], ["c", "c", "c"], ["", "", ""]],
        ),
        (
            (true, false),
            [["", "", "c"], ["", "", "c"], ["", "", "c"], ["", "", "c"], ["", "", "c"], ["", "", "c"]],
        ),
        (
            (true, true),
            [["", "", "c"], ["", "", "c"], ["", "", "c"], ["", "", "c"], ["s", "s", "c"], ["", "", "c"]],
        ),
    ];
    let tokens = [None, Some("Bearer another-token-of-length".to_owned()), Some(format!("Bearer {TOKEN}"))];
    for ((token, trust), expected) in rows {
        let policy = policy(token, if trust { &["10.60.0.0/24"] } else { &[] });
        for ((name, peer), expected) in peers.iter().zip(expected) {
            for (presented, expected) in tokens.iter().zip(expected) {
                let mut headers = vec![("host", "10.60.0.5:18888")];
                headers.extend(presented.as_deref().map(|value| ("authorization", value)));
                let case = format!("token set {token}, trusted {trust}, {name}, presents {presented:?}");
                let status = decide(&policy, *peer, "GET", "/status", &headers);
                let config = decide(&policy, *peer, "POST", "/config", &headers);
                assert_eq!(status.is_ok(), !expected.is_empty(), "GET /status: {case}");
                assert_eq!(config.is_ok(), expected == "c", "POST /config: {case}");
                assert_eq!(decide(&policy, *peer, "GET", "/health", &headers), Ok(()), "GET /health: {case}");
                if let Err(denial) = config {
                    let why = match (token, presented) {
                        (false, _) => Denial::Stranger(*peer),
                        (true, None) => Denial::NoToken,
                        (true, Some(_)) => Denial::WrongToken,
                    };
                    assert_eq!(denial, why, "{case}");
                }
            }
        }
    }
}

#[test]
fn own_addresses_are_never_a_trusted_network() {
    let policy = policy(false, &["127.0.0.0/8", "10.60.0.0/24", "::/0"]);
    let headers = [("host", "localhost")];
    assert!(decide(&policy, Peer::Local(Some(1001)), "GET", "/status", &headers).is_err());
    assert!(decide(&policy, Peer::Local(None), "GET", "/status", &headers).is_err());
}

#[test]
fn odd_credentials_are_no_credentials() {
    let policy = policy(true, &[]);
    let good = format!("Bearer {TOKEN}");
    let check = |values: &[&str]| {
        let mut headers = vec![("host", "localhost")];
        headers.extend(values.iter().map(|value| ("authorization", *value)));
        decide(&policy, Peer::Local(Some(0)), "GET", "/status", &headers)
    };
    assert_eq!(check(&[&good]), Ok(()));
    assert_eq!(check(&[&format!("bearer  {TOKEN}")]), Ok(()));
    for values in [
        &[TOKEN][..],
        &["Bearer"],
        &["Bearer "],
        &[&format!("Basic {TOKEN}")],
        &[&good, &good],
        &["Bearer x", &good],
        &[&format!("{good},{good}")],
    ] {
        assert_eq!(check(values), Err(Denial::WrongToken), "{values:?}");
    }
}

#[test]
fn w5_foreign_hosts_are_refused() {
    let policy = policy(false, &[]);
    let check = |hosts: &[&str], target: &str| {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        decide(&policy, Peer::Local(Some(0)), "GET", target, &headers)
    };
    for host in [
        "127.0.0.1",
        "127.0.0.1:18888",
        "10.60.0.5:1",
        "[::1]",
        "[::1]:18888",
        "localhost",
        "LOCALHOST:18888",
        "localhost.",
        "node1.example",
        "Node1.Example:18888",
    ] {
        assert_eq!(check(&[host], "/status"), Ok(()), "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:18888",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "node1.example.evil",
        "",
        ":18888",
        "127.0.0.1:18888:1",
        "[::1",
        "[evil]",
        "[::1]x",
        "localhost@evil.example",
        "2130706433",
        "127.1",
        "localhost:evil",
    ] {
        assert_eq!(check(&[host], "/status"), Err(Denial::Host(Some(host.to_owned()))), "{host}");
        assert_eq!(check(&[host], "/health"), Ok(()));
    }
    assert_eq!(check(&[], "/status"), Err(Denial::Host(None)));
    assert_eq!(check(&["localhost", "localhost"], "/status"), Err(Denial::Host(None)));
    // The target in absolute form counts too.
    assert_eq!(check(&["localhost"], "http://localhost/status"), Ok(()));
    assert!(check(&["localhost"], "http://evil.example/status").is_err());
}

#[test]
fn w5_foreign_origins_are_refused() {
    let policy = policy(true, &[]);
    let good = format!("Bearer {TOKEN}");
    let check = |origins: &[&str]| {
        let mut headers = vec![("host", "localhost"), ("authorization", good.as_str())];
        headers.extend(origins.iter().map(|origin| ("origin", *origin)));
        decide(&policy, remote("192.0.2.9"), "GET", "/console/stream", &headers)
    };
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(check(&["https://panel.example"]), Ok(()));
    for origin in
        ["null", "", "http://panel.example", "https://panel.example.evil", "https://panel.example:444", "*"]
    {
        assert_eq!(check(&[origin]), Err(Denial::Origin(origin.to_owned())), "{origin}");
    }
    assert!(check(&["https://panel.example", "https://evil.example"]).is_err());
}

#[test]
fn refusals_name_the_remedy() {
    for (denial, status, word) in [
        (Denial::Stranger(Peer::Local(Some(1001))), 403, "uid 1001"),
        (Denial::Stranger(Peer::Local(None)), 403, "ZLH_AGENT_TOKEN"),
        (Denial::Stranger(remote("192.0.2.9")), 403, "trusted_networks"),
        (Denial::Host(Some("evil.example".to_owned())), 403, "allowed_hosts"),
        (Denial::Origin("null".to_owned()), 403, "allowed_origins"),
        (Denial::Host(None), 400, "Host"),
        (Denial::NoToken, 401, "Authorization: Bearer"),
        (Denial::WrongToken, 401, "token"),
    ] {
        let failure = Failure::from(denial.clone());
        assert_eq!(failure.status().as_u16(), status, "{denial:?}");
        assert!(failure.to_json().contains(word), "{denial:?}");
    }
}
