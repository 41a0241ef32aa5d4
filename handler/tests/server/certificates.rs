//! Who is let in.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Authority, HANDLER_CLIENT, Identity, MONITORING_CLIENT, ask, connect};
use crate::site::{Site, machine, path};

/// Returns the status code of an answer to this client; `None` when there is none.
async fn code(site: &Site, port: u16, identity: Option<&Identity>) -> Option<u16> {
    let stream = connect(port, &site.authority, identity).await.ok()?;
    let answer = ask(stream, "GET", "/", "").await;
    Some(answer.ok()?.code)
}

#[tokio::test]
async fn who_shows_no_certificate_is_refused_in_the_handshake() {
    let site = Site::new().await;
    assert_eq!(code(&site, site.ports.console, None).await, None);
    assert_eq!(code(&site, site.ports.stats, None).await, None);
    assert_eq!(code(&site, site.ports.metrics, None).await, Some(404));
}

#[tokio::test]
async fn who_has_a_certificate_of_somebody_else_is_refused() {
    let site = Site::new().await;
    let foreign = Authority::new().identity(HANDLER_CLIENT);
    let port = site.ports.console;
    assert_eq!(code(&site, port, Some(&foreign)).await, None);
    assert_eq!(code(&site, port, Some(&site.virt_api)).await, Some(404));
}

#[tokio::test]
async fn a_certificate_for_something_else_is_not_enough() {
    let mut site = Site::new().await;
    let script = site.launch("vm", machine("vm", "Running")).await;
    for name in ["kubevirt.io:system:client:migration", "", "a"] {
        let other = site.authority.identity(name);
        let stream = connect(site.ports.console, &site.authority, Some(&other))
            .await
            .unwrap();
        let answer = ask(stream, "PUT", &path("vm", "pause"), "").await.unwrap();
        answer.refusal(401, "Unauthorized");
    }
    assert!(script.asked.lock().unwrap().is_empty());
    let monitoring = site.authority.identity(MONITORING_CLIENT);
    let (console, stats) = (site.ports.console, site.ports.stats);
    assert_eq!(code(&site, console, Some(&monitoring)).await, Some(401));
    assert_eq!(code(&site, stats, Some(&monitoring)).await, Some(404));
}

/// Waits until the servers show this certificate; all the while they must serve.
async fn shown(site: &Site, renewed: &Identity) {
    let shown = async {
        loop {
            let stream = connect(site.ports.metrics, &site.authority, None).await;
            let stream = stream.unwrap();
            let chain = stream.get_ref().1.peer_certificates().unwrap();
            if chain[0] == renewed.der() {
                return;
            }
        }
    };
    timeout(Duration::from_secs(10), shown).await.unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_old_connections_stay() {
    let site = Site::new().await;
    let before = connect(site.ports.metrics, &site.authority, None).await;
    let renewed = site
        .authority
        .identity("kubevirt.io:system:node:virt-handler");
    renewed.write(site.dir.path());
    shown(&site, &renewed).await;
    let answer = ask(before.unwrap(), "GET", "/healthz", "").await.unwrap();
    assert_eq!(answer.code, 200);
}

#[tokio::test]
async fn a_broken_certificate_does_not_replace_a_good_one() {
    let site = Site::new().await;
    let broken = "-----BEGIN CERTIFICATE-----\nAA";
    std::fs::write(site.dir.path().join("tls.crt"), broken).unwrap();
    // This makes the keeper look at once.
    site.trust.send_replace(None);
    for _ in 0..20 {
        assert_eq!(site.scrape("/healthz").await.code, 200);
    }
    let renewed = site.authority.identity("a");
    renewed.write(site.dir.path());
    shown(&site, &renewed).await;
}

#[tokio::test]
async fn without_certificates_nobody_is_served_until_there_are_some() {
    let site = Site::new().await;
    site.trust.send_replace(None);
    let refused = async {
        while code(&site, site.ports.console, Some(&site.virt_api))
            .await
            .is_some()
        {}
    };
    timeout(Duration::from_secs(10), refused).await.unwrap();
    site.trust.send_replace(Some(site.authority.pem().into()));
    let served = async {
        while code(&site, site.ports.console, Some(&site.virt_api))
            .await
            .is_none()
        {}
    };
    timeout(Duration::from_secs(10), served).await.unwrap();
}

#[tokio::test]
async fn clients_of_an_authority_that_is_no_longer_trusted_are_refused() {
    let site = Site::new().await;
    let next = Authority::new();
    let port = site.ports.console;
    site.trust.send_replace(Some(next.pem().into()));
    let changed = async {
        while code(&site, port, Some(&next.identity(HANDLER_CLIENT)))
            .await
            .is_none()
        {}
    };
    timeout(Duration::from_secs(10), changed).await.unwrap();
    assert_eq!(code(&site, port, Some(&site.virt_api)).await, None);
}

#[tokio::test]
async fn who_says_nothing_holds_nobody_up() {
    let site = Site::new().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let connected = TcpStream::connect(("127.0.0.1", site.ports.metrics)).await;
        silent.push(connected.unwrap());
    }
    assert_eq!(site.scrape("/healthz").await.code, 200);
    // All that have no place are dropped at once.
    for _ in 0..40 {
        let connected = TcpStream::connect(("127.0.0.1", site.ports.metrics)).await;
        silent.push(connected.unwrap());
    }
    let last = silent.last_mut().unwrap();
    let end = timeout(Duration::from_secs(5), last.read(&mut [0; 1])).await;
    assert!(matches!(end.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test]
async fn the_servers_end_when_told_to() {
    let site = Site::new().await;
    let _idle = connect(site.ports.metrics, &site.authority, None)
        .await
        .unwrap();
    site.stop.cancel();
    timeout(Duration::from_secs(10), site.serving)
        .await
        .unwrap()
        .unwrap();
}
