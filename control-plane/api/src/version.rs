//! Which version the programs say they have.

use serde_json::{Value, json};

/// The version of KubeVirt whose API this is, and our own behind it (semantic versions, build metadata): clients of that
/// version find a server that fits.
pub const TEXT: &str = concat!("v1.9.0+ferrovirt-", env!("CARGO_PKG_VERSION"));

/// Returns a program's version in KubeVirt's form (`version.Info`); the platform is named as in Go.
pub fn info() -> Value {
    let processor = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "gitVersion": TEXT,
        "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{processor}", std::env::consts::OS),
    })
}

#[cfg(test)]
mod tests {
    use super::info;

    #[test]
    fn clients_compare_the_first_two_numbers_and_no_more() {
        let info = info();
        let version = info["gitVersion"].as_str().unwrap();
        let (api, own) = version.split_once("+ferrovirt-").unwrap();
        assert_eq!(api, "v1.9.0");
        assert_eq!(own, env!("CARGO_PKG_VERSION"));
        let platform = info["platform"].as_str().unwrap();
        assert!(!platform.contains("x86_64"), "{platform}");
    }
}
