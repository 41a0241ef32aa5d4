//! Users in client certificates: the common name is the user, organisations are groups.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::User;

/// Why a certificate names no user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is no certificate.
    #[error("the client certificate is not valid DER (X.509): {0}")]
    Malformed(String),
    /// It has no common name.
    #[error("the subject of the client certificate has no common name, which is the user's name")]
    Nameless,
}

/// Returns the user that a certificate, which was verified, stands for.
///
/// # Errors
///
/// Fails when it cannot be read or names nobody.
pub fn user_of_certificate(der: &[u8]) -> Result<User, CertificateError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| CertificateError::Malformed(error.to_string()))?;
    let subject = certificate.subject();
    let mut names = subject.iter_common_name().filter_map(|it| it.as_str().ok());
    let name = names
        .next()
        .filter(|it| !it.is_empty())
        .ok_or(CertificateError::Nameless)?;
    let groups = subject
        .iter_organization()
        .filter_map(|it| it.as_str().ok());
    Ok(User::authenticated(
        name,
        groups.map(str::to_owned).collect(),
    ))
}
