use kube::config::Kubeconfig;

use super::{ConnectionFlags, overruled};

const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: c1, cluster: {server: 'https://one:6443', certificate-authority-data: QQ==}}
- {name: c2, cluster: {server: 'https://two:6443'}}
contexts:
- {name: one, context: {cluster: c1, user: u1, namespace: n1}}
- {name: two, context: {cluster: c2, user: u1}}
users:
- {name: u1, user: {token: secret, client-certificate-data: QQ==}}
- {name: u2, user: {username: second}}
";

async fn config(flags: &ConnectionFlags) -> kube::Config {
    let kubeconfig = Kubeconfig::from_yaml(KUBECONFIG).unwrap();
    let options = kube::config::KubeConfigOptions {
        context: flags.context.clone(),
        ..Default::default()
    };
    let kubeconfig = overruled(kubeconfig, flags);
    kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap()
}

#[tokio::test]
async fn without_flags_the_current_context_is_meant() {
    let flags = ConnectionFlags {
        insecure_skip_tls_verify: true,
        ..ConnectionFlags::default()
    };
    let config = config(&flags).await;
    assert_eq!(config.cluster_url.to_string(), "https://one:6443/");
    assert_eq!(config.default_namespace, "n1");
    assert!(config.accept_invalid_certs && config.root_cert.is_none());
}

#[tokio::test]
async fn flags_overrule_context_cluster_server_and_user() {
    let flags = ConnectionFlags {
        context: Some("two".to_owned()),
        token: Some("other".to_owned()),
        act_as: Some("jane".to_owned()),
        ..ConnectionFlags::default()
    };
    let two = config(&flags).await;
    assert_eq!(two.cluster_url.to_string(), "https://two:6443/");
    assert_eq!(two.default_namespace, "default");
    assert_eq!(two.auth_info.impersonate.as_deref(), Some("jane"));
    assert_eq!(two.auth_info.client_certificate_data, None);
    let flags = ConnectionFlags {
        server: Some("http://three".to_owned()),
        ..ConnectionFlags::default()
    };
    let three = config(&flags).await;
    assert_eq!(three.cluster_url.to_string(), "http://three/");
    assert!(three.auth_info.client_certificate_data.is_some());
}

#[tokio::test]
async fn another_user_of_the_kubeconfig_may_be_named() {
    let flags = ConnectionFlags {
        user: Some("u2".to_owned()),
        ..ConnectionFlags::default()
    };
    let second = config(&flags).await;
    assert_eq!(second.auth_info.username.as_deref(), Some("second"));
    assert!(second.auth_info.token.is_none());
    let flags = ConnectionFlags {
        user: Some("u3".to_owned()),
        ..ConnectionFlags::default()
    };
    let wrong = flags.check_user(&Kubeconfig::from_yaml(KUBECONFIG).unwrap());
    assert!(wrong.is_err(), "nobody is not somebody else");
}

#[tokio::test]
async fn a_server_alone_is_a_cluster() {
    let flags = ConnectionFlags {
        server: Some("https://four:1".to_owned()),
        token: Some("t".to_owned()),
        ..ConnectionFlags::default()
    };
    let kubeconfig = overruled(Kubeconfig::default(), &flags);
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options);
    let config = config.await.unwrap();
    assert_eq!(config.cluster_url.to_string(), "https://four:1/");
    assert!(config.auth_info.token.is_some());
}

#[test]
fn flags_are_passed_on_to_the_program_when_it_calls_itself() {
    let flags = ConnectionFlags {
        kubeconfig: Some("/a b/config".into()),
        context: Some("two".to_owned()),
        insecure_skip_tls_verify: true,
        ..ConnectionFlags::default()
    };
    let arguments = [
        "--kubeconfig=/a b/config",
        "--context=two",
        "--insecure-skip-tls-verify",
    ];
    assert_eq!(flags.to_arguments(), arguments);
}
