//! `supos.auth.admin.v1.BackupService`.

use std::sync::Arc;

use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{SILENCE, pb};
use crate::{
    backup::{self, Piece},
    caller::Caller,
    core::{Core, Error},
    dialect::{Dialect, language::Language},
    grpc::{
        gate::{self, Gate},
        status::{Reader, status},
    },
};

/// What the end of a backup is counted and logged as. The call that begins it is done when its stream begins.
const OUTCOME: &str = "/supos.auth.admin.v1.BackupService/TakeBackup outcome";

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Gate);

/// A backup, piece by piece.
type Backup = ReceiverStream<Result<pb::TakeBackupResponse, Status>>;

fn take(core: Arc<Core>, caller: Caller, language: Language) -> Result<Backup, Error> {
    caller.administrator()?;
    let (who, address) = (caller.to_string(), caller.source().address);
    let (to_answer, pieces) = mpsc::channel(2);
    let (answers, answer) = mpsc::channel(2);
    tokio::spawn(async move {
        let begun = Instant::now();
        let forwarded = forward(&core, &caller, pieces, &answers);
        let (taken, forwarded) = tokio::join!(backup::take(&*core.store, core.now(), to_answer), forwarded);
        let outcome = forwarded.and(taken);
        if let Ok(records) = outcome {
            tracing::info!(caller = who, address = address.map(tracing::field::display), records, "a backup was taken");
        }
        gate::note(OUTCOME, &who, address, outcome.as_ref().err(), begun.elapsed());
        if let Err(error) = outcome {
            // Whoever asked may have gone.
            let _ = answers.send(Err(status(&error, Dialect::Admin, Reader::Native, language))).await;
        }
    });
    Ok(ReceiverStream::new(answer))
}

/// Passes the pieces on, for as long as he takes them and may have them. When it ends, the backup does.
async fn forward(
    core: &Core,
    caller: &Caller,
    mut pieces: mpsc::Receiver<Piece>,
    answers: &mpsc::Sender<Result<pb::TakeBackupResponse, Status>>,
) -> Result<(), Error> {
    while let Some(Piece { bytes, records }) = pieces.recv().await {
        caller.still_administrator(core).await?;
        let piece = pb::TakeBackupResponse { chunk: bytes, records: i64::try_from(records).unwrap_or(i64::MAX) };
        match timeout(SILENCE, answers.send(Ok(piece))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Error::Precondition("whoever took the backup has gone")),
            Err(_) => return Err(Error::Precondition("no piece of the backup was taken for 30 seconds")),
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl pb::backup_service_server::BackupService for Service {
    type TakeBackupStream = Backup;

    async fn take_backup(&self, request: Request<pb::TakeBackupRequest>) -> Result<Response<Backup>, Status> {
        let language =
            request.metadata().get("accept-language").and_then(|value| value.to_str().ok()).map_or(Language::English, Language::preferred);
        let work = async |core, caller, _| take(core, caller, language);
        self.0.serve_admin("/supos.auth.admin.v1.BackupService/TakeBackup", request, work).await
    }
}
