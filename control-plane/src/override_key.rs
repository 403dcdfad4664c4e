//! Keys that override tokens are signed and checked with: Ed25519, each in a file with one line of base64.
//!
//! Not a shared secret: proxies only need the public key, so nothing in their configuration lets anybody make tokens.

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
    create(file, 0o600, &STANDARD.encode(key.to_bytes()))?;
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
    if VerifyingKey::from_bytes(&bytes).is_ok() && file.extension().is_some_and(|end| end == "pub") {
        bail!("{} is the public key: tokens are signed with the other one", file.display());
    }
    Ok(SigningKey::from_bytes(&bytes))
}

/// Reads a public key.
///
/// # Errors
/// When there is no such file, or no key in it.
pub fn read_public(file: &Path) -> anyhow::Result<VerifyingKey> {
    VerifyingKey::from_bytes(&read_bytes(file)?)
        .with_context(|| format!("{} has no public key: give the file that ends with .pub", file.display()))
}

/// A public key as it stands in its file, and in the proxies' configuration.
#[must_use]
pub fn public_text(key: &VerifyingKey) -> String {
    STANDARD.encode(key.to_bytes())
}

fn read_bytes(file: &Path) -> anyhow::Result<[u8; 32]> {
    let text = std::fs::read_to_string(file).with_context(|| format!("the key file {}", file.display()))?;
    let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.with_context(|| format!("{} is not a key file: it has one line of base64", file.display()))
}
