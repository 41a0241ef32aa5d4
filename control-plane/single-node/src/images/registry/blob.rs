//! Layers: fetched into files, resumed where the connection broke.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{ATTEMPTS_MAX, FetchError, Repository, connection};
use crate::images::digest::Digest;
use crate::images::manifest::Descriptor;

/// Pieces between the connection and the disk.
const PIECES_MAX: usize = 16;

impl Repository<'_> {
    /// Fetches a blob into a file, of the length and with the digest that its descriptor says. `told` hears how many bytes
    /// there are.
    pub(in crate::images) async fn blob(
        &self,
        descriptor: &Descriptor,
        path: &Path,
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<(), FetchError> {
        let (pieces, taken) = mpsc::channel(PIECES_MAX);
        let file = path.to_owned();
        let writing = tokio::task::spawn_blocking(move || write(&file, taken));
        let sent = self.send_pieces(descriptor, &pieces, told).await;
        drop(pieces);
        let written = writing.await.map_err(|error| local(&error))?;
        // A full disk is why nothing more could be sent.
        let found = written.map_err(|error| local(&error))?;
        sent?;
        if found == descriptor.digest {
            return Ok(());
        }
        // Nobody may take it for the layer.
        let _absent = fs::remove_file(path);
        Err(self.odd(format!("sent something else than {}", descriptor.digest)))
    }

    async fn send_pieces(
        &self,
        descriptor: &Descriptor,
        pieces: &mpsc::Sender<Bytes>,
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<(), FetchError> {
        let mut done = 0;
        let mut attempt = 0;
        told(0);
        loop {
            let before = done;
            let cut = self.send_some(descriptor, &mut done, pieces, told).await;
            let Err(error) = cut else { return Ok(()) };
            attempt = if done > before { 0 } else { attempt + 1 };
            if !error.is_passing() || attempt >= ATTEMPTS_MAX {
                return Err(error);
            }
            connection::pause(attempt).await;
        }
    }

    async fn send_some(
        &self,
        descriptor: &Descriptor,
        done: &mut u64,
        pieces: &mpsc::Sender<Bytes>,
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<(), FetchError> {
        if *done == descriptor.size {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        if let (1.., Ok(range)) = (*done, HeaderValue::try_from(format!("bytes={done}-"))) {
            headers.insert(header::RANGE, range);
        }
        let response = self
            .get("blobs", &descriptor.digest.to_string(), &headers)
            .await?;
        // A registry that cannot go on begins anew: what is known is left out.
        let mut known = if response.status() == StatusCode::PARTIAL_CONTENT {
            0
        } else {
            *done
        };
        let mut body = response.into_body();
        while *done < descriptor.size {
            let piece = connection::in_time(body.frame()).await;
            let piece = piece.ok_or_else(|| self.cut("it stopped sending"))?;
            let piece = piece.ok_or_else(|| self.cut("it stopped in the middle of a layer"))?;
            let Ok(mut piece) = piece
                .map_err(|error| self.cut(&error.to_string()))?
                .into_data()
            else {
                continue;
            };
            let skipped = known.min(len_of(&piece));
            known -= skipped;
            let skipped = usize::try_from(skipped).unwrap_or(piece.len());
            piece = piece.slice(skipped..);
            *done += len_of(&piece);
            if *done > descriptor.size {
                return Err(self.odd("sent more than the layer's size".to_owned()));
            }
            let closed = |_| local(&"the disk does not take it");
            pieces.send(piece).await.map_err(closed)?;
            told(*done);
        }
        Ok(())
    }

    fn cut(&self, reason: &str) -> FetchError {
        FetchError::Unreachable {
            host: self.reference.registry.clone(),
            reason: reason.to_owned(),
        }
    }
}

fn len_of(piece: &Bytes) -> u64 {
    u64::try_from(piece.len()).unwrap_or(u64::MAX)
}

/// Writes pieces to a file and returns the digest of all.
fn write(path: &Path, mut pieces: mpsc::Receiver<Bytes>) -> std::io::Result<Digest> {
    let mut file = File::create(path)?;
    let mut hash = Sha256::new();
    while let Some(piece) = pieces.blocking_recv() {
        hash.update(&piece);
        file.write_all(&piece)?;
    }
    Ok(Digest::from_hash(hash))
}

fn local(error: &dyn std::fmt::Display) -> FetchError {
    FetchError::Local {
        reason: error.to_string(),
    }
}
