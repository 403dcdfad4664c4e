//! Keys that override tokens are signed and checked with: Ed25519, each in a file with one line of base64.
//!
//! Not a shared secret: proxies only need the public key, so nothing in their configuration lets anybody make tokens.
//!
//! The file of the key has its public half, too, so that none is taken for the other: of any 32 bytes, which a key alone
//! would be, every second one is a public key.

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{SigningKey, VerifyingKey};
use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A fresh key.
///
/// # Errors
/// When the system has no randomness.
pub fn new() -> anyhow::Result<SigningKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the system gives no randomness")?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Writes the key to `file`, for its owner only, and its public half beside it, with `.pub` at the end; the answer is
/// the latter's path.
///
/// # Errors
/// When one of the files exists or cannot be written.
pub fn write(key: &SigningKey, file: &Path) -> anyhow::Result<PathBuf> {
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    create(file, 0o600, &STANDARD.encode(key.to_keypair_bytes()))?;
    create(&public, 0o644, &public_text(&key.verifying_key()))?;
    Ok(public)
}

fn create(file: &Path, mode: u32, line: &str) -> anyhow::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .and_then(|mut file| writeln!(file, "{line}"))
        .with_context(|| format!("{} cannot be written", file.display()))
}

/// Reads a key.
///
/// # Errors
/// When there is no such file, or no key in it.
pub fn read(file: &Path) -> anyhow::Result<SigningKey> {
    let bytes = read_bytes(file)?;
    if public(&bytes).is_some() {
        bail!("{} is the public key: tokens are signed with the other one", file.display());
    }
    secret(&bytes).with_context(|| no_key(file))
}

/// Reads a public key.
///
/// # Errors
/// When there is no such file, or no key in it.
pub fn read_public(file: &Path) -> anyhow::Result<VerifyingKey> {
    let bytes = read_bytes(file)?;
    if secret(&bytes).is_some() {
        bail!(
            "{} is the key that signs, which no proxy may know: give the file that ends with .pub",
            file.display()
        );
    }
    public(&bytes).with_context(|| no_key(file))
}

/// A public key as it stands in its file, and in the proxies' configuration.
#[must_use]
pub fn public_text(key: &VerifyingKey) -> String {
    STANDARD.encode(key.to_bytes())
}

fn secret(bytes: &[u8]) -> Option<SigningKey> {
    SigningKey::from_keypair_bytes(bytes.try_into().ok()?).ok()
}

fn public(bytes: &[u8]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()
}

fn no_key(file: &Path) -> String {
    format!(
        "{} has no key: `halftone override new-key` makes one, in a file with one line of base64",
        file.display()
    )
}

fn read_bytes(file: &Path) -> anyhow::Result<Vec<u8>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("the key file {}", file.display()))?;
    STANDARD.decode(text.trim()).ok().with_context(|| no_key(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_taken_for_its_other_half() {
        // Half of all keys would be public ones by chance.
        for seed in 0..16 {
            let folder = tempfile::tempdir().unwrap();
            let (key, file) = (SigningKey::from_bytes(&[seed; 32]), folder.path().join("qa.key"));
            let public = write(&key, &file).unwrap();
            assert_eq!(read(&file).unwrap(), key);
            assert_eq!(read_public(&public).unwrap(), key.verifying_key());
            assert!(
                read_public(&file).unwrap_err().to_string().contains("give the file that ends with .pub")
            );
            let renamed = folder.path().join("renamed.key");
            std::fs::rename(&public, &renamed).unwrap();
            assert!(read(&renamed).unwrap_err().to_string().contains("is the public key"));
        }
    }
}
